"""Images, from where they come to what runs in a machine."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.images.layouts import Layout, busybox_layers
from vc_core import ContainerSpec, Stdio

LOOK = """
stat -c '%n %u:%g %a %F' /data/kept /data/strong /data/null
echo $(cat /data/twin) $(cat /hidden/new) $(cat /turned/inside)
ls /data /hidden
id -un; pwd; echo $GREETING
touch /data/new && echo written
"""


@pytest.fixture
def layout(tmp_path) -> Layout:
    made = Layout(tmp_path / "layout")
    config = {
        "Entrypoint": ["sh", "-c"],
        "Cmd": ["echo by itself"],
        "Env": ["PATH=/bin", "GREETING=hello"],
    }
    config |= {
        "User": "nina",
        "WorkingDir": "/data",
        "Labels": {"made.by": "hand"},
        "Volumes": {"/data": {}},
    }
    made.image("v1", busybox_layers(Path(shutil.which("busybox") or "").read_bytes()), config)
    return made


# Who may ask a registry that is locked: joe, whose password is secret (bcrypt, which is all that it
# reads).
JOE = "joe:$2b$05$ZhHK5NeKdaOvXEtyRJU3POtWd/wFHvvb7G3V4BfrHUctQQ2vZrt16\n"


@pytest.fixture
def registry(tmp_path) -> Iterator[str]:
    """A registry of our own, on a loopback address."""
    with _served(tmp_path, "") as address:
        yield address


@pytest.fixture
def locked(tmp_path) -> Iterator[str]:
    """One that asks for a password."""
    (tmp_path / "htpasswd").write_text(JOE)
    with _served(
        tmp_path, f"auth: {{htpasswd: {{realm: here, path: {tmp_path}/htpasswd}}}}\n"
    ) as address:
        yield address


@contextmanager
def _served(tmp_path: Path, more: str) -> Iterator[str]:
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed (the package docker-registry)")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        found_at = found.getsockname()
    address = f"127.0.0.1:{found_at[1]}"
    config = tmp_path / "registry.yml"
    storage = f"storage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}"
    config.write_text(f"version: 0.1\n{storage}\nhttp: {{addr: '{address}'}}\n{more}")
    with (tmp_path / "registry.log").open("w") as log:
        process = subprocess.Popen([program, "serve", config], stdout=log, stderr=log)
    try:
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(found_at, timeout=5).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < until, (tmp_path / "registry.log").read_text()
                time.sleep(0.1)  # it tells nobody when it listens
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.mark.only("qemu")
def test_an_image_of_a_registry_runs_as_it_says(host, layout, registry):
    command = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
    subprocess.run(
        [*command, f"oci:{layout.folder}:v1", f"docker://{registry}/team/app:1"], check=True
    )
    done = host.vc("image", "pull", "--insecure", "--name", "app", f"{registry}/team/app:1")
    assert b"fetching" in done.stderr
    assert b"packing" in done.stderr
    assert (
        b"packing"
        not in host.vc(
            "image", "pull", "--insecure", "--name", "app", f"{registry}/team/app:1"
        ).stderr
    )
    assert host.vc("run", "app").stdout == b"by itself\n"
    root = ["--user", "0:0", "--workdir", "/tmp"]
    told = host.vc("run", *root, "app", LOOK).stdout.decode()
    assert told.splitlines() == [
        "/data/kept 70000:80000 640 regular file",
        "/data/strong 0:0 4755 regular file",
        "/data/null 0:0 666 character special file",
        "kept new inside",
        *("/data:", "kept", "marked", "null", "strong", "twin", "", "/hidden:", "new"),
        *("root", "/tmp", "hello", "written"),
    ]
    assert host.vc("run", "app", "id -un; pwd; echo $GREETING").stdout == b"nina\n/data\nhello\n"
    assert host.vc("run", "-e", "GREETING=hi", "app", "echo $GREETING").stdout == b"hi\n"
    assert host.vc("run", "--entrypoint", "echo", "app", "a", "b").stdout == b"a b\n"


@pytest.mark.only("qemu")
def test_layers_by_zstd_are_pulled_and_images_for_other_machines_are_refused(
    host, layout, registry
):
    layout.image("zstd", busybox_layers(b"#!"), {}, compression="zstd")
    layout.image("theirs", busybox_layers(b"#!"), {}, architecture="s390x")
    copy = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
    for tag in ("zstd", "theirs"):
        subprocess.run(
            [*copy, f"oci:{layout.folder}:{tag}", f"docker://{registry}/app:{tag}"], check=True
        )
    assert b"decompressing" in host.vc("image", "pull", "--insecure", f"{registry}/app:zstd").stderr
    told = host.vc(
        "image", "pull", "--insecure", f"{registry}/app:theirs", check=125
    ).stderr.decode()
    assert f"{registry}/app:theirs is an image for linux/s390x" in told
    host.vc(
        "image",
        "pull",
        "--insecure",
        "--platform",
        "linux/s390x",
        "--name",
        "app",
        f"{registry}/app:theirs",
    )
    assert json.loads(host.vc("image", "inspect", "app").stdout)["architecture"] == "s390x"


@pytest.mark.only("qemu")
def test_what_a_registry_does_not_have_is_told_in_one_line(host, registry):
    done = host.vc("image", "pull", "--insecure", f"{registry}/nothing", check=125)
    assert b"manifest unknown" in done.stderr
    assert b"level=" not in done.stderr
    done = host.vc("image", "pull", f"{registry}/nothing", check=125)
    assert done.stderr.endswith(b"HTTP response to HTTPS client; use --insecure for plain HTTP\n")
    assert host.vc("image", "ls", "--json").stdout == b"[]\n"


@pytest.mark.only("qemu")
def test_a_registry_that_asks_for_a_password_is_given_what_skopeo_has_stored(
    host, layout, locked, tmp_path
):
    host.environment["REGISTRY_AUTH_FILE"] = str(tmp_path / "auth.json")
    told = host.vc("image", "pull", "--insecure", f"{locked}/app:1", check=125).stderr
    assert told.endswith(
        b"unauthorized: authentication required; use 'skopeo login' to store credentials\n"
    )
    login = ["skopeo", "login", "--tls-verify=false", "-u", "joe", "--password-stdin", locked]
    subprocess.run(login, input=b"secret", env=host.environ(), check=True)
    copy = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
    subprocess.run(
        [*copy, f"oci:{layout.folder}:v1", f"docker://{locked}/app:1"],
        env=host.environ(),
        check=True,
    )
    host.vc("image", "pull", "--insecure", "--name", "app", f"{locked}/app:1")
    assert [one["names"] for one in json.loads(host.vc("image", "ls", "--json").stdout)] == [
        ["app:latest"]
    ]


@pytest.mark.only("qemu")
def test_volumes_can_be_written_in_a_read_only_root(host, layout):
    host.vc("image", "import", str(layout.folder), "app")
    words = "touch /data/new && echo written; touch /hidden/new2 || echo refused"
    done = host.vc("run", "--user", "0", "--read-only", "app", words)
    assert done.stdout == b"written\nrefused\n"


def test_pods_share_the_file_and_what_they_write_is_their_own(host):
    host.vc("image", "build", "busybox")
    before = json.loads(host.vc("image", "inspect", "busybox").stdout)
    for name in ("one", "two"):
        host.vc("run", "-d", "--name", name, "busybox", "sleep", "1000")
        host.vc("exec", name, "--", "sh", "-c", f"echo {name} > /etc/mine")
    assert host.vc("exec", "one", "--", "cat", "/etc/mine").stdout == b"one\n"
    listed = json.loads(host.vc("ps", "--json").stdout)
    assert {row["container"]["spec"]["rootfs"]["path"] for row in listed} == {before["rootfs"]}
    assert (
        dict(listed[0]["container"]["spec"]["annotations"])["io.virtcontainers.image"]
        == "busybox:latest"
    )
    done = host.vc("image", "rm", "busybox", check=125)
    assert b"the image busybox:latest is used by containers; delete their pods" in done.stderr
    assert host.vc("image", "prune", "--all").stdout == b""
    host.vc("pod", "delete", "--force", "one", "two")
    assert host.vc("image", "rm", "busybox").stdout == b"busybox:latest\n"


@pytest.mark.only("qemu")
def test_a_stop_signal_is_the_images(host, tmp_path):
    host.vc("image", "build", "busybox")
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), tree / "bin/busybox")
    trap = "trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.1; done"
    host.vc(
        "image",
        "import",
        "--stop-signal",
        "USR1",
        "--entrypoint",
        "/bin/busybox sh -c",
        str(tree),
        "trapping",
    )
    host.vc("run", "--detach", "--name", "p", "trapping", trap)
    host.vc("container", "stop", "p")
    (row,) = json.loads(host.vc("ps", "--json").stdout)
    assert row["container"]["exit"]["code"] == 3
    host.vc("pod", "delete", "p")


@pytest.mark.only("qemu")
def test_the_first_word_is_an_image_unless_dashes_or_a_rootfs_come_before_it(host, busybox):
    host.vc("image", "build", "busybox")
    assert host.vc("run", "busybox", "echo", "--", "-x").stdout == b"-- -x\n"
    assert host.vc("run", "busybox", "--", "echo", "x").stdout == b"x\n"
    assert host.vc("run", "--rootfs", str(busybox), "echo", "x").stdout == b"x\n"
    assert host.vc("run", "--rootfs", str(busybox), "--", "echo", "x").stdout == b"x\n"
    done = host.vc("run", "true", check=125)
    assert (
        done.stderr.decode() == "vc: error: no image true; 'vc image ls' lists images, "
        "'vc image --help' shows how to add one\n"
    )
    done = host.vc("run", check=125)
    assert b"no command was given; put it after an image name or after --" in done.stderr


@pytest.mark.only("qemu")
async def test_the_api_runs_images_and_streams(host):
    host.vc("image", "build", "busybox")
    async with host.runtime() as runtime, runtime.pod(image="busybox", memory_mib=256) as pod:
        result = await pod.run("cat", stdin=b"in", env=["A=b"])
        assert (result.stdout, result.exit_code) == (b"in", 0)
        image = await runtime.images.get("busybox")
        script = "for i in 1 2 3; do echo $i; echo err$i >&2; done; read x; echo got $x"
        spec = image.container(
            ContainerSpec(
                id="c",
                rootfs=image.root(),
                process=image.process(("sh", "-c", script)),
                stdio=Stdio.PIPES,
            )
        )
        process = await (await pod.create_container(spec)).start()
        await process.write(b"it\n")
        assert b"".join([chunk async for chunk in process.stdout]) == b"1\n2\n3\ngot it\n"
        assert b"".join([chunk async for chunk in process.stderr]) == b"err1\nerr2\nerr3\n"
        spec = image.container(
            ContainerSpec(id="d", rootfs=image.root(), process=image.process(("sleep", "1000")))
        )
        await (await pod.create_container(spec)).start()
        process = await pod.exec("sh", "-c", "echo $PATH", container="d")
        assert (
            await process.communicate()
        ).stdout == b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"


@pytest.mark.only("qemu")
def test_a_debian_made_from_packages_runs(host):
    done = host.vc("image", "build", "debian", "--include", "python3-minimal")
    assert b"Base system installed" in done.stderr
    code = "import platform; print(platform.freedesktop_os_release()['ID'], 6 * 7)"
    assert host.vc("run", "debian", "python3", "-c", code).stdout == b"debian 42\n"
