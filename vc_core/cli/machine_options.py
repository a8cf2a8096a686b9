"""Command-line options of a pod's virtual machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from vc_core.cli.units import SIZE, UNITS
from vc_core.defaults import Start

F = TypeVar("F", bound=Callable[..., Any])

vcpus_option = click.option(
    "--vcpus",
    type=click.IntRange(1),
    metavar="N",
    show_default="pod.vcpus",
    help="Number of virtual CPUs.",
)
start_option = click.option(
    "--start",
    type=click.Choice([start.value for start in Start]),
    show_default="pod.start",
    help="How to start the machine.",
)


def memory_option(*names: str) -> Callable[[F], F]:
    """The option for the machine's memory, passed to the command as `vm_memory` in bytes.

    Args:
        names: its flags.
    """
    return click.option(
        *names,
        "vm_memory",
        type=SIZE,
        metavar="SIZE",
        show_default="pod.memory_mib",
        help="Memory before container limits.",
    )


def mib(size: int | None) -> int | None:
    """Convert bytes to MiB, rounded up."""
    return None if size is None else -(-size // UNITS["m"])
