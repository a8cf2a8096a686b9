"""Finds and parses the configuration file. The only module that reads TOML.

The table of a plugin (`[family.name]`) is kept unparsed until the plugin is loaded.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
from msgspec import Struct, field

from vc_core.defaults import (
    DataDefaults,
    Deadlines,
    ImageDefaults,
    PodDefaults,
    PoolDefaults,
    SnapshotDefaults,
    TemplateDefaults,
    Use,
    VolumeDefaults,
)
from vc_core.driver_kit.ownership import home_folder, host_owners, trusted_owners, untrusted
from vc_core.first_party import NO_NETWORK
from vc_core.spec.errors import ConfigError
from vc_core.spec.hooks import FAMILIES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D")
Table = Mapping[str, Any]
PLUGIN_TABLES = (*FAMILIES, "observer")


class Config(Struct, frozen=True):
    """The configuration of a runtime.

    Attributes:
        use: names of the chosen plugins.
        pod: settings of the table [pod].
        template: settings of [template].
        pool: settings of [pool].
        snapshot: settings of [snapshot].
        image: settings of [image].
        data: settings of [data].
        volume: settings of [volume].
        deadlines: settings of [deadlines].
        tables: unparsed tables of plugins, by family and name.
        source: the configuration file; None for the defaults.
    """

    use: Use = field(default_factory=Use)
    pod: PodDefaults = field(default_factory=PodDefaults)
    template: TemplateDefaults = field(default_factory=TemplateDefaults)
    pool: PoolDefaults = field(default_factory=PoolDefaults)
    snapshot: SnapshotDefaults = field(default_factory=SnapshotDefaults)
    image: ImageDefaults = field(default_factory=ImageDefaults)
    data: DataDefaults = field(default_factory=DataDefaults)
    volume: VolumeDefaults = field(default_factory=VolumeDefaults)
    deadlines: Deadlines = field(default_factory=Deadlines)
    tables: Mapping[tuple[str, str], Table] = field(default_factory=dict)
    source: Path | None = None

    def plugins(self) -> Iterator[tuple[str, str]]:
        """Yield family and name of every chosen plugin."""
        yield ("hypervisor", self.use.hypervisor)
        yield ("agent", self.use.agent)
        yield ("storage", self.use.storage)
        yield from (("device", name) for name in self.use.devices)
        if self.use.network != NO_NETWORK:
            yield ("network", self.use.network)
        yield from (("observer", name) for name in self.use.observers)


def candidates(explicit: Path | None = None) -> Iterator[tuple[str, Path]]:
    """Yield (why, path) of each place where a configuration file may be.

    The first file that exists is used; files are not merged.
    """
    if explicit is not None:
        yield ("--config", explicit)
    if named := os.environ.get("VC_CONFIG"):
        yield ("$VC_CONFIG", Path(named))
    base = os.environ.get("XDG_CONFIG_HOME") or home_folder() / ".config"
    yield ("user file", Path(base) / "virtcontainers/config.toml")
    yield ("system file", Path("/etc/virtcontainers/config.toml"))


def find(explicit: Path | None = None) -> tuple[str, Path] | None:
    """Find the configuration file: why it is used, and its path; None for the defaults.

    Raises:
        ConfigError: a file that --config or $VC_CONFIG names does not exist, or another user can
            write the file (not checked for --config).
    """
    for why, path in candidates(explicit):
        if _is_file(path):
            owners = host_owners() if why == "system file" else trusted_owners()
            if why != "--config" and (reason := untrusted(path.absolute(), owners)):
                remedy = "correct its owner and mode, or use it with --config"
                raise ConfigError([f"{path} ({why}) is not used: {reason}; {remedy}"])
            return why, path
        if why in ("--config", "$VC_CONFIG"):
            raise ConfigError(
                [
                    (
                        f"{why} names {path}, which is not a file; "
                        f"create it with 'vc config init {path}'"
                    )
                ]
            )
    return None


def load(explicit: Path | None = None) -> Config:
    """Load the configuration file, or the defaults if there is none.

    Raises:
        ConfigError: the file is invalid; lists every problem.
    """
    location = find(explicit)
    return parse(read(location[1]), location[1]) if location else Config()


def read(path: Path) -> str:
    """Read a configuration file.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            [f"{path} cannot be read: {error.strerror}; use another file with --config"]
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path} is not UTF-8 text; use another file with --config"]) from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError as error:
        raise ConfigError(
            [f"{path} cannot be read: {error.strerror}; set HOME, or use --config"]
        ) from error


def parse(text: str, source: Path | None = None) -> Config:
    """Parse a configuration.

    Args:
        text: TOML.
        source: file name for messages.

    Raises:
        ConfigError: it is invalid; lists every problem.
    """
    config, problems = examine(text, source)
    if problems:
        raise ConfigError(located(text, source, problems))
    return config


def examine(text: str, source: Path | None = None) -> tuple[Config, list[str]]:
    """Parse a configuration and list its problems; invalid parts are replaced by defaults.

    Raises:
        ConfigError: the text is not TOML.
    """
    import tomli

    try:
        raw = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ConfigError([f"{source or 'config'}: {error}"]) from error
    problems: list[str] = []
    tables: dict[tuple[str, str], Table] = {}
    parts: dict[str, Any] = {}
    for key, value in raw.items():
        if key in PLUGIN_TABLES and isinstance(value, dict):
            problems += (
                f"{key}.{name}: must be a table"
                for name, table in value.items()
                if not isinstance(table, dict)
            )
            tables |= {
                (key, name): table for name, table in value.items() if isinstance(table, dict)
            }
        elif key in _CHOICES:
            problems.append(f"{key}: must be in the table [use]")
        elif key not in PARTS:
            problems.append(f"{key}: unknown key{nearest(key, PARTS)}")
        elif not isinstance(value, dict):
            problems.append(f"{key}: must be a table")
        else:
            parts[key] = convert(PARTS[key], value, key, problems)
    config = Config(
        tables=tables,
        source=source,
        **{key: part for key, part in parts.items() if part is not None},
    )
    problems += [
        *config.pod.problems(),
        *config.template.problems(),
        *config.pool.problems(),
        *config.data.problems(),
    ]
    problems += _unused(config, tables)
    return config, problems


def located(text: str, source: Path | None, problems: typing.Iterable[str]) -> list[str]:
    """Prefix problems with the file and, if it can be found, the line."""
    return [f"{source or 'config'}{_line(text, problem)}: {problem}" for problem in problems]


def convert(kind: type[D], raw: Table, path: str, problems: list[str]) -> D | None:
    """Convert a table into settings.

    Args:
        kind: a struct, or a dataclass.
        raw: the table.
        path: name of the table, for messages.
        problems: gets one line for each invalid or unknown key.

    Returns:
        None if there was a problem.
    """
    known: type = kind
    fields, types = set(field_names(known)), _types(known)
    before = len(problems)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        full = f"{path}.{key}"
        if key not in fields:
            problems.append(f"{full}: unknown key{nearest(key, fields)}")
        else:
            try:
                values[key] = msgspec.convert(value, types[key], dec_hook=_decode)
            except (msgspec.ValidationError, ValueError) as error:
                problems.append(f"{full}: {str(error)[0].lower()}{str(error)[1:]}")
    return kind(**values) if len(problems) == before else None


@functools.cache
def _types(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def field_names(kind: type) -> tuple[str, ...]:
    """Names of the fields of a struct or dataclass."""
    if issubclass(kind, Struct):
        return kind.__struct_fields__
    return tuple(item.name for item in dataclasses.fields(cast("type[DataclassInstance]", kind)))


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """Hint to append to an error: the nearest known name, or else all of them."""
    names = list(known)
    import difflib

    close = difflib.get_close_matches(word, names, 1)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; known: {', '.join(sorted(names))}" if names else ""


def _decode(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        if not value.startswith("/"):
            raise ValueError("must be an absolute path")
        return Path(value)
    raise ValueError(f"expected `{kind.__name__}`, got `{type(value).__name__}`")


_CHOICES = frozenset(Use.__struct_fields__)
PARTS: dict[str, type[Struct]] = {
    "use": Use,
    "pod": PodDefaults,
    "template": TemplateDefaults,
    "pool": PoolDefaults,
    "snapshot": SnapshotDefaults,
    "image": ImageDefaults,
    "data": DataDefaults,
    "volume": VolumeDefaults,
    "deadlines": Deadlines,
}


def _unused(config: Config, tables: Mapping[tuple[str, str], Table]) -> Iterator[str]:
    """Yield tables of plugins that are not used but have a name similar to one that is."""
    chosen = set(config.plugins())
    for family, name in sorted(tables.keys() - chosen):
        import difflib

        if hint := difflib.get_close_matches(name, [n for f, n in chosen if f == family], 1):
            yield f'{family}.{name}: no such plugin is used; did you mean "{family}.{hint[0]}"?'


def _line(text: str, problem: str) -> str:
    """`:LINE` of the key that a problem begins with; empty if it cannot be found."""
    path = problem.partition(":")[0].split(".")
    header = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[([^\[\]]+)\]", line):
            header = match[1].strip()
            if header == ".".join(path):
                return f":{number}"
        elif match := re.match(r"\s*([A-Za-z0-9_.-]+)\s*=", line):
            full = f"{header}.{match[1]}" if header else match[1]
            if full == ".".join(path):
                return f":{number}"
    return ""
