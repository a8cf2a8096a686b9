"""Pods in a network namespace that somebody else has made: the guest takes over its interface."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest
from vc_network import netns

from tests.e2e.outside import outside
from vc_core.spec import TEMPLATE_MAC

pytestmark = [
    pytest.mark.needs("nic"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces for a test"),
]

_LINKS = """
link add veth0 type veth peer name eth0 netns {pid}
addr add 203.0.113.1/24 dev veth0
addr add 2001:db8:5::1/64 dev veth0 nodad
link set veth0 up
"""
_INNER = """
link set lo up
link set eth0 address 02:00:00:00:00:42 mtu 1400 up
addr add 203.0.113.5/24 dev eth0
addr add 2001:db8:5::5/64 dev eth0 nodad
route add default via 203.0.113.1
route add default via 2001:db8:5::1
route add 192.0.2.0/24 via 203.0.113.1
"""
_LOOK = """
ip -o link show eth0 | grep -o 'mtu 1400'; cat /sys/class/net/eth0/address
ip -o addr show dev eth0 scope global | tr -s ' ' | cut -d' ' -f4
ip route | grep -o '192.0.2.0/24 via 203.0.113.1'
for url in http://203.0.113.1/ http://[2001:db8:5::1]/ http://192.0.2.77/; do
    curl -s -m 20 $url; echo
done
ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:43; ip link set eth0 up
curl -s -m 3 http://203.0.113.1/ || echo none
"""
IPV4, ARP, ALL_PROTOCOLS = 0x0800, 0x0806, 3  # linux/if_ether.h
PROBE_S = 0.001


@pytest.fixture
def somebodys():
    """The path of a namespace with an interface to the tests' host, and the command to enter it."""
    with outside(pages_on_host=True):
        keeper = ["unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity"]
        with subprocess.Popen(keeper, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout.readline() == b"ready\n"
                path = f"/proc/{process.pid}/ns/net"
                outer = _LINKS.format(pid=process.pid) + "addr add 192.0.2.77/32 dev lo\n"
                subprocess.run(["ip", "-batch", "-"], input=outer, text=True, check=True)
                inner = ["nsenter", f"--net={path}", "ip", "-batch", "-"]
                subprocess.run(inner, input=_INNER, text=True, check=True)
                yield path
            finally:
                process.kill()


def test_the_guest_takes_over_the_interface_and_gives_it_back(host, somebodys):
    taps = ["nsenter", f"--net={somebodys}", "sh", "-c", "ip -br link; tc qdisc show dev eth0"]
    before = subprocess.run(taps, capture_output=True, check=True).stdout
    done = host.vc(
        "run", "--network", f"ns:{somebodys}", "--cap-add", "NET_ADMIN", "--", "sh", "-c", _LOOK
    )
    assert done.stdout.decode().split("\n") == [
        "mtu 1400",
        "02:00:00:00:00:42",
        "203.0.113.5/24",
        "2001:db8:5::5/64",
        "192.0.2.0/24 via 203.0.113.1",
        "outside",
        "outside",
        "outside",
        "none",
        "",
    ]
    assert subprocess.run(taps, capture_output=True, check=True).stdout == before


@contextlib.contextmanager
def _senders_in(namespace: str, wanted: str):
    """Collects the source MAC of every frame in a namespace until the end of the block, before any
    rule drops it. Meanwhile the host asks by ARP for an address, each PROBE_S.
    """
    found: set[str] = set()
    ended = threading.Event()

    def opened() -> socket.socket:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))

    def listen(asking: socket.socket, heard: socket.socket) -> None:
        own = asking.getsockname()[4]
        request = b"\xff" * 6 + own + struct.pack("!HHHBBH", ARP, 1, IPV4, 6, 4, 1)
        request += own + socket.inet_aton("203.0.113.1") + bytes(6) + socket.inet_aton(wanted)
        while not ended.wait(PROBE_S):
            asking.send(request)
            with contextlib.suppress(BlockingIOError):
                while True:
                    found.add(heard.recv(2048)[6:12].hex(":"))

    with (
        netns.opened(Path(namespace)) as descriptor,
        asyncio.run(netns.within(descriptor, opened)) as heard,
        opened() as asking,
    ):
        heard.setblocking(False)
        asking.bind(("veth0", 0))
        listener = threading.Thread(target=listen, args=(asking, heard))
        listener.start()
        try:
            yield found
        finally:
            ended.set()
            listener.join()


def test_a_clone_is_silent_until_it_has_its_own_addresses(host, somebodys):
    words = ("--start", "template", "--network", f"ns:{somebodys}", "--", "curl", "-s", "-m", "20")
    with _senders_in(somebodys, "203.0.113.5") as senders:
        done = host.vc("run", *words, "http://203.0.113.1/")
    assert done.stdout == b"outside"
    assert "02:00:00:00:00:42" in senders, "what the clone sends is seen"
    assert TEMPLATE_MAC not in senders


def test_a_namespace_without_an_interface_is_a_pod_without_one(host, somebodys):
    alone = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo ready; exec sleep infinity"]
    with subprocess.Popen(alone, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            words = ("--network", f"ns:/proc/{process.pid}/ns/net", "--", "ls", "/sys/class/net")
            assert host.vc("run", *words).stdout == b"lo\n"
        finally:
            process.kill()


def test_a_namespace_that_is_gone_is_named_and_keeps_no_pod_from_ending(host, somebodys):
    keeper = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo ready; exec sleep infinity"]
    with subprocess.Popen(keeper, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            words = ("--network", f"ns:/proc/{process.pid}/ns/net", "--", "sleep", "99")
            host.vc("run", "-d", "--name", "p", *words)
        finally:
            process.kill()
    assert b"it does not work" in host.vc("pod", "status", "p").stdout
    host.vc("pod", "stop", "--force", "p")
    refused = host.vc("pod", "start", "p", check=125)
    assert b"No such file or directory" in refused.stderr
    host.vc("pod", "delete", "p")
