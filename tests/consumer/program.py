"""A program of somebody else, which mypy --strict finds nothing wrong with
(tests/packaging/test_wheels.py).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from vc_core import (
    ContainerSpec,
    FileInfo,
    HealthCheck,
    Image,
    LogLine,
    Mount,
    Resources,
    Restart,
    RestartPolicy,
    Result,
    Runtime,
    Stdio,
    blocking,
)


async def several() -> list[Result]:
    """Pods side by side."""
    async with Runtime.open() as runtime, runtime.pod(image="busybox", memory_mib=256) as pod:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(pod.run("echo", str(number), timeout_s=10)) for number in range(3)
            ]
        return [task.result() for task in tasks]


async def service(runtime: Runtime) -> bytes:
    """A container that stays, its files and its log."""
    image: Image = await runtime.images.get("busybox")
    pod = await runtime.create("web", image="busybox")
    spec = image.container(
        ContainerSpec(
            id="web",
            rootfs=image.root(),
            process=image.process(["httpd", "-f"]),
            mounts=(Mount(source=Path("/srv"), destination="/www", read_only=True),),
            stdio=Stdio.LOG,
            restart=Restart(policy=RestartPolicy.ON_FAILURE, max_retries=3),
            health=HealthCheck(args=("true",), interval_s=5),
            resources=Resources(memory_bytes=64 << 20),
        )
    )
    container = await pod.create_container(spec)
    await pod.start()
    listed: tuple[FileInfo, ...] = await container.files.list("/")
    lines: list[LogLine] = [line async for line in container.logs(tail=10)]
    process = await pod.exec("cat", "/etc/passwd")
    chunks: list[bytes] = [chunk async for chunk in process.stdout]
    return b"".join(
        [*chunks, *(line.data for line in lines), *(one.name.encode() for one in listed)]
    )


def plain() -> int:
    """The same without asyncio."""
    with blocking.Runtime.open() as runtime, runtime.pod(image="busybox") as pod:
        result: Result = pod.run("sh", "-c", "exit 3")
        names: list[str] = [one.name for one in pod.files.list("/")]
        return result.exit_code + len(names) + len(result.stdout)
