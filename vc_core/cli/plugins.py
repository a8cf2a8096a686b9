"""vc plugins: what is installed."""

from __future__ import annotations

import click

from vc_core.cli.render import echo_json, echo_table, json_option
from vc_core.engine.wiring.catalog import Catalog


@click.command()
@json_option
def plugins(as_json: bool) -> None:
    """List installed plugins: who ships them, whether they load and fulfil the contract."""
    found = list(Catalog().installed())
    if as_json:
        echo_json(found)
        return
    rows = (
        (one.name, one.family, one.distribution, one.version, one.state, one.contract or "-")
        for one in found
    )
    echo_table(("PLUGIN", "FAMILY", "DISTRIBUTION", "VERSION", "STATE", "CONTRACT"), rows)
