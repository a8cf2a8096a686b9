"""What an operation returns is compared with its specification, and a plugin that returns garbage
keeps no pod.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.engine.specs import container
from vc_core.engine.wiring.result_checks import mismatch
from vc_core.spec import (
    FAMILIES,
    Capability,
    Finding,
    GuestNode,
    PluginContractError,
    Verdict,
    VmPhase,
    VmStatus,
    hookimpl,
)
from vc_core.testing.mocks import mock_agent, mock_hypervisor, mock_storage

MOCKS = {"hypervisor": mock_hypervisor, "agent": mock_agent, "storage": mock_storage}
GARBAGE = {
    "None": None,
    "a str": "garbage",
    "a wrong dataclass": Finding(subject="x", verdict=Verdict.BAD, detail="y"),
}
OPERATIONS = [
    (family, name)
    for family in MOCKS
    for name in vars(FAMILIES[family])
    if not name.startswith("_")
]


@pytest.mark.parametrize(
    ("operation", "right"),
    [
        ("vm_capabilities", frozenset({Capability.PAUSE})),
        ("vm_capabilities", frozenset()),
        ("vm_create", None),
        ("vm_status", VmStatus(phase=VmPhase.RUNNING)),
        ("vm_console", b""),
        ("storage_get", None),
        ("storage_get", "text"),
        ("storage_run_dir", Path("/x")),
        ("device_claims", True),
        ("device_prepare", (GuestNode(path="/dev/x"),)),
        ("storage_containers", ()),
    ],
)
def test_the_right_type_passes(operation, right):
    assert mismatch(operation, right) == ""


@pytest.mark.parametrize(
    ("operation", "wrong", "told"),
    [
        ("vm_status", "running", "vm_status returned str, not VmStatus"),
        ("vm_create", "done", "vm_create returned str, not None"),
        (
            "vm_capabilities",
            ("pause",),
            "vm_capabilities returned tuple of str, not frozenset[Capability]",
        ),
        (
            "storage_containers",
            (b"a",),
            "storage_containers returned tuple of bytes, not tuple[str, ...]",
        ),
        ("storage_get", 1, "storage_get returned int, not str | None"),
        ("storage_lock", None, "storage_lock returned None, not StoreLock"),
        ("agent_attach", object(), "agent_attach returned object, not ProcessStreams"),
        (
            "device_prepare",
            ("x",),
            "device_prepare returned tuple of str, not tuple[Pluggable | GuestNode, ...]",
        ),
    ],
)
def test_a_wrong_type_is_told_with_what_is_wanted(operation, wrong, told):
    assert mismatch(operation, wrong) == told


def test_every_operation_has_a_return_type_that_is_checked():
    for spec in FAMILIES.values():
        for name in vars(spec):
            if not name.startswith("_"):
                assert mismatch(name, object()).startswith(f"{name} returned object, not "), name


def lying(base, name, garbage, when):
    """A plugin that does its work, but returns something else from one operation while `when` says
    so.
    """
    method = getattr(base, name)

    @functools.wraps(method)
    async def answer(self, *given):
        result = await method(self, *given)
        if when["lies"] and name == "storage_lock":
            await result.release()  # as a lock of a file goes with the object that nobody has
        return garbage if when["lies"] else result

    return type(base.__name__, (base,), {name: hookimpl(answer)})


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize(("family", "name"), OPERATIONS)
async def test_garbage_fails_a_start_undone_and_delete_by_force_leaves_nothing(
    open_runtime, world, config, family, name, garbage
):
    if mismatch(name, garbage) == "":
        pytest.skip("the right type")
    when = {"lies": True}
    extra = {(family, "mock"): lying(MOCKS[family](world), name, garbage, when)}
    async with open_runtime(config, extra) as runtime:
        message = await _message_of(_live(runtime, when))
        when["lies"] = False
        if message:
            assert f"the {family} plugin mock breaks the contract: {name} returned" in message
            assert all(machine.phase is VmPhase.ENDED for machine in world.machines.values()), (
                world.machines
            )
        if "p" in world.records:
            await (await runtime.get("p")).delete(force=True)
        assert (world.residue(), world.records) == ([], {})

        await _live(runtime, when)
        pod = await runtime.get("p")
        when["lies"] = True
        message = await _message_of(pod.delete(force=True))
        when["lies"] = False
        if name == "storage_run_dir":  # nobody knows where the machine's files are
            assert "storage_run_dir returned" in message
            await pod.delete(force=True)
        else:
            assert message == ""
        assert (world.residue(), world.records) == ([], {})


async def _live(runtime, when):
    pod = await runtime.create("p")
    try:
        await pod.create_container(container())
        await pod.start()
    finally:
        when["lies"] = False
        await pod.close()


async def _message_of(work):
    try:
        await work
    except PluginContractError as error:
        return str(error)
    return ""


async def test_a_wrong_number_of_shares_is_the_plugins_mistake(open_runtime, world, config):
    extra = {("hypervisor", "mock"): lying(mock_hypervisor(world), "vm_shares", (), {"lies": True})}
    async with open_runtime(config, extra) as runtime:
        pod = await runtime.create("p")
        await pod.create_container(container())
        with pytest.raises(
            PluginContractError, match=r"vm_shares returned 0 places for [1-9] shares"
        ):
            await pod.start()
        await pod.delete()
    assert (world.residue(), world.records) == ([], {})
