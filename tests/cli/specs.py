"""A container specification made from command-line options."""

from __future__ import annotations

from pathlib import Path

import click

from vc_core.cli.container_options import container_options, container_spec, hostname_is_h
from vc_core.cli.process_options import command_argument, stop_at_first_argument
from vc_core.engine.host.volumes import Volumes
from vc_core.spec import (
    Stdio,
)


@click.command(context_settings={**stop_at_first_argument, **hostname_is_h})
@container_options
@command_argument
def make_spec(command, **options):
    """Return the specification that its options make."""
    return container_spec("c", command, options, Stdio.NULL, Volumes(Path("/nowhere")))


def spec_of(*words):
    return make_spec.main([*words, "--", "sh"], standalone_mode=False)
