"""The plugin pasta keeps the contract; what it leaves on the host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from vc_network import namespace, pasta
from vc_network.errors import NetworkFailure
from vc_network.layout import TAP
from vc_network.namespace import folder
from vc_network.plugin import PastaNetwork

from vc_core.spec import NetworkPolicy, NetworkRequest, PodRef, Reach
from vc_core.testing import NetworkContract, NetworkSubject


@pytest.mark.usefixtures("own_network")
class TestPasta(NetworkContract):
    @pytest.fixture
    def subject(self, tmp_path):
        return NetworkSubject(PastaNetwork, tmp_path)


@pytest.mark.usefixtures("own_network")
async def test_a_pasta_that_could_not_write_its_pid_file_is_found_and_ended(run_dir):
    plugin, pod = PastaNetwork(), PodRef(id="p", run_dir=run_dir)
    made = await plugin.network_connect(pod=pod, request=NetworkRequest(reach=Reach.FULL))
    os.close(made.interfaces[0].nic.descriptor)
    started = pasta.process_of(run_dir)
    assert started is not None
    (folder(run_dir) / "pasta.pid").write_text("")  # as on a full disk
    assert pasta.process_of(run_dir) == started
    assert await plugin.network_is_connected(pod=pod)
    await plugin.network_disconnect(pod=pod)
    assert not started.is_alive()


# Stops after `sys.argv[2]` steps of the keeper, and is killed there.
_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from vc_core.spec import NetworkRequest, PodRef, PortMapping, Reach
from vc_network.namespace import Namespace
from vc_network.plugin import PastaNetwork

step, real = int(sys.argv[2]), Namespace._do
count = 0

async def counted(self, *fields):
    global count
    if count == step:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    return await real(self, *fields)

Namespace._do = counted

async def main():
    plugin, pod = PastaNetwork(), PodRef(id="p", run_dir=Path(sys.argv[1]))
    request = NetworkRequest(reach=Reach.FULL, ports=(PortMapping(guest_port=80),))
    await plugin.network_prepare(pod=pod, request=request)
    await plugin.network_connect(pod=pod, request=request)

asyncio.run(main())
"""


@pytest.mark.usefixtures("own_network")
async def test_a_caller_that_is_killed_at_any_step_leaves_what_disconnecting_removes(run_dir):
    plugin, pod = PastaNetwork(), PodRef(id="p", run_dir=run_dir)
    for step in range(20):
        words = [sys.executable, "-c", _KILLED, str(run_dir), str(step)]
        ended = subprocess.run(words, check=False).returncode
        keeper, started = namespace.keeper_of(run_dir), pasta.process_of(run_dir)
        assert keeper is not None
        if ended == 0:
            assert await plugin.network_is_connected(pod=pod)
        else:
            assert ended == -signal.SIGKILL
            await keeper.ended()
            assert not await plugin.network_is_connected(pod=pod)
        await plugin.network_disconnect(pod=pod)
        assert not keeper.is_alive()
        assert started is None or not started.is_alive()
        assert not [*run_dir.iterdir()]
        if ended == 0:
            break
    assert 5 < step < 20
    assert _with_path(run_dir) == []


def _with_path(folder: Path) -> list[str]:
    """Returns the command lines of processes that name a folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            words = file.read_bytes().decode(errors="replace").split("\0")
            found += [" ".join(words)] if any(str(folder) in word for word in words) else []
    return found


@pytest.mark.usefixtures("own_network")
async def test_no_child_of_the_caller_has_the_tap(run_dir):
    plugin, pod = PastaNetwork(), PodRef(id="p", run_dir=run_dir)
    (tap,) = await plugin.network_prepare(pod=pod, request=NetworkRequest(reach=Reach.FULL))
    assert not os.get_inheritable(tap.descriptor)
    os.close(tap.descriptor)
    await plugin.network_disconnect(pod=pod)


@pytest.mark.usefixtures("own_network")
async def test_pasta_has_limits_that_no_guest_can_make_it_exceed(run_dir, check_limits):
    plugin, pod = PastaNetwork(), PodRef(id="p", run_dir=run_dir)
    made = await plugin.network_connect(pod=pod, request=NetworkRequest(reach=Reach.FULL))
    os.close(made.interfaces[0].nic.descriptor)
    started = pasta.process_of(run_dir)
    assert started is not None
    check_limits(started.pid, open_files=16384)
    await plugin.network_disconnect(pod=pod)


@pytest.mark.usefixtures("own_network")
async def test_the_rates_are_in_force_before_the_tap_is_up(run_dir, monkeypatch):
    plugin, pod = PastaNetwork(), PodRef(id="p", run_dir=run_dir)
    seen = []

    async def looking(self, *fields):
        if fields[0] == "run" and f"link set dev {TAP} up" in fields[1]:
            for words in (["ip", "link"], ["tc", "qdisc"]):
                enter = [*namespace.entering(self.keeper), *words, "show", "dev", TAP]
                done = subprocess.run(enter, capture_output=True, text=True, check=True)
                seen.append(done.stdout)
        return await real(self, *fields)

    real = namespace.Namespace._do
    monkeypatch.setattr(namespace.Namespace, "_do", looking)
    policy = NetworkPolicy.of(rate_in="8mbit", rate_out="4mbit")
    request = NetworkRequest(reach=Reach.FULL, policy=policy)
    made = await plugin.network_connect(pod=pod, request=request)
    os.close(made.interfaces[0].nic.descriptor)
    link, queue = seen
    assert ",UP" not in link
    assert "tbf" in queue
    assert "rate 8Mbit" in queue
    await plugin.network_disconnect(pod=pod)


async def test_a_message_that_does_not_fit_is_a_failure_that_says_so(run_dir):
    made = await namespace.Namespace.make(run_dir)
    try:
        with pytest.raises(NetworkFailure, match=r"set up: .*Message too long"):
            await made.enforce(namespace.Plan({}, "#" * (64 << 20)))
    finally:
        await made.end()


async def test_what_keeps_a_namespace_has_no_connection_to_its_maker(run_dir):
    made = await namespace.Namespace.make(run_dir)
    try:
        await made._do("keep")
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(made.channel, 1) == b""
        assert made.keeper.is_alive()
    finally:
        await made.end()
