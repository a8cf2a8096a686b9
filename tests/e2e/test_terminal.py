"""A person at a terminal: what is typed at a real pseudo-terminal, and what it shows."""

from __future__ import annotations

import json
import os
import re
import signal
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from tests.e2e.conftest import HYPERVISORS, VC

pytestmark = pytest.mark.only("qemu")

PROMPT = re.compile(rb"ready> $")
# A shell whose prompt no line that is typed has in it.
SHELL = ("-e", "PS1=rea\\dy> ", "--", "bash", "--norc", "--noediting")


@pytest.fixture
def terminal(host) -> Iterator[Callable[..., pexpect.spawn]]:
    """Types commands; each has a terminal of its own."""
    opened: list[pexpect.spawn] = []

    def typed(*words: str, **options: object) -> pexpect.spawn:
        size = {"dimensions": (30, 90), **options}
        opened.append(
            pexpect.spawn(VC[0], [*VC[1:], *words], env=host.environ(), timeout=60, **size)
        )
        return opened[-1]

    yield typed
    for one in opened:
        if not one.closed:
            one.close(force=True)


def settings(shown: pexpect.spawn) -> list[object]:
    """How a terminal is set."""
    return termios.tcgetattr(shown.child_fd)


def ends(shown: pexpect.spawn) -> int:
    """The exit code of the command in it."""
    shown.expect(pexpect.EOF)
    shown.wait()
    return shown.exitstatus


@pytest.fixture
def shell(terminal) -> pexpect.spawn:
    """A shell in a pod of its own, which has shown its prompt."""
    shown = terminal(
        "run", "-it", "--name", "p", "-e", "PS1=rea''dy> ", "--", "bash", "--norc", "--noediting"
    )
    shown.expect_exact("rea''dy> ")
    shown.sendline("PS1=$(printf 'rea%s> ' dy)")
    shown.expect(PROMPT)
    return shown


def says(shown: pexpect.spawn, line: str) -> str:
    """What a line that is typed at the shell shows."""
    shown.sendline(line)
    shown.expect(PROMPT)
    return shown.before.decode().partition("\r\n")[2].strip()


@pytest.mark.only(*HYPERVISORS)
def test_a_shell_has_a_terminal_of_our_size_and_kind_and_gives_its_code(shell):
    assert says(shell, "tty").startswith("/dev/pts/")
    assert says(shell, "stty size; echo $TERM") == "30 90\r\nxterm-256color"
    shell.setwinsize(41, 101)
    assert (
        says(
            shell,
            "until [ \"$(stty size)\" = '41 101' ]; do read -t 0.05 </dev/null; done; stty size",
        )
        == "41 101"
    )
    shell.sendline("exit 5")
    assert ends(shell) == 5


def test_keys_go_to_the_command_and_not_to_us(shell):
    # A command that has answered is there to be interrupted: between its fork and its exec, bash
    # loses a ^C.
    shell.sendline("cat")
    shell.sendline("up")
    shell.expect_exact("up\r\nup")
    shell.sendintr()
    shell.expect(PROMPT)
    assert says(shell, "echo $?") == "130"
    shell.sendline("cat")
    shell.sendline("up")
    shell.expect_exact("up\r\nup")
    shell.send("\x1a")
    shell.expect("Stopped")
    shell.expect(PROMPT)
    assert "cat" in says(shell, "jobs")
    shell.sendline("kill %1")
    shell.expect(PROMPT)
    shell.sendeof()
    shell.expect(["There are stopped jobs", pexpect.EOF])
    if shell.isalive():
        shell.sendeof()
    ends(shell)


def test_the_terminal_is_as_before_whatever_happens(host, terminal):
    for end in (signal.SIGTERM, signal.SIGINT):
        shown = terminal("run", "-it", "--", "tail", "-n", "1", "-f", "/etc/debian_version")
        before = settings(shown)
        shown.expect_exact(Path("/etc/debian_version").read_text().strip())
        assert settings(shown) != before, "keys would not go through"
        shown.kill(end)
        assert ends(shown) == 128 + end
        assert settings(shown)[:4] == before[:4]
    shown = terminal("run", "-it", "--", "missing")
    assert ends(shown) == 127
    assert settings(shown)[:4] == before[:4]


def test_a_stopped_vc_gives_the_terminal_back_and_takes_it_again(terminal, host):
    shown = terminal("run", "-it", "--", "sh", "-c", "echo up; cat")
    before = settings(shown)
    shown.expect_exact("up")
    shown.kill(signal.SIGTSTP)
    os.waitid(os.P_PID, shown.pid, os.WSTOPPED | os.WNOWAIT)
    assert settings(shown)[:4] == before[:4]
    shown.kill(signal.SIGCONT)
    shown.sendline("again")
    shown.expect_exact("again\r\nagain")
    shown.sendeof()
    assert ends(shown) == 0


def test_detach_keys_leave_it_running_and_attach_comes_back(host, terminal, shell):
    says(shell, "word=kept")
    shell.send("\x10")
    shell.send("\x11")
    shell.expect_exact("pod p keeps running; use 'vc attach p' to reattach")
    assert ends(shell) == 0
    assert json.loads(host.vc("pod", "status", "p", "--json").stdout)["state"] == "running"
    back = terminal("attach", "--detach-keys", "ctrl-x", "p")
    back.sendline("")
    back.expect(PROMPT)
    assert says(back, "echo $word") == "kept"
    back.send("\x18")
    assert ends(back) == 0
    again = terminal("attach", "p")
    again.sendline("exit 3")
    assert ends(again) == 3
    host.vc("pod", "delete", "--force", "p")


def test_one_more_process_has_a_terminal_of_its_own(host, terminal):
    host.vc("run", "-d", "--name", "p", "--", "sleep", "99")
    shown = terminal(
        "exec", "-it", "p", "--", "sh", "-c", "stty size; read word; echo got $word; exit 4"
    )
    shown.expect_exact("30 90")
    shown.sendline("this")
    shown.expect_exact("got this")
    assert ends(shown) == 4
    host.vc("pod", "delete", "--force", "p")


def test_an_editor_and_a_pager_draw_what_they_should(shell):
    shell.sendline("vi -u NONE -c 'set nocompatible' /tmp/file")
    shell.expect_exact("\x1b[29;1H~")  # the last but one of our 30 rows
    shell.send("ifirst line\rsecond line\x1b:wq\r")
    shell.expect(PROMPT)
    assert says(shell, "cat /tmp/file") == "first line\r\nsecond line"
    shell.sendline("seq 1 500 > /tmp/many; less /tmp/many")
    shell.expect_exact("28")
    shell.send("G")
    shell.expect_exact("500")
    shell.send("q")
    shell.expect(PROMPT)
    assert "\x1b[31m" in says(shell, "printf '\\033[31mred\\033[0m\\n'"), "colours come through"
    shell.sendline("exit 0")
    assert ends(shell) == 0


def test_a_terminal_that_is_gone_ends_the_command_and_the_pod(host, shell):
    os.close(shell.child_fd)
    os.waitpid(shell.pid, 0)
    shell.closed, shell.child_fd = True, -1
    assert host.residue() == []
