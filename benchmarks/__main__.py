"""`python -m benchmarks`: measures, and writes benchmarks/results/ and docs/performance.md."""

from __future__ import annotations

import asyncio
import importlib
import logging
from pathlib import Path

import click

from benchmarks import overview
from benchmarks.host import bench, described
from benchmarks.report import Report

_ALL = (
    *("commands", "starts", "firsts", "pooled", "confined", "crowds", "forks", "execs", "trees"),
    *("streams", "stores", "peers", "networks", "throughput"),
)
_RESULTS = Path(__file__).parent / "results"


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(_ALL))
@click.option("--quick", is_flag=True, help="Fewer samples, smaller crowds.")
@click.option("--output", type=click.Path(path_type=Path), default=_RESULTS, show_default=True)
def main(names: tuple[str, ...], quick: bool, output: Path) -> None:
    """Measure all, or what NAMES say."""
    logging.basicConfig(level=logging.WARNING)
    report = Report(described())
    with bench(quick) as place:
        for name in names or _ALL:
            click.echo(f"== {name}", err=True)
            asyncio.run(importlib.import_module(f"benchmarks.{name}").run(report, place))
    report.write(output)
    if output == _RESULTS and not quick and not overview.write(report):
        click.echo("docs/performance.md is unchanged: not all was measured", err=True)
    click.echo(report.table())


if __name__ == "__main__":
    main()
