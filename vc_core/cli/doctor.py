"""vc doctor: check the host and suggest fixes."""

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
_NEEDS_ROOT = {"apt-get"}


@click.command()
@click.option(
    "--fix",
    is_flag=True,
    help="Install missing packages (as root) and build the guest image.",
)
@json_option
@click.pass_obj
def doctor(settings: Settings, fix: bool, as_json: bool) -> int:
    """Check what this host needs to run pods, and print how to fix each problem.

    Exits with 125 if a requirement is missing.
    """
    findings = _diagnose(settings)
    if fix and _mend(settings, findings):
        findings = _diagnose(settings)
    if as_json:
        echo_json(findings)
    else:
        for finding in findings:
            sign, colour = _SIGNS[finding.verdict]
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            head = click.style(f"{sign:4}", fg=colour)
            click.echo(f"{head} {finding.subject}: {shown(finding.detail)}{shown(remedy)}")
    return (
        Exit.FAILURE if any(finding.verdict is Verdict.BAD for finding in findings) else Exit.GOOD
    )


def _diagnose(settings: Settings) -> tuple[Finding, ...]:
    async def work() -> tuple[Finding, ...]:
        async with settings.runtime() as runtime:
            return await runtime.diagnose()

    return run_async(work())


def _mend(settings: Settings, findings: Iterable[Finding]) -> bool:
    """Run the commands that fix the findings, and report those that fail.

    Returns:
        Whether there were any commands.
    """
    commands = list(
        dict.fromkeys(
            finding.fix
            for finding in findings
            if finding.fix and finding.verdict is not Verdict.GOOD
        )
    )
    for command in commands:
        words = shlex.split(command)
        if words[0] in _NEEDS_ROOT and os.geteuid() != 0:
            click.echo(f"vc: must be run by root: {command}", err=True)
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
            click.echo(f"vc: {words[0]} is not installed, so this was not run: {command}", err=True)
            continue
        else:
            words[0] = program
        if code := subprocess.run(
            words, stdout=sys.stderr, check=False, cwd="/", env=environment
        ).returncode:
            click.echo(f"vc: failed with exit code {code}: {command}", err=True)
    return bool(commands)
