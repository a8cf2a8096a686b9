"""Pods in networks of CNI, with Debian's plugins, in a network namespace of the test's own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.outside import HOST, MTU, outside

pytestmark = [
    pytest.mark.needs("nic"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has networks of CNI"),
]

WEB = "mkdir /tmp/w; cd /tmp/w; hostname > name; exec python3 -m http.server 80 --bind ::"
GET = ["curl", "-s", "-m", "20", "--retry", "30", "--retry-all-errors", "--retry-delay", "1"]


class Net:
    """A network that `vc network create` has made."""

    def __init__(self, host, folder: Path) -> None:
        self.host = host
        self.folder = folder
        # Networks of other tests have other names: dnsmasq's folder is the host's.
        self.name = f"t{uuid.uuid4().hex[:8]}"
        folder.chmod(0o755)
        host.configure("network.cni", config_dir=folder / "net.d", cache_dir=folder / "cache")
        self.vc = host.vc
        self.outside: list[str] = []  # before a command that is to run there

    def create(self, *options: str) -> None:
        self.vc("network", "create", *options, self.name)

    def write_list(
        self,
        version: str,
        kinds: tuple[str, ...] = ("bridge", "portmap", "firewall", "bandwidth"),
    ) -> None:
        """Writes a list by hand, with the pods' network 203.0.113.0/24."""
        ipam = {
            "type": "host-local",
            "dataDir": str(self.folder / "cache/networks"),
            "ranges": [[{"subnet": "203.0.113.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        keys = {
            "bridge": {"bridge": "br0", "isGateway": True, "ipMasq": True, "ipam": ipam},
            "portmap": {"capabilities": {"portMappings": True}, "snat": True},
            "firewall": {"backend": "iptables"},
            "bandwidth": {"capabilities": {"bandwidth": True}},
        }
        plugins = [{"type": kind, **keys[kind]} for kind in kinds]
        file = self.folder / "net.d" / f"{self.name}.conflist"
        file.parent.mkdir(mode=0o755)
        file.write_text(json.dumps({"cniVersion": version, "name": self.name, "plugins": plugins}))
        file.chmod(0o644)

    def run(self, name: str, script: str, *options: str) -> None:
        words = ("--network", self.name, *options, "--", "sh", "-c", script)
        self.vc("run", "-d", "--name", name, *words)

    def residue(self) -> list[str]:
        """What pods have left: namespaces, leases, results, rules, processes."""
        found = [str(path) for path in self.folder.glob("cache/results/*")]
        leases = self.folder.glob(f"cache/networks/{self.name}/*")
        found += [str(path) for path in leases if path.name[:4] not in ("last", "lock")]
        rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True)
        found += [line for line in rules.stdout.splitlines() if "203.0.113." in line]
        links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True)
        found += [line for line in links.stdout.splitlines() if line.startswith("veth")]
        names = Path("/run/virtcontainers-names")
        found += [str(path) for path in names.glob(f"{self.name}*")]
        return found


@pytest.fixture
def net(host):
    folder = Path(tempfile.mkdtemp(prefix="vc-cni-", dir="/dev/shm"))
    with outside(pages_on_host=True) as keeper:
        found = Net(host, folder)
        found.outside = ["nsenter", "--target", str(keeper), "--net", "--"]
        yield found
        assert found.residue() == []
    shutil.rmtree(folder)


@pytest.mark.parametrize("way", ["template", "cold"])
def test_a_network_without_ipv6_sees_none_of_a_pod(net, way):
    net.create("--subnet", "203.0.113.0/24")
    look = "cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip -o addr show dev eth0"
    done = net.vc("run", "--start", way, "--network", net.name, "--", "sh", "-c", look)
    first, *addresses = done.stdout.decode().splitlines()
    assert first == "1", "an interface with IPv6 sends messages of its own"
    assert [line.split()[2:4] for line in addresses] == [["inet", "203.0.113.2/24"]]
    net.vc("network", "rm", net.name)


def _get(url: str, before: Sequence[str] = ()) -> str:
    words = [*before, *GET, url]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_two_pods_find_each_other_reach_the_outside_and_serve_a_port(net):
    net.create("--subnet", "203.0.113.0/24", "--ipv6")
    net.run("web", WEB, "-p", "8080:80")
    client = f"for url in web/name 198.51.100.1 [2001:db8::1]; do {' '.join(GET)} http://$url; done"
    look = "ip -o -4 addr show dev eth0 | tr -s ' ' | cut -d' ' -f4; cat /sys/class/net/eth0/mtu"
    done = net.vc("run", "--network", net.name, "--", "sh", "-c", f"{look}; {client}")
    assert done.stdout.decode().split() == ["203.0.113.3/24", str(MTU), "web", "outsideoutside"]
    assert _get("http://127.0.0.1:8080/name") == "web"
    assert _get("http://203.0.113.2/name") == "web", "the host reaches the pod's address"
    status = net.vc("pod", "status", "web").stdout.decode()
    assert f"network: {net.name}\n" in status
    assert "does not work" not in status
    (listed,) = json.loads(net.vc("network", "ls", "--json").stdout)
    assert (listed["name"], listed["pods"], listed["is_own"]) == (net.name, ["web"], True)
    refused = net.vc("network", "rm", net.name, check=125)
    assert f"the network {net.name} is used by web" in refused.stderr.decode()
    taken = ("run", "--network", net.name, "-p", "8080:80", "--", "true")
    assert b"port 8080/tcp of 127.0.0.1 is taken by" in net.vc(*taken, check=125).stderr
    net.vc("pod", "stop", "web")
    assert net.residue() == []
    net.vc("pod", "start", "web")
    assert _get("http://127.0.0.1:8080/name") == "web"
    net.vc("pod", "delete", "--force", "web")
    net.vc("network", "rm", net.name)
    assert json.loads(net.vc("network", "ls", "--json").stdout) == []
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True)
    assert "vcb" not in links.stdout


def test_a_host_that_forwards_nothing_lets_pods_of_own_networks_through(net):
    for program in ("iptables", "ip6tables"):  # as Docker sets it
        subprocess.run([program, "--policy", "FORWARD", "DROP"], check=True)
    net.create("--subnet", "203.0.113.0/24", "--ipv6")
    net.run("web", WEB, "-p", f"{HOST}:8080:80")
    assert _get(f"http://{HOST}:8080/name", net.outside) == "web"
    for url in ("http://198.51.100.1", "http://[2001:db8::1]"):
        assert net.vc("exec", "web", "--", *GET, url).stdout == b"outside"
    net.vc("pod", "delete", "--force", "web")
    net.vc("network", "rm", net.name)
    for program in ("iptables", "ip6tables"):
        rules = subprocess.run([program, "-S", "FORWARD"], capture_output=True, check=True)
        assert rules.stdout == b"-P FORWARD DROP\n"


def test_an_internal_network_ends_at_the_host(net):
    net.create("--subnet", "203.0.113.0/24", "--internal")
    net.run("web", WEB)
    # The guest's root adds the route that the network does not give.
    ways = "ip route add default via 203.0.113.1; "
    urls = "198.51.100.1 203.0.113.1 198.51.100.2"
    probe = f"for a in {urls}; do curl -s -m 3 http://$a || echo none; done; "
    probe += f"{' '.join(GET)} web/name"
    words = ("--cap-add", "NET_ADMIN", "--", "sh", "-c", ways + probe)
    done = net.vc("run", "--network", net.name, *words)
    assert done.stdout.decode().split() == ["none", "none", "none", "web"]
    refused = net.vc("run", "--network", net.name, "-p", "80", "--", "true", check=125)
    assert b"publishes no ports" in refused.stderr
    net.vc("pod", "delete", "--force", "web")
    net.vc("network", "rm", net.name)


@pytest.mark.parametrize("victim", ["machine", "names", "reboot"])
def test_what_was_killed_leaves_nothing_after_the_next_call(net, victim):
    net.create("--subnet", "203.0.113.0/24")
    net.run("p", "sleep 999", "-p", "8080:80")
    (machine,) = net.host.machines()
    dnsmasq = int(Path(f"/run/virtcontainers-names/{net.name}/dnsmasq.pid").read_text())
    if victim == "names":
        os.kill(dnsmasq, signal.SIGKILL)
        assert b"does not work" in net.vc("pod", "status", "p").stdout
    else:
        os.kill(machine, signal.SIGKILL)
    if victim == "reboot":
        os.kill(dnsmasq, signal.SIGKILL)
        (result,) = (net.folder / "cache/results").iterdir()
        namespace = Path(json.loads(result.read_text())["netns"])
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["ip", "netns", "delete", namespace.name], check=True)
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        bridges = ["ip", "-json", "link", "show", "type", "bridge"]
        for link in json.loads(subprocess.check_output(bridges)):
            subprocess.run(["ip", "link", "delete", link["ifname"]], check=True)
        shutil.rmtree(net.host.folder / "run/pods/p/network")
        names = Path("/run/virtcontainers-names")
        shutil.rmtree(names / net.name)
        (names / f".{net.name}.lock").unlink()
    net.vc("pod", "delete", "--force", "p")
    assert net.residue() == []
    net.vc("run", "--network", net.name, "-p", "8080:80", "--", "true")


def test_a_client_that_was_killed_leaves_nothing_after_the_next_call(net):
    """At every file that CNI or the plugin writes, which is after each step."""
    net.create("--subnet", "203.0.113.0/24")
    results = net.folder / "cache/results"
    leases = net.folder / "cache/networks" / net.name
    steps = (
        lambda: any(results.glob("*")),
        lambda: any(leases.glob("203.*")),
        # A name with a dot in front is a file that is written, and renamed then.
        lambda: any(b'"ips"' in path.read_bytes() for path in results.glob("[!.]*")),
        lambda: any(net.host.folder.glob("run/pods/p/network/attached.json")),
    )
    for is_reached in steps:
        client = net.host.start(
            "run", "--name", "p", "--network", net.name, "-p", "8080:80", "--", "true"
        )
        while not is_reached():
            assert client.poll() is None, "it ended before this step"
        client.kill()
        client.wait()
        net.vc("pod", "delete", "--force", "p")
        assert net.residue() == []


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_a_list_of_another_program_gives_ports_and_rates(net, version):
    """As users of docker and podman have it: bridge, portmap, firewall, bandwidth."""
    net.write_list(version)
    net.run("web", WEB, "-p", "8080:80", "--rate-in", "1mbit")
    assert _get("http://127.0.0.1:8080/name") == "web"
    assert b"does not work" not in net.vc("pod", "status", "web").stdout
    probe = "curl -s -o /dev/null -w %{time_total} http://198.51.100.1/big"
    took = float(net.vc("exec", "web", "--", *probe.split()).stdout)
    assert took > 2, "it received 4 Mbit, 1 Mbit of them at once, faster than 1 Mbit a second"
    net.vc("pod", "delete", "--force", "web")
    assert net.residue() == []


def test_a_list_without_the_capability_refuses_rates_by_name(net):
    net.write_list("1.0.0", kinds=("bridge", "portmap"))
    words = ("run", "--network", net.name, "--rate-out", "1mbit", "--", "true")
    told = net.vc(*words, check=125).stderr.decode()
    assert f"the network {net.name} limits no rates: none of its plugins" in told
    refused = net.vc("run", "--network", net.name, "--allow", "a.test", "--", "true", check=125)
    assert b"cni enforces no allowed and denied destinations" in refused.stderr
