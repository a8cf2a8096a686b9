"""The plugin pasta enforces a policy against real guests, and the suite sees when it does not."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import vc_network.plugin
from vc_network.plugin import PastaNetwork

from tests.e2e.conftest import new_host
from tests.e2e.outside import (
    BRIEF,
    EVIL,
    EVIL_V6,
    HOST,
    HOST_V6,
    PRIVATE,
    PUBLIC,
    PUBLIC_V6,
    Seen,
    outside,
)
from vc_core.defaults import Start
from vc_core.testing import Outside, PolicyContract, PolicySubject, open_ways

pytestmark = [
    pytest.mark.needs("nic"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces for a test"),
]


@pytest.fixture
def world(tmp_path):
    seen = Seen(tmp_path / "arrived")
    with outside(pages_on_host=True, file=seen.file):
        yield Outside(
            (PUBLIC, PUBLIC_V6),
            (EVIL, EVIL_V6),
            BRIEF,
            PRIVATE[0],
            (HOST, HOST_V6),
            seen.arrived,
            seen.asked,
        )


class TestPasta(PolicyContract):
    @pytest.fixture(params=["cold", "template", "fork", "restore"])
    def subject(self, request, world, host, tmp_path):
        is_copy = request.param in ("fork", "restore")
        return PolicySubject(
            host.runtime,
            PastaNetwork,
            tmp_path,
            world,
            Start.AUTO if is_copy else Start(request.param),
            is_fork=request.param == "fork",
            is_restored=request.param == "restore",
        )


class TestPastaOfThePool(PolicyContract):
    @pytest.fixture
    def subject(self, world, hypervisor, templates, tmp_path):
        folder = Path(tempfile.mkdtemp(prefix="vc-", dir="/dev/shm"))
        pooled = new_host(folder, hypervisor, templates)
        pooled.vc("pool", "start", "--size", "1")
        try:
            yield PolicySubject(pooled.runtime, PastaNetwork, tmp_path, world, Start.POOL)
        finally:
            pooled.vc("pool", "stop")
            shutil.rmtree(folder)


async def test_the_suite_sees_what_is_open(world, host, tmp_path, monkeypatch):
    """Without rules all ways are open but those that the host's kernel or pasta refuse, too."""
    real = vc_network.plugin.ruleset

    def lenient(*arguments):
        rules = real(*arguments)
        rules = rules.replace("policy drop", "policy accept").replace(" drop\n", " accept\n")
        return rules.replace("goto refuse", "accept").replace("reject with", "#")

    monkeypatch.setattr(vc_network.plugin, "ruleset", lenient)
    found = await open_ways(PolicySubject(host.runtime, PastaNetwork, tmp_path, world))
    text = "\n".join(found)
    for kind in (
        *("address literals", "other DNS servers", "DNS over TLS", "QUIC", "IPv6", "rebinding"),
        *("the host's services", "a sibling", "spoofed source address", "spoofed MAC"),
        *("fragments", "an answer that has expired", "IPv4 addresses in IPv6", "not listed"),
    ):
        assert kind in text, f"{kind}:\n{text}"
