"""`python -m conformance`: runs the tests on runtimes, and compares with docs/conformance.md."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from conformance import reports, validation

_OURS = "vc-runtime"
_PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"
_PROGRAMS = Path(".make/conformance").absolute()


@click.command()
@click.argument("names", nargs=-1)
@click.option("--runtimes", default=f"{_OURS},runc,crun", show_default=True)
def main(names: tuple[str, ...], runtimes: str) -> None:
    """Run all programs of runtime-tools, or what NAMES say.

    The exit code is 1 when vc-runtime is worse than the known exceptions.
    """
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
    except validation.Unusable as error:
        raise click.ClickException(str(error)) from error
    click.echo(reports.table(found))
    ours = found.get(_OURS, {})
    allowed = reports.exceptions(_PAGE)
    for name in ours.keys() & allowed.keys():
        if ours[name].is_clean:
            click.echo(f"{name}: is clean, and need not be an exception any more")
    complaints = reports.complaints(ours, allowed)
    for line in complaints:
        click.echo(line)
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
