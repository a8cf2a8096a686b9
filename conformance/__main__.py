"""`python -m conformance`: runs tests on runtimes, and compares with docs/conformance.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from conformance import at_once, containerd, critest, reports, validation
from conformance.building import Unusable
from conformance.kubernetes import cluster, journey
from conformance.runtimes import OURS

_PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"
_PROGRAMS = Path(".make/conformance").absolute()
_ENGINES = Path(".make/containerd").absolute()
_KUBERNETES = Path(".make/kubernetes").absolute()
_LOGS = Path(".make/critest").absolute()


@click.group()
def main() -> None:
    """Other people's tests of OCI runtimes.

    The exit code is 1 when vc-runtime is worse than the known exceptions.
    """


@main.command("validation")
@click.argument("names", nargs=-1)
@click.option("--runtimes", default=f"{OURS},runc,crun", show_default=True)
def _validation(names: tuple[str, ...], runtimes: str) -> None:
    """Run all programs of runtime-tools, or what NAMES say."""
    try:
        programs = validation.build(_PROGRAMS)
        found: dict[str, dict[str, reports.Report]] = {}
        for name in runtimes.split(","):
            found[name] = {}
            with validation.runtime(name) as command:
                for program in names or programs:
                    report = validation.run(_PROGRAMS, program, command)
                    click.echo(f"{name}: {program}: {reports.cell(report)}", err=True)
                    found[name][program] = report
    except Unusable as error:
        raise click.ClickException(str(error)) from error
    click.echo(reports.table(found))
    ours = found.get(OURS, {})
    allowed = reports.exceptions(_PAGE)
    for name in ours.keys() & allowed.keys():
        if ours[name].is_clean:
            click.echo(f"{name}: is clean, and need not be an exception any more")
    _end(reports.complaints(ours, allowed))


@main.command("critest")
@click.argument("focus", default="")
@click.option("--runtimes", default=f"{OURS},runc", show_default=True)
@click.option(
    "--containerd",
    "version",
    type=click.Choice(containerd.VERSIONS),
    default=containerd.PINNED,
    show_default=True,
    help="Debian's, or what conformance/containerd/go.mod pins.",
)
def _critest(focus: str, runtimes: str, version: str) -> None:
    """Run all tests of critest, or those whose names the pattern FOCUS matches, on containerd."""
    try:
        program, client = critest.build(_LOGS)
        names = runtimes.split(",")
        found: dict[str, dict[str, bool]] = {}
        programs = containerd.build(version, _ENGINES)
        with containerd.running(programs, client, names) as engine:
            click.echo(f"containerd {engine.version}", err=True)
            for name in names:
                log = _LOGS / f"{name}.log"
                found[name] = critest.run(program, engine, name, focus, log)
                click.echo(f"{name}: {critest.cell(found[name])}; see {log}", err=True)
    except Unusable as error:
        raise click.ClickException(str(error)) from error
    click.echo(critest.table(found))
    if OURS not in found:
        return
    ours = found.pop(OURS)
    allowed = critest.exceptions(_PAGE)
    for name in sorted(one for one in allowed if ours.get(one)):
        click.echo(f"{name}: passes, and need not be an exception any more")
    _end(critest.complaints(ours, found, allowed))


@main.command("at-once")
@click.option("--runtimes", default=f"{OURS},runc", show_default=True)
@click.option("--count", default=20, show_default=True, help="Number of pods.")
@click.option(
    "--containerd",
    "version",
    type=click.Choice(containerd.VERSIONS),
    default=containerd.PINNED,
    show_default=True,
    help="Debian's, or what conformance/containerd/go.mod pins.",
)
def _at_once(runtimes: str, count: int, version: str) -> None:
    """Start pods at the same time on containerd, run a command in each, and remove them."""
    names = runtimes.split(",")
    found: dict[str, at_once.Found] = {}
    try:
        client = critest.build_client(_LOGS)
        programs = containerd.build(version, _ENGINES)
        with containerd.running(programs, client, names) as engine:
            click.echo(f"containerd {engine.version}", err=True)
            for name in names:
                found[name] = at_once.run(client, engine, name, count)
                click.echo(f"{name}: {found[name]}")
    except Unusable as error:
        raise click.ClickException(str(error)) from error
    _end([f"{name}: not as it should be" for name, one in found.items() if not one.is_good])


@main.command("kubernetes")
@click.option("--runtimes", default=f"{OURS},runc", show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Number of pods that are started.")
def _kubernetes(runtimes: str, rounds: int) -> None:
    """Run pods in a Kubernetes of one node, on Debian's containerd."""
    found: dict[str, journey.Found] = {}
    names = runtimes.split(",")
    try:
        cluster.build(_KUBERNETES)
        with cluster.cluster(_KUBERNETES, names) as made:
            for name, news, one in journey.run(made, names, rounds):
                found[name] = one
                click.echo(f"{name}: {news}", err=True)
    except Unusable as error:
        raise click.ClickException(str(error)) from error
    click.echo(journey.table(found))
    if OURS in found:
        allowed = critest.exceptions(_PAGE)
        _end(journey.complaints(found[OURS], found.get("runc"), allowed))


def _end(complaints: Sequence[str]) -> None:
    for line in complaints:
        click.echo(line)
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
