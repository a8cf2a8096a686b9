"""critest of https://github.com/kubernetes-sigs/cri-tools; conformance/cri/go.mod pins it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

from conformance.building import Unusable, go
from conformance.containerd import Engine

_LIMIT_S = 3600
_END_S = 300  # for its clean-up and report after that
_TEST = "[It] "
_GROUP = "[k8s.io] "
_EXCEPTION = re.compile(r"^\| `([^`|]+)` \| ([^|]+) \|$", re.MULTILINE)

Found = dict[str, bool]
"""Whether a test has passed, by its name; those that were skipped are not in it."""


def build(folder: Path) -> tuple[Path, Path]:
    """Builds critest and crictl, and returns their paths.

    Raises:
        Unusable: there is no Go, or it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "critest"
    go("test", "-c", "-o", str(program), "sigs.k8s.io/cri-tools/cmd/critest", module="cri")
    return program, build_client(folder)


def build_client(folder: Path) -> Path:
    """Builds crictl alone, and returns its path.

    Raises:
        Unusable: there is no Go, or it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    go("build", "-o", f"{folder}/", "tool", module="cri")
    return folder / "crictl"


def run(program: Path, engine: Engine, handler: str, focus: str, log: Path) -> Found:
    """Runs the tests that a pattern chooses on a runtime.

    Raises:
        Unusable: it has written no report, or does not end.
    """
    with tempfile.TemporaryDirectory(prefix="vc.") as folder:
        words = [
            *(*engine.enter, "env", f"TMPDIR={folder}", str(program)),
            f"-runtime-endpoint={engine.endpoint}",
            f"-runtime-handler={handler}",
            f"-ginkgo.junit-report={folder}/report.xml",
            "-ginkgo.no-color",
            f"-ginkgo.timeout={_LIMIT_S}s",
            *([f"-ginkgo.focus={focus}"] if focus else []),
        ]
        with log.open("wb") as output:
            try:
                subprocess.run(
                    words, stdout=output, stderr=output, check=False, timeout=_LIMIT_S + _END_S
                )
            except subprocess.TimeoutExpired:
                raise Unusable(f"critest has not ended at its own limit; see {log}") from None
        try:
            return read((Path(folder) / "report.xml").read_text())
        except FileNotFoundError:
            raise Unusable(f"critest has written no report; see {log}") from None


def read(report: str) -> Found:
    """Reads a report in the format of JUnit; what is done before and after tests is no test."""
    cases = ET.fromstring(report).iter("testcase")
    return {
        case.get("name", "").removeprefix(_TEST).removeprefix(_GROUP): case.get("status")
        == "passed"
        for case in cases
        if case.get("name", "").startswith(_TEST) and case.get("status") != "skipped"
    }


def exceptions(page: Path) -> set[str]:
    """Reads which tests may fail."""
    return {name for name, _ in _EXCEPTION.findall(page.read_text())}


def complaints(ours: Found, others: dict[str, Found], allowed: set[str]) -> list[str]:
    """Returns a line for each test that fails and may not, or that only others have run."""
    failed = [
        f"{name}: fails, and is no known exception"
        for name, has_passed in ours.items()
        if not has_passed and name not in allowed
    ]
    skipped = [
        f"{name}: passes with {other}, and is skipped here"
        for other, found in others.items()
        for name, has_passed in found.items()
        if has_passed and name not in ours
    ]
    return [*failed, *skipped]


def table(found: dict[str, Found]) -> str:
    """Returns how many tests have passed with each runtime, after those that have not with all."""
    names = sorted(
        {name for one in found.values() for name, has_passed in one.items() if not has_passed}
    )
    rows = [f"{cell(one)}  {runtime}" for runtime, one in found.items()]
    words = {True: "passes", False: "fails", None: "skipped"}
    lines = [
        f"{name}: "
        + ", ".join(f"{words[one.get(name)]} with {runtime}" for runtime, one in found.items())
        for name in names
    ]
    return "\n".join([*lines, *rows])


def cell(found: Found) -> str:
    """Returns how many tests have passed, of those that were run."""
    return f"{sum(found.values())} of {len(found)}"
