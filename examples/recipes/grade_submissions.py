"""Grades a directory of submissions, each in its own machine, several at a time.

`python grade_submissions.py DIRECTORY`: a submission is a Python file that reads a number and
prints its square. If it takes longer than 20 s for a number, it is not asked again.
"""

import asyncio
import sys
from pathlib import Path

from vc_core import End, Resources, Runtime

AT_ONCE = 4
QUESTIONS = {b"7": b"49", b"-3": b"9", b"0": b"0"}
LIMITS = Resources(memory_bytes=64 << 20, pids=16)


async def grade(runtime: Runtime, submission: Path, turns: asyncio.Semaphore) -> tuple[str, int]:
    async with turns, runtime.pod() as pod:
        right = 0
        for question, answer in QUESTIONS.items():
            command = ("python3", "-I", "-c", submission.read_text())
            result = await pod.run(*command, stdin=question, resources=LIMITS, timeout_s=20)
            right += result.stdout.strip() == answer
            if result.end is End.TIMED_OUT:
                break  # do not ask again
        return submission.stem, right


async def main(folder: Path) -> None:
    turns = asyncio.Semaphore(AT_ONCE)
    async with Runtime.open() as runtime, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(grade(runtime, submission, turns))
            for submission in sorted(folder.glob("*.py"))
        ]
    for task in tasks:
        name, right = task.result()
        print(f"{name:20} {right}/{len(QUESTIONS)}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
