"""What a pod receives and sends by TCP, beside a bare QEMU on the same kind of tap.

Both taps are made by the plugin `pasta` in the same way, so what is compared is the machine. Both
machines run all the time, and each sample of one is followed by one of the other. The processor
time of each QEMU stands beside: it says what a machine costs also where others keep the processors
busy.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from vc_network.plugin import PastaNetwork

from benchmarks import bare_guest
from benchmarks.host import Bench
from benchmarks.own_network import SERVER, SINK, SOURCE, own_network, server
from benchmarks.report import Report
from vc_core import Pod, Runtime, Start
from vc_core.spec import NetworkRequest, PodRef, Reach

_MIB = 32
_SAMPLE_S = 300
_WANTED = 0.9
_FILE = "/dev/shm/sent"
_WAYS = {
    "receives": f"{{busybox}} wget -q -O /dev/null http://{SERVER}:{SOURCE}/",
    # wget takes the file for text.
    "sends": (
        f"{{busybox}} tr '\\0' x </dev/zero | {{busybox}} head -c {_MIB << 20} >{_FILE}; "
        f"{{busybox}} wget -q -O /dev/null --post-file {_FILE} http://{SERVER}:{SINK}/; "
        f"{{busybox}} rm {_FILE}"
    ),
}
# The first program of the bare machine: the modules of the guest image, and the addresses that the
# agent would set. Then it does what the console says.
_INIT = """#!/bench/busybox sh
b=/bench/busybox
$b mkdir -p /dev /proc /bin; $b mount -t proc proc /proc; $b mount -t devtmpfs dev /dev
$b mkdir -p /dev/shm
$b --install /bin; export PATH=/bin
for list in boot net; do
    while read name; do insmod /lib/modules/$name 2>/dev/null; done </lib/modules/$list.list
done
ip link set eth0 mtu {mtu} up
ip addr add {address} dev eth0
ip route add {gateway} dev eth0
ip route add default via {gateway}
echo ready
while read way; do
    case $way in
    receives) {receives} ;;
    sends) {sends} ;;
    esac
done
"""


@dataclass(frozen=True)
class Sample:
    """One transfer.

    Attributes:
        rate: in MiB/s.
        used: processor time of QEMU, in seconds.
    """

    rate: float
    used: float


async def run(report: Report, bench: Bench) -> None:
    """Measures."""
    busybox = shutil.which("busybox")
    if os.geteuid() != 0 or busybox is None:
        report.skipped["throughput of a network"] = "needs root and busybox"
        return
    watched = bench.folder / "watched"
    watched.write_text("")
    with own_network() as keeper, server(keeper, _MIB << 20, watched) as process:
        async with (
            bench.runtime() as runtime,
            runtime.pod(start=Start.TEMPLATE, network="full") as pod,
            _bare(bench, runtime, pod) as (console, pid),
        ):
            watched.write_text(f"{(await pod.status()).pid} {pid}")
            for way in _WAYS:
                _add(report, way, await _pairs(bench, way, pod, console, process, busybox))


async def _pairs(
    bench: Bench,
    way: str,
    pod: Pod,
    console: asyncio.StreamWriter,
    process: subprocess.Popen[str],
    busybox: str,
) -> list[tuple[Sample, Sample]]:
    """Returns samples of the pod and the bare machine, each taken after the other in turn."""
    pairs = []
    for number in range(len(bench.times(16)) + 1):
        if number % 2:
            ours = await _of_pod(pod, way, process, busybox)
            bare = await _of_bare(console, way, process)
        else:
            bare = await _of_bare(console, way, process)
            ours = await _of_pod(pod, way, process, busybox)
        pairs.append((Sample(ours[0], ours[1]), Sample(bare[0], bare[2])))
    return pairs[1:]  # in the first one the emulator translates the code


def _add(report: Report, way: str, pairs: list[tuple[Sample, Sample]]) -> None:
    report.add(f"a pod {way} by TCP", "MiB/s", [ours.rate for ours, _ in pairs])
    report.add(f"a bare QEMU {way} by TCP", "MiB/s", [bare.rate for _, bare in pairs])
    used = [
        report.add(f"{name} {way} {_MIB} MiB: processor time of QEMU", "s", samples).median
        for name, samples in (
            ("a pod", [ours.used for ours, _ in pairs]),
            ("a bare QEMU", [bare.used for _, bare in pairs]),
        )
    ]
    report.compare(f"a bare QEMU {way} by TCP / a pod, processor time", used[1], used[0])
    ratios = report.add(
        f"a pod {way} by TCP / a bare QEMU, each pair",
        "",
        [ours.rate / bare.rate for ours, bare in pairs],
    )
    report.compare(
        f"a pod {way} by TCP / a bare QEMU",
        statistics.median(ratios.samples),
        1,
        _WANTED,
        is_at_most=False,
    )


async def _of_pod(pod: Pod, way: str, process: subprocess.Popen[str], busybox: str) -> list[float]:
    done = await pod.run("sh", "-c", _WAYS[way].format(busybox=busybox))
    if done.exit_code != 0:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    return await _told(process)


async def _of_bare(
    console: asyncio.StreamWriter, way: str, process: subprocess.Popen[str]
) -> list[float]:
    console.write(f"{way}\n".encode())
    await console.drain()
    return await _told(process)


@asynccontextmanager
async def _bare(
    bench: Bench, runtime: Runtime, pod: Pod
) -> AsyncIterator[tuple[asyncio.StreamWriter, int]]:
    """A bare machine; yields its console, which takes the names of ways, and its pid."""
    folder = bench.folder / "throughput"
    folder.mkdir()
    plugin, ref = PastaNetwork(), PodRef(id="bare", run_dir=folder)
    network = await plugin.network_connect(pod=ref, request=NetworkRequest(reach=Reach.FULL))
    (interface,) = network.interfaces
    guest = interface.guest
    init = _INIT.format(
        mtu=guest.mtu,
        address=guest.addresses[0],
        gateway=guest.gateways[0],
        **{name: way.format(busybox="busybox") for name, way in _WAYS.items()},
    )
    image, initrd = await bare_guest.write_initrd(runtime, folder, init)
    words = await bare_guest.words(pod, image, initrd)
    words += ["-netdev", f"tap,id=net,fd={interface.nic.descriptor},vhost=off"]
    words += ["-device", f"virtio-net-pci,netdev=net,mac={interface.nic.mac},romfile="]
    try:
        child = await asyncio.create_subprocess_exec(
            *words,
            pass_fds=(interface.nic.descriptor,),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert child.stdin is not None  # both are pipes
            assert child.stdout is not None
            await asyncio.wait_for(child.stdout.readuntil(b"ready"), _SAMPLE_S)
            yield child.stdin, child.pid
        finally:
            child.kill()
            await child.wait()
    finally:
        os.close(interface.nic.descriptor)
        await plugin.network_disconnect(pod=ref)


async def _told(process: subprocess.Popen[str]) -> list[float]:
    """Returns what the server says of the last connection: rate, and processor times."""
    if process.stdout is None:
        raise RuntimeError("the server has no output")
    line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), _SAMPLE_S)
    return [float(word) for word in line.split()]
