"""vc config: show, check and write configuration files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from vc_core import config as configs
from vc_core.cli.escapes import shown
from vc_core.cli.exit_codes import Exit
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import echo_json, json_option, plain
from vc_core.engine.wiring import assemble, options
from vc_core.engine.wiring.catalog import Catalog
from vc_core.spec.errors import ConfigError, InvalidRequest, PluginError


@click.group()
def config() -> None:
    """Show, check and write configuration files."""


@config.command()
@json_option
@click.pass_obj
def show(settings: Settings, as_json: bool) -> None:
    """Print the effective settings and the file they come from."""
    location = configs.find(_explicit(settings))
    loaded = settings.load_config()
    values = dict(options.effective(loaded, Catalog()))
    if as_json:
        echo_json({"file": location[1] if location else None, "values": values})
        return
    click.echo(
        f"# {location[1]} ({location[0]})"
        if location
        else "# no configuration file, default settings"
    )
    _echo_toml(values)


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def check(settings: Settings, file: Path | None, as_json: bool) -> int:
    """Report all problems of FILE, by default the configuration file in use."""
    location = configs.find(file or _explicit(settings))
    try:
        if location is None:
            problems = run_async(assemble.problems(configs.Config(), Catalog()))
        else:
            text = configs.read(location[1])
            loaded, file_problems = configs.examine(text, location[1])
            problems = configs.located(
                text,
                location[1],
                [*file_problems, *run_async(assemble.problems(loaded, Catalog()))],
            )
    except ConfigError as error:
        problems = list(error.problems)
    if as_json:
        echo_json({"file": location[1] if location else None, "problems": problems})
        return Exit.FAILURE if problems else Exit.GOOD
    for problem in problems:
        click.echo(shown(problem), err=True)
    if location is None:
        click.echo("no configuration file found; using the defaults")
    elif not problems:
        click.echo(f"{location[1]}: OK")
    return Exit.FAILURE if problems else Exit.GOOD


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(file: Path | None, force: bool) -> None:
    """Write a commented file with all settings to FILE.

    The default is the configuration file of the user.
    """
    target = file or dict(configs.candidates())["user file"]
    if target.exists() and not force:
        raise InvalidRequest(f"{target} already exists; use --force to overwrite it")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(_commented()) + "\n")
    click.echo(str(target))


def _explicit(settings: Settings) -> Path | None:
    return Path(settings.config_file) if settings.config_file else None


def _echo_toml(values: dict[str, object]) -> None:
    table = ""
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        if section != table:
            click.echo(f"\n[{section}]")
            table = section
        click.echo(f"{name} = {shown(plain(value))}")


def _commented() -> Iterator[str]:
    """Lines of every setting with its default, read from the classes that define them."""
    loaded, catalog = configs.Config(), Catalog()
    yield "# virtcontainers configuration. Each value is the default; remove the '#' to change it."
    yield "# The first of these files that exists is used: --config FILE, $VC_CONFIG,"
    yield "# ~/.config/virtcontainers/config.toml, /etc/virtcontainers/config.toml."
    for path, kind in _tables(loaded, catalog):
        yield ""
        yield f"# [{path}]"
        texts = attribute_texts(kind)
        defaults = kind()
        for name in configs.field_names(kind):
            value = shown(plain(getattr(defaults, name)))
            yield f"# {name} = {value}    # {texts.get(name, '')}".rstrip(" #")


def _tables(loaded: configs.Config, catalog: Catalog) -> Iterator[tuple[str, type]]:
    yield from configs.PARTS.items()
    for family, name in loaded.plugins():
        try:
            kind = getattr(catalog.find(family, name).factory, "options_type", None)
        except PluginError:
            continue  # not installed; `vc config check` reports it
        if kind is not None:
            yield f"{family}.{name}", kind


def attribute_texts(kind: type) -> dict[str, str]:
    """The description of each attribute in a docstring."""
    section = (kind.__doc__ or "").partition("Attributes:")[2]
    attributes = re.findall(r"^\s+(\w+): (.+?)(?=^\s+\w+: |\Z)", section, re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in attributes}
