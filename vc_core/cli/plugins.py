"""vc plugins: list installed plugins."""

from __future__ import annotations

import click

from vc_core.cli.render import echo_json, echo_table, json_option
from vc_core.engine.wiring.catalog import Catalog


@click.command()
@json_option
def plugins(as_json: bool) -> None:
    """List installed plugins, and whether they load and implement the contract."""
    installed = list(Catalog().installed())
    if as_json:
        echo_json(installed)
        return
    rows = (
        (
            plugin.name,
            plugin.family,
            plugin.distribution,
            plugin.version,
            plugin.state,
            plugin.contract or "-",
        )
        for plugin in installed
    )
    echo_table(("PLUGIN", "FAMILY", "DISTRIBUTION", "VERSION", "STATE", "CONTRACT"), rows)
