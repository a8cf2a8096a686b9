"""One more process in a container: it is in the container, whatever the container has made of its
files.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Host
from vc_core.spec import (
    AgentError,
    Capabilities,
    Confinement,
    ContainerSpec,
    ExitStatus,
    InvalidRequest,
    Mount,
    MountKind,
    ProcessSpec,
    Rlimit,
    Rootfs,
    RootfsMode,
    Stdio,
)

pytestmark = pytest.mark.only("qemu")

SHOWS = (
    "id; pwd; echo $FOO-$MORE; grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; ulimit -n; "
    "umask"
)


async def said(container, *args: str, **options: object) -> list[str]:
    """What a process in it prints, line by line."""
    process = await container.exec(ProcessSpec(args=args, **options))
    result = await process.communicate()
    assert result.exit_code == 0, result.stderr
    return result.stdout.decode().splitlines()


def test_exec_is_in_the_container(host: Host, busybox):
    with (busybox / "etc/passwd").open("a") as passwd:
        passwd.write(
            "1000:x:0:0:a name that is a number:/root:/bin/sh\n"
            "late:x:1000:1001::/home/late:/bin/sh\n"
        )
    options = ("-u", "1000", "-e", "FOO=bar", "-w", "/tmp", "--group", "4321", "--cap-drop", "ALL")
    host.vc("run", "-d", "--name", "c", "--rootfs", str(busybox), *options, "--", "sleep", "999")

    def lines(*words: str) -> list[str]:
        return host.vc("exec", *words, "sh", "-c", SHOWS).stdout.decode().splitlines()

    told = lines("c", "--")
    assert told[6] == "1024"
    names = host.vc(
        "exec",
        "c",
        "--",
        "sh",
        "-c",
        "ulimit -Hn; cat /etc/hostname; env | grep HOSTNAME; tail -n 1 /etc/hosts",
    )
    assert names.stdout.decode().splitlines() == ["1048576", "c", "HOSTNAME=c", "127.0.0.1\tc"]
    assert told[0] == "uid=1000(late) gid=1001 groups=4321(extra)"
    assert told[1:3] == ["/tmp", "bar-"]
    assert set(told[3:6]) == {"NoNewPrivs:\t1", "CapBnd:\t0000000000000000", "Seccomp:\t2"}
    changed = lines(
        "-u", "nina", "-w", "/etc", "-e", "MORE=x", "-e", "FOO=", "--cap-add", "chown", "c", "--"
    )
    assert changed[0].startswith("uid=1234(nina) gid=5678(staff)")
    assert changed[1:3] == ["/etc", "-x"]
    assert "CapBnd:\t0000000000000001" in changed
    assert host.vc("exec", "-u", "0", "c", "--", "sh", "-c", "echo $HOME").stdout == b"/root\n"
    for user in ("2147483648", "4294967296", "99999999999999999999"):
        done = host.vc("exec", "-u", user, "c", "--", "id", check=125)
        assert b"is no id of a user or group" in done.stderr
    assert b"no user '+1'" in host.vc(
        "exec", "-u", "+1", "c", "--", "id", check=125
    ).stderr.replace(b'"', b"'")
    host.vc("pod", "delete", "--force", "c")


async def test_all_that_a_bundle_can_say_of_a_process_holds_for_one_more(host: Host, busybox):
    seccomp = '{"defaultAction": "SCMP_ACT_ALLOW"}'
    process = ProcessSpec(
        args=("sleep", "999"),
        env=("PATH=/bin", "FOO=bar"),
        cwd="/etc",
        user="12:34",
        groups=("56",),
        no_new_privileges=False,
        capabilities=Capabilities(bounding=("CAP_CHOWN",), effective=(), permitted=()),
        rlimits=(Rlimit(kind="RLIMIT_NOFILE", soft=77, hard=99),),
        umask=0o27,
        oom_score_adj=321,
    )
    spec = ContainerSpec(
        id="a",
        rootfs=Rootfs(path=busybox),
        process=process,
        confinement=Confinement(seccomp=seccomp),
    )
    async with host.runtime() as runtime:
        pod = await runtime.create("p")
        try:
            container = await pod.create_container(spec)
            await pod.start()
            script = f"{SHOWS}; cat /proc/self/oom_score_adj /proc/self/cgroup"
            told = await said(container, "sh", "-c", script)
            assert told[:3] == ["uid=12 gid=34 groups=56", "/etc", "bar-"]
            assert set(told[3:6]) == {"CapBnd:\t0000000000000001", "NoNewPrivs:\t0", "Seccomp:\t2"}
            assert told[6:9] == ["77", "0027", "321"]
            first = await (await pod.exec("cat", "/proc/1/cgroup")).communicate()
            assert told[9:] == first.stdout.decode().splitlines()
            with pytest.raises(InvalidRequest, match="there is no signal 99"):
                await container.kill(99)
            assert (await pod.status()).containers[0].exit is None
        finally:
            await pod.delete(force=True)


async def test_files_that_a_container_has_planted_stop_nobody_else(host: Host, busybox):
    def spec(name: str) -> ContainerSpec:
        process = ProcessSpec(args=("sleep", "999"), env=("PATH=/bin",))
        return ContainerSpec(
            id=name, rootfs=Rootfs(path=busybox), process=process, stdio=Stdio.NULL
        )

    async with host.runtime() as runtime:
        pod = await runtime.create("p")
        try:
            bad, good = [await pod.create_container(spec(name)) for name in "ab"]
            await pod.start()

            async def planted(script: str, told: str, user: str = "0:nosuch") -> None:
                await said(bad, "sh", "-c", f"cd /etc; {script}", user="0:0")
                with pytest.raises(AgentError, match=told):
                    await bad.exec(ProcessSpec(args=("id",), user=user))
                assert (await said(good, "id"))[0].startswith("uid=0(root)")

            await planted("busybox rm group; busybox mkfifo group", "/etc/group is no regular file")
            await planted("busybox rm group; busybox mkdir group", "/etc/group is no regular file")
            await planted(
                "busybox rmdir group; busybox mknod group c 5 0", "/etc/group is no regular file"
            )
            await planted(
                "busybox rm group; busybox ln -s group group", "/etc/group cannot be opened"
            )
            await planted(
                "busybox rm group; busybox truncate -s 1G group", "/etc/group is larger than"
            )
            await planted("busybox rm group; busybox ln -s ../../../../init group", "no group")
            # From here on nothing more can be planted by a process that is started.
            await planted(
                "busybox rm passwd; busybox mkfifo passwd",
                "/etc/passwd is no regular file",
                user="root",
            )
            await bad.stop(0)
            await bad.start()
            assert (await said(bad, "id"))[0].startswith("uid=0(root)")
        finally:
            await pod.delete(force=True)


async def test_realtime_signals_arrive_and_end(host: Host, busybox):
    script = "trap 'echo 37' 37; echo ready; while :; do sleep 1 & wait $!; done"
    async with host.runtime() as runtime:
        pod = await runtime.create("p")
        try:
            process = ProcessSpec(args=("sh", "-c", script), env=("PATH=/bin",))
            await pod.create_container(
                ContainerSpec(
                    id="a", rootfs=Rootfs(path=busybox), process=process, stdio=Stdio.PIPES
                )
            )
            await pod.start()
            container = pod.container("a")
            first = await container.process()
            output = first.stdout
            assert await anext(output) == b"ready\n"
            await container.kill(37)
            assert await anext(output) == b"37\n"
            killed = await container.exec(ProcessSpec(args=("sh", "-c", "kill -35 $$")))
            assert await killed.wait() == ExitStatus(code=163, signal=35)
            await container.kill(40)  # which a first process does not mind: it ends in its name
            assert await first.wait() == ExitStatus(code=168, signal=40)
        finally:
            await pod.delete(force=True)


async def test_a_process_whose_name_is_no_text_is_listed_and_gets_its_signals(host: Host, busybox):
    script = (
        "printf '\\377)' >/proc/self/comm; trap 'echo caught' 15; echo ready; "
        "while :; do sleep 1 & wait $!; done"
    )
    async with host.runtime() as runtime:
        pod = await runtime.create("p")
        try:
            process = ProcessSpec(args=("sh", "-c", script), env=("PATH=/bin",))
            await pod.create_container(
                ContainerSpec(
                    id="a", rootfs=Rootfs(path=busybox), process=process, stdio=Stdio.PIPES
                )
            )
            await pod.start()
            container = pod.container("a")
            output = (await container.process()).stdout
            assert await anext(output) == b"ready\n"
            assert 1 in [listed.pid for listed in await container.processes()]
            await container.kill(15)
            assert await anext(output) == b"caught\n"
        finally:
            await pod.delete(force=True)


async def test_the_clock_is_the_hosts_after_a_pause(host: Host, busybox):
    process = ProcessSpec(args=("sleep", "999"), env=("PATH=/bin",))
    async with host.runtime() as runtime:
        pod = await runtime.create("p")
        try:
            await pod.create_container(
                ContainerSpec(id="a", rootfs=Rootfs(path=busybox), process=process)
            )
            await pod.start()
            await pod.pause()
            await asyncio.sleep(3)  # the gap itself
            await pod.resume()
            before = int(time.time())
            (told,) = await said(pod.container("a"), "busybox", "date", "+%s")
            assert int(told) >= before - 1
        finally:
            await pod.delete(force=True)


async def test_containers_know_themselves_by_name(host: Host, busybox, tmp_path):
    """Without a word of it in their root; and what a user mounts there is what is there."""
    own = tmp_path / "hosts"
    own.write_text("192.0.2.1\tmine\n")
    process = ProcessSpec(
        args=("sleep", "999"),
        env=("PATH=/bin",),
        rlimits=(Rlimit(kind="RLIMIT_NOFILE", soft=5000, hard=(1 << 64) - 1),),
    )
    kept = Rootfs(path=busybox, mode=RootfsMode.READ_WRITE)
    proc = Mount(source=Path("proc"), destination="/proc", kind=MountKind.PROC)
    mine = (Mount(source=own, destination="/etc/hosts", read_only=True),)
    (busybox / "etc/hostname").symlink_to("/run/vc/shown")
    async with host.runtime() as runtime:
        pod = await runtime.create("p")
        try:
            a = await pod.create_container(
                ContainerSpec(id="a", rootfs=Rootfs(path=busybox), process=process, mounts=mine)
            )
            b = await pod.create_container(
                ContainerSpec(id="b", rootfs=kept, process=process, hostname="named")
            )
            bundle = await pod.create_container(
                ContainerSpec(
                    id="c",
                    rootfs=Rootfs(path=busybox, mode=RootfsMode.READ_ONLY),
                    process=process,
                    mounts=(proc,),
                    has_default_mounts=False,
                )
            )
            await pod.start()
            assert await said(a, "cat", "/etc/hosts", "/etc/hostname") == ["192.0.2.1\tmine", "p"]
            told = await said(b, "sh", "-c", "hostname; env | grep HOSTNAME; ls /etc")
            assert told == ["named", "HOSTNAME=named", "group", "hostname", "passwd"]
            shown = await said(
                bundle, "sh", "-c", "env | grep -c HOSTNAME; ulimit -n; ulimit -Hn; ls /etc"
            )
            assert shown == ["0", "5000", "1073741816", "group", "hostname", "passwd"]
            assert sorted(path.name for path in (busybox / "etc").iterdir()) == [
                "group",
                "hostname",
                "passwd",
            ]
        finally:
            await pod.delete(force=True)
