"""One more process in a running container."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.host import Bench
from benchmarks.report import Report
from vc_core import ContainerSpec, Mount, Pod, ProcessSpec, Rootfs, Start, Stdio
from vc_core.spec import Capabilities, Confinement, MountKind

_ENV = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin",)
# With all of these a container may enter the guest's own root, where crun and the containers'
# records are.
_ALL = (
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_DAC_OVERRIDE",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_CHOWN",
)
_MORE = (
    "CAP_SETPCAP",
    "CAP_NET_RAW",
    "CAP_NET_BIND_SERVICE",
    "CAP_KILL",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_SETFCAP",
)
_REST = ("CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SYS_RESOURCE")


async def run(report: Report, bench: Bench) -> None:
    """Measures."""
    async with bench.runtime() as runtime:
        pod = await runtime.create(start=Start.TEMPLATE, memory_mib=512)
        await pod.start()
        try:
            await _exec(report, bench, pod)
        finally:
            await pod.delete(force=True)


async def _exec(report: Report, bench: Bench, pod: Pod) -> None:
    container = await pod.create_container(
        ContainerSpec(
            id="c",
            rootfs=Rootfs(path=Path("/")),
            process=ProcessSpec(args=("sleep", "1000"), env=_ENV),
        )
    )
    await container.start()
    ours = []
    for number in range(4 + len(bench.times(20))):  # the first few warm up
        began = time.monotonic()
        process = await container.exec(ProcessSpec(args=("true",), env=_ENV), Stdio.NULL)
        await process.wait()
        if number >= 4:
            ours.append(time.monotonic() - began)
    found = report.add("exec of true, API, connection open", "s", ours)
    floor = report.add("crun exec of true, typed in the guest", "s", await _crun(pod, len(ours)))
    report.compare("exec of true, API / crun exec in the guest", found.median, floor.median, 1.5)


async def _crun(pod: Pod, count: int) -> list[float]:
    """The agent's own call of crun, from a shell that sees what the agent sees."""
    crun = "chroot /guest /bin/crun --root /run/vc/crun --cgroup-manager cgroupfs exec c true"
    told = await inside(
        pod,
        f"for i in 1 2 3 4; do {crun} </dev/null >/dev/null 2>&1 || exit 9; done\n"
        f"for i in $(seq {count}); do s=$(date +%s%N); "
        f"{crun} </dev/null >/dev/null 2>&1 || exit 9\n"
        "e=$(date +%s%N); echo $((e - s)); done\n",
    )
    return [int(line) / 1e9 for line in told.split()]


async def inside(pod: Pod, script: str) -> bytes:
    """Runs a shell's words as if they were typed in the guest, whose own root is at /guest.

    What they print.
    """
    able = (*_ALL, *_MORE, *_REST)
    spec = ContainerSpec(
        id="inside",
        rootfs=Rootfs(path=Path("/")),
        process=ProcessSpec(
            args=("bash", "-c", script),
            env=_ENV,
            capabilities=Capabilities(bounding=able, effective=able, permitted=able),
        ),
        mounts=(
            Mount(
                source=Path("/"),
                destination="/guest",
                read_only=False,
                kind=MountKind.GUEST,
                recursive=True,
            ),
        ),
        stdio=Stdio.PIPES,
        confinement=Confinement(
            namespaces=("mount", "ipc", "uts"), masked_paths=(), readonly_paths=()
        ),
    )
    container = await pod.create_container(spec)
    done = await (await container.start()).communicate()
    await container.delete(force=True)
    if done.exit_code:
        raise RuntimeError(f"in the guest: {done.exit_code} {done.stderr.decode()}")
    return done.stdout
