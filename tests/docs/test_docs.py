"""Docs are true: files that are named exist, settings are all listed, code runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rules import named_in_parity
from tools import cli_page, hooks_page
from vc_core.cli.configuration import _tables, attribute_texts
from vc_core.cli.render import plain
from vc_core.config import Config, field_names
from vc_core.defaults import Use
from vc_core.engine.state.states import TRANSITIONS
from vc_core.engine.wiring.catalog import Catalog

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_files_that_are_named_exist(page):
    text = page.read_text()
    links = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert all((page.parent / target).exists() for target in links), links
    paths = re.findall(r"`((?:vc_core|plugins|tests|docs)/[\w./]+)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_decisions_are_numbered_once():
    pages = sorted((ROOT / "docs/decisions").glob("*.md"))
    numbers = [int(page.name[:4]) for page in pages]
    assert numbers == list(range(1, len(pages) + 1))
    titles = [page.read_text().partition(".")[0] for page in pages]
    assert titles == [f"# {number}" for number in numbers]


@pytest.mark.parametrize(
    "use", [Use(), Use(hypervisor="libvirt", observers=("chaos", "metrics", "policy"))]
)
def test_every_setting_is_listed_with_its_default(use):
    text = (ROOT / "docs/configuration.md").read_text()
    for path, kind in _tables(Config(use), Catalog()):
        section = text.partition(f"## `[{path}]`")[2].partition("\n## ")[0]
        listed = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \| .+ \|$", section, re.MULTILINE))
        defaults = {name: getattr(kind(), name) for name in field_names(kind)}
        assert list(listed) == list(defaults), path
        if not path.startswith(
            ("agent", "storage", "template", "snapshot")
        ):  # whose paths depend on the user
            assert listed == {name: plain(value) for name, value in defaults.items()}
        assert set(attribute_texts(kind)) == set(defaults), path


def test_the_page_of_hooks_is_what_the_code_says():
    assert (ROOT / "docs/hooks.md").read_text() == hooks_page.page(), "run 'make generate'"


def test_the_page_of_commands_is_what_they_say():
    # In a process of its own: click keeps the help option of the first test that has asked a
    # command for it.
    program = "from tools import cli_page; print(cli_page.page(), end='')"
    page = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert (ROOT / "docs/reference/cli.md").read_text() == page, "run 'make generate'"


def test_help_fits_a_usual_terminal():
    blocks = re.findall(r"```text\n(.+?)\n```", cli_page.page(), re.DOTALL)
    assert [
        line for block in blocks for line in block.splitlines() if len(line) > 80 or "\\b" in line
    ] == []


def test_the_table_of_states_is_the_one_in_force():
    text = (ROOT / "docs/architecture.md").read_text()
    rows = dict(re.findall(r"^\| (ready|running|paused|stopped) \| (.+) \|$", text, re.MULTILINE))
    assert {key: set(value.split(", ")) for key, value in rows.items()} == {
        key.value: {state.value for state in following} for key, following in TRANSITIONS.items()
    }


def test_every_test_that_parity_names_exists():
    """That they ran and passed is checked at the session's end, by tests/rules.py."""
    sources = [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("plugins/*/tests/test_*.py")]
    defined = {name for path in sources for name in re.findall(r"def (test_\w+)", path.read_text())}
    named = named_in_parity(ROOT)
    assert named - defined == set()
    rows = re.findall(
        r"^\| (\d+)\. .* `test_\w+` \|$", (ROOT / "docs/parity.md").read_text(), re.MULTILINE
    )
    assert rows == [str(number) for number in range(1, 25)], "every defect has a test"


def test_every_command_of_the_readme_is_one():
    from click.testing import CliRunner

    from vc_core.cli import vc

    for name in sorted(set(re.findall(r"\bvc ([a-z]+)\b", (ROOT / "README.md").read_text()))):
        assert CliRunner().invoke(vc, [name, "--help"]).exit_code == 0, name


@pytest.mark.vm
@pytest.mark.parametrize(
    ("number", "told"), [(0, "hello from Linux\n 0\n"), (1, "b'42\\n' 0 exited\n")]
)
def test_the_readmes_python_runs(number, told):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", blocks[number]],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, told), done.stderr


def test_no_file_is_too_long_and_none_is_called_utils():
    files = subprocess.run(
        ["git", "ls-files", "*.py", "*.rs"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in files.stdout.split():
        if "_generated/" in name:
            continue
        assert len((ROOT / name).read_text().splitlines()) <= 400, name
        assert Path(name).stem not in {"utils", "helpers", "common", "base", "misc"}, name


def test_every_test_that_security_names_exists():
    """A row of the table "tried and held" without a test would be a claim."""
    text = (
        (ROOT / "docs/security.md")
        .read_text()
        .partition("## Tried and held")[2]
        .partition("\n## ")[0]
    )
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    named = re.findall(r"`((?:tests|plugins)/[\w/]+\.py)(?:::(test_\w+))?`", text)
    assert len(rows) > 20
    assert [row for row in rows if "test_" not in row] == []
    missing = [
        f"{file}::{name}"
        for file, name in named
        if f"def {name}(" not in (ROOT / file).read_text() and name
    ]
    assert missing == []
