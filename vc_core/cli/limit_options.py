"""Command-line options that limit a container's resources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from msgspec import structs

from vc_core.cli.option_groups import add_options
from vc_core.cli.units import SIZE
from vc_core.spec.values import Resources

F = TypeVar("F", bound=Callable[..., Any])

_CPU_PERIOD_US = 100_000

LIMIT_OPTIONS = (
    click.option("--cpus", type=click.FloatRange(0), metavar="N", help="Number of CPUs, e.g. 1.5."),
    click.option(
        "--cpu-shares", type=int, metavar="N", help="CPU weight relative to others (usually 1024)."
    ),
    click.option("--cpuset", metavar="LIST", help="Virtual CPUs to run on, e.g. 0-2,4."),
    click.option(
        "--memory",
        "-m",
        type=SIZE,
        metavar="SIZE",
        help="Memory limit; the machine grows by this amount.",
    ),
    click.option(
        "--pids", type=click.IntRange(0), metavar="N", help="Maximum number of processes."
    ),
)


def limit_options(function: F) -> F:
    """Decorate a command with the options that `limits` reads."""
    return add_options(LIMIT_OPTIONS, function)


def limits(options: Mapping[str, Any], before: Resources) -> Resources:
    """Apply the limits that were given; 0 removes one."""
    cpus, memory, pids = options["cpus"], options["memory"], options["pids"]
    return structs.replace(
        before,
        cpu_quota_us=before.cpu_quota_us if cpus is None else round(cpus * _CPU_PERIOD_US),
        cpu_period_us=before.cpu_period_us if cpus is None else _CPU_PERIOD_US,
        cpu_shares=before.cpu_shares if options["cpu_shares"] is None else options["cpu_shares"],
        cpuset=before.cpuset if options["cpuset"] is None else options["cpuset"],
        memory_bytes=before.memory_bytes if memory is None else memory,
        pids=before.pids if pids is None else pids,
    )
