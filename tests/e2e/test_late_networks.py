"""Containers whose network is connected between `create` and `start`, as Docker does from 28 on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import engines
from tests.e2e.outside import outside
from tests.e2e.test_runtime_command import bundle, caller
from tests.e2e.test_stand_in import namespace

__all__ = ["bundle", "caller", "namespace"]  # the fixtures

pytestmark = [
    pytest.mark.only("qemu"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's bundles are not set up here"),
]
OUTSIDE, INSIDE, TARGET = "203.0.113.1", "203.0.113.5", "192.0.2.77"
_LINKS = f"""
link add vc-late type veth peer name eth0 netns {{namespace}}
addr add {OUTSIDE}/24 dev vc-late
link set vc-late up
"""
_INNER = f"""
link set lo up
link set eth0 address 02:00:00:00:00:42 mtu 1400
addr add {INSIDE}/24 dev eth0
link set eth0 up
route add default via {OUTSIDE}
"""


def _connect(namespace: str) -> None:
    """Moves an interface with an address and a route into a namespace, as Docker does."""
    process = namespace.split("/")[2]
    outer = _LINKS.format(namespace=process)
    subprocess.run(["ip", "-batch", "-"], input=outer, text=True, check=True)
    inner = ["nsenter", f"--net={namespace}", "ip", "-batch", "-"]
    subprocess.run(inner, input=_INNER, text=True, check=True)


def _links(namespace: str) -> set[str]:
    listed = engines.run("nsenter", f"--net={namespace}", "ip", "-json", "link").stdout
    return {one["ifname"] for one in json.loads(listed)}


@pytest.fixture(autouse=True)
def own_network() -> Iterator[None]:
    """This thread, "the host" of the test, is in a network namespace of its own."""
    with outside():
        yield


@pytest.fixture
def target() -> Iterator[None]:
    """An address of the host that a container reaches by its default route only."""
    subprocess.run(["ip", "addr", "add", f"{TARGET}/32", "dev", "lo"], check=True)
    yield
    subprocess.run(["ip", "addr", "del", f"{TARGET}/32", "dev", "lo"], check=True)


@pytest.mark.parametrize("caller", ["own", "generic"], indirect=True)
@pytest.mark.usefixtures("target")
def test_the_process_has_the_network_from_its_first_instruction(caller, bundle, host):
    look = f"ip -o -4 addr show dev eth0; cat /sys/class/net/eth0/mtu; nc {TARGET} 8099"
    made = caller.create(bundle("sh", "-c", f"{look}; exec httpd -f -h /bin -p 8080"), "c")
    namespace = f"/proc/{caller.pid('c')}/ns/net"
    assert Path(namespace).readlink() != Path("/proc/thread-self/ns/net").readlink()
    assert _links(namespace) == {"lo"}
    _connect(namespace)
    with socket.create_server((TARGET, 8099)) as server:
        server.settimeout(240)
        caller("start", "c")
        with server.accept()[0] as connection:
            assert connection.getpeername()[0] == INSIDE
            connection.sendall(b"answered\n")
    told = [made.stdout.readline().decode() for _ in range(3)]
    assert f"{INSIDE}/24" in told[0], told
    assert told[1:] == ["1400\n", "answered\n"]
    page = ("curl", "-s", "-m", "20", f"http://{INSIDE}:8080/sh")
    engines.wait_until(lambda: engines.run(*page, check=None).returncode == 0)
    caller("delete", "--force", "c")
    assert host.machines() == []
    gone = engines.run("ip", "link", "show", "vc-late", check=None)
    assert gone.returncode != 0, "it has gone with the namespace"


def test_a_namespace_that_stays_empty_is_a_container_without_a_network(caller, bundle):
    made = caller.create(bundle("ls", "/sys/class/net"), "c")
    caller("start", "c")
    assert made.stdout.read() == b"lo\n"


def test_an_interface_comes_into_the_namespace_of_somebody_else(caller, bundle, namespace, host):
    script = "cat /sys/class/net/eth0/address; exec httpd -f -h /bin -p 127.0.0.1:8080"
    made = caller.create(bundle("sh", "-c", script, network=namespace), "c")
    _connect(namespace)
    caller("start", "c")
    assert made.stdout.readline() == b"02:00:00:00:00:42\n"
    # Programs in the namespace reach the guest's loopback, as before.
    page = ("nsenter", f"--net={namespace}", "curl", "-s", "-m", "20", "127.0.0.1:8080/sh")
    engines.wait_until(lambda: engines.run(*page, check=None).returncode == 0)
    (pod,) = json.loads(host.vc("pod", "ls", "--json").stdout)
    status = json.loads(host.vc("pod", "status", pod["id"], "--json").stdout)
    assert status["is_connected"], status
    caller("delete", "--force", "c")
    assert _links(namespace) == {"lo", "eth0"}
    rules = engines.run("nsenter", f"--net={namespace}", "nft", "list", "ruleset").stdout
    redirected = engines.run("nsenter", f"--net={namespace}", "tc", "qdisc").stdout
    assert (rules, b"ingress" in redirected) == (b"", False)


def test_a_start_that_is_killed_can_be_repeated(caller, bundle):
    """It is killed when the tap is there, which then may be in the machine or not."""
    made = caller.create(bundle("cat", "/sys/class/net/eth0/address"), "c")
    namespace = f"/proc/{caller.pid('c')}/ns/net"
    _connect(namespace)
    watch = ["nsenter", f"--net={namespace}", "ip", "-oneline", "monitor", "link"]
    words = [caller.command, "--root", caller.folder / "root", "start", "c"]
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as monitor:
        try:
            with subprocess.Popen([*map(str, words)], stderr=subprocess.PIPE) as start:
                for line in monitor.stdout:
                    if "vctap0" in line and "LOWER_UP" in line:
                        start.send_signal(signal.SIGKILL)
                        break
                assert start.wait(60) == -signal.SIGKILL
        finally:
            monitor.kill()
    assert caller.state("c")["status"] == "created"
    caller("start", "c")
    assert made.stdout.read() == b"02:00:00:00:00:42\n"


def test_a_network_that_no_guest_can_have_stops_the_start(caller, bundle, host):
    caller.create(bundle("sleep", "1000"), "c")
    namespace = f"/proc/{caller.pid('c')}/ns/net"
    commands = "link add d0 type veth peer name d1\nlink set d1 up\nlink set d0 up\n"
    commands += "addr add 192.0.2.1/24 dev d0\nroute add default dev d0\n"
    enter = ["nsenter", f"--net={namespace}", "ip", "-batch", "-"]
    subprocess.run(enter, input=commands, text=True, check=True)
    refused = caller("start", "c", check=1).stderr
    assert b"the default route of d0 has no gateway" in refused
    assert caller.state("c")["status"] == "created"
    assert _links(namespace) == {"lo", "d0", "d1"}
    (pod,) = json.loads(host.vc("pod", "ls", "--json").stdout)
    status = json.loads(host.vc("pod", "status", pod["id"], "--json").stdout)
    assert "network" not in {one["family"] for one in status["config"]["plugins"]}
    caller("delete", "--force", "c")
    assert host.machines() == []
