"""vc plugins: what is installed."""

from __future__ import annotations

import click

from vc_core.cli.render import echo_json, echo_table, json_option
from vc_core.engine.catalog import Catalog


@click.command()
@json_option
def plugins(as_json: bool) -> None:
    """List installed plugins: who ships them, and whether they load."""
    found = list(Catalog().installed())
    if as_json:
        echo_json(found)
        return
    rows = ((one.name, one.family, one.distribution, one.version, one.state) for one in found)
    echo_table(("PLUGIN", "FAMILY", "DISTRIBUTION", "VERSION", "STATE"), rows)
