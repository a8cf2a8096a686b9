"""What a pod receives by TCP from a server outside, beside a bare QEMU on the same kind of tap.

Both taps are made by the plugin `pasta` in the same way, so what is compared is the machine.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

from vc_agent_grpc.image.cpio import Archive
from vc_network.plugin import PastaNetwork

from benchmarks.host import Bench
from benchmarks.own_network import SERVER, SOURCE, own_network, server
from benchmarks.report import Report
from vc_core import Pod, Runtime, Start
from vc_core.spec import Guest, NetworkRequest, PodRef, Reach

_MIB = 64
_BOOT_S = 300
# Not nc: it shuts its side down first, and with Debian's pasta (2023-03) such a connection stalls.
_TAKE = f"{{busybox}} wget -q -O /dev/null http://{SERVER}:{SOURCE}/"
# The first program of the bare machine: the modules of the guest image, and the addresses that the
# agent would set.
_INIT = """#!/bench/busybox sh
b=/bench/busybox
$b mkdir -p /dev /proc /bin; $b mount -t proc proc /proc; $b mount -t devtmpfs dev /dev
$b --install /bin; export PATH=/bin
for list in boot net; do
    while read name; do insmod /lib/modules/$name 2>/dev/null; done </lib/modules/$list.list
done
ip link set eth0 mtu {mtu} up
ip addr add {address} dev eth0
ip route add {gateway} dev eth0
ip route add default via {gateway}
{take}
poweroff -f
"""


async def run(report: Report, bench: Bench) -> None:
    """Measures."""
    busybox = shutil.which("busybox")
    if os.geteuid() != 0 or busybox is None:
        report.skipped["throughput of a network"] = "needs root and busybox"
        return
    with own_network() as keeper, server(keeper, _MIB << 20) as process:
        async with (
            bench.runtime() as runtime,
            runtime.pod(start=Start.TEMPLATE, network="full") as pod,
        ):
            ours, floor = list[float](), list[float]()
            for number in bench.times(8):
                ours.append(await _of_pod(pod, process, busybox))
                floor.append(await _of_bare(bench, runtime, pod, process, busybox, number))
    found = report.add("a pod receives by TCP", "MiB/s", ours)
    bare = report.add("a bare QEMU receives by TCP", "MiB/s", floor)
    report.compare(
        "a pod receives by TCP / a bare QEMU", found.median, bare.median, 0.9, is_at_most=False
    )


async def _of_pod(pod: Pod, process: subprocess.Popen[str], busybox: str) -> float:
    done = await pod.run("sh", "-c", _TAKE.format(busybox=busybox))
    if done.exit_code != 0:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    return await _told(process)


async def _of_bare(
    bench: Bench,
    runtime: Runtime,
    pod: Pod,
    process: subprocess.Popen[str],
    busybox: str,
    number: int,
) -> float:
    folder = bench.folder / f"throughput{number}"
    folder.mkdir()
    plugin, ref = PastaNetwork(), PodRef(id="bare", run_dir=folder)
    network = await plugin.network_connect(pod=ref, request=NetworkRequest(reach=Reach.FULL))
    (interface,) = network.interfaces
    guest = interface.guest
    init = _INIT.format(
        mtu=guest.mtu,
        address=guest.addresses[0],
        gateway=guest.gateways[0],
        take=_TAKE.format(busybox="busybox"),
    )
    archive = Archive()
    archive.add_folder("bench")
    archive.add_file("bench/busybox", Path(busybox).read_bytes(), 0o755)
    archive.add_file("bench/init", init.encode(), 0o755)
    image = await runtime.hooks.agent_guest(pod=ref)
    initrd = folder / "initrd"
    initrd.write_bytes(image.initrd.read_bytes() + archive.to_bytes())
    words = await _words(pod, image, initrd, folder, interface.nic.mac, interface.nic.descriptor)
    try:
        child = await asyncio.create_subprocess_exec(
            *words, pass_fds=(interface.nic.descriptor,), stdin=asyncio.subprocess.DEVNULL
        )
        try:
            await asyncio.wait_for(child.wait(), _BOOT_S)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    finally:
        os.close(interface.nic.descriptor)
        await plugin.network_disconnect(pod=ref)
    return await _told(process)


async def _words(
    pod: Pod, image: Guest, initrd: Path, folder: Path, mac: str, tap: int
) -> list[str]:
    """Returns a command line with the pod's QEMU, accelerator, CPU and memory."""
    pid = (await pod.status()).pid
    pods = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    machine = pods[pods.index("-machine") + 1].split(",")
    accelerator = next(word for word in machine if word.startswith("accel="))
    parameters = [word for word in image.parameters if not word.startswith("rdinit=")]
    return [
        pods[0],
        *("-machine", f"{machine[0]},{accelerator}", "-cpu", pods[pods.index("-cpu") + 1]),
        *("-m", "256M", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-serial", f"file:{folder}/console"),
        *("-kernel", str(image.kernel), "-initrd", str(initrd)),
        *("-append", " ".join([*parameters, "rdinit=/bench/init"])),
        *("-netdev", f"tap,id=net,fd={tap},vhost=off"),
        *("-device", f"virtio-net-pci,netdev=net,mac={mac},romfile="),
    ]


async def _told(process: subprocess.Popen[str]) -> float:
    """Returns what the server says of the last connection."""
    if process.stdout is None:
        raise RuntimeError("the server has no output")
    return float(await asyncio.to_thread(process.stdout.readline))
