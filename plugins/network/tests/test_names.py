"""The filter of names, with a real DNS server and real rules, and with hostile questions."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import msgspec
import pytest
from vc_network import denied_names, doctor, names
from vc_network.denied_names import DeniedName, DeniedNames
from vc_network.opener import Open, Opener, Record
from vc_network.ruleset import TABLE, Link, opened, ruleset

from tests.e2e.intruder import Intruder, named
from vc_core.driver_kit import seccomp_filter
from vc_core.spec import NetworkPolicy, NetworkRule, Reach

POLICY = NetworkPolicy.of(
    allow=["good.test:443", "*.deb.test", "198.51.100.7:53/udp"], deny=["bad.deb.test"]
)
# asm-generic/fcntl.h, ioctls.h and sockios.h
_F_SETOWN_EX, _FIONBIO, _FIOASYNC, _FIOSETOWN, _SIOCSPGRP = 15, 0x5421, 0x5452, 0x8901, 0x8902
_ONE = struct.pack("=i", 1)
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


def _filter(orders):
    """The filter, and what changes the rules for it, in one process."""
    opener = Opener(orders)

    async def tell(request):
        return opener.handle(msgspec.json.encode(request))

    return names.Filter(orders, tell)


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
    answer = await ask(_filter(orders), "GOOD.test")
    assert addresses(answer) == ["203.0.113.1", "203.0.113.2"]
    assert answer.answer[0].ttl <= 20
    assert elements(opened(0, 4)) == {"203.0.113.1": 20, "203.0.113.2": 20}
    assert elements(opened(1, 4)) == {}


async def test_an_answer_renews_what_is_open(orders):
    for _ in range(2):
        await ask(_filter(orders), "good.test")
    assert set(elements(opened(0, 4))) == {"203.0.113.1", "203.0.113.2"}


async def test_a_name_is_not_looked_up_again_while_its_answer_is_valid(orders, server):
    found = _filter(orders)
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
    found = _filter(orders)
    before = server.read_text()
    for kind in ("A", "AAAA", "TXT", "ANY"):
        answer = await ask(found, name, kind)
        assert (answer.rcode(), answer.answer) == (dns.rcode.REFUSED, [])
    assert server.read_text() == before


async def test_other_records_of_an_allowed_name_do_not_exist(orders, server):
    before = server.read_text()
    for kind in ("TXT", "HTTPS", "SVCB", "SRV", "ANY", "CNAME", "AXFR"):
        answer = await ask(_filter(orders), "good.test", kind)
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    assert server.read_text() == before


async def test_private_addresses_are_left_out_and_not_opened(orders):
    found = _filter(orders)
    answer = await ask(found, "rebound.deb.test")
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    assert elements(opened(1, 4)) == {}


async def test_an_answer_that_does_not_fit_is_asked_for_by_tcp(orders):
    found = _filter(orders)
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
    answer = await ask(_filter(orders), "one.deb.test")
    assert (answer.rcode(), answer.answer) == (dns.rcode.SERVFAIL, [])


async def test_a_guest_that_asks_too_much_is_not_a_burden_to_the_server(orders, server):
    found = _filter(orders)
    orders_of_nobody = [f"n{one}.rebound.deb.test" for one in range(1500)]
    codes = [(await ask(found, name)).rcode() for name in orders_of_nobody]
    assert dns.rcode.SERVFAIL in codes
    assert len(found._found) <= 1024


async def test_no_server_is_a_failure(orders):
    nowhere = names.Orders(
        orders.listen, (), orders.openings, (), orders.private, orders.nft, orders.record
    )
    assert (await ask(_filter(nowhere), "good.test")).rcode() == dns.rcode.SERVFAIL


async def test_hostile_messages_are_answered_or_dropped(orders):
    found = _filter(orders)
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
    record = DeniedNames()
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


@pytest.fixture
def running(orders, tmp_path):
    """The filter as it runs in pods; gives the process that reads what guests send."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-I", "-m", "vc_network.names", str(theirs.fileno())]
    with theirs:
        process = subprocess.Popen([*command, str(tmp_path / "pid")], pass_fds=[theirs.fileno()])
    with process, ours:
        ours.send(msgspec.json.encode(msgspec.structs.replace(orders, listen=("127.0.0.2",))))
        assert ours.recv(99) == b"ready"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        yield int(children)
        process.kill()


def _asked(name, kind="A"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(60)
        client.sendto(dns.message.make_query(name, kind).to_wire(), ("127.0.0.2", 53))
        return dns.message.from_wire(client.recv(512))


def _asked_by_tcp(name, kind="A"):
    question = dns.message.make_query(name, kind).to_wire()
    with socket.create_connection(("127.0.0.2", 53), timeout=60) as client:
        client.sendall(len(question).to_bytes(2) + question)
        with client.makefile("rb") as stream:
            return dns.message.from_wire(stream.read(int.from_bytes(stream.read(2))))


def test_the_confined_process_asks_and_answers_by_tcp(running, server):
    # The server's answer does not fit into UDP either.
    name = f"{'a' * 60}.{'b' * 60}.{'c' * 60}.many.deb.test"
    assert _asked(name, "AAAA").flags & dns.flags.TC
    assert len(addresses(_asked_by_tcp(name, "AAAA"))) == 16
    assert set(elements(opened(1, 6))) == set(addresses(_asked_by_tcp(name, "AAAA")))


def test_the_confined_process_opens_what_is_allowed_and_records_what_is_not(running, tmp_path):
    assert addresses(_asked("good.test")) == ["203.0.113.1", "203.0.113.2"]
    assert set(elements(opened(0, 4))) == {"203.0.113.1", "203.0.113.2"}
    assert _asked("evil.test").rcode() == dns.rcode.REFUSED
    assert _asked("rebound.deb.test").answer == []
    wanted = {"evil.test", "rebound.deb.test"}
    while not wanted <= {one.name for one in denied_names.read(tmp_path / "names.json")}:
        os.sched_yield()


def test_an_attacker_who_takes_over_the_process_that_reads_has_nothing_but_its_sockets(
    running, tmp_path
):
    status = Path(f"/proc/{running}/status").read_text()
    for line in ("CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"):
        assert line in status
    assert "Seccomp:\t2" in status
    assert Path(f"/proc/{running}/root").readlink() == tmp_path / "empty"
    new_namespaces = 0x10000000
    how = bytes(24)
    victim = os.getpid()
    owner = struct.pack("=ii", 1, victim)  # F_OWNER_PID
    with Intruder(running) as intruder:
        assert intruder.call(39) == running, "getpid: its calls are made"
        own = intruder.call(41, socket.AF_INET, socket.SOCK_DGRAM, 0)
        assert own >= 0, "a socket of UDP is made"
        answers = {
            name: named(intruder.call(number, *arguments))
            for name, number, *arguments in (
                ("open", 257, -100, b"/etc/shadow", os.O_RDONLY, 0),
                ("open by openat2", 437, -100, b"/", how, len(how)),
                ("make a file", 257, -100, b"/planted", os.O_RDWR | os.O_CREAT, 0o600),
                ("connect to a local socket", 41, socket.AF_UNIX, socket.SOCK_STREAM, 0),
                ("change rules", 41, socket.AF_NETLINK, socket.SOCK_RAW, 12),
                ("raw packets", 41, socket.AF_PACKET, socket.SOCK_RAW, 0),
                ("SCTP", 41, socket.AF_INET, socket.SOCK_SEQPACKET, 0),
                ("MPTCP", 41, socket.AF_INET, socket.SOCK_STREAM, 262),
                ("echo requests", 41, socket.AF_INET, socket.SOCK_DGRAM, 1),
                ("raw packets of IP", 41, socket.AF_INET, socket.SOCK_RAW, 1),
                ("signal", 62, victim, 0),
                ("signal the owner of a socket", 72, own, fcntl.F_SETOWN, victim),
                ("signal its extended owner", 72, own, _F_SETOWN_EX, owner),
                ("choose the signal", 72, own, fcntl.F_SETSIG, signal.SIGKILL),
                ("ask for signals", 72, own, fcntl.F_SETFL, os.O_ASYNC),
                ("ask for signals by ioctl", 16, own, _FIOASYNC, _ONE),
                ("signal the owner by ioctl", 16, own, _FIOSETOWN, struct.pack("=i", victim)),
                ("signal a group by ioctl", 16, own, _SIOCSPGRP, struct.pack("=i", victim)),
                ("trace", 101, 16, victim, 0, 0),
                ("start a process", 57),
                ("start a program", 59, b"/bin/sh", 0, 0),
                ("a namespace", 272, new_namespaces),
                ("mount", 165, b"none", b"/", b"tmpfs", 0, 0),
                ("leave the root", 161, b"/"),
                ("become another user", 105, 0),
                ("io_uring", 425, 8, bytes(120)),
                ("userfaultfd", 323, 0),
                ("bpf", 321, 0, bytes(64), 64),
                ("add a key", 248, b"user", b"a", b"b", 1, -2),
                ("raise a limit", 302, 0, 7, bytes(16), 0),
            )
        }
        assert intruder.call(16, own, _FIONBIO, _ONE) == 0, "a socket is made nonblocking"
    assert set(answers.values()) <= {"ENOSYS", "ENOENT"}, answers
    assert addresses(_asked("good.test")), "it goes on"


def test_both_processes_have_limits(running):
    parent = re.search(r"PPid:\t(\d+)", Path(f"/proc/{running}/status").read_text())[1]
    wanted = {
        resource.RLIMIT_FSIZE: 1 << 20,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_DATA: 256 << 20,
        resource.RLIMIT_CORE: 0,
    }
    for pid in (running, int(parent)):
        assert {kind: resource.prlimit(pid, kind) for kind in wanted} == {
            kind: (limit, limit) for kind, limit in wanted.items()
        }


@pytest.mark.parametrize(
    "request_",
    [
        Open(("others",), ("203.0.113.1",), 20),
        Open((opened(0, 6),), ("203.0.113.1",), 20),
        Open((opened(0, 4),), ("169.254.169.254",), 20),
        Open((opened(0, 4),), ("0.0.0.0/0",), 20),
        Open((opened(0, 4),), ("203.0.113.1 timeout 1s }\nflush ruleset\n",), 20),
        Open((opened(0, 6),), ("2001:db8::1%x timeout 1s }\nflush ruleset\n",), 20),
        Open((opened(0, 4),), tuple(f"203.0.113.{one}" for one in range(17)), 20),
        Open((opened(0, 4),), ("203.0.113.1",) * 2, 20),
        Open((opened(0, 4),) * 2, ("203.0.113.1",), 20),
        Open((opened(0, 4),) * 2, (), 20),
        Open(tuple(map(str, range(99_999))), (), 20),
        Open((opened(0, 4),), ("203.0.113.1",), 10**6),
        Record((DeniedName("name", "x" * 2000, 1, 1),)),
        Record((DeniedName("name", "x", 1, 1),) * 515),
    ],
)
async def test_what_reads_may_ask_for_nothing_else(orders, request_):
    with pytest.raises(ValueError):  # noqa: PT011
        Opener(orders).handle(msgspec.json.encode(request_))
    assert elements(opened(0, 4)) == {}
    assert not Path(orders.record).exists()


def test_a_host_without_libseccomp_is_told(monkeypatch):
    assert {one.subject: one.verdict for one in doctor.diagnose()}["filter of names"] == "good"
    monkeypatch.setattr(seccomp_filter, "_LIBRARY", "libmissing.so.2")
    (found,) = [one for one in doctor.diagnose() if one.subject == "filter of names"]
    assert found.verdict == "warning"
    assert "libseccomp2" in found.remedy
