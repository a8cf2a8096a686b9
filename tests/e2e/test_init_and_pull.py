"""vc run --init and vc run --pull, with a real machine."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from tests.e2e.test_images import layout, registry  # noqa: F401 (fixtures)

pytestmark = pytest.mark.only("qemu")

# The shell ends before its child, whose parent is then the init process of the container. `sleep`,
# the first process, waits for no children.
_ORPHAN = "sh -c 'sleep 0.1 >&- 2>&- & echo $!'"
_UNTIL_ENDED = "while grep -q '^State:.*[RS] (' /proc/$0/status 2>&-; do :; done; ls /proc/$0"


@pytest.mark.parametrize("init", [True, False], ids=["with-init", "without"])
def test_orphans_are_reaped_by_init_alone(host, busybox, init):
    words = ["--init"] if init else []
    host.vc("run", "-d", *words, "--name", "p", "--rootfs", str(busybox), "sleep", "1000")
    orphan = host.vc("exec", "p", "--", "sh", "-c", _ORPHAN).stdout.decode().strip()
    assert int(orphan) > 1
    listed = host.vc("exec", "p", "--", "sh", "-c", _UNTIL_ENDED, orphan, check=None)
    assert (b"status" in listed.stdout) is not init, "a zombie is left, or none"
    host.vc("pod", "delete", "--force", "p")


def test_init_passes_signals_on(host, busybox):
    script = "trap 'echo caught; exit 3' TERM; echo ready $$; while true; do sleep 1; done"
    running = host.start(
        "run", "--init", "--rootfs", str(busybox), "sh", "-c", script, stdout=subprocess.PIPE
    )
    ready, pid = running.stdout.readline().split()
    assert (ready, pid == b"1") == (b"ready", False), "the init process is another one"
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=60)
    assert (out, running.returncode) == (b"caught\n", 3)


def test_a_missing_image_is_pulled_once_and_a_newer_one_when_asked(
    host,
    layout,  # noqa: F811
    registry,  # noqa: F811
    tmp_path,
):
    settings = tmp_path / ".config/containers/registries.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    host.environment["HOME"] = str(tmp_path)
    copy = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
    reference = f"{registry}/team/app:1"
    subprocess.run([*copy, f"oci:{layout.folder}:v1", f"docker://{reference}"], check=True)
    assert b"no image" in host.vc("run", reference, check=125).stderr
    done = host.vc("run", "--pull", "missing", reference)
    assert done.stdout == b"by itself\n"
    assert json.loads(host.vc("image", "ls", "--json").stdout)[0]["names"] == [reference]
    again = host.vc("run", "--pull", "missing", reference)
    assert (again.stdout, again.stderr) == (b"by itself\n", b"")
    assert host.vc("run", "--pull", "always", reference).stdout == b"by itself\n"
