"""What is told of pods that were started at once, and what they can leave."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import replace

from conformance import residue
from conformance.at_once import Found
from conformance.containerd import Engine

GOOD = Found(2, 2, 2, started_s=3.25, answered_s=1, removed_s=2, left=())


def test_pods_are_good_when_all_ran_and_answered_and_nothing_is_left():
    assert GOOD.is_good
    assert str(GOOD) == (
        "2 of 2 run after 3.2 s, 2 answer after 1.0 s, all are removed after 2.0 s; nothing is left"
    )
    left = replace(GOOD, left=("mount /m", "process 7"))
    assert str(left).endswith("; left:\nmount /m\nprocess 7")
    for bad in (left, replace(GOOD, running=1), replace(GOOD, answering=1)):
        assert not bad.is_good


def test_processes_sockets_and_files_are_found(tmp_path):
    engine = Engine("", (), "", tmp_path, os.getpid())
    before = residue.found(engine, "r", ["/nothing/"])
    (tmp_path / "r/run/pods").mkdir(parents=True)
    name = str(tmp_path / "s")
    with (
        socket.socket(socket.AF_UNIX) as made,
        subprocess.Popen(["sleep", "100"]) as inside,
    ):
        made.bind(name)
        found = residue.found(engine, "r", ["/nothing/"]) - before
        inside.kill()
    assert {f"socket {name}", f"file {tmp_path}/r/run/pods"} <= found
    assert any(line.startswith(f"process {inside.pid}:") for line in found)
