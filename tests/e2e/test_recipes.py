"""The recipes of examples/recipes, run as they stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Host
from tests.e2e.outside import EVIL, PUBLIC, outside

RECIPES = Path(__file__).resolve().parents[2] / "examples/recipes"

pytestmark = pytest.mark.only("qemu")


def cook(host: Host, name: str, *words: str, stdin: str = "") -> str:
    command = [sys.executable, RECIPES / name, *words]
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        env=host.environ(),
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print(6 * 7)", {"stdout": "42\n", "exit_code": 0, "end": "exited"}),
        ("raise SystemExit(3)", {"exit_code": 3, "end": "exited"}),
        ("while True: pass", {"exit_code": 137, "end": "timed out"}),
        ("x = b'x' * (200 << 20)", {"exit_code": 137, "end": "out of memory"}),
        ("import socket; socket.create_connection(('192.0.2.1', 80), 2)", {"exit_code": 1}),
        ("open('/etc/passwd', 'a')", {"exit_code": 1}),
    ],
)
def test_code_that_nobody_has_read(host, code, told):
    assert told.items() <= json.loads(cook(host, "untrusted_python.py", stdin=code)).items()


def test_submissions_are_graded_each_in_a_machine_of_its_own(host, tmp_path):
    folder = tmp_path / "submissions"
    folder.mkdir()
    answers = {
        "right": "n * n",
        "wrong": "n + n",
        "stuck": "[0 for _ in iter(int, 1)]",
        "broken": "n //",
    }
    for name, formula in answers.items():
        (folder / f"{name}.py").write_text(f"n = int(input())\nprint({formula})\n")
    told = dict(
        line.split() for line in cook(host, "grade_submissions.py", str(folder)).splitlines()
    )
    assert told == {"right": "3/3", "wrong": "1/3", "stuck": "0/3", "broken": "0/3"}


def test_a_prepared_pod_is_forked_for_each_request(host):
    lines = [
        line.split() for line in cook(host, "fork_per_request.py", "first", "second").splitlines()
    ]
    assert [word for word, _ in lines] == ["first", "second"]
    assert len({table for _, table in lines}) == 1, "each has what was prepared"


def test_a_test_has_a_machine_of_its_own(host):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        RECIPES,
    ]
    done = subprocess.run(
        [*command, f"--rootdir={RECIPES}"],
        capture_output=True,
        text=True,
        env=host.environ(),
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout


def test_an_agent_has_a_tool_that_runs_python(host):
    found = _run_python(host.environ(), "print(6 * 7)")
    assert found == {"stdout": "42\n", "stderr": "", "exit_code": 0, "end": "exited"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces for a test")
def test_the_agents_code_reaches_what_is_allowed(host):
    fetch = (
        "import urllib.request as u\n"
        f"print(u.urlopen('http://{PUBLIC}:443/', timeout=20).read())\n"
        f"u.urlopen('http://{EVIL}:443/', timeout=20)"
    )
    with outside():
        found = _run_python({**host.environ(), "SANDBOX_ALLOW": f"{PUBLIC}:443"}, fetch)
    assert (found["stdout"], found["exit_code"]) == ("b'outside'\n", 1)


def _run_python(environ, code):
    messages = [
        {
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"},
            },
        },
        {"method": "notifications/initialized"},
        {
            "id": 2,
            "method": "tools/call",
            "params": {"name": "run_python", "arguments": {"code": code, "timeout_s": 60}},
        },
    ]
    command = [sys.executable, RECIPES / "mcp_server.py"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environ,
    ) as server:
        for message in messages:
            server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        server.stdin.flush()
        replies = {}
        while 2 not in replies:
            reply = json.loads(server.stdout.readline())
            replies[reply.get("id")] = reply
        server.stdin.close()
        server.wait(30)
    return replies[2]["result"]["structuredContent"]
