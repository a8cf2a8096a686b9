"""The filter of names, with a real DNS server and real rules, and with hostile questions."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys

import dns.flags
import dns.message
import dns.rcode
import pytest
from vc_network import denied_names, names
from vc_network.denied_names import DeniedNames
from vc_network.ruleset import TABLE, Link, opened, ruleset

from vc_core.spec import NetworkPolicy, NetworkRule, Reach

POLICY = NetworkPolicy.of(
    allow=["good.test:443", "*.deb.test", "198.51.100.7:53/udp"], deny=["bad.deb.test"]
)
GOOD = ("203.0.113.1", "203.0.113.2", "10.1.2.3")


@pytest.fixture
def server(own_network, tmp_path):
    """A DNS server that knows good.test and everything below deb.test, and logs questions."""
    log = tmp_path / "dnsmasq.log"
    command = ["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--user=root"]
    command += ["--listen-address=127.0.0.1", "--bind-interfaces", "--local-ttl=20"]
    command += ["--log-queries", f"--log-facility={log}", "--pid-file="]
    command += [f"--address=/good.test/{one}" for one in GOOD]
    command += [f"--address=/many.deb.test/2001:db8::{one:x}" for one in range(1, 30)]
    command += ["--address=/deb.test/203.0.113.9", "--address=/rebound.deb.test/169.254.169.254"]
    with subprocess.Popen(command) as process:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(0.2)
                for _ in range(300):
                    client.sendto(
                        dns.message.make_query("x.test", "A").to_wire(), ("127.0.0.1", 53)
                    )
                    try:
                        client.recv(512)
                        break
                    except OSError:
                        assert process.poll() is None
            yield log
        finally:
            process.kill()


@pytest.fixture
def orders(server, tmp_path):
    """What the filter gets; its rules are in force in the namespace of the test."""
    rules = ruleset(Reach.PUBLIC, POLICY, Link(families=()))
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    openings = tuple(
        names.Opening(rule, {str(v): opened(number, v) for v in (4, 6)})
        for number, rule in enumerate(POLICY.allow[:2])
    )
    private = ("10.0.0.0/8", "169.254.0.0/16")
    nft, record = shutil.which("nft"), str(tmp_path / "names.json")
    return names.Orders(
        (), ("127.0.0.1",), openings, (NetworkRule.of("bad.deb.test"),), private, nft, record
    )


async def ask(found, name, kind="A", limit=512):
    answer = await found.answer(dns.message.make_query(name, kind).to_wire(), limit)
    return dns.message.from_wire(answer)


def addresses(answer):
    return sorted(rdata.to_text() for rrset in answer.answer for rdata in rrset)


def elements(name):
    """The addresses of a set, and for how many seconds they were opened."""
    command = ["nft", "--json", "list", "set", "inet", TABLE, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (found,) = [one["set"] for one in json.loads(done.stdout)["nftables"] if "set" in one]
    return {one["elem"]["val"]: one["elem"]["timeout"] for one in found.get("elem", ())}


async def test_an_answer_opens_its_addresses_for_as_long_as_it_is_valid(orders):
    answer = await ask(names.Filter(orders), "GOOD.test")
    assert addresses(answer) == ["203.0.113.1", "203.0.113.2"]
    assert answer.answer[0].ttl <= 20
    assert elements(opened(0, 4)) == {"203.0.113.1": 20, "203.0.113.2": 20}
    assert elements(opened(1, 4)) == {}


async def test_an_answer_renews_what_is_open(orders):
    for _ in range(2):
        await ask(names.Filter(orders), "good.test")
    assert set(elements(opened(0, 4))) == {"203.0.113.1", "203.0.113.2"}


async def test_a_name_is_not_looked_up_again_while_its_answer_is_valid(orders, server):
    found = names.Filter(orders)
    for _ in range(5):
        assert addresses(await ask(found, "good.test"))
    assert server.read_text().count("query[A] good.test") == 1


@pytest.mark.parametrize(
    "name",
    [
        *("evil.test", "deb.test", "bad.deb.test", "good.test.evil.test", "xgood.test", "."),
        *("x\\.deb.test", "a\\.good.test", "\\000.deb.test", "\\255.deb.test", "*.deb.test"),
    ],
)
async def test_other_names_are_refused_without_a_word_to_the_server(orders, server, name):
    found = names.Filter(orders)
    before = server.read_text()
    for kind in ("A", "AAAA", "TXT", "ANY"):
        answer = await ask(found, name, kind)
        assert (answer.rcode(), answer.answer) == (dns.rcode.REFUSED, [])
    assert server.read_text() == before


async def test_other_records_of_an_allowed_name_do_not_exist(orders, server):
    before = server.read_text()
    for kind in ("TXT", "HTTPS", "SVCB", "SRV", "ANY", "CNAME", "AXFR"):
        answer = await ask(names.Filter(orders), "good.test", kind)
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    assert server.read_text() == before


async def test_private_addresses_are_left_out_and_not_opened(orders):
    found = names.Filter(orders)
    answer = await ask(found, "rebound.deb.test")
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    assert elements(opened(1, 4)) == {}


async def test_an_answer_that_does_not_fit_is_asked_for_by_tcp(orders):
    found = names.Filter(orders)
    name = f"{'a' * 60}.{'b' * 60}.{'c' * 60}.many.deb.test"
    short = await ask(found, name, "AAAA")
    assert short.flags & dns.flags.TC
    assert not short.answer
    assert len(addresses(await ask(found, name, "AAAA", 65535))) == 16


async def test_a_set_that_is_full_is_a_failure_and_no_answer(orders):
    full = opened(1, 4)
    commands = f"flush set inet {TABLE} {full}\n" + "".join(
        f"add element inet {TABLE} {full} {{ 198.18.{one >> 8}.{one & 255} timeout 1h }}\n"
        for one in range(4096)
    )
    subprocess.run(["nft", "-f", "-"], input=commands, text=True, check=True)
    answer = await ask(names.Filter(orders), "one.deb.test")
    assert (answer.rcode(), answer.answer) == (dns.rcode.SERVFAIL, [])


async def test_a_guest_that_asks_too_much_is_not_a_burden_to_the_server(orders, server):
    found = names.Filter(orders)
    orders_of_nobody = [f"n{one}.rebound.deb.test" for one in range(1500)]
    codes = [(await ask(found, name)).rcode() for name in orders_of_nobody]
    assert dns.rcode.SERVFAIL in codes
    assert len(found._found) <= 1024


async def test_no_server_is_a_failure(orders):
    nowhere = names.Orders(
        orders.listen, (), orders.openings, (), orders.private, orders.nft, orders.record
    )
    assert (await ask(names.Filter(nowhere), "good.test")).rcode() == dns.rcode.SERVFAIL


async def test_hostile_messages_are_answered_or_dropped(orders):
    found = names.Filter(orders)
    good = dns.message.make_query("good.test", "A").to_wire()
    dice = random.Random(18)
    loop = good[:12] + b"\xc0\x0c" + good[-4:]
    response = good[:2] + b"\x80" + good[3:]
    for wire in (b"", b"\0", good[:-1], loop, response, good + b"more", bytes(65535)):
        answer = await found.answer(wire, 512)
        assert len(answer) <= 512
    for _ in range(3000):
        wire = bytearray(good)
        for _ in range(dice.randrange(1, 6)):
            wire[dice.randrange(len(wire))] = dice.randrange(256)
        assert len(await found.answer(bytes(wire), 512)) <= 512


def test_what_is_recorded_is_limited(tmp_path):
    record = DeniedNames(tmp_path / "names.json")
    for one in range(5000):
        record.add("name", f"{one}.test")
    assert len(record._names) == 257
    assert denied_names.read(tmp_path / "missing") == ()


def test_a_filter_whose_creator_ends_ends_too(tmp_path):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-I", "-m", "vc_network.names"]
    with theirs:
        number = str(theirs.fileno())
        child = subprocess.Popen(
            [*command, number, str(tmp_path / "pid")], pass_fds=[theirs.fileno()]
        )
    ours.close()
    assert child.wait(timeout=60) == 0
