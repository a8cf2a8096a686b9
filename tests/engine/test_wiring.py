"""What wiring refuses, and the border around each operation."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from contextlib import asynccontextmanager

import pytest

from vc_core.config import Config
from vc_core.defaults import Deadlines, Use
from vc_core.engine.resources import devices
from vc_core.engine.wiring import assemble, plugin_checks
from vc_core.engine.wiring.catalog import Catalog
from vc_core.engine.wiring.wiring import Seat, Wiring
from vc_core.spec import (
    AgentError,
    Capability,
    DeviceError,
    DeviceSpec,
    EventSpec,
    GuestNode,
    HostDevice,
    HypervisorError,
    HypervisorSpec,
    NotFound,
    OperationTimeout,
    PluginContractError,
    PodRef,
    UnsupportedOperation,
    around,
    hookimpl,
)
from vc_core.testing.mocks.agent import mock_agent
from vc_core.testing.mocks.hypervisor import mock_hypervisor
from vc_core.testing.mocks.storage import mock_storage

DEADLINES = Deadlines(default=1, operations={"vm_stats": 0.02})


@pytest.fixture
def seats(world):
    return [
        Seat("hypervisor", "mock", mock_hypervisor(world)()),
        Seat("agent", "mock", mock_agent(world)()),
        Seat("storage", "mock", mock_storage(world)()),
    ]


@pytest.fixture
def pod(tmp_path):
    return PodRef(id="p", run_dir=tmp_path)


def problems(seats) -> str:
    with pytest.raises(PluginContractError) as caught:
        Wiring(seats, DEADLINES)
    return "\n".join(caught.value.problems)


def test_all_problems_come_at_once(seats, world):
    class Wrong:
        @hookimpl
        async def vm_strart(self, pod):
            """Misspelt."""

        @hookimpl
        def pod_started(self, pod):
            """Not async."""

        async def vm_start(self, pod):
            """Not marked."""

    told = problems(
        [
            *seats,
            Seat("hypervisor", "second", mock_hypervisor(world)()),
            Seat("observer", "wrong", Wrong()),
        ]
    )
    assert 'observer:wrong.vm_strart is not a hook; did you mean "vm_start"?' in told
    assert "observer:wrong.pod_started must be 'async def'" in told
    assert "observer:wrong.vm_start lacks @hookimpl" in told
    assert "vm_create has 2 implementations, of hypervisor:mock and hypervisor:second" in told


def test_a_missing_operation_is_named(seats):
    assert problems([seats[0], seats[2]]).startswith(
        "there is no agent plugin: agent_capabilities, agent_guest"
    )


def test_a_parameter_that_no_hook_has_is_refused(seats):
    class Wrong:
        @hookimpl
        async def pod_started(self, pods):
            """pluggy compares names."""

    assert "pods" in problems([*seats, Seat("observer", "wrong", Wrong())])


def test_one_name_twice_is_refused(seats):
    assert "storage:mock" in problems([*seats, seats[2]])


async def test_an_optional_operation_left_out_says_so(seats, pod):
    plain = type("Plain", (type(seats[0].plugin),), {"vm_pause": HypervisorSpec.vm_pause})
    wiring = Wiring([Seat("hypervisor", "plain", plain()), *seats[1:]], DEADLINES)
    with pytest.raises(UnsupportedOperation, match="does not support vm_pause"):
        await wiring.hooks.vm_pause(pod=pod)


async def test_foreign_errors_become_ours_with_their_cause(seats, pod):
    class Fault:
        @around
        @asynccontextmanager
        async def vm_create(self):
            raise ZeroDivisionError("oops")
            yield

    wiring = Wiring([*seats, Seat("observer", "fault", Fault())], DEADLINES)
    with pytest.raises(
        HypervisorError, match=r"pod p: ZeroDivisionError: oops \(mock, vm_create\)"
    ) as caught:
        await wiring.hooks.vm_create(pod=pod, spec=None)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_our_errors_pass_and_learn_where_they_were(seats, pod):
    wiring = Wiring(seats, DEADLINES)
    with pytest.raises(AgentError, match=r"pod p: not connected \(mock, agent_list_containers\)"):
        await wiring.hooks.agent_list_containers(pod=pod)
    with pytest.raises(NotFound, match=r"^no pod nobody$"):
        await wiring.hooks.storage_containers(pod_id="nobody")


async def test_deadlines_end_an_operation_and_name_their_setting(seats, pod):
    class Slow:
        @around
        @asynccontextmanager
        async def vm_stats(self):
            await asyncio.Event().wait()
            yield

    wiring = Wiring([*seats, Seat("observer", "slow", Slow())], DEADLINES)
    with pytest.raises(
        OperationTimeout, match=r"no answer within 0\.02 s; raise deadlines\.operations\.vm_stats"
    ):
        await wiring.hooks.vm_stats(pod=pod)


async def test_a_failing_listener_stops_nobody(seats, pod, caplog):
    told = []

    class Bad:
        @hookimpl
        async def pod_started(self, pod):
            raise ValueError("bad listener")

    class Good:
        @hookimpl
        async def pod_started(self, pod):
            told.append(pod.id)

    wiring = Wiring(
        [*seats, Seat("observer", "good", Good()), Seat("observer", "bad", Bad())], DEADLINES
    )
    with caplog.at_level(logging.WARNING):
        await wiring.notify(EventSpec.pod_started, pod=pod)
    assert told == ["p"]
    assert "bad listener" in caplog.text


async def test_a_combination_that_cannot_talk_is_refused(seats, pod, world):
    world.capabilities = frozenset({Capability.VSOCK_CHANNEL})
    with pytest.raises(
        PluginContractError, match="offers vsock-channel, the agent speaks through unix-channel"
    ):
        await assemble.check_combination(Wiring(seats, DEADLINES), pod)


def device_plugin(suffix: str):
    class Devices(DeviceSpec):
        @hookimpl
        async def device_claims(self, pod, device):
            return device.path.suffix == suffix

        @hookimpl
        async def device_prepare(self, pod, device):
            return (GuestNode(path=suffix),)

        @hookimpl
        async def device_release(self, pod, device):
            """Nothing."""

    return Devices()


async def test_devices_go_to_the_one_who_claims_them(seats, pod, tmp_path):
    claims = [
        Seat("device", "one", device_plugin(".a")),
        Seat("device", "two", device_plugin(".b")),
    ]
    wiring = Wiring([*seats, *claims], DEADLINES)
    for suffix in (".a", ".b"):
        device = HostDevice(path=tmp_path / f"x{suffix}", destination="/dev/x")
        name, owner = await devices.owner(wiring, pod, device)
        assert name == {".a": "one", ".b": "two"}[suffix]
        assert await owner.device_prepare(pod=pod, device=device) == (GuestNode(path=suffix),)
    with pytest.raises(DeviceError, match=r"no device plugin claims .*x\.c \(asked: one, two\)"):
        await devices.owner(wiring, pod, HostDevice(path=tmp_path / "x.c", destination="/dev/x"))
    doubled = Wiring([*seats, *claims, Seat("device", "three", device_plugin(".a"))], DEADLINES)
    with pytest.raises(DeviceError, match="is claimed by one and three"):
        await devices.owner(doubled, pod, HostDevice(path=tmp_path / "x.a", destination="/dev/x"))


def test_a_board_tells_all_missing_plugins(world):
    config = Config(Use("no", "such", "fs"))
    chosen = []
    for family, name in config.plugins():
        from vc_core.engine.state.records import PluginChoice

        chosen.append(PluginChoice(family, name))
    with pytest.raises(PluginContractError) as caught:
        assemble.wire(Catalog(), chosen, DEADLINES)
    assert [problem.partition(";")[0] for problem in caught.value.problems] == [
        "no hypervisor plugin 'no'",
        "no agent plugin 'such'",
    ]


async def test_a_call_that_is_cancelled_before_it_has_begun_leaves_nothing_to_be_warned_of(
    seats, pod
):
    """Warnings are errors here; a coroutine that nobody awaits is reported where it is
    collected.
    """
    reported = []
    before, sys.unraisablehook = sys.unraisablehook, reported.append
    try:
        task = asyncio.ensure_future(Wiring(seats, DEADLINES).hooks.vm_wait(pod=pod))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        Wiring(seats, DEADLINES).hooks.vm_wait(pod=pod).close()
        del task
        gc.collect()
    finally:
        sys.unraisablehook = before
    assert reported == []


def refused(seats, plugin, family="hypervisor"):
    rest = [seat for seat in seats if seat.family != family]
    return problems([Seat(family, "acme", plugin), *rest]).splitlines()


def test_an_unknown_parameter_is_told_once_and_nothing_else(seats):
    kind = type(seats[0].plugin)

    class Wrong(kind):
        @hookimpl
        async def vm_start(self, pod, colour):
            """There is no colour."""

    (told,) = refused(seats, Wrong())
    assert told == (
        "hypervisor:acme.vm_start takes 'colour', "
        "which that hook does not give (it gives pod); remove it"
    )


@pytest.mark.parametrize("parameters", ["self, pod, grace_s=0", "self, pod, *, grace_s"])
def test_a_parameter_that_would_never_be_given_is_refused(seats, parameters):
    scope = {"kind": type(seats[0].plugin), "hookimpl": hookimpl}
    text = (
        f"class Wrong(kind):\n    @hookimpl\n    async def vm_stop({parameters}):\n        pass\n"
    )
    exec(text, scope)
    (told,) = refused(seats, scope["Wrong"]())
    assert told == (
        "hypervisor:acme.vm_stop would never get 'grace_s'; "
        "make it a plain parameter without a default"
    )


def test_a_plugin_of_another_family_is_one_line(seats):
    (told,) = refused(seats, seats[1].plugin)
    assert (
        "acme: MockAgent has no operation of a hypervisor plugin; "
        "let the entry point name the plugin's class" in told
    )


def test_what_a_plugin_lacks_is_one_line(seats):
    class Half(HypervisorSpec):
        @hookimpl
        async def vm_capabilities(self, pod):
            return frozenset()

    (told,) = refused(seats, Half())
    assert told == (
        "hypervisor:acme: Half lacks vm_create, vm_start, vm_status, vm_wait, vm_stop and 9 more; "
        "write them, docs/hooks.md says what each does"
    )


async def test_an_operation_that_ends_the_program_fails_instead(seats, pod):
    kind = type(seats[0].plugin)

    class Leaves(kind):
        @hookimpl
        async def vm_console(self, pod, tail_bytes):
            sys.exit(3)

    wiring = Wiring([Seat("hypervisor", "leaves", Leaves()), *seats[1:]], DEADLINES)
    with pytest.raises(HypervisorError, match=r"SystemExit: 3 \(leaves, vm_console\)"):
        await wiring.hooks.vm_console(pod=pod, tail_bytes=1)


def test_plain_constructors_are_checked_without_a_signature(monkeypatch):
    """`inspect.signature` of a class without a constructor compiles Python's tokenizer."""

    class Without:
        pass

    class With:
        options_type = Deadlines

        def __init__(self, options):
            pass

    class TooMany:
        def __init__(self, options):
            pass

    assert "'def __init__(self)'" in plugin_checks.constructor_problem(TooMany)
    monkeypatch.setattr("inspect.signature", None)
    assert plugin_checks.constructor_problem(Without) == ""
    assert plugin_checks.constructor_problem(With) == ""
