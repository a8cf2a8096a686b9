"""Grades a folder of submissions, each in a machine of its own, some at a time: `python
grade_submissions.py FOLDER`.

A submission is a Python file that is given a number on its input and shall print its square.
One that takes longer than 20 s over a number is asked no further one.
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
                break  # one that hangs is asked no more
        return submission.stem, right


async def main(folder: Path) -> None:
    turns = asyncio.Semaphore(AT_ONCE)
    async with Runtime.open() as runtime, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(grade(runtime, one, turns)) for one in sorted(folder.glob("*.py"))
        ]
    for task in tasks:
        name, right = task.result()
        print(f"{name:20} {right}/{len(QUESTIONS)}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
