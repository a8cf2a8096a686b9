"""Many lives of pods with faults: `python -m tests.soak [--lives N] [--minutes N] [--resume]`.

The report is .make/soak.json, written after every ten lives; --resume goes on from there. Needs
root: file systems, control groups and network namespaces are made for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.outside import outside
from tests.soak.faults import keep_no_freed_memory
from tests.soak.lives import KINDS, MOST_FAILURES, Soak
from tests.soak.report import Report

_REPORT = Path(".make/soak.json")
_STEP = 10
_MOST_KIB = 5 << 10


async def _run(report: Report, lives: int, kinds: dict[str, int], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    folder = Path(tempfile.mkdtemp(prefix="vs-", dir="/dev/shm"))
    try:
        async with Soak(folder, folder / "templates", report, kinds) as soak:
            while (
                report.lives < lives
                and len(report.failures) < MOST_FAILURES
                and time.monotonic() < end
            ):
                await soak.run(min(lives, report.lives + _STEP))
                _REPORT.write_text(json.dumps(report.values(), indent=1))
                print(_line(report), flush=True)
    finally:
        shutil.rmtree(folder)


def _line(report: Report) -> str:
    killed, wrong = sum(report.kills.values()), sum(report.troubles.values())
    return (
        f"{report.lives} lives, {killed} killed, {wrong} troubles, {report.refused} calls refused, "
        f"{report.grown_kib} KiB grown, {report.descriptors} descriptors more, "
        f"{report.seconds:.0f} s"
    )


def main() -> int:
    """Prints a line for every ten lives, and at the end the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lives", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10**6, help="begin no more lives then")
    parser.add_argument("--resume", action="store_true", help="go on where the report ends")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    asked = parser.parse_args()
    report = Report(asked.seed)
    if asked.resume and _REPORT.exists():
        report = Report.of(json.loads(_REPORT.read_text()))
    kinds = {kind: KINDS[kind] for kind in asked.kinds}
    keep_no_freed_memory()
    with outside():
        asyncio.run(_run(report, asked.lives, kinds, asked.minutes * 60))
    print(json.dumps(report.values(), indent=1))
    for failure in report.failures:
        print(failure, file=sys.stderr)
    is_good = not report.failures and report.grown_kib < _MOST_KIB and report.descriptors <= 0
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
