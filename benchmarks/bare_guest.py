"""Machines with the guest's kernel and a shell in place of the agent, beside which ours stand."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from qemu.qmp import QMPClient
from vc_agent_grpc.image.cpio import Archive

from benchmarks.host import Bench
from vc_core import Pod, Runtime
from vc_core.spec import Guest, PodRef

_MEMORY_MIB = 256
_BOOT_S = 300
# The first program of a saved machine. It has what a container has around its program: new
# namespaces and a root of its own.
_INIT = """#!/bench/busybox sh
b=/bench/busybox
$b mkdir -p /dev /proc /new/bin; $b mount -t proc proc /proc; $b mount -t devtmpfs dev /dev
$b cp $b /new/bin/busybox
echo ready
while read word; do
    $b unshare -m -u -i -p -f -n $b chroot /new /bin/busybox true && echo ended
done
"""


def busybox() -> Path:
    """Returns the host's busybox, which is linked statically.

    Raises:
        FileNotFoundError: it is not installed.
    """
    found = shutil.which("busybox")
    if found is None:
        raise FileNotFoundError("busybox is missing (tools/prepare bench)")
    return Path(found)


def write_rootfs(folder: Path) -> Path:
    """Writes a root file system with busybox as /bin/true and /bin/sh; returns it."""
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin/busybox"
    shutil.copy(busybox(), program)
    program.chmod(0o755)
    for name in ("true", "sh", "sleep"):
        (folder / "bin" / name).symlink_to("busybox")
    return folder


async def write_initrd(runtime: Runtime, folder: Path, init: str) -> tuple[Guest, Path]:
    """Writes the guest image with busybox and a first program; returns it and the new initrd.

    Args:
        runtime: whose guest image is taken.
        folder: for the new initrd.
        init: script that is /bench/init.
    """
    archive = Archive()
    archive.add_folder("bench")
    archive.add_file("bench/busybox", busybox().read_bytes(), 0o755)
    archive.add_file("bench/init", init.encode(), 0o755)
    image = await runtime.hooks.agent_guest(pod=PodRef(id="bare", run_dir=folder))
    initrd = folder / "initrd"
    initrd.write_bytes(image.initrd.read_bytes() + archive.to_bytes())
    return image, initrd


async def words(pod: Pod, image: Guest, initrd: Path) -> list[str]:
    """Returns a command line with the QEMU, accelerator and CPU of a running pod.

    The machine has its console on the standard streams, and /bench/init is its first program.
    """
    pid = (await pod.status()).pid
    pods = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    machine = pods[pods.index("-machine") + 1].split(",")
    accelerator = next(word for word in machine if word.startswith("accel="))
    parameters = [word for word in image.parameters if not word.startswith("rdinit=")]
    return [
        pods[0],
        *("-machine", f"{machine[0]},{accelerator}", "-cpu", pods[pods.index("-cpu") + 1]),
        *("-m", f"{_MEMORY_MIB}M", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-no-reboot", "-serial", "stdio"),
        *("-kernel", str(image.kernel), "-initrd", str(initrd)),
        *("-append", " ".join([*parameters, "rdinit=/bench/init"])),
    ]


@dataclass(frozen=True)
class Saved:
    """A saved machine whose shell waits for a line.

    Attributes:
        words: the command line of its clones.
        folder: of its memory and state.
    """

    words: Sequence[str]
    folder: Path


class Clone:
    """A running clone of a saved machine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self) -> None:
        """Runs `true` in new namespaces and a root of its own; returns when that has ended."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the machine has no console")
        self._process.stdin.write(b"go\n")
        await asyncio.wait_for(self._process.stdout.readuntil(b"ended"), _BOOT_S)


async def save(bench: Bench, runtime: Runtime, pod: Pod) -> Saved:
    """Boots a machine with the arguments of a pod, and saves it."""
    folder = bench.folder / "bare-guest"
    folder.mkdir()
    image, initrd = await write_initrd(runtime, folder, _INIT)
    saved = Saved(await words(pod, image, initrd), folder)
    async with _machine(saved, "boot", is_shared=True) as (process, monitor):
        if process.stdout is None:
            raise RuntimeError("the machine has no console")
        await asyncio.wait_for(process.stdout.readuntil(b"ready"), _BOOT_S)
        await monitor.execute("stop")
        await _migrate(monitor, "migrate", f"exec:cat >{folder}/state")
    return saved


@asynccontextmanager
async def clone(saved: Saved, name: str) -> AsyncIterator[Clone]:
    """A clone of a saved machine; it runs."""
    async with _machine(saved, name, is_shared=False) as (process, monitor):
        await _migrate(monitor, "migrate-incoming", f"exec:cat {saved.folder}/state")
        await monitor.execute("cont")
        yield Clone(process)


@asynccontextmanager
async def _machine(
    saved: Saved, name: str, is_shared: bool
) -> AsyncIterator[tuple[asyncio.subprocess.Process, QMPClient]]:
    memory = f"memory-backend-file,id=ram,size={_MEMORY_MIB}M,mem-path={saved.folder}/memory"
    socket = saved.folder / f"{name}.sock"
    more = ["-object", f"{memory},share={'on' if is_shared else 'off'}"]
    more += ["-machine", "memory-backend=ram", "-qmp", f"unix:{socket}"]
    more += [] if is_shared else ["-incoming", "defer"]
    monitor = QMPClient(name)
    await monitor.start_server(str(socket))
    process = await asyncio.create_subprocess_exec(
        *saved.words, *more, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        await monitor.accept()
        for capability in ("x-ignore-shared", "events"):
            wanted = [{"capability": capability, "state": True}]
            await monitor.execute("migrate-set-capabilities", {"capabilities": wanted})
        yield process, monitor
    finally:
        process.kill()
        await process.wait()
        with contextlib.suppress(EOFError):  # it was killed
            await monitor.disconnect()


async def _migrate(monitor: QMPClient, command: str, uri: str) -> None:
    with monitor.listener("MIGRATION") as events:
        await monitor.execute(command, {"uri": uri})
        async for event in events:
            data = event["data"]
            status = data["status"] if isinstance(data, dict) else None
            if status == "failed":
                raise RuntimeError(f"{command} failed")
            if status == "completed":
                return
