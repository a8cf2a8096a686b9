"""Pods with a network: what they reach, who reaches them, what is left. The outside is
tests/e2e/outside.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.conftest import VC, Host, new_host, processes
from tests.e2e.outside import (
    BRIEF,
    EVIL,
    HOST,
    MTU,
    NAME,
    PRIVATE,
    PRIVATE_V6,
    PUBLIC,
    PUBLIC_V6,
    outside,
)
from vc_core.driver_kit import HostProcess

pytestmark = [
    pytest.mark.needs("nic"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces for a test"),
]

# Says for each URL whether there was an answer. A refusal comes at once; without one curl gives up.
PROBE = 'for url in $@; do echo "$url $(curl -s -m 5 $url || echo none)"; done'
WEB = (
    "mkdir /tmp/www; cd /tmp/www; hostname > name; "
    "exec python3 -c 'import http.server as h, socket; "
    'class_ = type("S", (h.ThreadingHTTPServer,), {"address_family": socket.AF_INET6}); '
    'class_(("::", 80), h.SimpleHTTPRequestHandler).serve_forever()\''
)


@pytest.fixture(autouse=True)
def _outside():
    with outside(pages_on_host=True):
        yield


def _url(address: str) -> str:
    return f"http://[{address}]/" if ":" in address else f"http://{address}/"


def _probe(host: Host, network: str, *urls: str, options: tuple[str, ...] = ()) -> dict[str, str]:
    done = host.vc("run", "--network", network, *options, "--", "sh", "-c", PROBE, "sh", *urls)
    return dict(line.split(" ", 1) for line in done.stdout.decode().splitlines())


def _page(url: str) -> str:
    """Waits for a server in a pod: the port accepts connections before the program does."""
    done = subprocess.run(
        [
            "curl",
            "-s",
            "-m",
            "5",
            "--retry",
            "30",
            "--retry-all-errors",
            "--retry-delay",
            "1",
            url,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def _filters(host: Host) -> list[int]:
    """Processes of the filters of names of the host's pods."""
    return [
        pid
        for pid, words in processes()
        if "vc_network.names" in words and str(host.folder) in " ".join(words)
    ]


def _helpers(host: Host) -> list[int]:
    """Processes of networks whose files lie in our folder."""
    return [
        pid
        for pid, words in processes()
        if words[0].endswith("pasta") and str(host.folder) in " ".join(words)
    ]


def test_public_is_all_but_private_addresses_and_the_host(host):
    own = [PUBLIC, PUBLIC_V6]
    denied = [*PRIVATE, *PRIVATE_V6, HOST, "2001:db8::2", "192.0.0.1", "192.0.0.5", "192.0.0.6"]
    urls = [*map(_url, (*own, *denied)), f"http://{NAME}/", "http://rebound.test/"]
    answers = _probe(host, "public", *urls, options=("--dns", PUBLIC))
    reached = {url for url, answer in answers.items() if answer == "outside"}
    assert reached == {*map(_url, own), f"http://{NAME}/"}
    assert set(answers) == set(urls)
    assert _helpers(host) == []


def test_full_is_what_the_host_reaches_but_not_its_loopback(host):
    reached = [PUBLIC, PUBLIC_V6, *PRIVATE[:4], HOST]
    denied = ["127.0.0.1", "[::1]", "192.0.0.6"]
    answers = _probe(host, "full", *map(_url, reached), *(f"http://{one}/" for one in denied))
    assert [answers[_url(one)] for one in reached] == ["outside"] * len(reached)
    assert [answers[f"http://{one}/"] for one in denied] == ["none"] * len(denied)


def test_a_guest_cannot_send_from_another_address(host):
    script = (
        "ip addr add 192.0.0.3/32 dev eth0; ip addr add 10.0.0.9/32 dev eth0; "
        f"for own in 192.0.0.2 192.0.0.3 10.0.0.9; do "
        f"echo $own $(curl -s -m 3 --interface $own http://{PUBLIC}/ || echo none); done"
    )
    words = ("--cap-add", "NET_ADMIN", "--", "sh", "-c", script)
    done = host.vc("run", "--network", "full", *words)
    assert done.stdout.decode().splitlines() == [
        "192.0.0.2 outside",
        "192.0.0.3 none",
        "10.0.0.9 none",
    ]


def test_names_are_looked_up_as_the_host_does_it(host, tmp_path):
    """Also where the host's resolver listens on its loopback, which no pod reaches otherwise."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(f"nameserver {PUBLIC}\n")
    script = f'mount --bind {resolv} /etc/resolv.conf && exec "$@"'
    words = ["run", "--network", "public", "--", "curl", "-s", "-m", "9", f"http://{NAME}/"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *VC, *words],
        env=host.environ(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"outside"), done.stderr


def test_an_allow_list_by_name_holds_and_what_it_refuses_is_listed(host):
    """The names are looked up by the pod's name servers, asked by the filter on the host."""
    urls = {
        f"http://{NAME}:443/": "outside",
        "http://mirror.deb.test/": "outside",
        f"http://{NAME}/": "none",
        "http://evil.test/": "none",
        "http://bad.deb.test/": "none",
        "http://rebound.deb.test/": "none",
        f"http://{EVIL}:443/": "none",
    }
    rules = ("--allow", f"{NAME}:443", "--allow", "*.deb.test:80", "--deny", "bad.deb.test")
    rules += ("--allow", f"{PUBLIC}:5000/udp")
    host.vc(
        *("run", "-d", "--name", "p", "--network", "public", "--dns", PUBLIC, *rules),
        *("--rate-in", "256kbit", "--", "sleep", "999"),
    )
    done = host.vc("exec", "p", "sh", "-c", PROBE, "sh", *urls)
    assert dict(line.split(" ", 1) for line in done.stdout.decode().splitlines()) == urls
    fetch = ("curl", "-s", "-o", "/dev/null", "-w", "%{size_download} %{time_total}")
    done = host.vc("exec", "p", *fetch, f"http://{NAME}:443/big")
    size, seconds = map(float, done.stdout.split())
    assert size == 1 << 19
    assert seconds > 10, "half a megabyte at 256 kbit per second, but for the first 128 KiB"
    echo = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20); "
        f"s.sendto(b'x' * {3 * MTU}, ('{PUBLIC}', 5000)); print(len(s.recv(9999)))"
    )
    done = host.vc("exec", "p", "python3", "-c", echo)
    assert int(done.stdout) == 3 * MTU + len("echo "), "larger than the uplink's MTU"
    listed = json.loads(host.vc("network", "log", "p", "--json").stdout)
    refused = {(one["reason"], one["protocol"], one["target"], one["port"]) for one in listed}
    assert {
        ("address", "tcp", PUBLIC, 80),
        ("address", "tcp", EVIL, 443),
        ("name", "dns", "evil.test", 0),
        ("name", "dns", "bad.deb.test", 0),
        ("rebinding", "dns", "rebound.deb.test", 0),
    } <= refused
    shown = host.vc("network", "log", "p").stdout.decode()
    assert "evil.test" in shown
    found = _filters(host)
    asking = next(pid for pid in found if "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text())
    assert Path(f"/proc/{asking}/root").readlink().name == "empty"
    helpers = [*found, *_helpers(host)]
    for pid in helpers:  # PWD and OLDPWD are of the shell
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        held = {one.partition(b"=")[0] for one in environment if one}
        assert held <= {b"PATH", b"PWD", b"OLDPWD"}, held
    for pid in _helpers(host):
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
    os.kill(asking, signal.SIGKILL)
    assert b"it does not work" in host.vc("pod", "status", "p").stdout
    done = host.vc(
        "exec", "p", "sh", "-c", PROBE, "sh", f"http://{BRIEF}:443/", "http://x.deb.test/"
    )
    assert done.stdout.decode().split()[1::2] == ["none", "none"]
    host.vc("pod", "delete", "--force", "p")
    events = host.vc("events", "p").stdout.decode()
    assert events.count("pod_denied") == len(refused) + 1
    assert f"(address tcp {EVIL}:443)" in events
    assert _filters(host) == []


def test_published_ports_lead_into_the_pod_and_go_with_it(host):
    host.vc(
        *("run", "-d", "--name", "web", "--network", "public"),
        *("-p", "8080:80", "-p", f"{HOST}:0:80", "-p", "[::1]:0:80", "--", "sh", "-c", WEB),
    )
    (loopback, other, loopback_v6) = json.loads(host.vc("pod", "status", "web", "--json").stdout)[
        "ports"
    ]
    assert (loopback["host_ip"], loopback["host_port"]) == ("127.0.0.1", 8080)
    assert _page("http://127.0.0.1:8080/name") == "web"
    assert _page(f"http://{HOST}:{other['host_port']}/name") == "web"
    assert _page(f"http://[::1]:{loopback_v6['host_port']}/name") == "web"
    listed = host.vc("ps").stdout.decode()
    assert f"127.0.0.1:8080->80/tcp {HOST}:{other['host_port']}->80/tcp" in listed
    assert f"[::1]:{loopback_v6['host_port']}->80/tcp" in listed
    refused = host.vc("run", "--network", "public", "-p", "8080:80", "--", "true", check=125)
    assert b"port 8080/tcp of 127.0.0.1 is taken by pas" in refused.stderr.replace(
        b"passt", b"pasta"
    )
    assert len(refused.stderr.splitlines()) == 1
    host.vc("pod", "delete", "--force", "web")
    assert _helpers(host) == []
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen("http://127.0.0.1:8080/name", timeout=5)


def test_datagrams_of_a_published_port_are_answered(host):
    serve = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 6000))\n"
        "while True:\n data, who = s.recvfrom(99); s.sendto(b'pod ' + data, who)"
    )
    host.vc(
        *("run", "-d", "--name", "u", "--network", "public", "-p", "5001:6000/udp"),
        *("--", "python3", "-c", serve),
    )
    answer = b""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        for _ in range(30):  # datagrams are lost until the program in the pod listens
            client.sendto(b"hello", ("127.0.0.1", 5001))
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                answer = client.recv(99)
                break
    host.vc("pod", "delete", "--force", "u")
    assert answer == b"pod hello"


@pytest.mark.parametrize("start", ["cold", "template"])
def test_a_pod_has_a_network_however_its_machine_starts(host, start):
    answers = _probe(host, "public", _url(PUBLIC), options=("--start", start))
    assert answers == {_url(PUBLIC): "outside"}


def test_a_machine_of_the_pool_takes_a_network(hypervisor, templates):
    folder = Path(tempfile.mkdtemp(prefix="vc-", dir="/dev/shm"))
    pooled = new_host(folder, hypervisor, templates)
    pooled.vc("pool", "start", "--size", "1")
    try:
        answers = _probe(pooled, "public", _url(PUBLIC), options=("--start", "pool"))
    finally:
        pooled.vc("pool", "stop")
        shutil.rmtree(folder)
    assert answers == {_url(PUBLIC): "outside"}


def test_a_network_whose_process_was_killed_is_told_and_comes_back_with_the_next_start(host):
    host.vc("run", "-d", "--name", "p", "--network", "public", "-p", "0:80", "--", "sh", "-c", WEB)
    (pasta,) = _helpers(host)
    os.kill(pasta, signal.SIGKILL)
    assert b"it does not work" in host.vc("pod", "status", "p").stdout
    host.vc("pod", "stop", "p")
    host.vc("pod", "start", "p")
    (port,) = json.loads(host.vc("pod", "status", "p", "--json").stdout)["ports"]
    assert _page(f"http://127.0.0.1:{port['host_port']}/name") == "p"
    host.vc("pod", "delete", "p")
    assert _helpers(host) == []


@pytest.mark.parametrize("victim", ["machine", "keeper", "all"])
def test_what_was_killed_leaves_nothing_after_the_next_call(host, victim):
    host.vc("run", "-d", "--name", "p", "--network", "public", "-p", "8080:80", "--", "sleep", "99")
    (pasta,), (machine,) = _helpers(host), host.machines()
    note = (host.folder / "run/pods/p/network/keeper.pid").read_text()
    keeper = HostProcess(*map(int, note.split()))
    killed = {"machine": [machine], "keeper": [keeper.pid], "all": [machine, pasta, keeper.pid]}
    for pid in killed[victim]:
        os.kill(pid, signal.SIGKILL)
    host.vc("pod", "delete", "--force", "p")
    assert not keeper.is_alive()
    assert _helpers(host) == []
    host.vc("run", "--network", "public", "-p", "8080:80", "--", "true")


def test_a_client_that_was_killed_leaves_nothing_after_the_next_call(host):
    client = host.start("run", "--name", "p", "--network", "public", "-p", "8080:80", "--", "true")
    note = host.folder / "run/pods/p/network/pasta.pid"
    while not note.exists():
        assert client.poll() is None, "it ended before its network was there"
    client.kill()
    client.wait()
    host.vc("pod", "delete", "--force", "p")
    assert _helpers(host) == []
    host.vc("run", "--network", "public", "-p", "8080:80", "--", "true")


async def test_the_same_by_the_api(host):
    async with host.runtime() as runtime:
        pod = await runtime.create("p", network="public")
        try:
            result = await pod.run("curl", "-s", "-m", "9", _url(PUBLIC))
            assert result.stdout == b"outside"
        finally:
            await pod.delete(force=True)


def test_an_ordinary_user_needs_no_privilege(hypervisor):
    """But a /dev/net/tun that they may open, as distributions have it."""
    folder = Path(tempfile.mkdtemp(prefix="vc-user-", dir="/tmp"))
    tun = folder / "tun"
    subprocess.run(["cp", "-a", "/dev/net/tun", str(tun)], check=True)
    tun.chmod(0o666)
    host = new_host(folder, hypervisor)
    subprocess.run(["chown", "-R", "65533:65533", str(folder)], check=True)
    tun.chmod(0o666)
    as_user = "setpriv --reuid 65533 --regid 65533 --clear-groups --no-new-privs"
    script = f'mount --bind {tun} /dev/net/tun && exec {as_user} "$@"'
    environ = {**host.environ(), "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}

    def vc(*words: str) -> subprocess.CompletedProcess[bytes]:
        command = ["unshare", "--mount", "sh", "-c", script, "sh", *VC, *words]
        return subprocess.run(command, env=environ, capture_output=True, check=False)

    try:
        done = vc(
            "run",
            "--network",
            "public",
            "--",
            "sh",
            "-c",
            PROBE,
            "sh",
            *map(_url, (PUBLIC, PRIVATE[0])),
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().split() == [_url(PUBLIC), "outside", _url(PRIVATE[0]), "none"]
        allowed = ("--dns", PUBLIC, "--allow", f"{NAME}:80", "--rate-out", "10mbit")
        urls = (f"http://{NAME}/", _url(EVIL))
        done = vc("run", "--network", "public", *allowed, "--", "sh", "-c", PROBE, "sh", *urls)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().split()[1::2] == ["outside", "none"]
        refused = vc("run", "--network", "public", "-p", "81:80", "--", "true")
        assert b"port 81/tcp of 127.0.0.1 is not for ordinary users" in refused.stderr
        words = ("run", "-d", "--name", "web", "--network", "public", "-p", "8081:80")
        served = vc(*words, "--", "sh", "-c", WEB)
        assert served.returncode == 0, served.stderr
        assert _page("http://127.0.0.1:8081/name") == "web"
        assert vc("pod", "delete", "--force", "web").returncode == 0
        assert _helpers(host) == []
    finally:
        shutil.rmtree(folder)


def test_hosts_has_the_lines_that_were_asked_for(host):
    done = host.vc("run", "--add-host", "db:192.0.2.7", "--", "getent", "hosts", "db")
    assert done.stdout.split() == [b"192.0.2.7", b"db"]
