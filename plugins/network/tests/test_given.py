"""The plugin given keeps the contract, and leaves somebody else's namespace as it was."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs
from vc_network import loopback, netns
from vc_network.errors import NetworkFailure
from vc_network.given import GivenNetwork

from vc_core.driver_kit import process_namespace
from vc_core.spec import NetworkError, NetworkRequest, PodRef, Reach, Route
from vc_core.testing import NetworkContract, NetworkSubject

_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h
_LINKS = """
link set lo up
link add eth0 type veth peer name there
link set eth0 address 02:00:00:00:00:42 mtu 1400 up
link set there up
addr add 203.0.113.5/24 dev eth0
addr add 2001:db8:5::5/64 dev eth0 nodad
route add default via 203.0.113.1
route add default via 2001:db8:5::1
route add 192.0.2.0/24 via 203.0.113.9
route add 198.51.100.7/32 dev eth0
link add net1 type veth peer name there1
link set net1 up
addr add 203.0.113.200/32 dev net1
"""


@pytest.fixture
def somebodys():
    """The path of a namespace with two interfaces that are connected, and their peers."""
    if os.geteuid() != 0:
        pytest.skip("only root makes a network namespace for a test")
    keeper = ["unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity"]
    with subprocess.Popen(keeper, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            command = ["nsenter", f"--net=/proc/{process.pid}/ns/net", "ip", "-batch", "-"]
            # The peers are in another namespace.
            with subprocess.Popen(keeper, stdout=subprocess.PIPE) as other:
                try:
                    assert other.stdout.readline() == b"ready\n"
                    moved = "".join(
                        f"link set {name} netns {other.pid}\n" for name in ("there", "there1")
                    )
                    up = "link set there up\nlink set there1 up\n"
                    subprocess.run(command, input=_LINKS + moved, text=True, check=True)
                    peers = ["nsenter", f"--net=/proc/{other.pid}/ns/net", "ip", "-batch", "-"]
                    subprocess.run(peers, input=up, text=True, check=True)
                    path = Path(f"/proc/{process.pid}/ns/net")
                    while "NO-CARRIER" in _shown(path):  # the kernel tells of it a moment later
                        os.sched_yield()
                    yield Path(f"/proc/{process.pid}/ns/net")
                finally:
                    other.kill()
        finally:
            process.kill()


def _shown(path: Path) -> str:
    script = "ip address; ip route; ip -6 route; tc qdisc; tc filter show dev eth0 parent ffff:"
    command = ["nsenter", f"--net={path}", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "\n".join(line for line in done.stdout.splitlines() if "valid_lft" not in line)


def _request(path: Path) -> NetworkRequest:
    return NetworkRequest(reach=Reach.FULL, name=str(path))


class TestGiven(NetworkContract):
    @pytest.fixture
    def subject(self, tmp_path, somebodys):
        return NetworkSubject(GivenNetwork, tmp_path, plain=_request(somebodys))


async def test_the_guest_gets_what_the_namespace_has(run_dir, somebodys):
    plugin, pod = GivenNetwork(), PodRef(id="p", run_dir=run_dir)
    before = _shown(somebodys)
    network = await plugin.network_connect(pod=pod, request=_request(somebodys))
    first, second = network.interfaces
    assert (first.guest.mac, first.guest.mtu) == ("02:00:00:00:00:42", 1400)
    assert first.guest.addresses == ("203.0.113.5/24", "2001:db8:5::5/64")
    assert first.guest.gateways == ("203.0.113.1", "2001:db8:5::1")
    assert set(first.guest.routes) == {
        Route(destination="192.0.2.0/24", gateway="203.0.113.9"),
        Route(destination="198.51.100.7/32"),
    }
    assert second.guest.addresses == ("203.0.113.200/32",)
    assert second.guest.gateways == ()
    assert await plugin.network_is_connected(pod=pod)
    for one in network.interfaces:
        os.close(one.nic.descriptor)
    await plugin.network_disconnect(pod=pod)
    assert _shown(somebodys) == before


async def test_a_machine_that_is_connected_anew_keeps_its_listener_and_loses_its_old_taps(
    run_dir, somebodys
):
    """What a call leaves that was killed after it had plugged an interface."""
    plugin, pod = GivenNetwork(), PodRef(id="p", run_dir=run_dir)
    first = await plugin.network_connect(pod=pod, request=_request(somebodys))
    with socket.socket(fileno=await plugin.network_take_loopback(pod=pod)) as listener:
        second = await plugin.network_connect(pod=pod, request=_request(somebodys))
        links = _links(somebodys)
        aside = [name for name in links if name.startswith("vctap-")]
        assert (len(aside), {"vctap0", "vctap1"} <= {*links}) == (2, True), links
        assert not any("UP" in links[name] for name in aside)
        assert await plugin.network_is_connected(pod=pod)
        with netns.opened(somebodys) as descriptor:
            client = await netns.within(
                descriptor, lambda: socket.create_connection(("127.0.0.1", 8080), timeout=20)
            )
        listener.accept()[0].close()
        client.close()
    for one in (*first.interfaces, *second.interfaces):
        os.close(one.nic.descriptor)
    await plugin.network_disconnect(pod=pod)
    assert {*_links(somebodys)} == {"lo", "eth0", "net1"}
    rules = ["nsenter", f"--net={somebodys}", "nft", "list", "ruleset"]
    assert subprocess.run(rules, capture_output=True, check=True).stdout == b""


def _links(path: Path) -> dict[str, list[str]]:
    """Returns the flags of the interfaces by name, without tunnels that the kernel makes itself."""
    command = ["nsenter", f"--net={path}", "ip", "-json", "link"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    known = ("ether", "loopback")
    return {one["ifname"]: one["flags"] for one in listed if one["link_type"] in known}


async def test_the_namespaces_loopback_is_taken_and_given_back(run_dir, somebodys):
    plugin, pod = GivenNetwork(), PodRef(id="p", run_dir=run_dir)
    with pytest.raises(NetworkError, match="the pod is in no network namespace"):
        await plugin.network_take_loopback(pod=pod)
    network = await plugin.network_connect(pod=pod, request=_request(somebodys))
    with socket.socket(fileno=await plugin.network_take_loopback(pod=pod)) as listener:
        with netns.opened(somebodys) as descriptor:
            client = await netns.within(
                descriptor, lambda: socket.create_connection(("127.5.0.1", 8080), timeout=20)
            )
        accepted, _ = listener.accept()
        meant_for = accepted.getsockopt(socket.SOL_IP, _ORIGINAL_DST, 16)
        assert struct.unpack("!2xH4s", meant_for[:8]) == (8080, bytes((127, 5, 0, 1)))
        accepted.close()
        client.close()
    for one in network.interfaces:
        os.close(one.nic.descriptor)
    await plugin.network_disconnect(pod=pod)
    rules = ["nsenter", f"--net={somebodys}", "nft", "list", "ruleset"]
    assert subprocess.run(rules, capture_output=True, check=True).stdout == b""


async def test_without_nft_a_pod_is_removed_all_the_same(run_dir, somebodys, monkeypatch, caplog):
    plugin, pod = GivenNetwork(), PodRef(id="p", run_dir=run_dir)
    before = _shown(somebodys)
    network = await plugin.network_connect(pod=pod, request=_request(somebodys))
    for one in network.interfaces:
        os.close(one.nic.descriptor)

    def missing(*_: object, **__: object) -> str:
        raise NetworkFailure("nft is not installed")

    monkeypatch.setattr(loopback, "run", missing)
    with pytest.raises(NetworkError, match="nft is not installed"):
        await plugin.network_take_loopback(pod=pod)
    await plugin.network_disconnect(pod=pod)
    assert "nft is not installed" in caplog.text
    assert _shown(somebodys) == before


async def test_a_second_machine_does_not_get_it_and_disturbs_nothing(tmp_path, somebodys):
    pods = [PodRef(id=name, run_dir=tmp_path / name) for name in "pq"]
    plugin = GivenNetwork()
    network = await plugin.network_connect(pod=pods[0], request=_request(somebodys))
    with pytest.raises(NetworkError, match="another machine uses it"):
        await plugin.network_connect(pod=pods[1], request=_request(somebodys))
    await plugin.network_disconnect(pod=pods[1])
    assert await plugin.network_is_connected(pod=pods[0])
    for one in network.interfaces:
        os.close(one.nic.descriptor)
    await plugin.network_disconnect(pod=pods[0])


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/nowhere/ns", "the network namespace /nowhere/ns: No such file"),
        ("/etc/hostname", "/etc/hostname is no network namespace"),
        ("/proc/self/ns/mnt", "is no network namespace"),
        ("/proc/self/ns/net", "is the host's own network namespace"),
    ],
)
async def test_what_is_no_namespace_for_a_machine_is_refused(run_dir, path, told):
    pod = PodRef(id="p", run_dir=run_dir)
    with pytest.raises(NetworkError, match=told):
        await GivenNetwork().network_connect(pod=pod, request=_request(Path(path)))
    assert not (run_dir / "network").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="somebody else's namespace")
async def test_an_ordinary_user_is_told_of_pasta(tmp_path, somebodys):
    script = (
        "import asyncio, os, pathlib\n"
        "from vc_network.netns import opened, within\n"
        f"with opened(pathlib.Path('{somebodys}')) as descriptor:\n"
        "    os.setresuid(65533, 65533, 65533)\n"
        "    try: asyncio.run(within(descriptor, lambda: 0))\n"
        "    except Exception as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "--network public" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a network namespace for a test")
def test_a_namespace_that_the_process_has_made_is_not_the_hosts():
    # Of a child: the first thread cannot come back without its former namespace.
    script = """
import ctypes, os, threading
from vc_network import netns

def look():
    entered.wait()
    for name in ("self", "thread-self"):
        descriptor = os.open(f"/proc/{name}/ns/net", os.O_RDONLY)
        print(name, netns.is_hosts(descriptor))

entered = threading.Event()
thread = threading.Thread(target=look)
thread.start()
assert ctypes.CDLL(None).unshare(0x40000000) == 0
entered.set()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"self False\nthread-self True\n"


async def test_the_namespace_of_another_process_with_the_same_pid_is_refused(run_dir, somebodys):
    plugin, pod = GivenNetwork(), PodRef(id="p", run_dir=run_dir)
    before = _shown(somebodys)
    same = process_namespace(str(somebodys), somebodys.stat())
    ticks, _, inode = same.partition(":")
    for other in (f"{int(ticks) - 1}:{inode}", f"{same}1"):
        asked = structs.replace(_request(somebodys), namespace=other)
        with pytest.raises(NetworkError, match="another network namespace than when the pod was"):
            await plugin.network_connect(pod=pod, request=asked)
    assert _shown(somebodys) == before
    asked = structs.replace(_request(somebodys), namespace=same)
    for one in (await plugin.network_connect(pod=pod, request=asked)).interfaces:
        os.close(one.nic.descriptor)
    await plugin.network_disconnect(pod=pod)
