"""Command-line options of restart policy and health check."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

import click

from vc_core.cli.units import Duration
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import HealthCheck, Restart, RestartPolicy

_RESTART = r"(no|always|on-failure)(?::([1-9]\d*))?"
_HEALTH = "--health-cmd"

RESTART_OPTIONS = (
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
        help="Shell command that exits with 0 if the container is healthy.",
    ),
    click.option(
        "--health-interval",
        type=Duration(),
        default="30s",
        show_default=True,
        metavar="TIME",
        help="Time between checks.",
    ),
    click.option(
        "--health-timeout",
        type=Duration(),
        default="30s",
        show_default=True,
        metavar="TIME",
        help="Maximum time of one check.",
    ),
    click.option(
        "--health-retries",
        type=click.IntRange(1),
        default=3,
        show_default=True,
        metavar="N",
        help="Failures in a row that make it unhealthy.",
    ),
    click.option(
        "--health-start-period",
        type=Duration(),
        default=0.0,
        metavar="TIME",
        help="Time after the start in which failures do not count.",
    ),
)


def restart(options: Mapping[str, Any]) -> Restart:
    """Read --restart.

    Raises:
        InvalidRequest: it is not a restart policy.
    """
    match = re.fullmatch(_RESTART, options["restart"])
    if match is None or (match[2] and match[1] != "on-failure"):
        raise InvalidRequest(
            f"--restart {options['restart']!r} is not no, always, on-failure or on-failure:N"
        )
    return Restart(policy=RestartPolicy(match[1]), max_retries=int(match[2] or 0))


def health(options: Mapping[str, Any]) -> HealthCheck | None:
    """Read the --health options; None without --health-cmd.

    Raises:
        InvalidRequest: --health-cmd is empty.
    """
    if options["health_cmd"] is None:
        return None
    if not shlex.split(options["health_cmd"]):
        raise InvalidRequest(f"{_HEALTH} is empty; give a command")
    return HealthCheck(
        args=("sh", "-c", options["health_cmd"]),
        interval_s=options["health_interval"],
        timeout_s=options["health_timeout"],
        retries=options["health_retries"],
        start_period_s=options["health_start_period"],
    )
