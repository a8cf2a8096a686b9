"""A network of the tests' own: a network namespace with an uplink to another one, "the outside"."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import re
import resource
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vc_network.cni.cache import container_of
from vc_network.cni.options import CniOptions
from vc_network.cni.plugin import CniNetwork

from vc_core.spec import NetworkRequest, PodRef, PortMapping, Reach

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_LINKS = """
link set lo up
link add up0 type veth peer name up1
link set up1 up
link set up0 up
addr add 198.51.100.2/24 dev up0
addr add 2001:db8::2/64 dev up0 nodad
route add default via 198.51.100.1
route add default via 2001:db8::1
"""


@pytest.fixture
def own_network() -> Iterator[None]:
    """This thread, and what it starts, is in a network namespace of its own that has default
    routes.
    """
    if os.geteuid() != 0:
        pytest.skip("only root makes a network namespace for a test")
    former = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert _LIBC.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            subprocess.run(["ip", "-batch", "-"], input=_LINKS, text=True, check=True)
            yield
        finally:
            assert _LIBC.setns(former, _CLONE_NEWNET) == 0
    finally:
        os.close(former)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The run folder of a pod."""
    folder = tmp_path / "pod"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def check_limits() -> Callable[..., None]:
    """A function that checks the limits of a helper of a network, which it cannot raise."""

    def check(pid: int, open_files: int) -> None:
        shown = Path(f"/proc/{pid}/limits").read_text()
        wanted = {
            "Max data size": (resource.RLIMIT_DATA, 256 << 20),
            "Max file size": (resource.RLIMIT_FSIZE, 1 << 20),
            "Max open files": (resource.RLIMIT_NOFILE, open_files),
            "Max core file size": (resource.RLIMIT_CORE, 0),
        }
        for name, (kind, most) in wanted.items():
            _, own = resource.getrlimit(kind)
            value = most if own == resource.RLIM_INFINITY else min(most, own)
            assert re.search(rf"{name} +{value} +{value} ", shown), shown

    return check


class Place:
    """Folders with a network of real plugins, in the test's own network namespace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.leases = folder / "leases"
        self.containers: list[str] = []
        self.pods: list[PodRef] = []
        # The folder of names is the host's: other tests use it, too.
        self.name = f"t{uuid.uuid4().hex[:8]}"
        self.file = folder / "net.d/10-test.conflist"
        self.file.parent.mkdir(mode=0o755)
        self.write(self.network())

    def network(self, **keys: object) -> dict[str, object]:
        """A list of Debian's plugins; `keys` change it."""
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": "203.0.113.0/24"}], [{"subnet": "2001:db8:7::/64"}]],
            "routes": [
                {"dst": "0.0.0.0/0"},
                {"dst": "::/0"},
                {"dst": "192.0.2.0/24", "gw": "203.0.113.1"},
            ],
            "dataDir": str(self.leases),
        }
        bridge = {"type": "bridge", "bridge": "br0", "isGateway": True, "ipMasq": True, "mtu": 1400}
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
        plugins = [{**bridge, "ipam": ipam}, portmap, {"type": "firewall", "backend": "iptables"}]
        return {"cniVersion": "1.0.0", "name": self.name, "plugins": plugins, **keys}

    def write(self, network: object) -> None:
        self.file.write_text(json.dumps(network))
        self.file.chmod(0o644)

    def options(self, **changes: object) -> CniOptions:
        return CniOptions(config_dir=self.file.parent, cache_dir=self.folder / "cache", **changes)

    def plugin(self) -> CniNetwork:
        return CniNetwork(self.options())

    def pod(self, name: str = "p") -> PodRef:
        run_dir = self.folder / name
        run_dir.mkdir(mode=0o700, exist_ok=True)
        pod = PodRef(id=name, run_dir=run_dir)
        self.containers.append(container_of(pod))
        self.pods.append(pod)
        return pod

    def request(self, *ports: PortMapping) -> NetworkRequest:
        return NetworkRequest(reach=Reach.FULL, name=self.name, ports=ports)

    def residue(self) -> list[str]:
        """What pods have left: leases, cached results, rules, namespaces, processes."""
        found = [
            str(path)
            for path in self.folder.glob("leases/*/*")
            if path.name[:4] not in ("last", "lock")
        ]
        found += [str(path) for path in (self.folder / "cache/results").glob("*")]
        rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True)
        found += [line for line in rules.stdout.splitlines() if "203.0.113." in line]
        found += [name for name in self.containers if Path(f"/run/netns/vc-{name}").exists()]
        found += [str(path) for path in Path("/run/virtcontainers-names").glob(f"{self.name}*")]
        links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True)
        return found + [line for line in links.stdout.splitlines() if "veth" in line]


@pytest.fixture
def place(tmp_path, own_network):
    missing = [name for name in ("bridge", "portmap") if not Path("/usr/lib/cni", name).exists()]
    if missing:
        pytest.fail("install the package containernetworking-plugins")
    tmp_path.chmod(0o755)
    found = Place(tmp_path)
    yield found
    for pod in found.pods:  # of a test that failed
        asyncio.run(found.plugin().network_disconnect(pod=pod))
