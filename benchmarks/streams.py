"""What goes through a process's streams, beside a bare virtio-serial port of the same machine."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

from vc_qemu import monitor

from benchmarks.execs import inside
from benchmarks.host import Bench
from benchmarks.report import Report
from vc_core import ContainerSpec, Pod, ProcessSpec, Rootfs, Start, Stdio
from vc_core.driver_kit import lock_file

_MIB = 64
_CHUNK = 1 << 20
_PORT = "bench.raw"
# Out of the container's cgroup, which has no right to this device; the shell's own words go
# nowhere.
_WRITE = (
    "echo $$ >/guest/sys/fs/cgroup/cgroup.procs\n"
    f"port=$(grep -l {_PORT} /guest/sys/class/virtio-ports/*/name | cut -d/ -f6)\n"
    f"head -c {_MIB}M /dev/zero | cat >/guest/dev/$port\n"
)


async def run(report: Report, bench: Bench) -> None:
    """Measures."""
    async with bench.runtime() as runtime, runtime.pod(start=Start.TEMPLATE, memory_mib=512) as pod:
        run_dir = await runtime.hooks.storage_run_dir(pod_id=pod.id)
        ours, floor, into = [], [], []
        for number in bench.times(4):
            ours.append(await _stdout(pod))
            floor.append(await _bare(pod, run_dir, number))
            into.append(await _stdin(pod))
    found = report.add("stdout of a process", "MiB/s", ours)
    bare = report.add("cat through a bare virtio-serial port", "MiB/s", floor)
    report.add("stdin, the container's start included", "MiB/s", into)
    report.compare(
        "stdout / bare virtio-serial port", found.median, bare.median, 0.5, is_at_most=False
    )


async def _stdout(pod: Pod) -> float:
    """From the first bytes to the last."""
    words = ("/usr/bin/head", "-c", f"{_MIB}M", "/dev/zero")
    container = await pod.create_container(
        ContainerSpec(
            id="stream",
            rootfs=Rootfs(path=Path("/")),
            process=ProcessSpec(args=words),
            stdio=Stdio.PIPES,
        )
    )
    process = await container.start()
    began, total = 0.0, 0
    async for _, data in process.output():
        began = began or time.monotonic()
        total += len(data)
    seconds = time.monotonic() - began
    await container.delete(force=True)
    if total != _MIB << 20:
        raise RuntimeError(f"{total} bytes came instead of {_MIB} MiB")
    return _MIB / seconds


async def _stdin(pod: Pod) -> float:
    began = time.monotonic()
    await pod.run("wc", "-c", stdin=bytes(_MIB << 20))
    return _MIB / (time.monotonic() - began)


async def _bare(pod: Pod, run_dir: Path, number: int) -> float:
    """A bare port that is plugged over QMP, to which `cat` in the guest writes."""
    path, name = run_dir / f"raw{number}.sock", f"raw{number}"
    address = {"type": "unix", "data": {"path": str(path)}}
    backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
    port: dict[str, object] = {
        "driver": "virtserialport",
        "bus": "vs0.0",
        "id": f"{name}-port",
        "chardev": name,
        "name": _PORT,
    }
    async with (
        await lock_file(run_dir / "qmp.lock", exclusive=True),
        monitor.connected(run_dir / "qmp.sock") as qemu,
    ):
        await qemu.execute("chardev-add", {"id": name, "backend": backend})
        await qemu.execute("device_add", port)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(path))
        reading = asyncio.create_task(asyncio.to_thread(_drain, raw))
        await inside(pod, _WRITE)
        seconds = await reading
    async with (
        await lock_file(run_dir / "qmp.lock", exclusive=True),
        monitor.connected(run_dir / "qmp.sock") as qemu,
    ):
        await qemu.unplug(f"{name}-port", 10)
        await qemu.execute("chardev-remove", {"id": name})
    return _MIB / seconds


def _drain(raw: socket.socket) -> float:
    total = len(raw.recv(_CHUNK))
    began = time.monotonic()
    while total < _MIB << 20:
        total += len(raw.recv(_CHUNK))
    return time.monotonic() - began
