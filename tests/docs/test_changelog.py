"""Changelog fragments: every one has a known type and says something, in every distribution."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


@pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=[folder.name for folder in DISTRIBUTIONS])
def test_fragments_of_a_distribution_can_be_released(folder):
    settings = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["towncrier"]
    types = {kind["directory"] for kind in settings["type"]}
    fragments = [path for path in (folder / "changelog.d").iterdir() if path.name != "README.md"]
    assert [
        path.name
        for path in fragments
        if path.name.split(".")[1:] not in [[kind, "md"] for kind in types]
    ] == []
    assert [
        path.name for path in fragments if not path.read_text().strip().endswith((".", ")"))
    ] == []
    command = [
        sys.executable,
        "-m",
        "towncrier",
        "build",
        "--draft",
        "--dir",
        folder,
        "--date",
        "2026-01-01",
    ]
    draft = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [
        path.name for path in fragments if path.read_text().split("\n")[0].strip() not in draft
    ] == []
