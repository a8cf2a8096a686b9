"""The end of programs that go to the background, also after a killed starter."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from vc_network import starting

from vc_core.driver_kit import HostProcess

# A starter that is killed: its child has the lock, and becomes a program that goes to the
# background as soon as `end` has looked for it once.
_STARTER = """
import fcntl, os, sys
lock, looked, named, program = (os.environ.pop(name) for name in ("L", "F", "N", "P"))
descriptor = os.open(lock, os.O_RDONLY | os.O_CREAT, 0o600)
fcntl.flock(descriptor, fcntl.LOCK_EX)
os.set_inheritable(descriptor, True)
if os.fork() == 0:
    print("started", flush=True)
    open(looked).close()
    os.execv(sys.executable, [sys.executable, "-c", program, named])
"""
_DAEMON = """
import os, time
os.closerange(3, 64)
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
time.sleep(600)
"""
_HOLDER = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


@contextlib.contextmanager
def _started(tmp_path, program: str) -> Iterator[subprocess.Popen[str]]:
    os.mkfifo(tmp_path / "looked")
    files = {"L": "p.lock", "F": "looked", "N": "p.pid"}
    # Not by its command line: it must not be taken for the program.
    given = {**{key: str(tmp_path / name) for key, name in files.items()}, "P": program}
    words = [sys.executable, "-c", _STARTER]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=given) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "started\n"
        assert starter.wait() == 0
        yield starter


async def test_a_program_that_is_not_one_yet_is_waited_for_and_ended(tmp_path):
    word, looked = str(tmp_path / "p.pid"), tmp_path / "looked"
    with _started(tmp_path, _DAEMON) as starter:

        def find() -> tuple[HostProcess, ...]:
            found = HostProcess.find_in(tmp_path, word)
            if looked.exists():
                assert found == ()
                looked.write_text("")  # waits for the child, which goes on then
                looked.unlink()
            return found

        await starting.end(tmp_path / "p.lock", lambda: None, find)
        assert HostProcess.find_in(tmp_path, word) == ()
        assert starter.stdout is not None
        starter.stdout.read()  # ends with the last process that has it
    assert not (tmp_path / "p.lock").exists()


async def test_a_holder_of_the_lock_with_another_command_line_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(starting, "_BECOMES_S", 0.0)
    with _started(tmp_path, _HOLDER) as starter:
        assert starter.stdout is not None
        (tmp_path / "looked").write_text("")
        assert starter.stdout.readline()
        await starting.end(tmp_path / "p.lock", lambda: None, lambda: ())
        starter.stdout.read()
    assert not (tmp_path / "p.lock").exists()


async def test_what_does_not_end_is_told_and_keeps_nothing_from_being_removed(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(starting, "_LONGEST_S", 0.1)
    with starting._opened(tmp_path / "p.lock") as ours:  # its own process is never ended
        assert starting._is_free(ours)
        with caplog.at_level(logging.WARNING):
            await starting.end(tmp_path / "p.lock", lambda: None, lambda: ())
    assert f"processes of {tmp_path} do not end" in caplog.text
    assert not (tmp_path / "p.lock").exists()


@pytest.mark.parametrize("times", [1, 2])
async def test_nothing_is_left_of_a_start_that_never_was(tmp_path, times):
    for _ in range(times):
        await starting.end(tmp_path / "p.lock", lambda: None, lambda: ())
    assert list(tmp_path.iterdir()) == []


async def test_the_program_cannot_write_to_the_lock(tmp_path):
    words = [sys.executable, "-c", "import os, sys; os.write(int(sys.argv[1]), b'x')"]
    with starting._opened(tmp_path / "p.lock") as descriptor:
        words.append(str(descriptor))
        done = subprocess.run(words, capture_output=True, check=False, pass_fds=[descriptor])
    assert b"Bad file descriptor" in done.stderr
