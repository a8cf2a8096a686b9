"""Every distribution as a wheel, in a fresh environment: what a user gets by pip, also one without
root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import ACME, MEMBERS, NOBODY, ROOT, run

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(900)]


def test_each_wheel_is_whole(wheels):
    import zipfile

    built = sorted(wheels.glob("*.whl"))
    assert len(built) == len(MEMBERS) + 1
    for wheel in built:
        names = zipfile.ZipFile(wheel).namelist()
        assert any(name.endswith("/py.typed") for name in names), wheel
        assert any("LICENSE" in name for name in names), wheel
        assert not any("/tests/" in name for name in names), wheel
    agent = next(wheel for wheel in built if "agent_grpc" in wheel.name)
    assert "vc_agent_grpc/_agent/guest/src/main.rs" in zipfile.ZipFile(agent).namelist()


def test_the_core_alone_says_what_to_install(place, wheels):
    venv = place / "core"
    run("/usr/bin/python3", "-m", "venv", venv)
    run(
        venv / "bin/pip",
        "install",
        "-q",
        "--find-links",
        wheels,
        "-c",
        ROOT / "constraints.txt",
        "virtcontainers",
        cwd=place,
    )
    done = subprocess.run(
        [venv / "bin/vc", "run", "--", "true"],
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
    )
    assert done.returncode == 125
    assert (
        "no hypervisor plugin 'qemu'; none is installed; "
        "run: pip install --find-links .make/wheels " in done.stderr
    )
    assert "'virtcontainers[qemu]' (after 'make wheels' in a clone)" in done.stderr


def test_plugins_are_found_with_their_distributions(environment, place):
    told = run(environment / "bin/vc", "plugins", cwd=place)
    for name in ("qemu", "agent-grpc", "storage-fs", "devices"):
        assert f"virtcontainers-{name} " in told
    assert told.count("loads") == 7
    run(environment / "bin/pip", "check", cwd=place)


def test_nothing_shadows_a_drivers_library(environment, place):
    code = "import qemu.qmp, vc_qemu; print(qemu.qmp.__file__, vc_qemu.__file__)"
    told = run(environment / "bin/python", "-c", code, cwd=place)
    assert str(ROOT) not in told


def test_the_public_api_is_typed_for_its_users(environment, place):
    program = (ROOT / "tests/consumer/program.py").read_text()
    words = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        environment / "bin/python",
    ]
    (place / "consumer.py").write_text(program)
    run(*words, "consumer.py", cwd=place)
    (place / "wrong.py").write_text(program.replace('pod.run("sh", "-c", "exit 3")', "pod.run(1)"))
    done = subprocess.run(
        [*words, "wrong.py"], cwd=place, capture_output=True, text=True, check=False
    )
    assert 'has incompatible type "int"; expected "str"' in done.stdout


@pytest.mark.vm
def test_an_ordinary_user_runs_a_container(environment, place, request):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if (
        shutil.which("qemu-system-x86_64") is None
        or not Path("/var/cache/virtcontainers/guest/current").exists()
    ):
        pytest.skip("QEMU or the guest image is missing ('make demo' readies both)")
    home = place / "home"
    runtime = place / "runtime"
    rootfs = place / "rootfs"
    (rootfs / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", rootfs / "bin/busybox")
    for folder in (home, runtime, rootfs):
        folder.mkdir(exist_ok=True)
        os.chown(folder, NOBODY, NOBODY)
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)}

    def vc(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [environment / "bin/vc", *words],
            capture_output=True, text=True, check=False, cwd=place, env=environ,
            user=NOBODY, group=NOBODY, extra_groups=[],
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done

    request.addfinalizer(lambda: vc("pod", "delete", "--force", "p", check=False))
    told = vc(
        "run", "--rootfs", f"{rootfs}:rw", "--", "busybox", "sh", "-c", "id -u; echo made > /made"
    )
    assert told.stdout == "0\n"
    assert (rootfs / "made").stat().st_uid == NOBODY, "what the guest writes belongs to the user"
    single = vc(
        "run",
        "--mount",
        "/etc/hostname:/x",
        "--rootfs",
        str(rootfs),
        "--",
        "busybox",
        "true",
        check=False,
    )
    assert (
        "only root can mount the single file /etc/hostname; mount its directory /etc instead"
        in single.stderr
    )
    vc("run", "-d", "--name", "p", "--rootfs", str(rootfs), "--", "busybox", "sleep", "300")
    assert vc("exec", "p", "--", "busybox", "echo", "hello").stdout == "hello\n"
    vc("pod", "delete", "p")
    assert list((runtime / "virtcontainers/pods").iterdir()) == []
    assert list((home / ".local/state/virtcontainers/pods").iterdir()) == []


@pytest.mark.vm
def test_a_third_partys_hypervisor_is_installed_from_its_wheel_and_runs_a_container(
    environment, place, wheels
):
    if os.geteuid() != 0:
        pytest.skip("a sandbox is made by root")
    (wheel,) = wheels.glob("acme_hypervisor-*.whl")
    run(environment / "bin/pip", "install", "-q", "--no-index", "--no-deps", wheel, cwd=place)
    config = place / "acme.toml"
    shutil.copy(ROOT / ACME / "acme.toml", config)
    told = run(environment / "bin/vc", "plugins", cwd=place)
    assert "acme-hypervisor" in told
    told = run(
        environment / "bin/vc", "--config", config, "run", "--rootfs", "/", "--", "id", cwd=place
    )
    assert told.startswith("uid=0(root)")
