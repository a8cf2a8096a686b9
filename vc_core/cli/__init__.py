"""The command `vc`. One file per noun; none is imported before it is asked for."""

from __future__ import annotations

import importlib
import sys

import click

from vc_core import __version__, standard_streams
from vc_core.cli.escapes import shown
from vc_core.cli.exit_codes import Exit, output_failed, told
from vc_core.cli.global_options import Settings

# Name: (module below vc_core.cli, attribute, help). The help stands here so that `vc --help`
# imports none of them.
_COMMANDS = {
    "run": ("run", "run", "Run a command in a container in a virtual machine of its own."),
    "exec": ("execute", "execute", "Run one more command in a running container."),
    "attach": ("execute", "attach", "Connect to the first process of a running container."),
    "cp": ("copying", "cp", "Copy files and folders to a container and back."),
    "logs": ("logs", "logs", "Print what a container has written, also when it has ended."),
    "wait": ("containers", "wait", "Wait until a container has ended; print its exit code."),
    "ps": ("containers", "ps", "List containers of all pods."),
    "stats": ("stats", "stats", "Show what pods use, again and again."),
    "top": ("top", "top", "Show pods, containers, processes, logs and events on one screen."),
    "events": ("events", "events", "Print what has happened to pods."),
    "inspect": (
        "events",
        "inspect",
        "Print all that is known of pods, images and volumes, as JSON.",
    ),
    "pod": ("pods", "pod", "Make, start, stop and delete pods."),
    "container": ("containers", "container", "Make, start, stop and delete containers of a pod."),
    "template": (
        "templates",
        "template",
        "Make, list and remove the frozen machines that pods are cloned from.",
    ),
    "snapshot": ("snapshots", "snapshot", "List and remove pods that were saved."),
    "pool": ("pool", "pool", "Keep machines ready for pods to take."),
    "image": (
        "images",
        "image",
        "Fetch, make, list and remove images, which containers start from.",
    ),
    "volume": ("volumes", "volume", "Make, list and remove volumes: folders that outlive pods."),
    "guest": ("guests", "guest", "Build and list guest images."),
    "config": ("configuration", "config", "Show, check and write configuration files."),
    "plugins": ("plugins", "plugins", "List installed plugins."),
    "completion": ("completion", "completion", "Print what makes a shell complete our commands."),
    "doctor": ("doctor", "doctor", "Look for what is missing on this host."),
}

# What users of docker and podman type: what does it here.
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


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[name]
        command = getattr(importlib.import_module(f"vc_core.cli.{module}"), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"vc_core.cli.{module}.{attribute} is no command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if (
            args[0] in _ELSEWHERE and not ctx.resilient_parsing
        ):  # which completion does: it asks, nobody errs
            ctx.fail(f"No such command '{args[0]}'; here it is 'vc {_ELSEWHERE[args[0]]}'.")
        return super().resolve_command(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vc", message="%(prog)s %(version)s")
@click.option(
    "--config", "config_file", metavar="FILE", help="Use this configuration and no other."
)
@click.option("--debug", is_flag=True, help="Show where an error came from, and what was logged.")
@click.pass_context
def vc(ctx: click.Context, config_file: str | None, debug: bool) -> None:
    """Containers in lightweight virtual machines."""
    ctx.obj = Settings(config_file, debug)
    ctx.obj.set_up_logging()


def main() -> None:
    """The entry point: errors become one line and an exit code."""
    try:
        code = vc.main(standalone_mode=False, prog_name="vc")
    except click.UsageError as error:
        click.UsageError(shown(error.message, keep="\n"), error.ctx).show()
        code = Exit.FAILURE
    except (KeyboardInterrupt, click.Abort):
        code = Exit.INTERRUPTED
    except Exception as error:
        code = told(error, is_debugging="--debug" in sys.argv)
    if reason := standard_streams.finish():
        code = output_failed(reason, code)
        standard_streams.finish()  # of that
    sys.exit(code if isinstance(code, int) else Exit.GOOD)
