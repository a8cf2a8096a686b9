"""From a bundle to a container, and from a container to what the runtime-spec calls its state."""

from __future__ import annotations

from pathlib import Path

from vc_core.engine.api.container import Container
from vc_core.engine.api.container_status import ContainerStatus
from vc_core.engine.api.runtime import Runtime
from vc_core.engine.state.ids import fresh
from vc_core.engine.state.states import State
from vc_core.oci.annotations import ContainerType
from vc_core.oci.bundle import load
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import Stdio

_VERSION = "1.0.2"
_STATES = {
    State.READY: "created",
    State.RUNNING: "running",
    State.PAUSED: "paused",
    State.STOPPED: "stopped",
}


async def create(
    runtime: Runtime,
    folder: Path,
    container_id: str = "",
    pod_id: str = "",
    stdio: Stdio = Stdio.NULL,
) -> Container:
    """Makes the container of a bundle, in the pod that it names or in a new one.

    Args:
        runtime: an open one.
        folder: of the bundle.
        container_id: made up when empty.
        pod_id: the pod to put it in; when empty, what the bundle's annotations say: a sandbox makes
            a pod of its own id, a container joins the one of its sandbox.
        stdio: what its process's streams are connected to.

    Raises:
        InvalidRequest, ConfigError: as `load`; or a container that does not say which pod it
        belongs to. NotFound: the pod that it joins does not exist.
    """
    name = container_id or fresh()
    found = load(folder, name, stdio, runtime.config.pod.asset_paths)
    if pod_id or found.kind is ContainerType.CONTAINER:
        wanted = pod_id or found.sandbox_id
        if not wanted:
            raise InvalidRequest(
                f"the bundle {folder} is a container and does not say of which sandbox; name the pod"
            )
        return await (await runtime.get(wanted)).create_container(found.container)
    notes = dict(found.container.annotations)
    pod = await runtime.create(
        name,
        hostname=found.container.hostname,
        annotations=notes,
        assets=found.assets,
        can_quiesce=False,  # whoever manages bundles does not know of pods that it has not made
    )
    try:
        return await pod.create_container(found.container)
    except BaseException:
        await pod.delete(force=True)
        raise


def state(status: ContainerStatus, pid: int = 0) -> dict[str, object]:
    """The runtime-spec's state of a container.

    Args:
        status: as `Container.status` gives it.
        pid: of the machine's process, which stands for the container on this host.
    """
    return {
        "ociVersion": _VERSION,
        "id": status.id,
        "status": _STATES[status.state],
        "pid": 0 if status.state is State.STOPPED else pid,
        "bundle": status.spec.bundle,
        "annotations": dict(status.spec.annotations),
    }
