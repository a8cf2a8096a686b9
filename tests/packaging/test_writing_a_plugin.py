"""docs/writing-a-plugin.md, typed as it stands into an empty folder, with wheels of this
checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT

PAGE = ROOT / "docs/writing-a-plugin.md"
BLOCK = re.compile(r"(?:<!-- (file|patch): (\S+) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)

pytestmark = [pytest.mark.packaging, pytest.mark.vm, pytest.mark.timeout(900)]


class Reader:
    """Does what the page says. Paths are relative to where the last `cd` led."""

    def __init__(self, place: Path, environ: dict[str, str]) -> None:
        self.at = place
        self._environ = environ

    def write(self, name: str, text: str) -> None:
        (self.at / name).write_text(text)

    def patch(self, name: str, text: str) -> None:
        file = self.at / name
        lines = text.splitlines()
        old = "\n".join(line[1:] for line in lines if not line.startswith("+"))
        new = "\n".join(line[1:] for line in lines if not line.startswith("-"))
        source = file.read_text()
        assert source.count(old) == 1, old
        file.write_text(source.replace(old, new))

    def type(self, text: str) -> None:
        for typed in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            line, _, expected = typed.partition("\n")
            self._run(line, expected.splitlines())

    def _run(self, line: str, expected: list[str]) -> None:
        if line.startswith("cd "):
            self.at /= line.removeprefix("cd ")
            return
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=self.at,
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
        )
        told = done.stdout + done.stderr
        assert (done.returncode != 0) == line.endswith("# fails"), (line, told)
        for words in expected:
            assert all(part in told for part in words.split("...")), (words, told)


def test_the_page_is_true_word_by_word(wheels, tmp_path):
    if os.geteuid() != 0 or shutil.which("qemu-system-x86_64") is None:
        pytest.skip("the page's pod needs QEMU, and this user a store of its own")
    reader = Reader(
        tmp_path,
        {**os.environ, "PIP_FIND_LINKS": str(wheels), "PIP_CONSTRAINT": f"{ROOT}/constraints.txt"},
    )
    for action, name, _kind, text in BLOCK.findall(PAGE.read_text()):
        if action == "file":
            reader.write(name, text)
        elif action == "patch":
            reader.patch(name, text)
        else:
            reader.type(text)
