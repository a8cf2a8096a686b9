"""The command `vc`: one module per command, imported when that command is run."""

from __future__ import annotations

import sys

import click

from vc_core import __version__, standard_streams
from vc_core.cli.escapes import shown
from vc_core.cli.exit_codes import Exit, output_failed, report_error
from vc_core.cli.global_options import Settings
from vc_core.cli.lazy_group import LazyGroup

_COMMANDS = {
    "run": ("run", "run", "Run a command in a container in a new virtual machine."),
    "exec": ("execute", "execute", "Run a command in a running container."),
    "attach": ("execute", "attach", "Attach to the first process of a running container."),
    "cp": ("copying", "cp", "Copy files between the host and a container."),
    "logs": ("logs", "logs", "Print the output of a container."),
    "wait": ("containers", "wait", "Wait until a container stops, then print its exit code."),
    "ps": ("listings", "ps", "List containers of all pods."),
    "stats": ("stats", "stats", "Show a live stream of resource usage."),
    "top": ("top", "top", "Show pods, containers, processes, logs and events on a live screen."),
    "events": ("events", "events", "Print events of pods."),
    "inspect": (
        "events",
        "inspect",
        "Print details of pods, images and volumes as JSON.",
    ),
    "pod": ("pods", "pod", "Manage pods."),
    "container": ("containers", "container", "Manage the containers of a pod."),
    "template": (
        "templates",
        "template",
        "Manage templates: saved machines that pods are cloned from.",
    ),
    "snapshot": ("snapshots", "snapshot", "List and remove snapshots of pods."),
    "pool": ("pool", "pool", "Keep machines ready for new pods."),
    "image": (
        "images",
        "image",
        "Manage images.",
    ),
    "volume": ("volumes", "volume", "Manage volumes."),
    "network": ("networks", "network", "Manage networks of pods."),
    "guest": ("guests", "guest", "Build, list and remove guest images."),
    "config": ("configuration", "config", "Show, check and write configuration files."),
    "plugins": ("plugins", "plugins", "List installed plugins."),
    "completion": ("completion", "completion", "Print a shell completion script."),
    "doctor": ("doctor", "doctor", "Check the host and suggest fixes."),
}

# Commands of Docker and Podman, and the commands that do the same here.
_ELSEWHERE = {
    "build": "image build",
    "create": "pod create",
    "images": "image ls",
    "import": "image import",
    "info": "doctor",
    "kill": "container kill",
    "load": "image import",
    "ls": "ps",
    "pause": "pod pause",
    "pull": "image pull",
    "rm": "pod delete",
    "rmi": "image rm",
    "start": "pod start",
    "stop": "pod stop",
    "tag": "image tag",
    "unpause": "pod resume",
    "update": "container update",
    "version": "--version",
}


class _Commands(LazyGroup):
    """The commands of `vc`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if (
            args[0] in _ELSEWHERE and not ctx.resilient_parsing
        ):  # completion parses resiliently and must not fail
            ctx.fail(f"No such command '{args[0]}'; use 'vc {_ELSEWHERE[args[0]]}'.")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    commands_at=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="vc", message="%(prog)s %(version)s")
@click.option("--config", "config_file", metavar="FILE", help="Configuration file to use.")
@click.option("--debug", is_flag=True, help="Print tracebacks and debug logs.")
@click.pass_context
def vc(ctx: click.Context, config_file: str | None, debug: bool) -> None:
    """Containers in lightweight virtual machines."""
    ctx.obj = Settings(config_file, debug)
    ctx.obj.set_up_logging()


def main() -> None:
    """Run `vc`: print an error as one line and exit with its code."""
    try:
        code = vc.main(standalone_mode=False, prog_name="vc")
    except click.UsageError as error:
        click.UsageError(shown(error.message, keep="\n"), error.ctx).show()
        code = Exit.FAILURE
    except (KeyboardInterrupt, click.Abort):
        code = Exit.INTERRUPTED
    except Exception as error:
        code = report_error(error, is_debugging="--debug" in sys.argv)
    if reason := standard_streams.finish():
        code = output_failed(reason, code)
        standard_streams.finish()  # of that
    sys.exit(code if isinstance(code, int) else Exit.GOOD)
