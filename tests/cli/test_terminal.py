"""Keys that detach, and what is no terminal."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vc_core.cli.terminal import DetachKeys, parse_keys
from vc_core.spec import InvalidRequest

KEYS = parse_keys("ctrl-p,ctrl-q")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("", b""),
        ("a,ctrl-a", b"a\x01"),
        ("ctrl-@", b"\x00"),
        ("ctrl-]", b"\x1d"),
    ],
)
def test_keys_are_named_as_other_engines_name_them(text, keys):
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "escape", "ü", "ctrl-p,,x,alt-q"])
def test_what_is_no_key_is_told(text):
    with pytest.raises(InvalidRequest, match="is not a key; use letters"):
        parse_keys(text)


@pytest.mark.parametrize(
    ("typed", "passed"),
    [
        ([b"abc"], b"abc"),
        ([b"a\x10", b"b"], b"a\x10b"),
        ([b"\x10", b"\x10", b"c"], b"\x10\x10c"),
        ([b"\x11\x10x"], b"\x11\x10x"),
    ],
)
def test_everything_else_goes_through(typed, passed):
    found = [DetachKeys(KEYS).look(b"".join(typed)), *[(b"", False)]]
    assert found[0] == (passed, False)
    keys = DetachKeys(KEYS)
    assert b"".join(keys.look(data)[0] for data in typed) == passed


@pytest.mark.parametrize(
    "typed", [[b"ab\x10\x11cd"], [b"ab\x10", b"\x11"], [b"a", b"b\x10", b"\x11"]]
)
def test_the_sequence_detaches_however_it_comes(typed):
    keys = DetachKeys(KEYS)
    looked = [keys.look(data) for data in typed]
    assert b"".join(passed for passed, _ in looked) == b"ab"
    assert looked[-1][1]


def test_without_keys_nothing_detaches():
    assert DetachKeys(b"").look(b"\x10\x11") == (b"\x10\x11", False)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["run", "-it", "--", "true"],
            "-t needs a terminal, and stdin is not one; remove -t",
        ),
        (["exec", "-t", "p", "--", "true"], "-t needs a terminal"),
    ],
)
def test_what_is_no_terminal_is_told_before_anything_is_made(words, told):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "vc_core", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 125
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
