"""The plugin cni keeps the contract with real plugins of CNI, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from vc_network.cni import configuration
from vc_network.cni.cache import Cache, container_of
from vc_network.cni.plugin import CniNetwork
from vc_network.errors import NetworkFailure

from vc_core.driver_kit import HostProcess
from vc_core.spec import NetworkError, NetworkRequest, NewNetwork, PortMapping, Reach
from vc_core.testing import NetworkContract, NetworkSubject

WEB = PortMapping(guest_port=80, host_port=18080)


def _is_redirected(port: PortMapping) -> bool:
    """portmap leads the port to the guest by a rule: without a guest, nobody accepts."""
    done = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True)
    return f"--dport {port.host_port} -j DNAT" in done.stdout


def _close(network):
    for one in network.interfaces:
        os.close(one.nic.descriptor)


class TestCni(NetworkContract):
    @pytest.fixture
    def subject(self, place, tmp_path):
        return NetworkSubject(place.plugin, tmp_path, _is_redirected, place.request())


async def test_the_guest_gets_what_cni_gave_and_all_of_it_goes(place):
    plugin, pod = place.plugin(), place.pod()
    network = await plugin.network_connect(pod=pod, request=place.request(WEB))
    (one,) = network.interfaces
    assert one.guest.addresses == ("203.0.113.2/24", "2001:db8:7::2/64")
    assert one.guest.gateways == ("203.0.113.1", "2001:db8:7::1")
    assert [route.destination for route in one.guest.routes] == ["192.0.2.0/24"]
    assert (one.guest.mtu, one.guest.name_servers) == (1400, ("203.0.113.1", "2001:db8:7::1"))
    _close(network)
    cached = json.loads(
        (place.folder / f"cache/results/{place.name}-{container_of(pod)}-eth0").read_text()
    )
    assert (cached["kind"], cached["networkName"]) == ("cniCacheV1", place.name)
    assert cached["capabilityArgs"]["portMappings"][0]["hostPort"] == WEB.host_port
    assert await plugin.network_is_connected(pod=pod)
    await place.plugin().network_disconnect(pod=pod)
    assert place.residue() == []


async def test_pods_find_each_other_by_name(place):
    plugin = place.plugin()
    pods = [place.pod(name) for name in ("web", "db")]
    networks = [await plugin.network_connect(pod=pod, request=place.request()) for pod in pods]
    found = _answer(b"web", 28), _answer(b"db", 1)
    assert found == (
        [socket.inet_pton(socket.AF_INET6, "2001:db8:7::2")],
        [socket.inet_aton("203.0.113.3")],
    )
    await plugin.network_disconnect(pod=pods[0])
    assert _answer(b"web", 1) == []
    await plugin.network_disconnect(pod=pods[1])
    for network in networks:
        _close(network)
    assert place.residue() == []


@pytest.mark.parametrize("is_last", [False, True])
async def test_a_dnsmasq_without_its_pid_file_is_found_and_ended(place, is_last, check_limits):
    """As when its starter, and perhaps it itself, was killed before the file was written."""
    plugin, (web, db) = place.plugin(), [place.pod(name) for name in ("web", "db")]
    _close(await plugin.network_connect(pod=web, request=place.request()))
    (file,) = Path("/run/virtcontainers-names", place.name).glob("*.pid")
    lost = HostProcess.of(int(file.read_text()))
    check_limits(lost.pid, open_files=1024)
    file.unlink()
    if not is_last:
        _close(await plugin.network_connect(pod=db, request=place.request()))
        assert not lost.is_alive()
        assert _answer(b"db", 1) == [socket.inet_aton("203.0.113.3")]
        await plugin.network_disconnect(pod=db)
    await plugin.network_disconnect(pod=web)
    assert not lost.is_alive()
    assert place.residue() == []


def _answer(name: bytes, kind: int) -> list[bytes]:
    """Asks the network's name server for addresses (RFC 1035, section 4)."""
    question = b"\0\1\1\0\0\1\0\0\0\0\0\0" + bytes([len(name)]) + name + b"\0"
    question += kind.to_bytes(2) + b"\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.sendto(question, ("203.0.113.1", 53))
        answer = client.recv(512)
    rest, found = answer[len(question) :], []
    for _ in range(int.from_bytes(answer[6:8])):
        size = int.from_bytes(rest[10:12])
        found.append(rest[12 : 12 + size])
        rest = rest[12 + size :]
    return found


@pytest.mark.parametrize("damage", ["reboot", "cache", "run folder", "both"])
async def test_what_was_lost_keeps_nothing_from_being_removed(place, damage):
    """After a reboot namespaces, rules and the run folder are gone; a full disk cuts files off."""
    pod = place.pod()
    network = await place.plugin().network_connect(pod=pod, request=place.request(WEB))
    _close(network)
    own, cache = pod.run_dir / "network/results", place.folder / "cache/results"
    if damage == "reboot":
        subprocess.run(["ip", "netns", "delete", f"vc-{container_of(pod)}"], check=True)
        subprocess.run(["nft", "flush", "ruleset"], check=True)
    if damage in ("run folder", "reboot"):
        shutil.rmtree(pod.run_dir)
    for folder in (cache, own) if damage == "both" else (cache,) if damage == "cache" else ():
        next(folder.iterdir()).write_text('{"kind": "cniCa')
    assert await place.plugin().network_is_connected(pod=pod) is False
    await place.plugin().network_disconnect(pod=pod)
    assert place.residue() == []


async def test_files_of_a_caller_that_was_killed_while_it_wrote_go(place):
    pod = place.pod()
    results = place.folder / "cache/results"
    results.mkdir(parents=True)
    (results / f".{place.name}-{container_of(pod)}-eth0").write_text('{"kind"')
    await place.plugin().network_disconnect(pod=pod)
    assert place.residue() == []
    unfinished = place.folder / "net.d/vc-other.half"
    unfinished.touch()
    await place.plugin().network_create(wanted=NewNetwork(name=f"{place.name}-x"))
    assert not unfinished.exists()
    await place.plugin().network_remove(name=f"{place.name}-x")


async def test_a_chain_that_fails_leaves_nothing(place):
    broken = place.network()
    broken["plugins"].append({"type": "bandwidth", "ingressRate": -1, "ingressBurst": 1})
    place.write(broken)
    with pytest.raises(NetworkError, match="the CNI plugin bandwidth refuses ADD") as told:
        await place.plugin().network_connect(pod=place.pod(), request=place.request(WEB))
    assert "\n" not in str(told.value)
    assert place.residue() == []


async def test_a_pod_that_cannot_be_removed_says_how_to_give_up(place):
    pod = place.pod()
    network = await place.plugin().network_connect(pod=pod, request=place.request())
    _close(network)
    lost = CniNetwork(place.options(plugin_dirs=(place.folder,)))
    with pytest.raises(NetworkError, match=r"there is no CNI plugin .* remove /") as told:
        await lost.network_disconnect(pod=pod)
    Path(str(told.value).rpartition(" remove ")[2]).read_text()
    await place.plugin().network_disconnect(pod=pod)
    assert place.residue() == []


async def test_a_check_that_fails_is_told(place):
    pod = place.pod()
    plugin = place.plugin()
    network = await plugin.network_connect(pod=pod, request=place.request(WEB))
    _close(network)
    assert await plugin.network_is_connected(pod=pod)
    inside = ["ip", "-n", f"vc-{container_of(pod)}"]
    subprocess.run([*inside, "address", "del", "203.0.113.2/24", "dev", "eth0"], check=True)
    assert not await plugin.network_is_connected(pod=pod)
    await plugin.network_disconnect(pod=pod)


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
async def test_lists_of_all_versions_that_the_plugins_know_work(place, version):
    place.write(place.network(cniVersion=version))
    pod = place.pod()
    network = await place.plugin().network_connect(pod=pod, request=place.request())
    _close(network)
    assert await place.plugin().network_is_connected(pod=pod)
    await place.plugin().network_disconnect(pod=pod)
    assert place.residue() == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON"),
        ("[]", "it must be an object"),
        ('{"name": "x", "cniVersion": "1.0.0", "plugins": []}', "plugins must be a list"),
        ('{"name": "x", "cniVersion": "1.0.0", "type": "../sh"}', "not the name of a plugin"),
        ('{"name": "../x", "cniVersion": "1.0.0", "type": "bridge"}', "name '../x' is not"),
        ('{"name": "x", "cniVersion": "0.3.1", "type": "bridge"}', "cniVersion 0.3.1 is not"),
        ('{"name": "x", "cniVersion": "2.0.0", "type": "bridge"}', "cniVersion 2.0.0 is not"),
    ],
)
def test_a_file_that_is_no_network_is_named(tmp_path, text, told):
    file = tmp_path / "10-x.conflist"
    file.write_text(text)
    with pytest.raises(NetworkFailure, match=told):
        configuration.load(file)


def test_of_several_versions_the_newest_known_one_is_used():
    text = '{"name": "x", "cniVersion": "0.4.0", "cniVersions": ["1.1.0", "9.0.0"], "type": "a"}'
    assert configuration.parse(text).version == "1.1.0"


def test_other_users_write_no_network(tmp_path):
    file = tmp_path / "10-x.conflist"
    file.write_text('{"name": "x", "cniVersion": "1.0.0", "type": "bridge"}')
    file.chmod(0o666)
    with pytest.raises(NetworkFailure, match=r"is not used: .*write"):
        configuration.load(file)


async def test_a_network_that_is_not_there_is_named_with_those_that_are(place):
    request = NetworkRequest(reach=Reach.FULL, name="other")
    with pytest.raises(NetworkError, match=f"no network other in .*; there are: {place.name};"):
        await place.plugin().network_connect(pod=place.pod(), request=request)


def test_the_cache_survives_a_writer_that_is_killed(tmp_path):
    cache = Cache(tmp_path)
    cache.folder.mkdir()
    (cache.folder / ".net-c-eth0").write_text("{")
    assert cache.networks_of("c") == ()
    assert list(cache.all()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="this is an ordinary user")
@pytest.mark.parametrize("call", ["network_connect", "network_create", "network_remove"])
def test_an_ordinary_user_is_told_of_pasta_and_ends_pods_all_the_same(tmp_path, call):
    arguments = {
        "network_connect": "pod=pod, request=NetworkRequest(reach=Reach.FULL, name='x')",
        "network_create": "wanted=NewNetwork(name='x')",
        "network_remove": "name='x'",
    }
    script = f"""
import asyncio, os, pathlib
from vc_network.cni.plugin import CniNetwork
from vc_network.cni.options import CniOptions
from vc_core.spec import NetworkRequest, NewNetwork, PodRef, Reach
os.setresuid(65533, 65533, 65533)
pod, plugin = PodRef(id="p", run_dir=pathlib.Path("/nowhere/p")), CniNetwork(CniOptions())
try:
    asyncio.run(plugin.{call}({arguments[call]}))
except Exception as error:
    print(type(error).__name__, error)
asyncio.run(plugin.network_disconnect(pod=pod))
print(len(asyncio.run(plugin.network_diagnose())) > 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/"
    )
    told, diagnosed = done.stdout.splitlines()
    assert told.startswith("NetworkError networks of CNI are for root only; the plugin pasta")
    assert diagnosed == "True"


async def test_what_other_programs_have_in_the_cache_is_respected_or_passed_over(place):
    results = place.folder / "cache/results"
    results.mkdir(parents=True)
    other = {"kind": "cniCacheV1", "containerId": "c", "networkName": "n", "ifName": "eth0"}
    other |= {"config": "", "result": {"cniVersion": "1.0.0"}}
    taken = {"portMappings": [{"hostPort": 18080, "containerPort": 1, "protocol": "TCP"}]}
    for name, capabilities in (
        ("a", {"portMappings": [{"hostPort": "x"}, 7, {}]}),
        ("b", {"portMappings": 7}),
        ("c", taken),
    ):
        text = json.dumps({**other, "capabilityArgs": capabilities})
        (results / f"{name}-c-eth0").write_text(text)
    with pytest.raises(NetworkError, match=r"port 18080/tcp .* is taken by the container c of CNI"):
        await place.plugin().network_connect(pod=place.pod(), request=place.request(WEB))
    assert len([*results.iterdir()]) == 3
    shutil.rmtree(results)
    assert place.residue() == []


async def test_a_name_server_that_is_no_address_is_told(place):
    network = place.network()
    network["plugins"][0]["dns"] = {"nameservers": ["resolver.example"]}
    place.write(network)
    with pytest.raises(NetworkError, match="has a name server that is no address"):
        await place.plugin().network_connect(pod=place.pod(), request=place.request())
    assert place.residue() == []
