"""What somebody reaches who has broken into the filter of names: from the pod's namespace."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import dns.message
import pytest
from vc_network import namespace
from vc_network.plugin import PastaNetwork

from tests.e2e.outside import (
    EVIL,
    EVIL_V6,
    HOST,
    PRIVATE,
    PRIVATE_V6,
    PUBLIC,
    PUBLIC_V6,
    Seen,
    outside,
)
from vc_core.spec import NetworkError, NetworkPolicy, NetworkRequest, PodRef, PortMapping, Reach

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root makes network namespaces for a test"
)
POLICY = NetworkPolicy.of(allow=["good.test:443"])
ROUTER = "192.0.0.1"
# Says for each address what the kernel or the server answers.
PROBE = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def tried(way):
    protocol, address, port = way
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as client:
        client.settimeout(60)
        try:
            client.connect((address, port))
            if protocol == "udp":
                client.send(bytes.fromhex(sys.argv[2]))
                client.recv(512)
            return "reached"
        except TimeoutError:
            return "silent"
        except OSError:
            return "refused"

ways = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(ways)) as pool:
    print(json.dumps(list(pool.map(tried, ways))))
"""


@pytest.fixture
def seen(tmp_path):
    found = Seen(tmp_path / "arrived")
    with outside(pages_on_host=True, file=found.file):
        yield found


@pytest.fixture
async def connect(run_dir):
    """Connects a pod; gives a function that tries destinations from its namespace."""
    plugin, pod = PastaNetwork(), PodRef(id="p", run_dir=run_dir)
    taps = []

    async def connected(request):
        made = await plugin.network_connect(pod=pod, request=request)
        taps.extend(one.nic.descriptor for one in made.interfaces)
        return lambda *ways: _tried(namespace.entering(namespace.keeper_of(run_dir)), ways)

    yield connected
    for tap in taps:  # as long as the machine would have it
        os.close(tap)
    await plugin.network_disconnect(pod=pod)


def _tried(enter, ways):
    question = dns.message.make_query("good.test", "A").to_wire().hex()
    words = [*enter, sys.executable, "-c", PROBE, json.dumps(ways), question]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return dict(zip(ways, json.loads(done.stdout), strict=True))


async def test_the_namespace_reaches_the_dns_servers_and_nothing_else(seen, connect):
    port = PortMapping(guest_port=80, host_ip=HOST)
    tried = await connect(
        NetworkRequest(reach=Reach.FULL, policy=POLICY, name_servers=(PUBLIC,), ports=(port,))
    )
    servers = [("udp", PUBLIC, 53), ("tcp", PUBLIC, 53), ("udp", ROUTER, 53), ("tcp", ROUTER, 53)]
    others = [
        *(("tcp", one, 80) for one in (*PRIVATE, *PRIVATE_V6, PUBLIC, PUBLIC_V6, EVIL, EVIL_V6)),
        *(("udp", one, 5000) for one in (PRIVATE[0], PRIVATE_V6[0], PUBLIC, PUBLIC_V6, EVIL)),
        *(("tcp", PUBLIC, 443), ("udp", PUBLIC, 443), ("udp", EVIL, 53), ("tcp", EVIL, 53)),
        *(("tcp", HOST, 80), ("udp", "192.0.0.5", 53)),
    ]
    answers = tried(*servers, *others)
    assert [answers[one] for one in servers] == ["reached"] * len(servers), answers
    assert {answers[one] for one in others} == {"refused"}, answers
    assert {one for one in seen.arrived() if one[1] in ("tcp", "udp")} == {
        (PUBLIC, "udp", 53),
        (PUBLIC, "tcp", 53),
    }


@pytest.mark.usefixtures("seen")
async def test_without_a_filter_of_names_the_namespace_reaches_nothing(connect):
    tried = await connect(NetworkRequest(reach=Reach.FULL))
    ways = [("tcp", PRIVATE[0], 80), ("tcp", PUBLIC, 53), ("udp", "192.0.0.5", 53)]
    assert set(tried(*ways).values()) == {"refused"}


@pytest.mark.usefixtures("seen")
async def test_a_dns_server_with_a_zone_is_refused(connect):
    request = NetworkRequest(reach=Reach.FULL, policy=POLICY, name_servers=("fe80::1%lo",))
    with pytest.raises(NetworkError, match="zone"):
        await connect(request)
