"""Help whose options stand in groups, for commands that have many."""

from __future__ import annotations

import click

_GROUPS = {
    "Machine": ("vcpus", "vm_memory", "start", "timeout_s"),
    "Container": (
        *(
            "name",
            "image",
            "bundle",
            "rootfs",
            "pull",
            "hostname",
            "init",
            "stop_signal",
            "restart",
            "remove",
            "detach",
        ),
        *(
            "health_cmd",
            "health_interval",
            "health_timeout",
            "health_retries",
            "health_start_period",
        ),
    ),
    "Storage": ("mounts", "tmpfs", "disk", "read_only", "shm_size", "devices"),
    "Limits": ("cpus", "cpu_shares", "cpuset", "memory", "pids", "ulimits"),
    "Security": ("cap_add", "cap_drop", "new_privileges", "security_opts", "show_secrets"),
    "Process": (
        *(
            "entrypoint",
            "env",
            "env_files",
            "workdir",
            "user",
            "groups",
            "tty",
            "interactive",
            "detach_keys",
        ),
    ),
}


class GroupedCommand(click.Command):
    """A command that lists its options by what they are about."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As every command, but in several lists."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        rows = {
            option.name: row
            for option in options
            if (row := option.get_help_record(ctx)) is not None
        }
        for group, names in _GROUPS.items():
            if found := [rows.pop(name) for name in names if name in rows]:
                with formatter.section(group):
                    formatter.write_dl(found)
        with formatter.section("Other options"):
            formatter.write_dl(list(rows.values()))
