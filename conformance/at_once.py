"""Pods that are started at the same time through containerd, used, and removed."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance import residue
from conformance.containerd import Engine

_IMAGE = "registry.k8s.io/e2e-test-images/busybox:1.29-2"
_LIMIT_S = 600
_GROUPS = f"/vc-at-once-{os.getpid()}"
_END_S = 60.0  # for what ends by itself after a pod is removed, such as containerd's shim
_WORDS = "here"


@dataclass(frozen=True)
class Found:
    """What has become of the pods of one runtime.

    Attributes:
        count: how many were asked for.
        running: how many containers ran.
        answering: in how many a command ran.
        started_s: seconds until all ran.
        answered_s: seconds for a command in each, all at once.
        removed_s: seconds until all were removed.
        left: what was left.
    """

    count: int
    running: int
    answering: int
    started_s: float
    answered_s: float
    removed_s: float
    left: Sequence[str]

    def __str__(self) -> str:
        left = "\n".join(["left:", *self.left]) if self.left else "nothing is left"
        return (
            f"{self.running} of {self.count} run after {self.started_s:.1f} s, "
            f"{self.answering} answer after {self.answered_s:.1f} s, "
            f"all are removed after {self.removed_s:.1f} s; {left}"
        )

    @property
    def is_good(self) -> bool:
        """Whether all ran and answered, and nothing is left."""
        return self.running == self.answering == self.count and not self.left


class _Client:
    """crictl, typed several times at once."""

    def __init__(self, program: Path, engine: Engine) -> None:
        own = ("--config", os.devnull, "--runtime-endpoint", engine.endpoint)
        self._words = (*engine.enter, str(program), *own, "--timeout", f"{_LIMIT_S}s")

    def typed(self, commands: Sequence[Sequence[str]]) -> list[str | None]:
        """Returns the output of each command; None of one that failed, whose errors are printed."""
        processes = [
            subprocess.Popen([*self._words, *one], stdout=subprocess.PIPE) for one in commands
        ]
        told = [one.communicate(timeout=_LIMIT_S)[0].decode().strip() for one in processes]
        return [
            text if one.returncode == 0 else None for one, text in zip(processes, told, strict=True)
        ]

    def lines(self, *words: str) -> list[str]:
        """Returns the lines that a command prints.

        Raises:
            CalledProcessError: it fails.
        """
        done = subprocess.run([*self._words, *words], stdout=subprocess.PIPE, check=True)
        return done.stdout.decode().split()


def run(program: Path, engine: Engine, handler: str, count: int) -> Found:
    """Runs pods of one container each.

    Args:
        program: crictl.
        engine: the containerd.
        handler: name of the runtime.
        count: how many.
    """
    client = _Client(program, engine)
    with tempfile.TemporaryDirectory(prefix="vc.") as folder:
        written = [_written(Path(folder), handler, number) for number in range(count + 1)]
        runs = [("run", "--no-pull", "--runtime", handler, *map(str, one)) for one in written]
        # The first pod of a host is no other's: the image, the bridge and the template stay.
        client.lines("pull", _IMAGE)
        client.typed(runs[:1])
        client.typed([("rmp", "--force", one) for one in client.lines("pods", "--quiet")])
        names = [f"{_GROUPS}/"]  # below what is the caller's
        before = residue.found(engine, handler, names)
        began = time.monotonic()
        client.typed(runs[1:])
        containers = client.lines("ps", "--quiet", "--state", "Running")
        started = time.monotonic()
        told = client.typed([("exec", "--sync", one, "echo", _WORDS) for one in containers])
        answered = time.monotonic()
        pods = client.lines("pods", "--quiet")
        names += [one[:12] for one in pods]  # what vc-runtime calls the pod of one
        client.typed([("rmp", "--force", one) for one in pods])
        removed = time.monotonic()
        left = _left(lambda: residue.found(engine, handler, names) - before)
    residue.remove_group(_GROUPS)
    return Found(
        count,
        len(containers),
        told.count(_WORDS),
        started - began,
        answered - started,
        removed - answered,
        left,
    )


def _written(folder: Path, handler: str, number: int) -> tuple[Path, Path]:
    """Writes a container and its pod, in the format of crictl."""
    container, pod = folder / f"container-{number}.json", folder / f"pod-{number}.json"
    command = ["sleep", "100000"]
    about = {"metadata": {"name": "sleeper"}, "image": {"image": _IMAGE}, "command": command}
    container.write_text(json.dumps({**about, "linux": {}}))
    name = f"at-once-{handler}-{number}"
    metadata = {"name": name, "namespace": "default", "uid": name, "attempt": 1}
    pod.write_text(json.dumps({"metadata": metadata, "linux": {"cgroup_parent": _GROUPS}}))
    return container, pod


def _left(found: Callable[[], set[str]]) -> list[str]:
    """Returns what is left, once what ends by itself has ended; nobody tells when."""
    until = time.monotonic() + _END_S
    while (left := found()) and time.monotonic() < until:
        time.sleep(0.5)
    return sorted(left)
