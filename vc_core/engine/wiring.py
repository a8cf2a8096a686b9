"""One pod's board: the chosen plugins on one pluggy manager, checked, with the error border around each operation."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import pluggy

from vc_core.config import nearest
from vc_core.defaults import Deadlines
from vc_core.engine.forking import Origin
from vc_core.spec.device import DeviceSpec
from vc_core.spec.errors import (
    AgentError,
    DeviceError,
    HypervisorError,
    OperationError,
    OperationTimeout,
    PluginContractError,
    StorageError,
    UnsupportedOperation,
    VcError,
)
from vc_core.spec.everywhere import CURRENT, Operation
from vc_core.spec.hooks import ALL_SPECS, FAMILIES, RETIRED, Hooks
from vc_core.spec.markers import OPTIONAL, PROJECT, ROUTED, UNBOUNDED, hookimpl
from vc_core.spec.values import PodRef

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)

_BORDER_ERRORS = {"vm": HypervisorError, "agent": AgentError, "storage": StorageError, "device": DeviceError}
_FAMILY_PREFIXES = {"hypervisor": "vm_", "agent": "agent_", "storage": "storage_", "device": "device_"}


@dataclass(frozen=True)
class Seat:
    """A plugin object and where it came from."""

    family: str
    name: str
    plugin: object

    @property
    def label(self) -> str:
        """Unique on a board."""
        return f"{self.family}:{self.name}"


class Wiring:
    """Calls into the plugins of one pod.

    Args:
        seats: the plugins; observers last, the first of them outermost.
        deadlines: put around every operation but unbounded ones.

    Raises:
        PluginContractError: with every problem at once.
    """

    def __init__(self, seats: Iterable[Seat], deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._origin = Origin()
        self._manager = _Manager(PROJECT)
        for spec in ALL_SPECS:
            self._manager.add_hookspecs(spec)
        self._seats = tuple(seats)
        problems = [*self._register(), *self._check_names(), *self._check_implementations()]
        if problems:
            raise PluginContractError(problems)
        self._manager.add_hookcall_monitoring(lambda *_: self._origin.require(), self._guard)
        self.hooks = cast(Hooks, self._manager.hook)
        self._devices = [(seat.name, self._device_hooks(seat)) for seat in self._seats if seat.family == "device"]

    @property
    def devices(self) -> list[tuple[str, DeviceSpec]]:
        """The device plugins, each with the hooks that reach it alone (and everybody who surrounds)."""
        return self._devices

    async def notify(
        self, event: Callable[Concatenate[Any, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Tells every plugin; one that fails is logged and stops nobody."""
        name = event.__name__
        if args:
            raise TypeError(f"{name}: give the event's parameters by name")
        outcomes = await asyncio.gather(*getattr(self._manager.hook, name)(**kwargs), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, asyncio.CancelledError):
                raise outcome
            if isinstance(outcome, BaseException):
                log.warning("a listener of %s failed: %s", name, outcome, exc_info=outcome)

    # --- before the first call ---------------------------------------------------------------------------------------

    def _register(self) -> Iterable[str]:
        # Later registrations are outer wrappers, so the first observer is registered last.
        drivers = [seat for seat in self._seats if seat.family != "observer"]
        observers = [seat for seat in self._seats if seat.family == "observer"]
        for seat in [*drivers, *reversed(observers)]:
            try:
                self._manager.register(seat.plugin, name=seat.label)
            except (pluggy.PluginValidationError, ValueError) as error:
                # pluggy leaves the first hooks of a refused plugin behind; nobody uses this manager after a problem.
                yield f"{seat.label}: {' '.join(str(error).split())}"

    def _check_names(self) -> Iterable[str]:
        for seat in self._seats:
            yield from (f"{seat.label}.{problem}" for problem in _problems_of(type(seat.plugin)))

    def _check_implementations(self) -> Iterable[str]:
        for spec in ALL_SPECS:
            for name in _hook_names(spec):
                implementations = [
                    item for item in getattr(self._manager.hook, name).get_hookimpls() if not item.wrapper
                ]
                for item in implementations:
                    if not inspect.iscoroutinefunction(item.function):
                        yield f"{item.plugin_name}.{name} must be 'async def'"
                if spec in FAMILIES.values():
                    yield from self._check_count(spec, name, [item.plugin_name for item in implementations])

    def _check_count(self, spec: type, name: str, owners: list[str]) -> Iterable[str]:
        declared = vars(spec)[name]
        if getattr(declared, ROUTED, False):
            missing = {seat.label for seat in self._seats if seat.family == "device"} - set(owners)
            yield from (f"{label} lacks {name}" for label in sorted(missing))
        elif len(owners) > 1:
            yield f"{name} has {len(owners)} implementations, of {' and '.join(sorted(owners))}; it needs exactly one"
        elif not owners and getattr(declared, OPTIONAL, False):
            self._manager.register(_unsupported(name), name=f"unsupported:{name}")
        elif not owners:
            yield f"{name} has no implementation; it needs exactly one"

    def _device_hooks(self, seat: Seat) -> DeviceSpec:
        others = [other.plugin for other in self._seats if other.family == "device" and other is not seat]

        class Relay:
            pass

        relay = Relay()
        for name in _hook_names(DeviceSpec):
            setattr(relay, name, self._manager.subset_hook_caller(name, remove_plugins=others))
        return cast(DeviceSpec, relay)

    # --- the border --------------------------------------------------------------------------------------------------

    def _guard(self, outcome: pluggy.Result[Any], name: str, impls: Any, arguments: Mapping[str, object]) -> None:
        """Called by pluggy after each hook call, which has only made a coroutine: puts the border around it."""
        prefix = name.partition("_")[0]
        if outcome.exception is not None or prefix not in _BORDER_ERRORS:
            return
        pod = arguments.get("pod")
        pod_id = pod.id if isinstance(pod, PodRef) else str(arguments.get("pod_id", ""))
        owner = next((item.plugin_name for item in impls if not item.wrapper), "nobody")
        inner = outcome.get_result()
        if inner is None:
            raise PluginContractError([f"nobody implements {name}"])
        limit_s = None if _is_unbounded(name) else self._deadlines.of(name)
        outer = _bordered(inner, Operation(name, owner.partition(":")[2], pod_id), limit_s)
        outcome.force_result(_Call(outer, inner))


class _Call(Coroutine[Any, Any, Any]):
    """A hook's call. One that is cancelled before it has begun closes what is inside, which nobody will await."""

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


async def _bordered(inner: Coroutine[Any, Any, Any], operation: Operation, limit_s: float | None) -> Any:
    current = CURRENT.set(operation)
    try:
        async with asyncio.timeout(limit_s) as deadline:
            return await inner
    except OperationError as error:
        error.operation = error.operation or operation.name
        error.plugin = error.plugin or operation.plugin
        error.pod = error.pod or operation.pod
        raise
    except VcError:
        raise
    except TimeoutError as error:
        if deadline.expired() and limit_s is not None:
            raise OperationTimeout(limit_s, operation.name, operation.plugin, operation.pod) from error
        raise _foreign(error, operation) from error
    except Exception as error:
        raise _foreign(error, operation) from error
    finally:
        inner.close()
        CURRENT.reset(current)


class _Manager(pluggy.PluginManager):
    """Looks at each plugin's class once: a board is made for every pod, and every look costs."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        if name.startswith("_"):
            return None
        if name in getattr(plugin, "__dict__", {}):  # not of the class
            return super().parse_hookimpl_opts(plugin, name)
        key = (type(plugin), name)
        if key not in _OPTIONS:
            _OPTIONS[key] = super().parse_hookimpl_opts(plugin, name)
        return _OPTIONS[key]


_OPTIONS: dict[tuple[type, str], pluggy.HookimplOpts | None] = {}
_PROBLEMS: dict[type, tuple[str, ...]] = {}


def _problems_of(plugin: type) -> tuple[str, ...]:
    """Names of a class that are not what they look like."""
    if plugin not in _PROBLEMS:
        _PROBLEMS[plugin] = tuple(_find_problems(plugin))
    return _PROBLEMS[plugin]


def _find_problems(plugin: type) -> Iterable[str]:
    known = {name for spec in ALL_SPECS for name in _hook_names(spec)}
    for name, member in inspect.getmembers_static(plugin):
        prefix = next((prefix for prefix in _FAMILY_PREFIXES.values() if name.startswith(prefix)), None)
        marked = hasattr(member, f"{PROJECT}_impl")
        if name in RETIRED:
            log.warning("%s.%s is never called any more: %s", plugin.__name__, name, RETIRED[name])
        elif marked and name not in known:
            yield f"{name} is no hook{nearest(name, known)}"
        elif prefix and not marked and name in known and _is_own(member):
            yield f"{name} lacks @hookimpl"
        elif prefix and not marked and name not in known and callable(member):
            yield f"{name} looks like a hook but is none{nearest(name, known)}"


def _foreign(error: Exception, operation: Operation) -> OperationError:
    kind = _BORDER_ERRORS[operation.name.partition("_")[0]]
    return kind(f"{type(error).__name__}: {error}", operation.name, operation.plugin, operation.pod)


def _hook_names(spec: type) -> list[str]:
    return [name for name in vars(spec) if not name.startswith("_")]


def _is_unbounded(name: str) -> bool:
    return any(getattr(vars(spec).get(name), UNBOUNDED, False) for spec in ALL_SPECS)


def _is_own(member: object) -> bool:
    """Whether a plugin wrote this method itself: inherited from the specification, it is merely absent."""
    return not any(member is declared for spec in ALL_SPECS for declared in vars(spec).values())


@functools.cache
def _unsupported(name: str) -> object:
    """The answer to an optional operation that nobody implements."""

    async def answer(_self: object) -> None:
        raise UnsupportedOperation(name)

    answer.__name__ = name
    return type("Unsupported", (), {name: hookimpl(answer)})()
