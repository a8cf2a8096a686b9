"""The order of the agent's modules: none imports from one above itself, and there is no circle."""

from __future__ import annotations

import graphlib
import re
from pathlib import Path

import pytest
from vc_agent_grpc.image import agent_program

# Read from top to bottom: each layer imports from those below it. lib.rs has the same order.
LAYERS = (
    "server",
    "service",
    "status",
    "container",
    "process",
    "storage",
    "share_fs",
    "machine",
    "fd_stream",
    "error",
    "proto",
)
_USE = re.compile(r"^\s*(?:pub(?:\([a-z]+\))? )?use ([^;]+);", re.MULTILINE)
_INLINE = re.compile(r"\b(?:crate|super|self)(?:::\w+)+")


def sources(folder: Path) -> dict[str, str]:
    """The text of each module by its path, "container::files::pack"."""
    texts = {}
    for file in sorted(folder.rglob("*.rs")):
        parts = file.relative_to(folder).with_suffix("").parts
        texts["::".join(part for part in parts if part != "mod")] = file.read_text()
    return texts


def paths(tree: str) -> list[str]:
    """What a `use` names, one by one: "a::{b, c::d}" is "a::b" and "a::c::d"."""
    tree = re.sub(r"\s+", " ", tree).strip()
    if "{" not in tree:
        return [tree.split(" as ")[0]]
    head, _, rest = tree.partition("{")
    assert rest.endswith("}"), tree
    found, depth, word = [], 0, ""
    for letter in rest[:-1] + ",":
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            found += [word.strip()] if word.strip() else []
            word = ""
        else:
            word += letter
    return [path for item in found for path in paths(head + item)]


def imports(module: str, text: str, modules: set[str]) -> set[str]:
    """The modules of the crate that a module names, in a `use` or where it stands."""
    code = "\n".join(
        line.split("//")[0] for line in text.split("#[cfg(test)]", maxsplit=1)[0].splitlines()
    )
    named = [path for tree in _USE.findall(code) for path in paths(tree)] + _INLINE.findall(
        _USE.sub("", code)
    )
    found = set()
    for path in named:
        parts = path.split("::")
        here = module.split("::")
        if parts[0] == "crate":
            parts = parts[1:]
        elif parts[0] == "super" or (parts[0] == "self" and len(parts) > 1 and parts[1] != "self"):
            parts = (here[:-1] if parts[0] == "super" else here) + parts[1:]
        else:
            continue
        while parts and "::".join(parts) not in modules:
            parts = parts[:-1]
        if parts and parts != here:
            found.add("::".join(parts))
    return found


def graph(folder: Path) -> dict[str, set[str]]:
    """What each module imports. Programs (also those in bin) and the list of modules are in no
    layer.
    """
    texts = {
        module: text
        for module, text in sources(folder).items()
        if module not in ("main", "lib") and not module.startswith("bin::")
    }
    modules = {*texts, "proto"}
    return {module: imports(module, text, modules) for module, text in texts.items()}


def wrong(found: dict[str, set[str]]) -> list[str]:
    """The imports from a layer above, and the circles."""
    place = {layer: number for number, layer in enumerate(LAYERS)}
    upward = [
        f"{module} imports {other}"
        for module, others in found.items()
        for other in others
        if place[module.split("::")[0]] > place[other.split("::")[0]]
    ]
    try:
        graphlib.TopologicalSorter(found).prepare()
    except graphlib.CycleError as error:
        upward.append(" imports ".join(reversed(error.args[1])))
    return upward


def test_no_module_imports_from_above_and_there_is_no_circle():
    found = graph(agent_program.source()[0] / "src")
    assert {module.split("::")[0] for module in found} | {"proto"} == set(LAYERS)
    assert "container::crun" in found["container::agent"]
    assert wrong(found) == []


def test_the_order_is_that_of_the_crate():
    text = (agent_program.source()[0] / "src/lib.rs").read_text()
    assert tuple(re.findall(r"^pub mod (\w+)", text, re.MULTILINE)) == LAYERS


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"error.rs": "use crate::machine::boot;", "machine/boot.rs": ""},
            ["error imports machine::boot"],
        ),
        (
            {"error.rs": "fn f() { crate::machine::boot::go() }", "machine/boot.rs": ""},
            ["error imports machine::boot"],
        ),
        (
            {
                "machine/a.rs": "use crate::machine::{\n    b::B,\n};",
                "machine/b.rs": "use super::a;",
            },
            [
                "machine::a imports machine::b imports machine::a",
                "machine::b imports machine::a imports machine::b",
            ],
        ),
        ({"machine/a.rs": "use crate::machine::b;", "machine/b.rs": "// use super::a;"}, []),
    ],
)
def test_what_is_wrong_is_seen(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = wrong(graph(tmp_path))
    assert found == expected or (len(found) == 1 and found[0] in expected)
