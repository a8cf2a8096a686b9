"""Limits of containers, and a machine that grows and shrinks with them."""

from __future__ import annotations

import asyncio
import json

import pytest

from vc_core import ContainerSpec, ExitStatus, Mount, Pod, ProcessSpec, Resources, Rootfs, Start

PATH = ("PATH=/bin",)
MIB = 1 << 20
# One read into one buffer, which the kernel fills. Programs that touch their memory by themselves
# lose the pages of their own code to the limit, read them again over the share, and may take
# minutes to get themselves killed.
HOG = 'busybox dd if=/dev/zero of=/dev/null bs="$1" count=1 2>/dev/null || exit; echo survived $1'


def _spec(name: str, rootfs, *args: str, **limits: object) -> ContainerSpec:
    return ContainerSpec(
        id=name,
        rootfs=Rootfs(path=rootfs),
        process=ProcessSpec(args=args, env=PATH),
        resources=Resources(**limits),
    )


def _facts(host, pod: str, container: str) -> list[str]:
    folder = "/sys/fs/cgroup"
    files = " ".join(
        f"{folder}/{name}"
        for name in ("cpu.max", "cpuset.cpus", "memory.max", "memory.swap.max", "pids.max")
    )
    return (
        host.vc("exec", "-c", container, pod, "--", "sh", "-c", f"cat {files}")
        .stdout.decode()
        .splitlines()
    )


def test_limits_are_cgroups_of_the_guest_and_size_the_machine(host, busybox):
    host.vc("pod", "create", "p")
    host.vc("pod", "start", "p")
    limits = [
        "--cpus",
        "1.5",
        "--memory",
        "96m",
        "--pids",
        "40",
        "--cpuset",
        "1",
        "--cpu-shares",
        "2048",
    ]
    host.vc(
        "container",
        "create",
        "--name",
        "a",
        "--rootfs",
        str(busybox),
        *limits,
        "p",
        "--",
        "sleep",
        "99",
    )
    host.vc("container", "start", "p", "a")
    assert _facts(host, "p", "a") == ["150000 100000", "1", str(96 * MIB), "0", "40"]
    size = json.loads(host.vc("pod", "status", "p", "--json").stdout)["size"]
    assert size == {"vcpus": 2, "memory_mib": 256 + 128}, "memory comes in blocks of 128 MiB"
    told = host.vc(
        "exec",
        "p",
        "--",
        "sh",
        "-c",
        "grep -c ^processor /proc/cpuinfo; grep MemTotal /proc/meminfo",
    ).stdout
    cpus, memory = told.decode().splitlines()
    assert int(cpus) == 2, "plugged vCPUs are online before the process starts"
    assert 230 < int(memory.split()[1]) >> 10 < 384
    host.vc(
        "container",
        "update",
        "p",
        "a",
        "--cpus",
        "0.5",
        "--memory",
        "64m",
        "--pids",
        "0",
        "--cpuset",
        "0",
    )
    assert _facts(host, "p", "a") == ["50000 100000", "0", str(64 * MIB), "0", "max"]
    host.vc("container", "delete", "--force", "p", "a")
    assert json.loads(host.vc("pod", "status", "p", "--json").stdout)["size"] == {
        "vcpus": 1,
        "memory_mib": 256,
    }
    host.vc("pod", "delete", "p")


@pytest.mark.only("qemu")
def test_what_the_machine_cannot_grow_to_is_refused_and_nothing_is_left(host, busybox):
    host.vc("pod", "create", "p")
    host.vc("pod", "start", "p")
    create = ["container", "create", "--rootfs", str(busybox)]
    told = host.vc(*create, "--cpus", "9", "p", "--", "true", check=125).stderr.decode()
    assert "9 vCPUs were requested" in told
    assert f"raise hypervisor.{host.hypervisor}.max_vcpus for new pods" in told
    told = host.vc(*create, "--memory", "9g", "p", "--", "true", check=125).stderr.decode()
    assert f"raise hypervisor.{host.hypervisor}.max_memory_mib or memory_slots" in told
    told = host.vc(*create, "--memory", "1m", "p", "--", "true", check=125).stderr.decode()
    assert "4 MiB is the least" in told
    found = json.loads(host.vc("pod", "status", "p", "--json").stdout)
    assert (found["containers"], found["size"]) == ([], {"vcpus": 1, "memory_mib": 256})
    host.vc("pod", "delete", "p")


@pytest.mark.only("qemu")
async def test_a_memory_hog_dies_of_its_own_limit_and_its_sibling_lives(host, busybox):
    async with host.runtime() as runtime, runtime.pod("p") as pod:
        sibling = await pod.create_container(
            _spec("sibling", busybox, "sleep", "99", memory_bytes=32 * MIB)
        )
        await sibling.start()
        script = f"{HOG}"
        hog = await pod.create_container(
            _spec("hog", busybox, "sh", "-c", script, "hog", str(100 * MIB), memory_bytes=32 * MIB)
        )
        await hog.start()
        assert await hog.wait() == ExitStatus(code=137, out_of_memory=True)
        for words in (("ps",), ("container", "status", "p", "hog"), ("pod", "status", "p")):
            assert b"137, out of memory" in host.vc(*words).stdout, words
        (found,) = json.loads(host.vc("inspect", "p").stdout)
        (ended,) = [one["exit"] for one in found["containers"] if one["id"] == "hog"]
        assert (ended["code"], ended["out_of_memory"]) == (137, True)
        await hog.stop(0)
        assert b"p/hog  (exit 137, out of memory)" in host.vc("events", "p").stdout
        assert b"137, out of memory" in host.vc("ps").stdout, "it is written down"
        within = await sibling.exec(ProcessSpec(args=("sh", "-c", "kill -9 $$"), env=PATH))
        assert await within.wait() == ExitStatus(code=137, signal=9)
        stats = await sibling.stats()
        assert stats.memory_limit_bytes == 32 * MIB
        assert stats.oom_kills == 0
        alive = await sibling.exec(ProcessSpec(args=("echo", "alive"), env=PATH))
        assert (await alive.communicate()).stdout == b"alive\n"
        roomy = await pod.run(
            "sh",
            "-c",
            script,
            "hog",
            str(20 * MIB),
            rootfs=busybox,
            resources=Resources(memory_bytes=128 * MIB),
        )
        assert roomy.stdout == b"survived 20971520\n", "the same is no hog where there is room"


@pytest.mark.only("qemu")
async def test_a_fork_bomb_ends_at_its_limit(host, busybox):
    async with host.runtime() as runtime, runtime.pod("p") as pod:
        script = "for n in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait"
        result = await pod.run("sh", "-c", script, rootfs=busybox, resources=Resources(pids=5))
        assert (
            b"Resource temporarily unavailable" in result.stderr or b"can't fork" in result.stderr
        )


@pytest.mark.only("qemu")
def test_a_command_that_needs_too_much_memory_is_told_why_it_was_killed(host):
    words = [
        "run",
        "--memory",
        "64m",
        "--",
        "python3",
        "-c",
        "x = bytearray(200 << 20); print('survived')",
    ]
    done = host.vc(*words, check=137)
    assert b"survived" not in done.stdout
    assert (
        b"warning: the command was killed: it exceeded its memory limit of 64 MiB; raise --memory"
        in done.stderr
    )


async def test_memory_that_a_guest_has_freed_goes_back_to_the_host(host, busybox):
    """Also after the pod was forked: a machine has no balloon while it is saved, and its children
    have none.
    """

    async def comes_back(pod: Pod) -> None:
        container = pod.container("c")
        filled = await container.exec(
            ProcessSpec(args=("sh", "-c", "head -c 96m /dev/zero > /scratch/x"), env=PATH)
        )
        assert (await filled.communicate()).exit_code == 0
        most = (await pod.stats()).resident_bytes
        await (
            await container.exec(ProcessSpec(args=("busybox", "rm", "/scratch/x"), env=PATH))
        ).wait()
        async with asyncio.timeout(60):
            while (await pod.stats()).resident_bytes > most - 72 * MIB:
                await container.processes()

    async with host.runtime() as runtime:
        pod = await runtime.create("p", memory_mib=512, start=Start.COLD)
        spec = ContainerSpec(
            id="c",
            rootfs=Rootfs(path=busybox),
            process=ProcessSpec(args=("sleep", "999"), env=PATH),
            mounts=(Mount.tmpfs("/scratch"),),
        )
        await pod.create_container(spec)
        await pod.start()
        await comes_back(pod)
        (child,) = await pod.fork()
        await comes_back(pod)
        for one in (pod, child):
            listed = await one.container("c").exec(ProcessSpec(args=("ls", "/bin/sh"), env=PATH))
            assert (await listed.communicate()).stdout == b"/bin/sh\n"
            await one.delete(force=True)
