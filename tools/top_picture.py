"""Writes docs/howto/top.svg, a picture of `vc top` over three pods that run for it: for when the
screen changes.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from textual.widgets import DataTable, RichLog

from vc_core.cli.top_screen import Screen
from vc_core.engine.api.runtime import Runtime

PICTURE = Path(__file__).resolve().parents[1] / "docs/howto/top.svg"
HEALTH = ("--health-cmd", "wget -qO /dev/null 127.0.0.1", "--health-interval", "1s")
WORK = "while :; do n=$((n+1)); echo job $n is done; sleep 1; done"


def vc(*words: str) -> None:
    """Run a command of vc."""
    subprocess.run([sys.executable, "-P", "-m", "vc_core", *words], check=True)


async def draw() -> None:
    """Save the screen when it shows everything about the selected pod."""
    async with Runtime.open() as runtime:
        screen = Screen(runtime, interval_s=1)
        async with screen.run_test(size=(112, 30)) as pilot:
            pods, processes = (
                screen.query_one(name, DataTable) for name in ("#pods", "#processes")
            )
            log = screen.query_one("#log", RichLog)
            async with asyncio.timeout(120):
                while pods.row_count < 3:
                    await pilot.pause()
                pods.move_cursor(row=2)
                while len(log.lines) < 6 or processes.row_count < 2 or not all(pods.get_row_at(2)):
                    await pilot.pause()
            PICTURE.write_text(without_fonts(screen.export_screenshot(title="vc top")))


def without_fonts(picture: str) -> str:
    """Remove web fonts, so that the page loads nothing from other hosts."""
    picture = re.sub(r"<!--.*?-->|@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    return re.sub(
        r"[ \t]+$", "", picture.replace("Fira Code, monospace", "monospace"), flags=re.MULTILINE
    )


def main() -> None:
    """Start pods, save the picture, delete the pods."""
    vc("image", "build", "busybox")
    vc("pod", "create", "spare")
    vc("run", "-d", "--name", "web", *HEALTH, "busybox", "httpd", "-f", "-v")
    vc("run", "-d", "--name", "worker", "--memory", "64m", "busybox", "sh", "-c", WORK)
    try:
        asyncio.run(draw())
    finally:
        vc("pod", "delete", "--force", "spare", "web", "worker")


if __name__ == "__main__":
    main()
