"""Pods whose records are damaged, whose machines hang, and whose plugins are gone: seen and removed
for real.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest


def test_one_that_hangs_hides_nobody_and_what_is_damaged_is_removed_with_its_machine(host, busybox):
    host.configure(
        "deadlines", default=200, lock=200, view=10
    )  # who waits for these fails by the limit of a command
    for name in ("damaged", "hung", "good"):
        host.vc("run", "-d", "--name", name, "--rootfs", str(busybox), "sleep", "1000")
    machines = {
        name: json.loads(host.vc("pod", "status", "--json", name).stdout)["pid"]
        for name in ("damaged", "hung")
    }
    os.kill(machines["hung"], signal.SIGSTOP)
    run, config = host.folder / "run/pods/damaged", host.folder / "config/pods/damaged/config.json"
    (run / "state.json").write_bytes(os.urandom(300))
    (run / "hypervisor.json").unlink()
    (run / "hypervisor.json").mkdir()
    config.write_text("garbage")

    seen = host.vc("ps")
    lines = {line.split()[0]: line for line in seen.stdout.decode().splitlines()}
    assert "running (no answer)" in lines["hung"]
    assert "running " in lines["good"]
    assert "no answer" not in lines["good"]
    remedy = (
        f"{config} is damaged: JSON is malformed: invalid character (byte 0); "
        "'vc pod delete --force damaged' ends"
    )
    assert remedy in seen.stderr.decode()
    states = {one["id"]: one["state"] for one in json.loads(host.vc("pod", "ls", "--json").stdout)}
    assert states == {"damaged": "damaged", "good": "running", "hung": "running"}
    used = {one["pod"]: one for one in json.loads(host.vc("stats", "--no-stream", "--json").stdout)}
    assert set(used) == {"good", "hung"}
    assert used["hung"]["guest_bytes"] is None
    assert used["hung"]["host_bytes"] > 0
    assert used["good"]["guest_bytes"] > 0
    assert json.loads(host.vc("inspect", "hung").stdout)[0]["unanswered"]
    for words in (
        ("exec", "damaged", "--", "true"),
        ("pod", "start", "damaged"),
        ("pod", "delete", "damaged"),
    ):
        assert remedy in host.vc(*words, check=125).stderr.decode()

    host.vc("pod", "delete", "--force", "damaged", "hung")
    assert not [pid for pid in machines.values() if pid in host.machines()]
    assert not run.exists()
    assert not config.parent.exists()
    host.vc("pod", "delete", "--force", "good")


def test_a_machine_ends_with_its_pod_when_nobody_has_its_plugin_any_more(host, busybox):
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "sleep", "1000")
    pid = json.loads(host.vc("pod", "status", "--json", "p").stdout)["pid"]
    config = host.folder / "config/pods/p/config.json"
    config.write_text(
        config.read_text().replace(f'"name": "{host.hypervisor}"', '"name": "uninstalled"')
    )
    shutil.rmtree(host.folder / "run/pods/p/containers")
    assert b"no hypervisor plugin 'uninstalled'" in host.vc("pod", "stop", "p", check=125).stderr
    assert b"no hypervisor plugin 'uninstalled'" in host.vc("pod", "delete", "--force", "p").stderr
    assert pid not in host.machines()


@pytest.fixture
def full(host):
    """Fills the folder in which pods have what a reboot may take."""
    run = host.folder / "run"
    run.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "vc-test", run], check=True)
    filler = run / "filler"

    def fill() -> Path:
        done = subprocess.run(
            ["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True, check=False
        )
        assert b"No space left" in done.stderr
        return filler

    yield fill
    filler.unlink(missing_ok=True)
    subprocess.run(["umount", "--lazy", run], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_full_run_folder_keeps_nothing_from_ending(host, busybox, full):
    for name in ("paused", "stopped", "deleted"):
        host.vc("run", "-d", "--name", name, "--rootfs", str(busybox), "sleep", "1000")
    host.vc("pod", "create", "never-started")
    state = host.folder / "run/pods/paused/state.json"
    filler = full()
    refused = host.vc("pod", "pause", "paused", check=125).stderr.decode()
    assert f"{state} cannot be written: No space left on device" in refused
    assert host.vc("exec", "paused", "--", "echo", "it goes on").stdout == b"it goes on\n"
    host.vc("pod", "stop", "--grace", "0", "stopped")
    assert json.loads(host.vc("pod", "status", "--json", "stopped").stdout)["state"] == "stopped"
    host.vc("pod", "delete", "deleted", "stopped", "never-started")
    filler = full()  # with what they have left
    host.vc("pod", "delete", "--force", "paused")
    assert host.machines() == []
    filler.unlink()
