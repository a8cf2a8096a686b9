"""Gives every parser of untrusted bytes new ones: those of the host by atheris, those of the agent
by cargo-fuzz. usage: python -m tools.fuzz [--seconds N] [NAME...]

A target takes 60 seconds unless asked otherwise; as many run at once as there are processors. New
inputs are kept below .make/fuzz, for the next time. The exit code is 1 when there was a crash: its
input is then below .make/fuzz/crashes, and becomes a test when it is copied to the corpus
(tests/fuzz/corpus, plugins/agent_grpc/fuzz/corpus).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".make/fuzz"
HOST = ROOT / "tests/fuzz/corpus"
AGENT = ROOT / "plugins/agent_grpc/fuzz/corpus"
CARGO_FUZZ = ROOT / ".make/cargo-fuzz/bin"

_DONE = re.compile(r"Done (\d+) runs? in (\d+) second")
_COVERED = re.compile(r"\bcov: (\d+)")


@dataclass(frozen=True)
class Result:
    """Of one target.

    Attributes:
        name: of the target.
        runs: inputs that were tried; 0 when it crashed.
        covered: places of the program that were reached.
        crash: the end of its output when it crashed.
    """

    name: str
    runs: int
    covered: int
    crash: str = ""


def targets() -> dict[str, list[str]]:
    """The command line of each target, by its name: host/... or agent/..."""
    host = {f"host/{one.name}": [sys.executable, "-m", "tests.fuzz", one.name] for one in _in(HOST)}
    agent = {f"agent/{one.name}": [str(_binary(one.name))] for one in _in(AGENT)}
    return host | agent


def _in(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir())


def _binary(name: str) -> Path:
    return WORK / "x86_64-unknown-linux-gnu/release" / name


def build() -> None:
    """Builds the targets of the agent: with a stable Rust, which has no sanitizers."""
    command = ["cargo", "fuzz", "build", "--fuzz-dir", "fuzz", "--sanitizer", "none"]
    environment = {
        **os.environ,
        "PATH": f"{CARGO_FUZZ}:{os.environ['PATH']}",
        "CARGO_TARGET_DIR": str(WORK),
    }
    command += ["--features", "libfuzzer", "--target", "x86_64-unknown-linux-gnu"]
    subprocess.run(command, cwd=AGENT.parent.parent, env=environment, check=True)


def run(name: str, command: list[str], seconds: int) -> Result:
    """Runs one target for some time."""
    side, short = name.split("/")
    kept = (HOST if side == "host" else AGENT) / short
    grown, crashes = WORK / "corpus" / name, WORK / "crashes" / name
    for folder in (grown, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", "-timeout=30", "-rss_limit_mb=2048"]
    words = [*command, *limits, f"-artifact_prefix={crashes}/", str(grown), str(kept)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
    text = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
    runs = _DONE.search(text)
    covered = max(map(int, _COVERED.findall(text)), default=0)
    if done.returncode != 0 or runs is None:
        return Result(name, 0, covered, text[-3000:])
    return Result(name, int(runs[1]), covered)


def main() -> int:
    """Runs the targets and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("names", nargs="*", help="of targets, e.g. host/record; all by default")
    asked = parser.parse_args()
    known = targets()
    if unknown := [name for name in asked.names if name not in known]:
        sys.exit(f"no target {unknown[0]}; there are: {', '.join(known)}")
    chosen = asked.names or list(known)
    if any(name.startswith("agent/") for name in chosen):
        build()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda name: run(name, known[name], asked.seconds), chosen))
    lines = [f"{'target':26} {'inputs':>12} {'places':>8}  result"]
    for result in results:
        verdict = "crash" if result.crash else "good"
        lines.append(f"{result.name:26} {result.runs:12,} {result.covered:8,}  {verdict}")
    lines += [f"\n== {result.name}: {result.crash}" for result in results if result.crash]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(any(result.crash for result in results))


if __name__ == "__main__":
    sys.exit(main())
