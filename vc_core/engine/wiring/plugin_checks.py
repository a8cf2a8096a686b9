"""Checks of a plugin without running it: its class, constructor, hooks and parameters."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FunctionType

from msgspec import Struct

from vc_core.config import nearest
from vc_core.spec.hooks import ALL_SPECS, FAMILIES, RETIRED
from vc_core.spec.markers import OPTIONAL, PROJECT

log = logging.getLogger(__name__)

CORE = "virtcontainers"

_FAMILY_PREFIXES = {
    "hypervisor": "vm_",
    "agent": "agent_",
    "storage": "storage_",
    "device": "device_",
}
MARK = f"{PROJECT}_impl"
_PROBLEMS: dict[type, tuple[str, ...]] = {}
_MISSING: dict[tuple[str, type], tuple[str, ...]] = {}
_SHOWN_NAMES = 5


def fulfilment(
    family: str, factory: Callable[..., object], requirements: Iterable[str] = ()
) -> list[str]:
    """Returns how a plugin breaks the contract, one line each, as far as its class shows.

    Args:
        family: family of the plugin.
        factory: its class. Of another callable only the parameters are checked.
        requirements: requirements of its distribution.
    """
    problems = [constructor_problem(factory), *version_problems(requirements)]
    if isinstance(factory, type):
        problems += [*problems_of(factory), lacks(family, factory)]
    return [problem for problem in problems if problem]


def problems_of(plugin: type) -> tuple[str, ...]:
    """Returns the problems of a class's hooks: names, marks, parameters, and missing `async`."""
    if plugin not in _PROBLEMS:
        _PROBLEMS[plugin] = tuple(_find_problems(plugin))
    return _PROBLEMS[plugin]


def lacks(family: str, plugin: type) -> str:
    """Returns which operations of its family a class lacks. Empty when it has all required ones."""
    missing = _missing(family, plugin)
    if is_of_another_family(family, plugin):
        return (
            f"{plugin.__name__} has no operation of a {family} plugin; "
            "let the entry point name the plugin's class"
        )
    return (
        f"{plugin.__name__} lacks {listed(missing)}; write them, docs/hooks.md says what each does"
        if missing
        else ""
    )


def is_of_another_family(family: str, plugin: type) -> bool:
    """Returns whether a class has no operation of its family at all."""
    return family in FAMILIES and _missing(family, plugin) == _needed(family)


def _missing(family: str, plugin: type) -> tuple[str, ...]:
    if (family, plugin) not in _MISSING:
        _MISSING[family, plugin] = tuple(
            name for name in _needed(family) if not _is_there(plugin, name)
        )
    return _MISSING[family, plugin]


@functools.cache
def _needed(family: str) -> tuple[str, ...]:
    spec = FAMILIES.get(family)
    return (
        tuple(name for name in hook_names(spec) if not getattr(vars(spec)[name], OPTIONAL, False))
        if spec
        else ()
    )


def listed(names: Sequence[str]) -> str:
    """Returns the first of some names, and the number of the others."""
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names) if more < 2 else f"{', '.join(names[:_SHOWN_NAMES])} and {more} more"


@functools.cache
def constructor_problem(factory: Callable[..., object]) -> str:
    """Returns why the options alone are not enough to create a plugin. Empty when they are."""
    kind = getattr(factory, "options_type", None)
    if kind is not None and not _has_fields(kind):
        return f"its options_type is {kind!r}, not a dataclass; make it a frozen dataclass"
    if _plain_constructor(factory) == (0 if kind is None else 1):
        return ""
    try:
        signature = inspect.signature(factory)
    except ValueError:  # of a class that is not written in Python
        return ""
    try:
        signature.bind(*([] if kind is None else [None]))
    except TypeError:
        if kind is None:
            remedy = (
                "without arguments, for it has no options_type; "
                "give it one, or write 'def __init__(self)'"
            )
        else:
            remedy = "with its options alone; write 'def __init__(self, options)'"
        return f"its constructor takes {signature}, but is called {remedy}"
    return ""


def _plain_constructor(factory: Callable[..., object]) -> int | None:
    """Returns how many arguments a class takes, if it only has a plain `__init__` or none.

    None for any other. `inspect.signature` of a class without a constructor compiles the tokenizer
    of Python.
    """
    if type(factory) is not type:
        return None
    members = members_of(factory)
    if members["__new__"] is not object.__new__:
        return None
    maker = members["__init__"]
    if maker is object.__init__:
        return 0
    plain = _plain_parameters(maker)
    return None if plain is None else len(plain) - 1


def _has_fields(kind: object) -> bool:
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or issubclass(kind, Struct))


def version_problems(requirements: Iterable[str]) -> Iterator[str]:
    """Yields a line if a plugin's distribution requires another version of the contract."""
    # For `vc plugins` only.
    import importlib.metadata

    from packaging.requirements import InvalidRequirement, Requirement

    ours = importlib.metadata.version(CORE)
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue  # pip reports it
        if requirement.name == CORE and not requirement.specifier.contains(ours, prereleases=True):
            yield (
                f"it was made for {CORE} {requirement.specifier}, this is {ours}; "
                "install a version that fits"
            )


def hook_names(spec: type) -> list[str]:
    """Returns the hooks of a specification, in its order."""
    return [name for name in vars(spec) if not name.startswith("_")]


def _find_problems(plugin: type) -> Iterator[str]:
    known = {name for spec in ALL_SPECS for name in hook_names(spec)}
    for name, member in sorted(members_of(plugin).items()):
        prefix = next(
            (prefix for prefix in _FAMILY_PREFIXES.values() if name.startswith(prefix)), None
        )
        marked = hasattr(member, MARK)
        if name in RETIRED:
            log.warning("%s.%s is never called any more: %s", plugin.__name__, name, RETIRED[name])
        elif marked and name not in known:
            yield f"{name} is not a hook{nearest(name, known)}"
        elif marked:
            yield from _signature_problems(name, member)
        elif prefix and name in known and _is_own(member):
            yield f"{name} lacks @hookimpl"
        elif prefix and name not in known and callable(member):
            yield f"{name} looks like a hook but is none{nearest(name, known)}"


def _signature_problems(name: str, member: object) -> Iterator[str]:
    options = getattr(member, MARK)
    is_static = isinstance(member, staticmethod)
    function = member.__func__ if isinstance(member, staticmethod | classmethod) else member
    if not callable(function):
        return
    if (
        not options.get("wrapper")
        and not options.get("hookwrapper")
        and not inspect.iscoroutinefunction(function)
    ):
        yield f"{name} must be 'async def'"
    given = _parameters(name)
    plain = _plain_parameters(function)
    if plain is not None and set(plain[0 if is_static else 1 :]).issubset(given):
        return
    for parameter in list(inspect.signature(function).parameters.values())[0 if is_static else 1 :]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        has_default = parameter.default is not parameter.empty
        if parameter.name not in given and not has_default:
            offered = ", ".join(given) or "none"
            yield (
                f"{name} takes '{parameter.name}', which that hook does not give (it gives "
                f"{offered}); remove it"
            )
        elif parameter.name in given and (has_default or parameter.kind is parameter.KEYWORD_ONLY):
            yield (
                f"{name} would never get '{parameter.name}'; "
                "make it a plain parameter without a default"
            )


@functools.cache
def _parameters(hook: str) -> tuple[str, ...]:
    declared = next(vars(spec)[hook] for spec in ALL_SPECS if hook in vars(spec))
    names = _plain_parameters(declared) or tuple(inspect.signature(declared).parameters)
    return tuple(name for name in names if name != "self")


def _plain_parameters(function: object) -> tuple[str, ...] | None:
    """Returns the parameters of a function that has only positional ones without defaults.

    None for any other. `inspect.signature` is slower, and each command looks at two hundred hooks.
    """
    if (
        not isinstance(function, FunctionType)
        or hasattr(function, "__wrapped__")
        or function.__defaults__
        or function.__code__.co_kwonlyargcount
        or function.__code__.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    ):
        return None
    return function.__code__.co_varnames[: function.__code__.co_argcount]


@functools.cache
def members_of(plugin: type) -> dict[str, object]:
    """Returns what a class and its bases define, without calling descriptors."""
    found: dict[str, object] = {}
    for kind in reversed(plugin.__mro__):
        found |= vars(kind)
    return found


def _is_there(plugin: type, name: str) -> bool:
    """Returns whether a class has an operation, even a faulty one."""
    member = members_of(plugin).get(name)
    return member is not None and (hasattr(member, MARK) or _is_own(member))


def _is_own(member: object) -> bool:
    """Returns whether the plugin defines this method, and not only the specification."""
    return not any(member is declared for spec in ALL_SPECS for declared in vars(spec).values())
