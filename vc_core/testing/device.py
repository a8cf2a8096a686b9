"""The contract suite of device plugins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest

from vc_core.spec import DeviceError, DeviceSpec, GuestNode, HostDevice, Pluggable, PodRef
from vc_core.testing.mocks import World
from vc_core.testing.rules import fails_with, rule, wired

_KINDS = (*get_args(Pluggable), GuestNode)


@dataclass
class DeviceSubject:
    """A device plugin under test.

    Attributes:
        make: creates an object, as another process would.
        device: a device that it claims and that can be passed.
        foreign: a device that it does not claim.
        folder: a folder of the test, for the files of the pod.
        broken: a device that it claims and that is unfit to be passed; None where this host
            has none.
    """

    make: Callable[[], object]
    device: HostDevice
    foreign: HostDevice
    folder: Path
    broken: HostDevice | None = None
    world: World = field(default_factory=lambda: World(Path("/nowhere")))

    def __post_init__(self) -> None:
        self.pod = PodRef(id="contract", run_dir=self.folder / "run")
        self.pod.run_dir.mkdir(mode=0o700)

    def plugin(self) -> DeviceSpec:
        """Returns its operations, by a new object."""
        ((_, hooks),) = wired(self.world, device=self.make()).devices
        return hooks


class DeviceContract:
    """All rules of device plugins. Subclass it and override the fixture `subject`."""

    @pytest.fixture
    def subject(self) -> DeviceSubject:
        """The plugin under test, provided by its author."""
        raise NotImplementedError("give a fixture `subject` that returns a DeviceSubject")

    @rule("device_claims", "Returns whether this plugin is responsible for the device's kind.")
    async def test_it_claims_its_own(self, subject: DeviceSubject) -> None:
        plugin = subject.plugin()
        own = await plugin.device_claims(pod=subject.pod, device=subject.device)
        foreign = await plugin.device_claims(pod=subject.pod, device=subject.foreign)
        assert own, f"it does not claim {subject.device.path}"
        assert not foreign, f"it claims {subject.foreign.path}"

    @rule("device_prepare", "Returns what is to be plugged into the machine, in this order.")
    async def test_it_says_what_is_to_be_plugged(self, subject: DeviceSubject) -> None:
        plugin = subject.plugin()
        found = await plugin.device_prepare(pod=subject.pod, device=subject.device)
        await plugin.device_release(pod=subject.pod, device=subject.device)
        assert found, "it returned nothing"
        assert all(isinstance(one, _KINDS) for one in found), f"it returned {found}"

    @rule("device_prepare", "May be called twice with the same outcome.")
    async def test_preparing_twice_gives_the_same(self, subject: DeviceSubject) -> None:
        found = [
            await subject.plugin().device_prepare(pod=subject.pod, device=subject.device)
            for _ in range(2)
        ]
        await subject.plugin().device_release(pod=subject.pod, device=subject.device)
        assert found[0] == found[1], f"it returned {found[0]}, then {found[1]}"

    @rule(
        "device_prepare", "Raises DeviceError with the reason when the device is unfit to be passed"
    )
    async def test_what_cannot_be_passed_is_refused(self, subject: DeviceSubject) -> None:
        if subject.broken is None:
            pytest.skip("this host has no device of its kind that cannot be passed")
        plugin = subject.plugin()
        claimed = await plugin.device_claims(pod=subject.pod, device=subject.broken)
        assert claimed, f"it does not claim {subject.broken.path}, so that nobody would say why"
        error = await fails_with(
            DeviceError, plugin.device_prepare(pod=subject.pod, device=subject.broken)
        )
        assert str(error), "it gives no reason"

    @rule("device_release", "May be called twice.")
    async def test_releasing_twice_is_no_error(self, subject: DeviceSubject) -> None:
        await subject.plugin().device_prepare(pod=subject.pod, device=subject.device)
        for _ in range(2):
            await subject.plugin().device_release(pod=subject.pod, device=subject.device)

    @rule("device_release", "Returns the device to the host, after it was unplugged.")
    async def test_a_released_device_can_be_prepared_again(self, subject: DeviceSubject) -> None:
        found = []
        for _ in range(2):
            found.append(
                await subject.plugin().device_prepare(pod=subject.pod, device=subject.device)
            )
            await subject.plugin().device_release(pod=subject.pod, device=subject.device)
        assert found[0] == found[1], f"it was {found[0]}, and is {found[1]}"
