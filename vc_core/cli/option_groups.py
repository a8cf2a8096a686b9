"""Help that lists the options of a command in groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_GROUPS = {
    "Container": (
        *("name", "container_id", "image", "bundle", "pull", "entrypoint", "hostname", "init"),
        *("share_pid", "share_shm", "annotations", "stop_signal", "restart", "remove", "detach"),
    ),
    "Process": (
        *("env", "env_files", "workdir", "user", "groups", "tty", "interactive"),
        *("detach_keys", "timeout_s"),
    ),
    "Machine": (*("vcpus", "vm_memory", "start", "can_quiesce", "kernel", "initrd", "hypervisor"),),
    "Limits": ("cpus", "cpu_shares", "cpuset", "memory", "pids", "ulimits"),
    "Storage": ("rootfs", "mounts", "tmpfs", "disk", "read_only", "shm_size", "devices"),
    "Network": (
        *("network", "ports", "allow", "deny", "rate_in", "rate_out"),
        *("dns", "dns_search", "dns_option", "add_hosts"),
    ),
    "Security": ("cap_add", "cap_drop", "new_privileges", "security_opts", "show_secrets"),
    "Health check": (
        *("health_cmd", "health_interval", "health_timeout", "health_retries"),
        "health_start_period",
    ),
}


class GroupedCommand(click.Command):
    """A command whose help lists options by topic."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group, and one for the options of no group."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        rows = {
            option.name: row
            for option in options
            if (row := option.get_help_record(ctx)) is not None
        }
        for group, names in _GROUPS.items():
            if group_rows := [rows.pop(name) for name in names if name in rows]:
                with formatter.section(group):
                    formatter.write_dl(group_rows)
        with formatter.section("Other options"):
            formatter.write_dl(list(rows.values()))


def add_options(options: Sequence[Callable[[Any], Any]], function: F) -> F:
    """Decorate a command with several options; help shows them in the order given."""
    for option in reversed(options):
        function = option(function)
    return function
