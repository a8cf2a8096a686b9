"""The table of containers that `vc ps` and `vc container ls` print."""

from __future__ import annotations

from collections.abc import Sequence

from vc_core.cli.render import ago, echo_json, echo_table, exit_text
from vc_core.engine.api.container_status import ContainerStatus
from vc_core.engine.state.states import State
from vc_core.spec.values import PortMapping

_HEADS = ("POD", "CONTAINER", "IMAGE", "STATE", "RESTARTS", "HEALTH", "PORTS", "COMMAND")


def show_containers(
    as_json: bool, containers: Sequence[tuple[str, ContainerStatus, Sequence[PortMapping]]]
) -> None:
    """Print containers.

    Args:
        as_json: as JSON, else as a table.
        containers: pod id, container, and ports of the pod: any container may listen there.
    """
    if as_json:
        echo_json(
            [
                {"pod": pod_id, "container": container, "ports": tuple(ports)}
                for pod_id, container, ports in containers
            ]
        )
        return
    if not containers:
        echo_table(_HEADS, ())
        return
    from vc_core.cli.network_options import port_text
    from vc_core.images.image import NAME_NOTE

    rows = (
        (
            pod_id,
            container.id,
            dict(container.spec.annotations).get(NAME_NOTE, ""),
            state_text(container),
            container.restarts or "",
            container.health.value,
            " ".join(map(port_text, ports)),
            " ".join(container.spec.process.args),
        )
        for pod_id, container, ports in containers
    )
    echo_table(_HEADS, rows)


def state_text(status: ContainerStatus) -> str:
    """Format a state: `running for 5 min`, `exited (3) 2 min ago`."""
    if status.unanswered:
        return f"{status.state.value} (no answer)"
    if status.exit is not None:
        # The guest reports this time; one before the start is shown as the start.
        when = status.exit.ended_ns
        return f"exited ({exit_text(status.exit)})" + (
            f" {ago(max(when, status.started_ns))}" if when else ""
        )
    if status.state is State.RUNNING and status.started_ns:
        return f"running for {ago(status.started_ns).removesuffix(' ago')}"
    return status.state.value
