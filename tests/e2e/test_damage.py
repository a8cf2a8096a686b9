"""Pods whose records are damaged, whose machines hang, and whose plugins are gone: seen and removed for real."""

from __future__ import annotations

import json
import os
import shutil
import signal


def test_one_that_hangs_hides_nobody_and_what_is_damaged_is_removed_with_its_machine(host, busybox):
    host.configure("deadlines", default=200, lock=200, view=2)  # who waits for these fails by the limit of a command
    for name in ("damaged", "hung", "good"):
        host.vc("run", "-d", "--name", name, "--rootfs", str(busybox), "sleep", "1000")
    machines = {
        name: json.loads(host.vc("pod", "status", "--json", name).stdout)["pid"] for name in ("damaged", "hung")
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
    remedy = f"{config} is damaged: JSON is malformed: invalid character (byte 0); 'vc pod delete --force damaged' ends"
    assert remedy in seen.stderr.decode()
    states = {one["id"]: one["state"] for one in json.loads(host.vc("pod", "ls", "--json").stdout)}
    assert states == {"damaged": "damaged", "good": "running", "hung": "running"}
    used = {one["pod"]: one for one in json.loads(host.vc("stats", "--no-stream", "--json").stdout)}
    assert set(used) == {"good", "hung"}
    assert used["hung"]["guest_bytes"] is None
    assert used["hung"]["host_bytes"] > 0
    assert used["good"]["guest_bytes"] > 0
    assert json.loads(host.vc("inspect", "hung").stdout)[0]["unanswered"]
    for words in (("exec", "damaged", "--", "true"), ("pod", "start", "damaged"), ("pod", "delete", "damaged")):
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
    config.write_text(config.read_text().replace(f'"name": "{host.hypervisor}"', '"name": "uninstalled"'))
    shutil.rmtree(host.folder / "run/pods/p/containers")
    assert b"no hypervisor plugin 'uninstalled'" in host.vc("pod", "stop", "p", check=125).stderr
    assert b"no hypervisor plugin 'uninstalled'" in host.vc("pod", "delete", "--force", "p").stderr
    assert pid not in host.machines()
