"""vc doctor: what is missing on this host."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from vc_core.cli.escapes import shown
from vc_core.cli.exit_codes import Exit
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import echo_json, json_option
from vc_core.driver_kit.programs import (
    find_program,
    own_command,
    program_environment,
    python_environment,
)
from vc_core.spec.values import Finding, Verdict

_SIGNS = {
    Verdict.GOOD: ("ok", "green"),
    Verdict.WARNING: ("warn", "yellow"),
    Verdict.BAD: ("bad", "red"),
}
_ROOTS = {"apt-get"}


@click.command()
@click.option(
    "--fix",
    is_flag=True,
    help="Do what can be done without asking: packages (as root), the guest's image.",
)
@json_option
@click.pass_obj
def doctor(settings: Settings, fix: bool, as_json: bool) -> int:
    """Look for what is missing on this host; each line with its remedy.

    Exits with 125 when something is.
    """
    found = _diagnose(settings)
    if fix and _mend(settings, found):
        found = _diagnose(settings)
    if as_json:
        echo_json(found)
    else:
        for one in found:
            sign, colour = _SIGNS[one.verdict]
            remedy = f"; {one.remedy}" if one.remedy else ""
            click.echo(
                f"{click.style(f'{sign:4}', fg=colour)} {one.subject}: {shown(one.detail)}{shown(remedy)}"
            )
    return Exit.FAILURE if any(one.verdict is Verdict.BAD for one in found) else Exit.GOOD


def _diagnose(settings: Settings) -> tuple[Finding, ...]:
    async def work() -> tuple[Finding, ...]:
        async with settings.runtime() as runtime:
            return await runtime.diagnose()

    return run_async(work())


def _mend(settings: Settings, found: Iterable[Finding]) -> bool:
    """Runs the commands that findings have; whether there were any.

    One that fails is told, and found again.
    """
    commands = list(
        dict.fromkeys(one.fix for one in found if one.fix and one.verdict is not Verdict.GOOD)
    )
    for command in commands:
        words = shlex.split(command)
        if words[0] in _ROOTS and os.geteuid() != 0:
            click.echo(f"vc: only root can do that: {command}", err=True)
            continue
        click.echo(f"== {command}", err=True)
        environment = program_environment()
        if words[0] == "vc":
            own = (
                ["--config", str(Path(settings.config_file).absolute())]
                if settings.config_file
                else []
            )
            words, environment = [*own_command(), *own, *words[1:]], python_environment()
        elif (program := find_program(words[0])) is None:
            click.echo(f"vc: {words[0]} is not installed: {command}", err=True)
            continue
        else:
            words[0] = program
        if code := subprocess.run(
            words, stdout=sys.stderr, check=False, cwd="/", env=environment
        ).returncode:
            click.echo(f"vc: it ended with {code}: {command}", err=True)
    return bool(commands)
