"""Processor time of short commands, beside a Python that does nothing."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable

from benchmarks.host import Bench
from benchmarks.report import Report
from vc_core import Start

_PODS = 10

# Prints the processor time of the process itself, without that of QEMU and other children.
_OWN = """
import atexit, resource, sys
def tell():
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, file=sys.stderr)
atexit.register(tell)
from vc_core.__main__ import main
main()
"""


async def run(report: Report, bench: Bench) -> None:
    """Measures, each command in turn with the Python that does nothing."""
    async with bench.runtime() as runtime:
        await runtime.make_template()
        pods = [await runtime.create(start=Start.TEMPLATE) for _ in range(_PODS)]
        try:
            for pod in pods:
                await pod.start()
                await pod.close()
            lists = {"vc pod ls": ("pod", "ls"), "vc ps": ("ps",)}
            for name, words in lists.items():
                listed = f"{name}, {_PODS} running pods"
                _beside_python(report, bench, listed, words, 8, functools.partial(_whole, bench))
        finally:
            for pod in pods:
                await pod.delete(force=True)
    run_words = ("run", "--start", "template", "--rootfs", "/", "--", "true")
    own = functools.partial(_own, bench)
    _beside_python(report, bench, "vc run -- true, template, our process", run_words, 12, own)


def _beside_python(
    report: Report,
    bench: Bench,
    name: str,
    words: tuple[str, ...],
    target: float,
    measured: Callable[[tuple[str, ...]], float],
) -> None:
    python = sys.executable
    bare, ours = list[float](), list[float]()
    bench.vc(*words)  # compiles what is not compiled yet
    for _ in bench.times(24):
        bare.append(_cpu(bench, [python, "-c", "pass"]))
        ours.append(measured(words))
    floor = report.add(f"python -c pass, beside {name}", "s CPU", bare)
    found = report.add(name, "s CPU", ours)
    report.compare(f"CPU of {name} / python -c pass", found.median, floor.median, target)


def _whole(bench: Bench, words: tuple[str, ...]) -> float:
    return _cpu(bench, [*bench.command, *words])


def _own(bench: Bench, words: tuple[str, ...]) -> float:
    """Processor time of a command without its children, until the interpreter ends."""
    done = subprocess.run(
        [sys.executable, "-c", _OWN, *words],
        env=bench.environment,
        capture_output=True,
        check=True,
    )
    return float(done.stderr.splitlines()[-1])


def _cpu(bench: Bench, words: list[str]) -> float:
    """Processor time of a process from its start to its end."""
    started = subprocess.Popen(words, env=bench.environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime
