"""Prepares a pod once and forks it for each request, so that every fork starts prepared.

`python fork_per_request.py WORD...` answers each word by a process that has its data in memory.
"""

import asyncio
import sys

from vc_core import Runtime

# A server that has loaded its data. It reads a request from one pipe and answers on another.
SERVER = """
mkfifo /tmp/ask /tmp/answer
table=$(seq 1 2000 | sha256sum)
while :; do read word < /tmp/ask; echo "$word ${table%% *}" > /tmp/answer; done
"""
ASK = 'echo "$1" > /tmp/ask; cat /tmp/answer'


async def answer(runtime: Runtime, parent: str, word: str) -> str:
    (child,) = await (await runtime.get(parent)).fork()
    try:
        process = await child.exec("sh", "-c", ASK, "ask", word)
        return (await process.communicate()).stdout.decode().strip()
    finally:
        await child.delete(force=True)


async def main(words: list[str]) -> None:
    async with Runtime.open() as runtime, runtime.pod() as pod:
        await pod.launch("sh", "-c", SERVER)
        await (await pod.exec("sh", "-c", "until [ -p /tmp/answer ]; do :; done")).wait()
        for word in words:
            print(await answer(runtime, pod.id, word))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
