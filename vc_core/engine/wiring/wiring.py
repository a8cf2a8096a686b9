"""Registers the chosen plugins of one pod with pluggy, checks them, and converts their errors."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import pluggy
from msgspec import Struct

from vc_core.defaults import Deadlines
from vc_core.driver_kit.timeouts import timeout_after
from vc_core.engine.wiring.fork_guard import Origin
from vc_core.engine.wiring.plugin_checks import (
    MARK,
    hook_names,
    is_of_another_family,
    lacks,
    listed,
    members_of,
    problems_of,
)
from vc_core.engine.wiring.result_checks import mismatch
from vc_core.spec.around_all import CURRENT, Operation
from vc_core.spec.device import DeviceSpec
from vc_core.spec.errors import (
    AgentError,
    DeviceError,
    HypervisorError,
    NetworkError,
    OperationError,
    OperationTimeout,
    PluginContractError,
    StorageError,
    UnsupportedOperation,
    VcError,
)
from vc_core.spec.events import EventSpec
from vc_core.spec.hooks import ALL_SPECS, FAMILIES, Hooks
from vc_core.spec.markers import OPTIONAL, PROJECT, UNBOUNDED, hookimpl
from vc_core.spec.values import PodRef

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)

_BORDER_ERRORS = {
    "vm": HypervisorError,
    "agent": AgentError,
    "storage": StorageError,
    "device": DeviceError,
    "network": NetworkError,
}
_DISPENSABLE = frozenset({"network"})  # families of which a pod may have no plugin

_REMEDY = "tell its author, or choose another plugin"


class Seat(Struct, frozen=True):
    """A plugin object, with its family and its name."""

    family: str
    name: str
    plugin: object

    @property
    def label(self) -> str:
        """A label that is unique in one wiring."""
        return f"{self.family}:{self.name}"


class Wiring:
    """Calls into the plugins of one pod.

    Args:
        seats: the plugins; observers last, the first of them outermost.
        deadlines: applied to every operation except unbounded ones.
        families: those whose operations can be called.

    Raises:
        PluginContractError: with every problem at once.
    """

    def __init__(
        self, seats: Iterable[Seat], deadlines: Deadlines, families: Iterable[str] = FAMILIES
    ) -> None:
        self._deadlines = deadlines
        self._families = tuple(families)
        self._origin = Origin()
        self._manager = _Manager(PROJECT)
        for spec in (*(FAMILIES[family] for family in self._families), EventSpec):
            self._manager.add_hookspecs(spec)
        self._seats = tuple(seats)
        self._wrong = {seat.label for seat in self._seats if _is_wrong(seat)}
        problems = [*self._check_classes(), *self._register(), *self._check_implementations()]
        if problems:
            raise PluginContractError(problems)
        self._manager.add_hookcall_monitoring(lambda *_: self._origin.require(), self._guard)
        self.hooks = cast(Hooks, self._manager.hook)
        self._devices = [
            (seat.name, self._device_hooks(seat)) for seat in self._seats if seat.family == "device"
        ]

    @property
    def devices(self) -> list[tuple[str, DeviceSpec]]:
        """The device plugins, each with hooks that call it alone, with all wrappers."""
        return self._devices

    @property
    def has_network(self) -> bool:
        """Whether there is a network plugin."""
        return any(seat.family == "network" for seat in self._seats)

    async def notify(
        self, event: Callable[Concatenate[Any, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Sends an event to every plugin; the failure of one is logged and affects no other."""
        name = event.__name__
        if args:
            raise TypeError(f"{name}: give the event's parameters by name")
        outcomes = await asyncio.gather(
            *getattr(self._manager.hook, name)(**kwargs), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, asyncio.CancelledError):
                raise outcome
            if isinstance(outcome, BaseException):
                log.warning("a listener of %s failed: %s", name, outcome, exc_info=outcome)

    # --- before the first call --------------------------------------------------------------------

    def _check_classes(self) -> Iterable[str]:
        """Yields the problems of the plugins' classes.

        A class with a problem is left out of all further checks.
        """
        for seat in self._seats:
            kind = type(seat.plugin)
            yield from (f"{seat.label}.{problem}" for problem in problems_of(kind))
            if seat.label in self._wrong and lacks(seat.family, kind):
                yield f"{seat.label}: {lacks(seat.family, kind)}"

    def _register(self) -> Iterable[str]:
        # Later registrations are outer wrappers, so the first observer is registered last.
        drivers = [seat for seat in self._seats if seat.family != "observer"]
        observers = [seat for seat in self._seats if seat.family == "observer"]
        for seat in [*drivers, *reversed(observers)]:
            if seat.label in self._wrong:
                continue
            try:
                self._manager.register(seat.plugin, name=seat.label)
            except (pluggy.PluginValidationError, ValueError) as error:
                # pluggy keeps the first hooks of a refused plugin; this manager is not used after
                # a problem.
                self._wrong.add(seat.label)
                yield f"{seat.label}: {' '.join(str(error).split())}"

    def _check_implementations(self) -> Iterable[str]:
        for family in self._families:
            spec = FAMILIES[family]
            owners = {name: self._owners(name) for name in hook_names(spec)}
            seats = [seat for seat in self._seats if seat.family == family]
            if family == "device":
                right = (seat for seat in seats if seat.label not in self._wrong)
                yield from (
                    f"{seat.label}: {lacks(family, type(seat.plugin))}"
                    for seat in right
                    if _misses(seat, owners)
                )
                continue
            for name, labels in owners.items():
                if len(labels) > 1:
                    both = " and ".join(sorted(labels))
                    yield (
                        f"{name} has {len(labels)} implementations, of {both}; it needs exactly one"
                    )
            missing = [name for name, labels in owners.items() if not labels]
            absent = family in _DISPENSABLE and not seats
            optional = [
                name for name in missing if absent or getattr(vars(spec)[name], OPTIONAL, False)
            ]
            for name in optional:
                self._manager.register(_unsupported(name), name=f"unsupported:{name}")
            demanded = [name for name in missing if name not in optional]
            if demanded and not any(seat.label in self._wrong for seat in seats):
                yield _missing(family, seats, demanded)

    def _owners(self, name: str) -> list[str]:
        return [
            item.plugin_name
            for item in getattr(self._manager.hook, name).get_hookimpls()
            if not item.wrapper
        ]

    def _device_hooks(self, seat: Seat) -> DeviceSpec:
        others = [
            other.plugin for other in self._seats if other.family == "device" and other is not seat
        ]

        class Relay:
            pass

        relay = Relay()
        for name in hook_names(DeviceSpec):
            setattr(relay, name, self._manager.subset_hook_caller(name, remove_plugins=others))
        return cast(DeviceSpec, relay)

    # --- converting errors ------------------------------------------------------------------------

    def _guard(
        self, outcome: pluggy.Result[Any], name: str, impls: Any, arguments: Mapping[str, object]
    ) -> None:
        """Wraps the coroutine of a hook call, to convert its errors.

        pluggy calls this after each hook call, which has only created the coroutine.
        """
        prefix = name.partition("_")[0]
        if outcome.exception is not None or prefix not in _BORDER_ERRORS:
            return
        pod = arguments.get("pod")
        pod_id = pod.id if isinstance(pod, PodRef) else str(arguments.get("pod_id", ""))
        owner = next((item.plugin_name for item in impls if not item.wrapper), "nobody")
        inner = outcome.get_result()
        if inner is None:
            raise PluginContractError([f"no plugin implements {name}"])
        limit_s = None if _is_unbounded(name) else self._deadlines.of(name)
        outer = _bordered(
            inner, Operation(name=name, plugin=owner.partition(":")[2], pod=pod_id), owner, limit_s
        )
        outcome.force_result(_Call(outer, inner))


class _Call(Coroutine[Any, Any, Any]):
    """A call of a hook.

    When it is cancelled before it has begun, it closes the inner coroutine, which nothing awaits.
    """

    def __init__(self, outer: Coroutine[Any, Any, Any], inner: Coroutine[Any, Any, Any]) -> None:
        self._outer = outer
        self._inner = inner

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._outer.__await__()

    def send(self, value: Any) -> Any:
        return self._outer.send(value)

    def throw(self, *error: Any) -> Any:
        self._close_unless_begun()
        return self._outer.throw(*error)

    def close(self) -> None:
        self._close_unless_begun()
        self._outer.close()

    def _close_unless_begun(self) -> None:
        if inspect.getcoroutinestate(self._outer) == inspect.CORO_CREATED:
            self._inner.close()


async def _bordered(
    inner: Coroutine[Any, Any, Any], operation: Operation, owner: str, limit_s: float | None
) -> Any:
    current = CURRENT.set(operation)
    try:
        async with timeout_after(limit_s) as deadline:
            result = await inner
        _check_result(result, operation.name, owner)
    except OperationError as error:
        error.operation = error.operation or operation.name
        error.plugin = error.plugin or operation.plugin
        error.pod = error.pod or operation.pod
        raise
    except VcError:
        raise
    except TimeoutError as error:
        if deadline.expired() and limit_s is not None:
            raise OperationTimeout(
                limit_s, operation.name, operation.plugin, operation.pod
            ) from error
        raise _foreign(error, operation) from error
    except (Exception, SystemExit) as error:  # a plugin does not end the program
        raise _foreign(error, operation) from error
    else:
        return result
    finally:
        inner.close()
        CURRENT.reset(current)


def _check_result(result: object, name: str, owner: str) -> None:
    if wrong := mismatch(name, result):
        family, _, plugin = owner.partition(":")
        raise PluginContractError(
            [f"the {family} plugin {plugin} breaks the contract: {wrong}; {_REMEDY}"]
        )


class _Manager(pluggy.PluginManager):
    """Caches the checks of each class, because plugins are wired for every pod."""

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> pluggy.HookspecOpts | None:
        key = (module_or_class, name)
        if key not in _SPECIFIED:
            _SPECIFIED[key] = super().parse_hookspec_opts(module_or_class, name)
        return _SPECIFIED[key]

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        if name.startswith("_"):
            return None
        if name in getattr(plugin, "__dict__", {}):  # not of the class
            return super().parse_hookimpl_opts(plugin, name)
        kind: type = type(plugin)
        member = members_of(kind).get(name)
        if isinstance(member, FunctionType):  # what pluggy would find, at a tenth of the cost
            return cast("pluggy.HookimplOpts | None", getattr(member, MARK, None))
        if (kind, name) not in _OPTIONS:
            _OPTIONS[kind, name] = super().parse_hookimpl_opts(plugin, name)
        return _OPTIONS[kind, name]


_SPECIFIED: dict[tuple[type, str], pluggy.HookspecOpts | None] = {}
_OPTIONS: dict[tuple[type, str], pluggy.HookimplOpts | None] = {}


def _is_wrong(seat: Seat) -> bool:
    kind = type(seat.plugin)
    return bool(problems_of(kind)) or is_of_another_family(seat.family, kind)


def _misses(seat: Seat, owners: Mapping[str, list[str]]) -> bool:
    return any(seat.label not in labels for labels in owners.values())


def _missing(family: str, seats: Sequence[Seat], names: Sequence[str]) -> str:
    """Returns one line that lists all missing operations."""
    if not seats:
        return f"there is no {family} plugin: {listed(names)} have no implementation"
    (seat, *_) = seats
    return (
        f"{seat.label}: "
        f"{lacks(family, type(seat.plugin)) or f'{listed(names)} have no implementation'}"
    )


def _foreign(error: Exception | SystemExit, operation: Operation) -> OperationError:
    kind = _BORDER_ERRORS[operation.name.partition("_")[0]]
    return kind(f"{type(error).__name__}: {error}", operation.name, operation.plugin, operation.pod)


@functools.cache
def _is_unbounded(name: str) -> bool:
    return any(getattr(vars(spec).get(name), UNBOUNDED, False) for spec in ALL_SPECS)


@functools.cache
def _unsupported(name: str) -> object:
    """The result of an optional operation that no plugin implements."""

    async def answer(_self: object) -> None:
        raise UnsupportedOperation(name)

    answer.__name__ = name
    return type("Unsupported", (), {name: hookimpl(answer)})()
