"""The plugin cni with lists of all versions, capabilities, STATUS and GC."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs
from vc_network.cni.cache import container_of
from vc_network.cni.locks import locked
from vc_network.cni.plugin import CniNetwork

from vc_core.spec import Dns, NetworkError, NetworkPolicy, NewNetwork, PortMapping

BANDWIDTH = {"type": "bandwidth", "capabilities": {"bandwidth": True, "dns": True}}
RATES = NetworkPolicy.of(rate_in="8mbit", rate_out="4mbit")

# Debian's plugins know CNI 1.0.0. What 1.1.0 adds is answered here; the rest is theirs.
_OF_1_1 = """#!{python}
import json, os, pathlib, subprocess, sys
folder, name = pathlib.Path(__file__).parent, pathlib.Path(__file__).name
command, config = os.environ["CNI_COMMAND"], json.load(sys.stdin)
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps([command, name, os.environ["CNI_CONTAINERID"], config]) + "\\n")
assert config["cniVersion"] == "1.1.0", config
if command == "STATUS" and (folder / "busy").exists():
    print(json.dumps({{"cniVersion": "1.1.0", "code": 50, "msg": "no address is free"}}))
    sys.exit(1)
if command not in ("STATUS", "GC"):
    config["cniVersion"] = "1.0.0"
    config.get("prevResult", {{}})["cniVersion"] = "1.0.0"
    words = ["/usr/lib/cni/" + name]
    done = subprocess.run(words, input=json.dumps(config), text=True, stdout=subprocess.PIPE)
    print(done.stdout.replace('"1.0.0"', '"1.1.0"'))
    sys.exit(done.returncode)
"""


class Newer:
    """Plugins of CNI 1.1.0 in a folder, which write down how they are called."""

    def __init__(self, place) -> None:
        self.place = place
        self.folder = place.folder / "bin"
        self.folder.mkdir(mode=0o755)
        for name in ("bridge", "portmap", "firewall", "bandwidth"):
            (self.folder / name).write_text(_OF_1_1.format(python=sys.executable))
            (self.folder / name).chmod(0o755)
        self.write()

    def write(self, **keys: object) -> None:
        network = self.place.network(cniVersion="1.1.0", **keys)
        network["plugins"].append(BANDWIDTH)
        self.place.write(network)

    def plugin(self) -> CniNetwork:
        folders = (self.folder, Path("/usr/lib/cni"))
        return CniNetwork(self.place.options(plugin_dirs=folders))

    def calls(self, *commands: str) -> list[tuple[str, str, str, dict[str, object]]]:
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [call for call in map(json.loads, lines) if call[0] in commands]


@pytest.fixture
def newer(place):
    return Newer(place)


def _close(network):
    for one in network.interfaces:
        os.close(one.nic.descriptor)


async def test_plugins_of_1_1_are_asked_for_their_status_before_add(newer, place):
    pod = place.pod()
    _close(await newer.plugin().network_connect(pod=pod, request=place.request()))
    first = newer.calls("STATUS", "ADD")
    assert [call[:3] for call in first[:4]] == [
        ["STATUS", name, ""] for name in ("bridge", "portmap", "firewall", "bandwidth")
    ]
    assert {call[0] for call in first[4:]} == {"ADD"}
    assert await newer.plugin().network_is_connected(pod=pod)
    await newer.plugin().network_disconnect(pod=pod)
    assert newer.calls("GC") == []
    assert place.residue() == []


async def test_a_network_that_is_not_ready_is_refused_before_add(newer, place):
    (newer.folder / "busy").touch()
    with pytest.raises(NetworkError, match=r"bridge refuses STATUS .*: no address is free"):
        await newer.plugin().network_connect(pod=place.pod(), request=place.request())
    assert newer.calls("ADD", "DEL") == []
    assert place.residue() == []


@pytest.mark.parametrize("is_disabled", [False, True])
async def test_what_lost_pods_have_left_goes_with_the_next_connect(newer, place, is_disabled):
    """A reboot, after which the records of a pod are lost: nobody ever disconnects it."""
    newer.write(disableGC=is_disabled)
    lost, new = place.pod("lost"), place.pod("new")
    _close(await newer.plugin().network_connect(pod=lost, request=place.request()))
    (cached,) = (place.folder / "cache/results").iterdir()
    theirs = {**json.loads(cached.read_text()), "containerId": "theirs", "ifName": "net1"}
    other_program = cached.with_name(f"{place.name}-theirs-net1")
    other_program.write_text(json.dumps(theirs))
    subprocess.run(["ip", "netns", "delete", f"vc-{container_of(lost)}"], check=True)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    shutil.rmtree(lost.run_dir)
    place.pods.remove(lost)
    _close(await newer.plugin().network_connect(pod=new, request=place.request()))
    assert {call[2] for call in newer.calls("DEL")} == {container_of(lost)}
    assert not (place.folder / f"leases/{place.name}/203.0.113.2").exists()
    collected = newer.calls("GC")
    assert len(collected) == (0 if is_disabled else 4)
    for _, _, container, config in collected:
        assert container == ""
        valid = config["cni.dev/valid-attachments"]
        assert valid == [{"containerID": "theirs", "ifname": "net1"}]
    await newer.plugin().network_disconnect(pod=new)
    assert other_program.exists()
    other_program.unlink()
    assert place.residue() == []


async def test_a_start_does_not_wait_for_the_removal_of_what_lost_pods_have_left(place):
    lost, new = place.pod("lost"), place.pod("new")
    _close(await place.plugin().network_connect(pod=lost, request=place.request()))
    subprocess.run(["ip", "netns", "delete", f"vc-{container_of(lost)}"], check=True)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    cached = place.folder / "cache/results" / f"{place.name}-{container_of(lost)}-eth0"
    async with await locked(place.folder / "cache/vc-calls.lock", exclusive=False):  # as ADD does
        _close(await place.plugin().network_connect(pod=new, request=place.request()))
        assert cached.exists()
    for pod in (new, lost):
        await place.plugin().network_disconnect(pod=pod)
    assert place.residue() == []


_OTHER_MOUNTS = """
import sys
from pathlib import Path
from vc_network.cni.cache import Cache
from vc_network.cni.collection import _gone

print(len(_gone(Cache(Path(sys.argv[1])), sys.argv[2])))
"""


async def test_a_process_with_a_folder_of_namespaces_of_its_own_takes_no_pod_for_gone(place):
    pod = place.pod()
    _close(await place.plugin().network_connect(pod=pod, request=place.request()))
    words = [sys.executable, "-c", _OTHER_MOUNTS, str(place.folder / "cache"), place.name]
    # Its first process is one whose folder it may look at, which the host's is not everywhere.
    script = 'unshare --mount sh -c "$0" sh "$@"; exit $?'
    inner = 'mount -t tmpfs none /run/netns && exec "$@"'
    enter = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script, inner]
    done = subprocess.run([*enter, *words], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
    await place.plugin().network_disconnect(pod=pod)
    assert place.residue() == []


async def test_a_network_whose_pods_are_lost_can_be_removed(place):
    place.file.unlink()
    wanted = NewNetwork(name=f"{place.name}-own", subnets=("203.0.113.0/24",))
    await place.plugin().network_create(wanted=wanted)
    lost = place.pod()
    request = structs.replace(place.request(), name=wanted.name)
    _close(await place.plugin().network_connect(pod=lost, request=request))
    subprocess.run(["ip", "netns", "delete", f"vc-{container_of(lost)}"], check=True)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    shutil.rmtree(lost.run_dir)
    place.pods.remove(lost)
    await place.plugin().network_remove(name=wanted.name)
    assert place.residue() == []


async def test_rates_and_dns_go_to_the_plugins_that_declare_them(newer, place):
    dns = Dns(servers=("192.0.2.53",), searches=("a.test",), options=("ndots:2",))
    request = structs.replace(place.request(), policy=RATES, dns=dns)
    pod = place.pod()
    _close(await newer.plugin().network_connect(pod=pod, request=request))
    given = {call[1]: call[3].get("runtimeConfig", {}) for call in newer.calls("ADD")}
    assert given["bridge"] == given["firewall"] == given["portmap"] == {}
    assert given["bandwidth"]["dns"] == {
        "servers": ["192.0.2.53"],
        "searches": ["a.test"],
        "options": ["ndots:2"],
    }
    limits = given["bandwidth"]["bandwidth"]
    assert (limits["ingressRate"], limits["egressRate"]) == (8_000_000, 4_000_000)
    shown = subprocess.run(["tc", "qdisc", "show"], capture_output=True, text=True, check=True)
    assert "rate 8Mbit burst 128Kb" in shown.stdout
    assert "rate 4Mbit burst 128Kb" in shown.stdout
    assert await newer.plugin().network_is_connected(pod=pod)
    await newer.plugin().network_disconnect(pod=pod)
    assert place.residue() == []


async def test_rates_are_refused_where_no_plugin_limits_them(place):
    request = structs.replace(place.request(), policy=RATES)
    with pytest.raises(NetworkError, match=r"limits no rates: none .* capability bandwidth"):
        await place.plugin().network_connect(pod=place.pod(), request=request)
    assert place.residue() == []


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
async def test_debians_bandwidth_without_a_limit_is_not_asked_to_check_it(place, version):
    """It crashes, so that such a network would be told not to work."""
    network = place.network(cniVersion=version)
    network["plugins"].append(BANDWIDTH)
    place.write(network)
    pod = place.pod()
    _close(await place.plugin().network_connect(pod=pod, request=place.request()))
    assert await place.plugin().network_is_connected(pod=pod)
    await place.plugin().network_disconnect(pod=pod)
    assert place.residue() == []


async def test_plugins_that_are_older_than_their_list_are_told_with_the_way_out(place, caplog):
    place.write(place.network(cniVersion="1.1.0"))
    way_out = "give the network a cniVersion that the plugin supports, or install a newer plugin"
    with pytest.raises(NetworkError, match=f"the CNI plugin bridge refuses .*; {way_out}"):
        await place.plugin().network_connect(pod=place.pod(), request=place.request())
    assert caplog.messages == []
    assert place.residue() == []


async def test_a_plugin_that_is_not_installed_is_told_before_another_one_is_called(place, caplog):
    network = place.network()
    network["plugins"].append({"type": "absent"})
    place.write(network)
    with pytest.raises(NetworkError, match=r"plugins that are not in .*: absent; install"):
        await place.plugin().network_connect(pod=place.pod(), request=place.request())
    assert caplog.messages == []
    assert place.residue() == []
    shown = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True)
    assert "br0" not in shown.stdout


async def test_a_single_plugin_in_a_conf_file_is_a_network(place):
    bridge = place.network()["plugins"][0]
    place.file.unlink()
    place.file = place.file.with_suffix(".conf")
    place.write({**bridge, "cniVersion": "1.0.0", "name": place.name})
    pod = place.pod()
    network = await place.plugin().network_connect(pod=pod, request=place.request())
    assert network.interfaces[0].guest.addresses[0] == "203.0.113.2/24"
    _close(network)
    request = place.request(PortMapping(guest_port=80))
    with pytest.raises(NetworkError, match="publishes no ports"):
        await place.plugin().network_connect(pod=place.pod("other"), request=request)
    await place.plugin().network_disconnect(pod=pod)
    assert place.residue() == []
