"""Alternatives that run on this machine, measured with the same kernel in the same run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from vc_agent_grpc.image import kernel

from benchmarks.host import Bench
from benchmarks.report import Report

_NAMESPACE = "vc-bench"


async def run(report: Report, bench: Bench) -> None:
    """Measures."""
    words = ("run", "--start", "template", "--rootfs", "/", "--", "uname", "-a")
    bench.vc(*words)
    ours = report.add(
        "vc run -- uname -a, template",
        "s",
        [_timed(lambda: bench.vc(*words)) for _ in bench.times(8)],
    )
    _virtme(report, bench, ours.median)
    _runc(report, bench, ours.median)


def _virtme(report: Report, bench: Bench, ours_s: float) -> None:
    """virtme-ng runs the host's root on a kernel that is installed: here the guest's package."""
    program = Path(sys.executable).with_name("virtme-run")
    missing = [name for name in ("depmod", "unshare") if shutil.which(name) is None]
    if missing or not program.exists():
        report.skipped["virtme-ng"] = (
            f"{', '.join(missing) or program.name} missing (tools/prepare bench)"
        )
        return
    with kernel.fetched(lambda line: print(line, file=sys.stderr)) as source:
        modules = source.modules.parent
        shutil.copy(source.image, source.modules / "vmlinuz")
        subprocess.run(["depmod", "-b", modules.parents[1], source.release], check=True)
        Path("/lib/modules").mkdir(exist_ok=True)
        words = [
            str(program),
            "--kimg",
            source.release,
            "--mods=auto",
            "--disable-kvm",
            "--memory",
            "512M",
        ]
        script = f'mount --bind {modules} /lib/modules && exec "$@"'
        shown = [
            "--show-boot-console",
            "--script-sh",
            "uname -a",
        ]  # without the console nothing is said at all
        samples = []
        for _ in bench.times(3):
            began = time.monotonic()
            done = subprocess.run(
                ["unshare", "-m", "sh", "-c", script, "sh", *words, *shown],
                capture_output=True,
                text=True,
                check=False,
            )
            samples.append(time.monotonic() - began)
            if f"Linux (none) {source.release}" not in done.stdout + done.stderr:
                report.skipped["virtme-ng"] = (
                    f"it does not run here: {(done.stderr or done.stdout).strip()[-200:]!r}"
                )
                return
    found = report.add("virtme-ng running uname -a, without KVM", "s", samples)
    report.compare("virtme-ng / vc run, template", found.median, ours_s, 15, is_at_most=False)


def _runc(report: Report, bench: Bench, ours_s: float) -> None:
    """The limit without a machine: containerd's own command, with runc."""
    missing = [name for name in ("containerd", "ctr", "runc") if shutil.which(name) is None]
    if missing:
        report.skipped["ctr run"] = f"{', '.join(missing)} missing (tools/prepare bench)"
        return
    folder = bench.folder / "containerd"
    folder.mkdir()
    socket = folder / "containerd.sock"
    config = folder / "config.toml"
    config.write_text("version = 2\n")
    daemon = subprocess.Popen(
        [
            "containerd",
            "--config",
            str(config),
            "--address",
            str(socket),
            "--root",
            f"{folder}/root",
            "--state",
            f"{folder}/state",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        for line in daemon.stderr or ():
            if b"containerd successfully booted" in line:
                break
        root = folder / "rootfs"
        (root / "bin").mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "busybox", root / "bin/busybox")
        words = [
            "ctr",
            "--address",
            str(socket),
            "-n",
            _NAMESPACE,
            "run",
            "--rm",
            "--rootfs",
            str(root),
        ]
        samples = []
        for number in bench.times(8):
            began = time.monotonic()
            subprocess.run(
                [*words, f"c{number}", "/bin/busybox", "true"], capture_output=True, check=True
            )
            samples.append(time.monotonic() - began)
        found = report.add("ctr run with runc, no machine", "s", samples)
        report.compare("vc run, template / ctr run with runc", ours_s, found.median)
    except subprocess.CalledProcessError as error:
        report.skipped["ctr run"] = error.stderr.decode().strip()[-200:]
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
        if daemon.stderr is not None:
            daemon.stderr.close()
        for mount in Path("/proc/self/mountinfo").read_text().splitlines():
            if str(folder) in mount:
                subprocess.run(["umount", "--lazy", mount.split()[4]], check=False)
        os.sync()


def _timed(call: object) -> float:
    began = time.monotonic()
    call()  # type: ignore[operator]
    return time.monotonic() - began
