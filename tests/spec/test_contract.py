"""The contract keeps its own rules."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path

import pytest

import vc_core.spec
from vc_core.spec import ALL_SPECS, FAMILIES, EventSpec, ExitStatus, Hooks, PodSetup, values

HOOKS = [(spec, name) for spec in ALL_SPECS for name in vars(spec) if not name.startswith("_")]
PREFIXES = {
    "hypervisor": "vm_",
    "agent": "agent_",
    "storage": "storage_",
    "device": "device_",
    "network": "network_",
}


@pytest.mark.parametrize(("spec", "name"), HOOKS, ids=[name for _, name in HOOKS])
def test_every_hook_is_async_plain_and_documented(spec, name):
    function = vars(spec)[name]
    assert inspect.iscoroutinefunction(function)
    assert len(inspect.getdoc(function) or "") > 20
    for parameter in inspect.signature(function).parameters.values():
        assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        assert parameter.default is parameter.empty
        assert parameter.name == "self" or parameter.annotation not in (
            parameter.empty,
            "Any",
            "dict",
        )


def test_names_tell_their_family():
    for family, spec in FAMILIES.items():
        assert all(
            name.startswith(PREFIXES[family]) for name in vars(spec) if not name.startswith("_")
        )
    assert all(
        name.split("_")[-1].endswith("ed") for name in vars(EventSpec) if not name.startswith("_")
    )


def test_hooks_has_every_operation_with_one_answer():
    assert all(
        hasattr(Hooks, name) for spec, name in HOOKS if spec not in (EventSpec, FAMILIES["device"])
    )


def test_there_are_not_too_many():
    assert 30 <= len([name for spec, name in HOOKS if spec is not EventSpec]) <= 75


def test_values_across_the_border_are_frozen_and_made_with_keywords():
    structs = [
        kind
        for name, kind in vars(values).items()
        if hasattr(kind, "__struct_config__") and name != "Struct"
    ]
    assert len(structs) > 40
    for kind in structs:
        assert kind.__struct_config__.frozen, kind
        if kind.__struct_fields__:
            with pytest.raises(TypeError, match="positional"):
                kind("positional")
    assert not [kind for kind in vars(values).values() if dataclasses.is_dataclass(kind)]


def test_a_seed_is_in_no_representation():
    setup = PodSetup(hostname="h", time_ns=1, seed=b"secret", machine_id="0" * 32)
    assert "secret" not in repr(setup)
    assert "secret" not in repr((setup,))


def test_ends_that_differ_in_their_time_only_are_equal():
    first, second = (ExitStatus(code=0, ended_ns=time) for time in (1, 2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != ExitStatus(code=1, ended_ns=1)


def test_the_contract_imports_only_the_standard_library_msgspec_and_pluggy():
    import sys

    for file in Path(vc_core.spec.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                assert top in {*sys.stdlib_module_names, "msgspec", "pluggy"} or name.startswith(
                    "vc_core.spec"
                ), (file.name, name)


def test_the_core_names_no_driver_but_in_one_table():
    words = ("qemu", "libvirt", "grpc")
    for file in Path(vc_core.__file__).parent.rglob("*.py"):
        if file.name != "first_party.py":
            text = file.read_text().lower()
            assert not [word for word in words if word in text], file
