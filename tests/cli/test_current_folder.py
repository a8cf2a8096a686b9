"""A folder that a container has written to is a folder like any other: nothing that lies in it is
run or imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vc_core.config import load
from vc_core.engine.clones import pool_process

MODULES = (
    "click",
    "pluggy",
    "stevedore",
    "msgspec",
    "tomli",
    "rich",
    "logging",
    "asyncio",
    "sitecustomize",
    "vc_qemu",
)
PROGRAMS = (
    *(
        "qemu-system-x86_64",
        "qemu-img",
        "skopeo",
        "umoci",
        "mkfs.erofs",
        "mkfs.ext4",
        "debootstrap",
        "tar",
        "busybox",
    ),
    *(
        "apt-get",
        "apt-cache",
        "dpkg-deb",
        "cargo",
        "rustc",
        "crun",
        "python3",
        "vc",
        "mount",
        "unshare",
    ),
)


@pytest.fixture
def trap(tmp_path) -> Path:
    """Everything in it writes a line to the file "ran" when it is imported or executed."""
    folder = tmp_path / "trap"
    (folder / ".cargo").mkdir(parents=True)
    ran = folder / "ran"
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(ran)!r}, 'a').write('{name}.py\\n')\n")
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f"#!/bin/sh\necho {name} >>{ran}\n")
        program.chmod(0o755)
    (folder / ".cargo/config.toml").write_text(f"[build]\nrustc = '{folder}/rustc'\n")
    return folder


@pytest.fixture
def environ(tmp_path) -> dict[str, str]:
    """The current folder is first on PATH in each way in which that can be said."""
    settings = tmp_path / "vc.toml"
    folders = {"image": "dir", "data": "dir", "template": "dir", "snapshot": "dir", "volume": "dir"}
    text = "".join(f"[{table}]\n{key} = '{tmp_path}/{table}'\n" for table, key in folders.items())
    text += f"[storage.fs]\nrun_root = '{tmp_path}/run'\nconfig_root = '{tmp_path}/config'\n"
    text += (
        f"[agent.grpc]\ncache = '{tmp_path}/cache'\n[hypervisor.qemu]\n"
        f"proof_dir = '{tmp_path}/proofs'\n"
    )
    settings.write_text(text)
    return {**os.environ, "PATH": f":.:./:../trap:{os.environ['PATH']}", "VC_CONFIG": str(settings)}


def ran(trap: Path) -> str:
    return (trap / "ran").read_text() if (trap / "ran").exists() else ""


@pytest.mark.parametrize(
    "words",
    [
        ("--version",),
        ("doctor",),
        ("image", "build", "busybox"),
        ("image", "import", "tree", "tree"),
        ("pool", "stop"),
    ],
)
def test_no_module_and_no_program_of_the_current_folder_is_run(trap, environ, words):
    (trap / "tree/etc").mkdir(parents=True)
    (trap / "tree/etc/hostname").write_text("tree\n")
    done = subprocess.run(
        [sys.executable, "-m", "vc_core", *words],
        cwd=trap,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert ran(trap).replace("sitecustomize.py\n", "") == "", (
        "`python -m` itself imports the last one: `vc` does not"
    )


def test_the_command_vc_imports_nothing_of_the_current_folder(trap, environ):
    program = Path(sys.executable).with_name("vc")
    done = subprocess.run(
        [program, "plugins"], cwd=trap, env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, ran(trap)) == (0, "")


def test_the_keeper_of_a_pool_imports_nothing_of_the_current_folder(
    trap, environ, tmp_path, monkeypatch
):
    """PYTHONPATH with an empty entry means the current folder, too."""
    (tmp_path / "vc.toml").write_text(
        f"[use]\nhypervisor = 'nobody'\n[template]\ndir = '{tmp_path}/template'\n"
    )
    monkeypatch.chdir(trap)
    monkeypatch.setenv("PYTHONPATH", ":.")
    monkeypatch.setenv("PATH", environ["PATH"])
    process = pool_process.spawn(load(Path("../vc.toml")), 1, subprocess.PIPE)
    assert process is not None
    with process:
        process.communicate(timeout=60)
    assert ran(trap) == ""
    assert "nobody" in (tmp_path / "template/pool/keeper.log").read_text(), (
        "it was ours that ran, and it told"
    )
