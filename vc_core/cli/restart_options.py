"""Command-line options about containers that are to last."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

import click

from vc_core.cli.units import Duration
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import HealthCheck, Restart, RestartPolicy

_RESTART = re.compile(r"(no|always|on-failure)(?::([1-9]\d*))?")
_HEALTH = "--health-cmd"

CARE = (
    click.option(
        "--restart",
        default="no",
        show_default=True,
        metavar="POLICY",
        help="no, always, on-failure or on-failure:N.",
    ),
    click.option(
        _HEALTH,
        metavar="WORDS",
        help="A command that exits with 0 when all is well, by the container's sh.",
    ),
    click.option(
        "--health-interval", type=Duration(), default=30.0, metavar="TIME", help="Between two; 30s."
    ),
    click.option(
        "--health-timeout", type=Duration(), default=30.0, metavar="TIME", help="For one; 30s."
    ),
    click.option(
        "--health-retries",
        type=click.IntRange(1),
        default=3,
        metavar="N",
        help="Failures in a row; 3.",
    ),
    click.option(
        "--health-start-period",
        type=Duration(),
        default=0.0,
        metavar="TIME",
        help="In which none counts.",
    ),
)


def restart(options: Mapping[str, Any]) -> Restart:
    """When it is started again.

    Raises:
        InvalidRequest: it is no policy.
    """
    match = _RESTART.fullmatch(options["restart"])
    if match is None or (match[2] and match[1] != "on-failure"):
        raise InvalidRequest(
            f"--restart {options['restart']!r} is not no, always, on-failure or on-failure:N"
        )
    return Restart(RestartPolicy(match[1]), int(match[2] or 0))


def health(options: Mapping[str, Any]) -> HealthCheck | None:
    """How it is found to be well."""
    if options["health_cmd"] is None:
        return None
    if not shlex.split(options["health_cmd"]):
        raise InvalidRequest(f"{_HEALTH} needs a command")
    return HealthCheck(
        ("sh", "-c", options["health_cmd"]),
        options["health_interval"],
        options["health_timeout"],
        options["health_retries"],
        options["health_start_period"],
    )
