"""Forks and snapshots of pods with a network: each has its own, and no connection of another's."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.outside import PUBLIC, outside
from tests.e2e.test_cni import Net, _get

pytestmark = [
    pytest.mark.needs("nic", "snapshot"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces for a test"),
]

# Serves pages and an echo, and waits on a connection to the outside, of which /state tells.
PROGRAM = f"""
import os, socket, socketserver, threading, http.server
os.mkdir("/tmp/w"); os.chdir("/tmp/w")
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile: self.wfile.write(line)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
threading.Thread(target=Server(("", 7000), Echo).serve_forever, daemon=True).start()
def told(text):
    with open("new", "w") as file: file.write(text)
    os.rename("new", "state")
def wait():
    outside = socket.create_connection(("{PUBLIC}", 80))
    told("open")
    try: outside.recv(1); told("closed")
    except OSError as error: told(error.strerror)
threading.Thread(target=wait, daemon=True).start()
class Page(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/outside": return super().do_GET()
        with socket.create_connection(("{PUBLIC}", 80)) as fresh:
            fresh.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            page = b"".join(iter(lambda: fresh.recv(99), b""))
        self.send_response(200); self.end_headers(); self.wfile.write(page[-7:])
http.server.ThreadingHTTPServer(("", 80), Page).serve_forever()
"""


@pytest.fixture(params=["public", "cni"])
def network(request, host):
    """The name of a network, of pasta or CNI."""
    with outside():
        if request.param == "public":
            yield "public"
            return
        folder = Path(tempfile.mkdtemp(prefix="vc-cni-", dir="/dev/shm"))
        net = Net(host, folder)
        net.create("--subnet", "203.0.113.0/24")
        yield net.name
        assert net.residue() == []
        shutil.rmtree(folder)


def _ports(host, pod: str) -> dict[int, int]:
    status = json.loads(host.vc("pod", "status", pod, "--json").stdout)
    return {one["guest_port"]: one["host_port"] for one in status["ports"]}


def _addresses(host, pod: str) -> str:
    look = "cat /sys/class/net/eth0/address; ip -o addr show dev eth0 scope global"
    return host.vc("exec", pod, "sh", "-c", look).stdout.decode()


def _wait_for(url: str, wanted: set[str]) -> str:
    while (found := _get(url)) not in wanted:
        pass
    return found


def test_children_have_networks_of_their_own_and_leave_the_parents_alone(host, network):
    host.vc(
        *("run", "-d", "--name", "web", "--network", network),
        *("-p", "8080:80", "-p", "7000:7000", "--", "python3", "-c", PROGRAM),
    )
    parent = "http://127.0.0.1:8080"
    assert _wait_for(f"{parent}/state", {"open"}) == "open"
    with socket.create_connection(("127.0.0.1", 7000), timeout=60) as client:
        stream = client.makefile("rwb", buffering=0)
        stream.write(b"before\n")
        assert stream.readline() == b"before\n"
        refused = host.vc("pod", "fork", "web", "-n", "2", "-p", "8081:80", check=125)
        assert b"port 8081 cannot be published by 2 pods" in refused.stderr
        children = host.vc("pod", "fork", "web", "-n", "2", "-p", "80").stdout.decode().split()
        assert len(children) == 2
        for child in children:
            ports = _ports(host, child)
            assert list(ports) == [80]
            own = f"http://127.0.0.1:{ports[80]}"
            assert _wait_for(f"{own}/state", {"Software caused connection abort"})
            assert _get(f"{own}/outside") == "outside"
        stream.write(b"after\n")
        assert stream.readline() == b"after\n"
    assert _get(f"{parent}/state") == "open", "the parent's connection is the parent's"
    assert _get(f"{parent}/outside") == "outside"
    assert _ports(host, "web") == {80: 8080, 7000: 7000}
    if network != "public":  # where all have the same, behind a router of their own
        assert len({_addresses(host, pod) for pod in ("web", *children)}) == 3
    host.vc("pod", "snapshot", "web", "saved")
    for pod in ("web", *children):
        host.vc("pod", "delete", "--force", pod)
    host.vc("pod", "restore", "saved", "--name", "again", "-p", "8080:80")
    assert _wait_for(f"{parent}/state", {"Software caused connection abort"})
    assert _get(f"{parent}/outside") == "outside"
    assert b"does not work" not in host.vc("pod", "status", "again").stdout
    host.vc("pod", "stop", "again")
    host.vc("pod", "start", "again")
    assert _wait_for(f"{parent}/state", {"open"}) == "open", "a new boot, with the same network"
    host.vc("pod", "delete", "--force", "again")
    host.vc("snapshot", "rm", "saved")


_BYTES = 64 << 20  # more than all buffers between the pod and its client take
_DOWNLOAD = f"""
import http.server, os, socket
class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    def do_GET(self):
        self.send_response(200); self.end_headers()
        for number in range({_BYTES >> 20}): self.wfile.write(bytes([number]) * (1 << 20))
http.server.ThreadingHTTPServer(("", 80), Page).serve_forever()
"""


def test_a_download_from_the_parent_goes_on_and_its_copies_in_the_children_end(host):
    with outside():
        host.vc(
            *("run", "-d", "--name", "web", "-p", "8080:80", "--network", "public"),
            *("--", "python3", "-c", _DOWNLOAD),
        )
        _wait_until_it_answers("http://127.0.0.1:8080")
        with urllib.request.urlopen("http://127.0.0.1:8080", timeout=100) as download:
            first = download.read(1 << 20)
            children = host.vc("pod", "fork", "web", "-n", "3").stdout.decode().split()
            assert len(children) == 3
            shown = json.loads(host.vc("ps", "--json").stdout)
            ports = {row["pod"]: row["ports"][0]["host_port"] for row in shown}
            assert set(ports) == {"web", *children}
            assert len(set(ports.values())) == 4
            assert ports["web"] == 8080
            for child in children:
                sockets = host.vc("exec", child, "--", "ss", "-Htn", "state", "established")
                assert sockets.stdout == b"", "a connection of the parent's is open in a child"
            rest = download.read()
        assert [*first[:1], *rest[:: 1 << 20]] == list(range(_BYTES >> 20))
        for child in children:
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[child]}", timeout=100) as own:
                assert own.read(9) == bytes(9)
        for pod in ports:
            host.vc("pod", "delete", "--force", pod)


def _wait_until_it_answers(url: str) -> None:
    end = time.monotonic() + 100
    while True:
        try:
            urllib.request.urlopen(url, timeout=100).close()
        except OSError:
            assert time.monotonic() < end, f"{url} does not answer"
        else:
            return


def test_a_fork_that_was_killed_leaves_nothing_after_the_next_call(host):
    with outside():
        host.vc("run", "-d", "--name", "p", "--network", "public", "--", "sleep", "999")
        client = host.start("pod", "fork", "p", "-p", "8080:80")
        pods = host.folder / "run/pods"
        while not any(pods.glob("*/network/pasta.pid")) or len([*pods.glob("*/network")]) < 2:
            assert client.poll() is None, "it ended before its network was there"
        client.kill()
        client.wait()
        (child,) = {one["id"] for one in _pods(host)} - {"p"}
        host.vc("pod", "delete", "--force", child)
        assert len([*pods.glob("*/network")]) == 1
        host.vc("run", "--network", "public", "-p", "8080:80", "--", "true")
        assert b"does not work" not in host.vc("pod", "status", "p").stdout
        host.vc("pod", "delete", "--force", "p")


def _pods(host) -> list[dict[str, str]]:
    return json.loads(host.vc("pod", "ls", "--json").stdout)
