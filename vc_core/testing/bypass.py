"""The suite of network plugins that enforce a policy: a real guest tries to get around it."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from vc_core.defaults import Start
from vc_core.engine.api.pod import Pod
from vc_core.engine.api.runtime import Runtime
from vc_core.spec import (
    Capability,
    Dns,
    NetworkPolicy,
    NetworkRequest,
    PodOptions,
    PodRef,
    PortMapping,
    Reach,
)
from vc_core.testing.mocks import World
from vc_core.testing.rules import rule, wired

_GUEST_S = 300
_SNAPSHOT = "bypass"
_FIRST_PORT, _LAST_PORT = 4000, 4099
Arrival = tuple[str, str, int]
"""Address, protocol ("tcp", "udp" or a number) and port of a packet that has arrived outside."""


@dataclass(frozen=True)
class Outside:
    """What there is outside of the pod. The suite's author provides it, on this host.

    The servers good and evil, on IPv4 and IPv6, accept TCP connections on the ports 80, 443 and 853
    and answer datagrams on 443 and 5000. Both are DNS servers with the names good.test, evil.test,
    brief.test, rebound.deb.test (which has the private address) and all names below test. The host
    has the servers, too.

    Attributes:
        good: the addresses of good.test: IPv4, IPv6.
        evil: those of evil.test.
        brief: the address of brief.test, which has the ports of good.test.
        private: an address of 10.0.0.0/8 that has servers, too.
        host: addresses of this host, with its servers.
        arrived: returns what has arrived in the outside up to now.
        asked: returns the names that DNS servers outside were asked for up to now.
    """

    good: tuple[str, str]
    evil: tuple[str, str]
    brief: str
    private: str
    host: tuple[str, ...]
    arrived: Callable[[], frozenset[Arrival]]
    asked: Callable[[], frozenset[str]]


@dataclass(frozen=True)
class PolicySubject:
    """A network plugin under test, with a hypervisor and an agent.

    Attributes:
        runtime: opens a runtime whose pods with a network get the plugin.
        make: creates an object of the plugin.
        folder: an empty, private folder.
        outside: what the pod can and cannot reach.
        start: how the machine starts.
        is_fork: whether the attempts are made in a fork of the pod.
        is_restored: whether they are made in a pod that was restored from a snapshot of it.
    """

    runtime: Callable[[], Runtime]
    make: Callable[[], object]
    folder: Path
    outside: Outside
    start: Start = Start.AUTO
    is_fork: bool = False
    is_restored: bool = False


@dataclass(frozen=True)
class Attempt:
    """What the guest tries.

    Attributes:
        name: unique.
        way: a function of bypass_guest.
        arguments: of that function.
        is_allowed: whether it must succeed: else a network that is broken would pass.
        kind: the row of the table in the documentation.
    """

    kind: str
    name: str
    way: str
    arguments: tuple[Any, ...]
    is_allowed: bool = False


def policy_of(outside: Outside) -> NetworkPolicy:
    """Returns the policy that the attempts try to get around."""
    ports = f"{_FIRST_PORT}-{_LAST_PORT}/udp"
    return NetworkPolicy.of(
        allow=[
            *("good.test:443", "brief.test:443", "*.deb.test:443"),
            *(f"{outside.good[0]}:{ports}", f"[{outside.good[1]}]:{ports}"),
        ]
    )


def attempts(outside: Outside, router: str, siblings_port: PortMapping | None) -> Iterator[Attempt]:
    """Yields all attempts, in their order.

    Args:
        outside: the outside.
        router: address of the filter of names, as the guest sees it.
        siblings_port: a published port of another pod.
    """
    (good, good6), (evil, evil6), private = outside.good, outside.evil, outside.private

    def kind(text: str, *rows: tuple[Any, ...]) -> Iterator[Attempt]:
        for way, *arguments in rows:
            words = " ".join(str(word) for word in arguments)
            yield Attempt(text, f"{way} {words}", way, tuple(arguments))

    yield Attempt("allowed", "look up good.test", "lookup", ("good.test",), True)
    yield Attempt("allowed", "connect to good.test", "tcp", (good, 443), True)
    yield Attempt("allowed", "look up brief.test", "lookup", ("brief.test",), True)
    yield Attempt("allowed", "connect to brief.test", "tcp", (outside.brief, 443), True)
    yield from kind(
        "address literals",
        *(("tcp", evil, 443), ("tcp", good, 80), ("udp", evil, 5000), ("udp", good, 5000)),
    )
    yield from kind(
        "other names",
        *(("lookup", "evil.test"), ("lookup", "secret.evil.test"), ("lookup", "deb.test")),
        ("dns", router, ["x.deb", "test"], "udp"),
        ("dns", router, ["evil", "test"], "tcp"),
    )
    yield from kind(
        "other DNS servers",
        *(
            ("dns", one, ["evil", "test"], by)
            for one in (evil, good, evil6)
            for by in ("udp", "tcp")
        ),
    )
    yield from kind("DNS over TLS", ("tcp", evil, 853), ("tcp", good, 853))
    yield from kind("QUIC", ("udp", good, 443), ("udp", evil, 443), ("udp", good6, 443))
    yield from kind(
        "raw sockets and ICMP",
        *(("icmp", evil), ("icmp", good), ("raw", evil, 132), ("raw", good, 47)),
    )
    yield from kind("IPv6", ("tcp", evil6, 443), ("tcp", good6, 80), ("udp", evil6, 5000))
    yield from kind(
        "rebinding",
        *(("lookup", "rebound.deb.test"), ("tcp", private, 443), ("tcp", private, 80)),
    )
    yield from kind(
        "the host's services",
        *(("tcp", one, 80) for one in (*outside.host, router)),
        *(("vsock", 1024), ("frame", "tcp", "127.0.0.1", 80), ("frame", "tcp", "::1", 80)),
        ("frame", "udp", "127.0.0.1", 53),
    )
    if siblings_port is not None:
        yield from kind("a sibling", ("tcp", siblings_port.host_ip, siblings_port.host_port))
    yield Attempt("allowed", "a frame", "frame", ("udp", good, _FIRST_PORT), True)
    yield Attempt("allowed", "a frame of IPv6", "frame", ("udp", good6, _FIRST_PORT), True)
    yield from kind(
        "spoofed source address",
        *(("frame", "udp", good, 4001, "", one) for one in ("192.0.0.3", "10.9.8.7", evil)),
        ("frame", "udp", good6, 4002, "", "2001:db8::77"),
    )
    yield from kind(
        "spoofed MAC", ("frame", "udp", good, 4003, "mac"), ("frame", "udp", good6, 4004, "mac")
    )
    yield from kind(
        "fragments",
        *(("frame", "udp", evil, 4005, "fragments"), ("frame", "udp", good, 5000, "fragments")),
        *(("frame", "tcp", evil, 443, "fragments"), ("frame", "udp", evil6, 4006, "fragments")),
    )
    yield from kind(
        "IPv4 addresses in IPv6",
        ("tcp", f"::ffff:{evil}", 443),
        *(("frame", "udp", f"{prefix}{evil}", 4007) for prefix in ("::ffff:", "64:ff9b::", "::")),
    )
    yield from kind("an answer that has expired", ("expired", outside.brief, 443))


class PolicyContract:
    """The rules of network plugins that declare Capability.NETWORK_POLICY, on real machines.

    Subclass it and override the fixture `subject`.
    """

    @pytest.fixture
    def subject(self) -> PolicySubject:
        """The plugin under test, provided by its author."""
        raise NotImplementedError("give a fixture `subject` that returns a PolicySubject")

    @rule("network_connect", "Nothing that the guest does gets around them.")
    async def test_nothing_gets_around_the_policy(self, subject: PolicySubject) -> None:
        found = await open_ways(subject)
        assert not found, "the policy does not hold:\n" + "\n".join(found)


async def open_ways(subject: PolicySubject) -> list[str]:
    """Returns what a guest gets around the policy with, and what is refused although it is allowed.

    Raises:
        AssertionError: the guest does not run the attempts, or the denials are not listed.
    """
    outside = subject.outside
    program = resources.files("vc_core.testing").joinpath("bypass_guest.py").read_text()
    async with _sibling(subject) as port, subject.runtime() as runtime:
        pod_of = runtime.pod(
            start=subject.start,
            network=Reach.PUBLIC.value,
            policy=policy_of(outside),
            options=PodOptions(dns=Dns(servers=outside.good[:1])),
        )
        async with pod_of as parent, _tried(subject, runtime, parent) as pod:
            resolv = await pod.run("cat", "/etc/resolv.conf")
            router = resolv.stdout.decode().split("nameserver ")[1].split()[0]
            tried = list(attempts(outside, router, port))
            orders = json.dumps([[one.name, one.way, *one.arguments] for one in tried])
            done = await pod.run("python3", "-", orders, stdin=program, timeout_s=_GUEST_S)
            assert done.exit_code == 0, done.stderr.decode(errors="replace")
            denials = await pod.network_denials()
    answered = json.loads(done.stdout)
    found = [
        f"{one.kind}: {one.name}: {'refused' if one.is_allowed else 'answered'}"
        for one in tried
        if answered[one.name] is not one.is_allowed and one.way != "frame"
    ]
    found += [
        f"{one.kind}: {one.name}: answered"
        for one in tried
        if answered[one.name] and one.way == "frame" and not one.is_allowed
    ]
    found += _arrivals(outside, tried)
    listed = {(one.target, one.port) for one in denials}
    missing = {(outside.evil[0], 443), (outside.evil[1], 443), ("evil.test", 0)} - listed
    return [*found, *(f"not listed among the denials: {one}" for one in sorted(missing))]


def _arrivals(outside: Outside, tried: list[Attempt]) -> Iterator[str]:
    (good, good6), arrived = outside.good, outside.arrived()
    allowed = {(one, "tcp", 443) for one in (good, good6, outside.brief)}
    allowed |= {(good, "udp", 53), (good, "udp", _FIRST_PORT), (good6, "udp", _FIRST_PORT)}
    for one in sorted(arrived - allowed):
        address, protocol, port = one
        kinds = {
            row.kind
            for row in tried
            if address in row.arguments and (port in row.arguments or not port)
        }
        about = ", ".join(sorted(kinds)) or "unknown"
        yield f"arrived outside: {protocol} {address} {port} ({about})"
    for address in outside.good:
        if (address, "udp", _FIRST_PORT) not in arrived:
            yield f"allowed: a frame to {address}: did not arrive"
    names = {"good.test", "brief.test", "rebound.deb.test"}
    yield from (f"asked outside: {name}" for name in sorted(outside.asked() - names))


@asynccontextmanager
async def _tried(subject: PolicySubject, runtime: Runtime, pod: Pod) -> AsyncIterator[Pod]:
    """Provides the pod that makes the attempts."""
    if subject.is_restored:
        await pod.snapshot(_SNAPSHOT)
        try:
            async with _ended(await runtime.restore(_SNAPSHOT)) as restored:
                yield restored
        finally:
            await runtime.forks.snapshots.remove(_SNAPSHOT)
    elif subject.is_fork:
        (child,) = await pod.fork(1)
        async with _ended(child):
            yield child
    else:
        yield pod


@asynccontextmanager
async def _ended(pod: Pod) -> AsyncIterator[Pod]:
    try:
        yield pod
    finally:
        await pod.delete(force=True)
        await pod.close()


@asynccontextmanager
async def _sibling(subject: PolicySubject) -> AsyncIterator[PortMapping | None]:
    """Connects another pod whose port is published on an address of the host."""
    run_dir = subject.folder / "sibling"
    run_dir.mkdir(mode=0o700)
    pod = PodRef(id="sibling", run_dir=run_dir)
    network = wired(World(Path("/nowhere")), network=subject.make()).hooks
    if Capability.PORTS not in await network.network_capabilities(pod=pod):
        yield None
        return
    port = PortMapping(guest_port=80, host_ip=subject.outside.host[0])
    request = NetworkRequest(reach=Reach.FULL, ports=(port,))
    try:
        connected = await network.network_connect(pod=pod, request=request)
        for interface in connected.interfaces:
            os.close(interface.nic.descriptor)
        yield connected.ports[0]
    finally:
        await network.network_disconnect(pod=pod)
