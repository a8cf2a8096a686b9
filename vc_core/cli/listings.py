"""vc pod ls and vc ps: these import less than the other commands of pods and containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import ago, echo_json, echo_table, echo_warnings, json_option

if TYPE_CHECKING:
    from vc_core.engine.api.pod_listing import PodStatus


@click.command("ls")
@json_option
@click.pass_obj
def pod_ls(settings: Settings, as_json: bool) -> None:
    """List pods."""

    async def work() -> None:
        listing = await settings.pods()
        if as_json:
            echo_json((*listing.pods, *listing.damaged))
        else:
            rows = [_pod_row(pod) for pod in listing.pods]
            rows += [
                (damaged.id, damaged.state, "", "", "", "", damaged.reason)
                for damaged in listing.damaged
            ]
            echo_table(
                ("POD", "STATE", "CONTAINERS", "VCPUS", "MEMORY", "CREATED", "REASON"),
                sorted(rows, key=str),
            )
        echo_warnings(listing.problems)

    run_async(work())


@click.command()
@click.option(
    "-a",
    "--all",
    is_flag=True,
    expose_value=False,
    help="Has no effect: all containers are listed.",
)
@json_option
@click.pass_obj
def ps(settings: Settings, as_json: bool) -> None:
    """List the containers of all pods."""
    from vc_core.cli.container_table import show_containers

    async def work() -> None:
        listing = await settings.pods(ask_guests=True)
        show_containers(
            as_json,
            [
                (pod.id, container, pod.ports)
                for pod in listing.pods
                for container in pod.containers
            ],
        )
        echo_warnings(f"pod {pod.id} is damaged: {pod.reason}" for pod in listing.damaged)
        silent = [pod for pod in listing.pods if pod.unanswered]
        echo_warnings(
            f"pod {pod.id}: {pod.unanswered}; showing its last known state" for pod in silent
        )
        echo_warnings(listing.problems)

    run_async(work())


def _pod_row(status: PodStatus) -> tuple[object, ...]:
    config = status.config
    memory = f"{status.size.memory_mib} MiB"
    created = ago(config.created_ns)
    reason = status.unanswered or status.reason
    return (
        status.id,
        status.state.value,
        len(status.containers),
        status.size.vcpus,
        memory,
        created,
        reason,
    )
