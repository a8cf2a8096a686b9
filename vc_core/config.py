"""TOML to Config. The only module that reads TOML.

A plugin's table (`[family.name]`) stays raw here: its owner parses it when the plugin is loaded.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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
from vc_core.driver_kit.ownership import host_owners, trusted_owners, untrusted
from vc_core.spec.errors import ConfigError
from vc_core.spec.hooks import FAMILIES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

D = TypeVar("D", bound="DataclassInstance")
Table = Mapping[str, Any]
PLUGIN_TABLES = (*FAMILIES, "observer")


@dataclass(frozen=True)
class Config:
    """All that a runtime is opened with.

    Attributes:
        use: names of the chosen plugins.
        pod: defaults of pods.
        template: what pods are cloned from.
        pool: what waits for pods.
        snapshot: where saved pods lie.
        image: where images lie.
        data: where logs and disks lie.
        volume: where volumes lie.
        deadlines: limits of operations.
        tables: raw options by (family, plugin name).
        source: the file, None for the defaults.
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
        """(family, name) of every chosen plugin."""
        yield ("hypervisor", self.use.hypervisor)
        yield ("agent", self.use.agent)
        yield ("storage", self.use.storage)
        yield from (("device", name) for name in self.use.devices)
        yield from (("observer", name) for name in self.use.observers)


def candidates(explicit: Path | None = None) -> Iterator[tuple[str, Path]]:
    """Where a configuration is looked for, first to last: (why, path).

    One file wins; they are not merged.
    """
    if explicit is not None:
        yield ("--config", explicit)
    if named := os.environ.get("VC_CONFIG"):
        yield ("$VC_CONFIG", Path(named))
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    yield ("user file", Path(base) / "virtcontainers/config.toml")
    yield ("system file", Path("/etc/virtcontainers/config.toml"))


def find(explicit: Path | None = None) -> tuple[str, Path] | None:
    """The file that wins, and why; None for the defaults.

    Raises:
        ConfigError: a file that was named by the user does not exist; or somebody else could have
            written the file, which is not asked of one that --config names.
    """
    for why, path in candidates(explicit):
        if _is_file(path):
            owners = host_owners() if why == "system file" else trusted_owners()
            if why != "--config" and (reason := untrusted(path.absolute(), owners)):
                remedy = (
                    "correct its owner and mode, or name it with --config, which is not checked"
                )
                raise ConfigError([f"{path} ({why}) is not used: {reason}; {remedy}"])
            return why, path
        if why in ("--config", "$VC_CONFIG"):
            raise ConfigError(
                [f"{why} names {path}, which is not a file; 'vc config init {path}' writes one"]
            )
    return None


def load(explicit: Path | None = None) -> Config:
    """Reads the file that wins, or gives the defaults.

    Raises:
        ConfigError: with every problem of the file at once.
    """
    found = find(explicit)
    return parse(read(found[1]), found[1]) if found else Config()


def read(path: Path) -> str:
    """The text of a file.

    Raises:
        ConfigError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            [f"{path} cannot be read: {error.strerror}; name another file with --config"]
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path} is not a configuration: it is not UTF-8 text"]) from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError as error:
        raise ConfigError(
            [
                f"{path} cannot be read: {error.strerror}; set HOME, or name another file with --config"
            ]
        ) from error


def parse(text: str, source: Path | None = None) -> Config:
    """Turns TOML into a Config.

    Args:
        text: the file's content.
        source: named in messages.

    Raises:
        ConfigError: with every problem at once.
    """
    config, problems = examine(text, source)
    if problems:
        raise ConfigError(located(text, source, problems))
    return config


def examine(text: str, source: Path | None = None) -> tuple[Config, list[str]]:
    """What a file says, as far as it can be read, and its problems; parts that cannot be read are the defaults.

    Raises:
        ConfigError: it is no TOML.
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
            problems.append(f"{key}: which plugins are used is said in the table [use]")
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
    """Problems with the file and, where it can be found, the line."""
    return [f"{source or 'config'}{_line(text, problem)}: {problem}" for problem in problems]


def convert(kind: type[D], raw: Table, path: str, problems: list[str]) -> D | None:
    """Turns a raw table into a dataclass, field by field.

    Args:
        kind: a dataclass.
        raw: the table.
        path: of the table, for messages.
        problems: grows by one line for each wrong or unknown key.

    Returns:
        None when something was wrong.
    """
    import msgspec

    fields = {item.name for item in dataclasses.fields(kind)}
    types = _types(kind)
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


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """A hint to append: `; did you mean "x"?`, or what is known when nothing is near."""
    names = list(known)
    close = difflib.get_close_matches(word, names, 1)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; known: {', '.join(sorted(names))}" if names else ""


def _decode(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        if not value.startswith("/"):
            raise ValueError("must be an absolute path: commands are typed in any folder")
        return Path(value)
    raise ValueError(f"expected `{kind.__name__}`, got `{type(value).__name__}`")


_CHOICES = frozenset(item.name for item in dataclasses.fields(Use))
PARTS: dict[str, type[DataclassInstance]] = {
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
    """A table for a plugin that is not chosen is a typo more often than not, unless it is a first-class alternative."""
    chosen = set(config.plugins())
    for family, name in tables:
        if (family, name) not in chosen and (
            hint := difflib.get_close_matches(name, [n for f, n in chosen if f == family], 1)
        ):
            yield f'{family}.{name}: no such plugin is chosen; did you mean "{family}.{hint[0]}"?'


def _line(text: str, problem: str) -> str:
    """`:LINE` of the key that a problem begins with, when it can be found."""
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
