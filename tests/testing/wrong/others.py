"""Wrong device plugins and observers."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from pathlib import Path

from tests.testing.wrong import Wrong, table
from vc_core.spec import AgentError, DeviceError, Drive, around, hookimpl
from vc_core.testing.mocks import MockDevice

DEVICES: Wrong = {}
breaks = table(DEVICES)


@breaks("test_it_claims_its_own")
class Greedy(MockDevice):
    @hookimpl
    async def device_claims(self, pod, device):
        return True


@breaks("test_it_says_what_is_to_be_plugged")
class Words(MockDevice):
    @hookimpl
    async def device_prepare(self, pod, device):
        return ("a disk",)


@breaks("test_preparing_twice_gives_the_same")
class Counts(MockDevice):
    numbers = itertools.count()

    @hookimpl
    async def device_prepare(self, pod, device):
        return (Drive(id=f"drive-{next(self.numbers)}", path=device.path),)


@breaks("test_what_cannot_be_passed_is_refused")
class PassesAnything(MockDevice):
    @hookimpl
    async def device_prepare(self, pod, device):
        return (Drive(id="drive", path=device.path),)


@breaks("test_releasing_twice_is_no_error")
class ReleasesOnce(MockDevice):
    @hookimpl
    async def device_release(self, pod, device):
        if device.path not in self.world.prepared:
            raise DeviceError("it was not prepared")
        self.world.prepared.remove(device.path)


@breaks("test_a_released_device_can_be_prepared_again")
class WearsOut(MockDevice):
    @hookimpl
    async def device_prepare(self, pod, device):
        if Path("released") in self.world.prepared:
            raise DeviceError("it was used before")
        return await super().device_prepare(pod, device)

    @hookimpl
    async def device_release(self, pod, device):
        self.world.prepared.add(Path("released"))


OBSERVERS: Wrong = {}
breaks = table(OBSERVERS)


@breaks("test_it_can_be_wired")
class NotAsync:
    @hookimpl
    def pod_started(self, pod):
        """Says nothing."""


@breaks("test_every_operation_runs_as_without_it")
class Skips:
    @hookimpl(wrapper=True)
    def vm_pause(self):
        inner = yield
        inner.close()
        return asyncio.sleep(0)


@breaks("test_failures_reach_the_caller")
class Renames:
    @around
    @asynccontextmanager
    async def vm_start(self):
        try:
            yield
        except Exception as error:
            raise AgentError(str(error)) from error


@breaks("test_a_cancelled_operation_stays_cancelled")
class Stubborn:
    @around
    @asynccontextmanager
    async def agent_set_up_pod(self):
        try:
            yield
        except asyncio.CancelledError as error:
            raise AgentError("cancelled") from error


@breaks("test_its_listeners_do_not_fail")
class Fails:
    @hookimpl
    async def pod_started(self, pod):
        raise ZeroDivisionError("oops")
