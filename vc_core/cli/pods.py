"""The group vc pod."""

from __future__ import annotations

import click

from vc_core.cli.lazy_group import LazyGroup

_COMMANDS = {
    "annotate": (
        "pod_commands",
        "annotate",
        "Set (KEY=VALUE) or remove (KEY-) annotations, and print all.",
    ),
    "console": ("pod_commands", "console", "Print the last output of the guest's kernel."),
    "create": ("pod_create", "create", "Create a pod and print its name."),
    "delete": ("pod_commands", "delete", "Stop and delete pods."),
    "fork": ("pod_commands", "fork", "Start copies of a running pod, including its memory."),
    "ls": ("listings", "pod_ls", "List pods."),
    "pause": ("pod_commands", "pause", "Pause pods."),
    "restore": (
        "pod_commands",
        "restore",
        "Start a pod from snapshot NAME and print its name.",
    ),
    "resume": ("pod_commands", "resume", "Resume paused pods."),
    "snapshot": (
        "pod_commands",
        "snapshot",
        "Save a running pod, including its memory, as snapshot NAME.",
    ),
    "start": ("pod_commands", "start", "Start pods and their containers."),
    "stats": (
        "pod_commands",
        "stats",
        "Show the CPU time and memory that the machine of a pod uses.",
    ),
    "status": ("pod_commands", "status", "Show the current status of a pod."),
    "stop": ("pod_commands", "stop", "Stop pods and their containers."),
}


@click.group(cls=LazyGroup, commands_at=_COMMANDS)
def pod() -> None:
    """Manage pods: virtual machines that run containers."""
