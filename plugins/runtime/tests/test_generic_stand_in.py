"""Which program stands in, and how it tells that it cannot."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from vc_runtime import generic_stand_in

from vc_core.spec import AgentError, StandIn, UnsupportedOperation


class _Process:
    pod_id, container_id, token = "p", "c", "t"

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    async def stand_in(self, role, takes_loopback, starter):
        self.asked.append((role, takes_loopback, starter))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_the_agents_own_is_preferred():
    process = _Process(("program", "word"))
    role = StandIn(ends_machine=True)
    assert await generic_stand_in.own_or_generic(process, role, {}, 7) == ("program", "word")
    assert process.asked == [(role, True, 7)]


@pytest.mark.parametrize(("ends_machine", "ends"), [(True, "machine"), (False, "process")])
async def test_an_agent_without_one_gets_the_generic_one(ends_machine, ends):
    process = _Process(UnsupportedOperation("agent_stand_in"))
    role = StandIn(ends_machine=ends_machine)
    words = await generic_stand_in.own_or_generic(process, role, {"HOME": "/h", "VC_CONFIG": ""})
    module = ["-P", "-m", "vc_runtime.generic_stand_in"]
    assert words == [sys.executable, *module, "p", "c", "t", ends, "HOME=/h", "VC_CONFIG="]


@pytest.mark.parametrize("error", [UnsupportedOperation("vm_open_channel"), AgentError("old")])
async def test_other_errors_are_told(error):
    with pytest.raises(type(error)):
        await generic_stand_in.own_or_generic(_Process(error), StandIn(), {})


def test_it_reports_why_it_is_not_connected(tmp_path):
    (tmp_path / "config.toml").write_text(
        f'[storage.fs]\nrun_root = "{tmp_path}/run"\nconfig_root = "{tmp_path}/config"\n'
    )
    words = ("-P", "-m", "vc_runtime.generic_stand_in", "p", "c", "t", "process")
    reading, writing = os.pipe()
    script = (
        f"import os, sys; os.dup2({writing}, 3);"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words, f"VC_CONFIG={tmp_path}/config.toml"],
        pass_fds=(writing,),
        capture_output=True,
        check=False,
    )
    os.close(writing)
    with open(reading, "rb") as report:  # noqa: PTH123 (a descriptor)
        assert report.read().startswith(b"the stand-in is not connected: ")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def _stood_in(ends: str, carried: str) -> tuple[int, str, str]:
    """Runs the program with a `carry` of `carried`; returns its code, stderr and the report.

    The guard's work is printed to stdout by whichever process does it.
    """
    reading, writing = os.pipe()
    script = f"""
import os, signal, sys
os.dup2({writing}, 3)
from vc_runtime import generic_stand_in, relay, stand_in_guard
made = []
fork = os.fork
def forked():
    made.append(fork())
    return made[-1]
os.fork = forked
out = os.dup(1)
async def end(*place, ends_machine, has_ended):
    os.write(out, f"{{ends_machine}} {{has_ended}} {{made[0] > 0}}".encode())
stand_in_guard.end = end
async def carry(pod, container, token, children, connected):
    connected()
{carried}
relay.carry = carry
os._exit(generic_stand_in.main(["p", "c", "t", "{ends}"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], pass_fds=(writing,), capture_output=True, check=False
    )  # its guard has stdout, too: its end is waited for
    os.close(writing)
    with open(reading, "rb") as report:  # noqa: PTH123 (a descriptor)
        assert report.read() == b"ok"
    return done.returncode, done.stdout.decode(), done.stderr.decode()


_KILL_GUARD = "    os.kill(made[0], signal.SIGKILL); os.waitpid(made[0], 0)\n"


@pytest.mark.parametrize("guard", ["", _KILL_GUARD])
@pytest.mark.parametrize(
    ("ends", "ended", "code", "done"),
    [
        ("process", 7, 7, ""),
        ("machine", 7, 7, "True True"),
        ("process", None, 137, "False False"),
        ("machine", None, 137, "True False"),
    ],
)
def test_the_guards_work_is_done(ends, ended, code, done, guard):
    who = f" {bool(guard)}" if done else ""
    assert _stood_in(ends, f"{guard}    return {ended}") == (code, done + who, "")


def test_a_later_error_is_told_on_stderr():
    carried = "    assert os.path.samestat(os.fstat(3), os.stat(os.devnull)); raise OSError('x')"
    told = "vc-runtime: the stand-in has failed: internal error: OSError: x\n"
    assert _stood_in("process", carried) == (1, "False False False", told)
