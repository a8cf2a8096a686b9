"""Standard streams that are closed, full or not read any more: as coreutils and docker have it, in
one line.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

FULL = "vc: error: stdout cannot be written: No space left on device\n"


def typed(words: str, redirected: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command with its redirections, as a shell understands them.

    Warnings are errors that are printed.
    """
    line = f"{shlex.quote(sys.executable)} -P -W error -m vc_core {words} {redirected}"
    return subprocess.run(
        ["sh", "-c", line],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environ},
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["--version", "--help", "plugins", "plugins --json"])
def test_a_full_disk_under_stdout_is_told_in_one_line(words, unbuffered):
    done = typed(words, ">/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (125, FULL)
    silent = typed(words, ">/dev/full 2>/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert silent.returncode == 125, "the exit code is all that can be told"


@pytest.mark.parametrize("words", ["--version", "--help", "plugins", "plugins --json"])
@pytest.mark.parametrize("redirected", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_as_one_that_nobody_reads(words, redirected):
    done = typed(words, redirected)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (">&- " not in f"{redirected} ".replace("2>&- ", ""))


def test_an_error_does_not_land_in_a_file_that_got_a_closed_streams_number(tmp_path):
    config = tmp_path / "vc.toml"
    config.write_text("[use]\nstorage = 'nobody'\n")
    done = typed(f"--config {config} ps", "2>&- >&-")
    assert (done.returncode, config.read_text()) == (125, "[use]\nstorage = 'nobody'\n")
