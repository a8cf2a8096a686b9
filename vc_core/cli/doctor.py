"""vc doctor: what is missing on this host."""

from __future__ import annotations

import click

from vc_core.cli.exits import Exit
from vc_core.cli.render import echo_json, json_option
from vc_core.cli.settings import Settings, run_async
from vc_core.spec.values import Finding, Verdict

_SIGNS = {Verdict.GOOD: ("ok", "green"), Verdict.WARNING: ("warn", "yellow"), Verdict.BAD: ("bad", "red")}


@click.command()
@json_option
@click.pass_obj
def doctor(settings: Settings, as_json: bool) -> int:
    """Look for what is missing on this host; each line with its remedy. Exits with 125 when something is."""

    async def work() -> tuple[Finding, ...]:
        async with settings.runtime() as runtime:
            return await runtime.diagnose()

    found = run_async(work())
    if as_json:
        echo_json(found)
    else:
        for one in found:
            sign, colour = _SIGNS[one.verdict]
            remedy = f"; {one.remedy}" if one.remedy else ""
            click.echo(f"{click.style(f'{sign:4}', fg=colour)} {one.subject}: {one.detail}{remedy}")
    return Exit.FAILURE if any(one.verdict is Verdict.BAD for one in found) else Exit.GOOD
