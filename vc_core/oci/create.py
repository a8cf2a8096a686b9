"""Creates containers from bundles, and their state in the format of the runtime-spec."""

from __future__ import annotations

import logging
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

log = logging.getLogger(__name__)

_NOT_JOINED = {
    "network": ", as pods have no network of the host",
    "pid": "; use 'vc pod create --share-pid' to share PIDs",
}
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
    """Create the container of a bundle, in an existing pod or in a new one.

    Args:
        runtime: an open runtime.
        folder: directory of the bundle.
        container_id: name of the container; generated if empty.
        pod_id: the pod to create it in. If empty, the annotations of the bundle decide: a sandbox
            creates a pod with the id of the container, a container joins the pod of its sandbox.
        stdio: where the streams of its process go.

    Raises:
        InvalidRequest: as `load`, or no pod was named.
        ConfigError: as `load`.
        NotFound: the pod that it joins does not exist.
    """
    name = container_id or fresh()
    bundle = load(folder, name, stdio, runtime.config.pod.asset_paths)
    for kind, why in _NOT_JOINED.items():
        if path := bundle.joined.get(kind):
            log.warning("linux.namespaces: %s is not joined%s", path, why)
    if pod_id or bundle.kind is ContainerType.CONTAINER:
        joined_pod_id = pod_id or bundle.sandbox_id
        if not joined_pod_id:
            raise InvalidRequest(
                f"the bundle {folder} is a container without a sandbox id; give the pod"
            )
        return await (await runtime.get(joined_pod_id)).create_container(bundle.container)
    notes = dict(bundle.container.annotations)
    pod = await runtime.create(
        name,
        hostname=bundle.container.hostname,
        annotations=notes,
        assets=bundle.assets,
        can_quiesce=False,  # a manager of bundles does not know pods that it has not created
    )
    try:
        return await pod.create_container(bundle.container)
    except BaseException:
        await pod.delete(force=True)
        raise


def state(status: ContainerStatus, pid: int = 0) -> dict[str, object]:
    """Convert a status to the state of the runtime-spec.

    Args:
        status: from `Container.status`.
        pid: process id of the machine, which represents the container on this host.
    """
    return {
        "ociVersion": _VERSION,
        "id": status.id,
        "status": _STATES[status.state],
        "pid": 0 if status.state is State.STOPPED else pid,
        "bundle": status.spec.bundle,
        "annotations": dict(status.spec.annotations),
    }
