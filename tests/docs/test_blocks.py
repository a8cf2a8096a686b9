"""Every shell and Python block of the documentation is typed as it stands, page by page, and says
what the page says.

In a `console` block lines behind `$ ` are typed and what follows is what they say; `...` stands for
anything, on a line of its own for any number of lines. A comment that begins with `setup` is done
first. docs/writing-a-plugin.md has a test of its own, which needs wheels; the blocks of
docs/hooks.md are signatures, written from the code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from vc_core.cli.render import plain

ROOT = Path(__file__).resolve().parents[2]
OTHERWISE = {"writing-a-plugin.md", "hooks.md"}
BLOCK = re.compile(r"<!-- (setup)\n(.*?)-->|^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
RUN = {"setup", "console", "python"}
SHOWN = {"text", "toml", "py"}  # not to be typed; "py" needs what no machine here has
PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name not in OTHERWISE]


def blocks(page: Path) -> list[tuple[str, str]]:
    return [
        (match[1] or match[3], match[2] or match[4]) for match in BLOCK.finditer(page.read_text())
    ]


PAGES = [page for page in PAGES if any(kind in RUN for kind, _ in blocks(page))]


def says(expected: str, told: str) -> bool:
    """Whether it is what the page says."""
    pattern = ""
    for line in expected.splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += r"[^\n]*".join(map(re.escape, line.split("..."))) + r"\n"
    return (
        re.fullmatch(pattern, told if told.endswith("\n") or not told else told + "\n") is not None
    )


def test_what_a_page_says_is_compared():
    assert says("a ... d\n...\ne\n", "a b c d\nx\ny\ne\n")
    assert says("", "")
    assert not says("a\n", "b\n")
    assert not says("a\n", "a\nb\n")


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_every_kind_of_block_is_known(page):
    assert {kind for kind, _ in blocks(page)} <= RUN | SHOWN | {"toml", "python", "diff", "json"}


@pytest.mark.vm
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_a_page_is_true_word_by_word(page):
    with tempfile.TemporaryDirectory(
        prefix="vc-", dir="/tmp"
    ) as folder:  # short: sockets lie in it
        type_page(page, Path(folder))


def type_page(page: Path, folder: Path) -> None:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed (the package qemu-system-x86)")
    tables = {
        "storage.fs": {"run_root": "run", "config_root": "config"},
        **{name: {"dir": name} for name in ("image", "data", "volume", "snapshot")},
    }
    lines = []
    for table, values in tables.items():
        lines += [
            f"[{table}]",
            *(f"{key} = {plain(folder / 'store' / value)}" for key, value in values.items()),
        ]
    (folder / "config.toml").write_text("\n".join(lines))
    (folder / "here").mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "VC_CONFIG": str(folder / "config.toml")}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=folder / "here",
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    try:
        for kind, text in blocks(page):
            if kind == "setup":
                done = run("bash", "-e", "-c", text)
                assert done.returncode == 0, done.stdout
            elif kind == "python":
                done = run(sys.executable, "-c", text)
                assert done.returncode == 0, (text, done.stdout)
            elif kind == "console":
                for typed in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                    line, _, expected = typed.partition("\n")
                    done = run("bash", "-c", line)
                    assert done.returncode == 0, (line, done.stdout)
                    assert says(expected, done.stdout), (line, done.stdout)
    finally:
        left = run("vc", "pod", "ls", "--json").stdout
        for pod in re.findall(r'"id": "([^"]+)"', left):
            run("vc", "pod", "delete", "--force", pod)
