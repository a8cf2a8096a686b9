"""Writes docs/hooks.md from the contract; `make generate` runs it."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from vc_core.spec import FAMILIES, EventSpec
from vc_core.spec.markers import OPTIONAL, ROUTED, UNBOUNDED
from vc_core.testing import (
    AgentContract,
    DeviceContract,
    HypervisorContract,
    ObserverContract,
    StorageContract,
    rules_of,
)

PAGE = Path(__file__).resolve().parents[1] / "docs/hooks.md"
HEAD = """# Hooks

<!-- Written by tools/hooks_page.py from vc_core/spec: do not edit. -->

All operations and events of the contract. An **operation** is implemented by exactly one plugin and
has the configured deadline. An *optional* operation may be missing (callers get
UnsupportedOperation), an *unbounded* one has no deadline, and a *routed* one is implemented by the
device plugin that claims the device. An **event** is sent to all plugins that listen, after it was
stored. All hooks are `async`; a plugin may take fewer parameters than a hook has.
"""

RULES = """## Rules

The suites of `vc_core.testing` test these rules, by the names of their tests. For each there
is a plugin that breaks it, in `tests/testing/wrong`.

| operation | rules |
|---|---|"""
SUITES = (HypervisorContract, AgentContract, StorageContract, DeviceContract, ObserverContract)


def page() -> str:
    """The whole text."""
    families = [_family(name, spec) for name, spec in FAMILIES.items()]
    return "\n".join([HEAD, *families, _family("event", EventSpec), _rules()])


def _rules() -> str:
    """The table of operations and the rules that the suites test."""
    tests: dict[str, list[str]] = {}
    for suite in SUITES:
        for test, rule in rules_of(suite):
            tests.setdefault(rule.operation, []).append(f"`{test.removeprefix('test_')}`")
    rows = [
        f"| `{hook}` | {'<br>'.join(tests.get(hook, []))} |"
        for spec in FAMILIES.values()
        for hook in vars(spec)
        if not hook.startswith("_")
    ]
    return "\n".join([RULES, *rows, ""])


def _family(name: str, spec: type) -> str:
    about = inspect.cleandoc(sys.modules[spec.__module__].__doc__ or "").partition("\n\n")[2]
    hooks = [_hook(hook, getattr(spec, hook)) for hook in vars(spec) if not hook.startswith("_")]
    return "\n".join([f"## {name}\n", about, "", *hooks])


def _hook(name: str, declared: object) -> str:
    signature = inspect.signature(declared)  # type: ignore[arg-type]  # of a class's function
    parameters = ", ".join(
        f"{parameter.name}: {parameter.annotation}"
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    )
    words = {OPTIONAL: "optional", UNBOUNDED: "unbounded", ROUTED: "routed"}
    kind = ", ".join(word for mark, word in words.items() if getattr(declared, mark, False))
    title = f"### `{name}`" + (f" ({kind})" if kind else "")
    call = f"```python\nasync def {name}({parameters}) -> {signature.return_annotation}\n```"
    return f"{title}\n\n{call}\n\n{inspect.cleandoc(inspect.getdoc(declared) or '')}\n"


if __name__ == "__main__":
    PAGE.write_text(page())
