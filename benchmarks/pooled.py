"""A short program in a machine of the pool, beside gVisor's runsc, which needs no KVM either."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from benchmarks import bare_guest
from benchmarks.crowds import pss
from benchmarks.host import Bench
from benchmarks.report import Report
from benchmarks.starts import filled
from vc_core import Runtime, Start

_RUNSC = Path(__file__).parents[1] / ".make/bin/runsc"
_IMAGE = "bench"


async def run(report: Report, bench: Bench) -> None:
    """Measures, in turn: runsc, the API, and the whole command, all with the same files."""
    if not _RUNSC.exists():
        report.skipped["runsc"] = "Go has not built it (tools/prepare bench)"
        return
    rootfs = bare_guest.write_rootfs(bench.folder / "bundle/rootfs")
    runsc = _Runsc(bench.folder)
    bench.vc("image", "import", str(rootfs), _IMAGE)
    bench.vc("pool", "start", "--size", "2")
    floor, ours, commands = list[float](), list[float](), list[float]()
    try:
        async with bench.runtime() as runtime:
            for number in range(1 + len(bench.times(12))):  # the first ones read files
                bare = runsc.timed()
                api = await _timed(runtime, rootfs)
                command = await _command(bench, runtime)
                if number:
                    floor.append(bare)
                    ours.append(api)
                    commands.append(command)
    finally:
        bench.vc("pool", "stop")
    gvisor = report.add("runsc run of true, systrap", "s", floor)
    taken = report.add("pod.run of true, machine of the pool, API", "s", ours)
    whole = report.add("vc run --start pool IMAGE true", "s", commands)
    report.compare("pod.run, pool / runsc run", taken.median, gvisor.median, 1.5)
    report.compare("vc run --start pool / runsc run", whole.median, gvisor.median, 3)
    report.add("runsc with a sleeping container: PSS", "MiB", [runsc.memory()])


class _Runsc:
    """runsc with a bundle.

    Args:
        folder: of the bundle and of runsc's records.
    """

    def __init__(self, folder: Path) -> None:
        self._bundle = folder / "bundle"
        self._words = [str(_RUNSC), "--root", str(folder / "runsc"), "--platform=systrap"]
        self._words += ["--network=none", "--ignore-cgroups"]

    def timed(self) -> float:
        """Returns the seconds of a run of `true`."""
        self._write("true")
        began = time.monotonic()
        subprocess.run(self._run("bench"), check=True, capture_output=True)
        return time.monotonic() - began

    def memory(self) -> float:
        """Returns the memory of all processes of a sleeping container, in MiB."""
        self._write("sh", "-c", "echo ready; exec sleep 1000")
        with subprocess.Popen(self._run("bench"), stdout=subprocess.PIPE) as process:
            try:
                if process.stdout is None or process.stdout.readline() != b"ready\n":
                    raise RuntimeError("runsc does not run here")
                return sum(map(pss, _tree(process.pid)))
            finally:
                subprocess.run([*self._words, "kill", "bench", "KILL"], check=True)

    def _run(self, name: str) -> list[str]:
        return [*self._words, "run", "--bundle", str(self._bundle), name]

    def _write(self, *args: str) -> None:
        config = {
            "ociVersion": "1.0.0",
            "process": {"args": ["/bin/busybox", *args], "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "root": {"path": "rootfs", "readonly": True},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": name} for name in ("pid", "mount", "ipc", "uts")]},
        }
        (self._bundle / "config.json").write_text(json.dumps(config))


def _tree(pid: int) -> list[int]:
    """Returns a process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _tree(int(child)))]


async def _timed(runtime: Runtime, rootfs: Path) -> float:
    await filled(runtime)
    pod = await runtime.create(start=Start.POOL)
    began = time.monotonic()
    try:
        await pod.run("true", rootfs=rootfs)
        return time.monotonic() - began
    finally:
        await pod.delete(force=True)
        await pod.close()


async def _command(bench: Bench, runtime: Runtime) -> float:
    await filled(runtime)
    began = time.monotonic()
    bench.vc("run", "--start", "pool", _IMAGE, "true")
    return time.monotonic() - began
