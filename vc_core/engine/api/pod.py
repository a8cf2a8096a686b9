"""The API of a pod: an id and calls on it. The object keeps none of its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from vc_core.engine.api import pod_listing, pod_views
from vc_core.engine.api.arguments import checked_arguments
from vc_core.engine.api.children import Children
from vc_core.engine.api.command_spec import CommandOptions, command_spec
from vc_core.engine.api.container import Container
from vc_core.engine.api.pod_services import PodServices
from vc_core.engine.api.process import MAX_OUTPUT_BYTES, Process, Result
from vc_core.engine.clones.snapshots import Snapshot
from vc_core.engine.lifecycle import containers
from vc_core.engine.session import pod_network
from vc_core.engine.session.sessions import Sessions
from vc_core.engine.state.ids import annotated, fresh
from vc_core.engine.state.rollback import Rollback
from vc_core.engine.state.states import ALIVE, State, require
from vc_core.images import Image
from vc_core.spec.errors import (
    Busy,
    InvalidRequest,
    NotFound,
    VcError,
)
from vc_core.spec.values import (
    ContainerSpec,
    HostDevice,
    Mount,
    NetworkDenial,
    PortMapping,
    ProcessSpec,
    Resources,
    Stdio,
    VmStats,
)

if TYPE_CHECKING:
    from vc_core.engine.api.files import Files

_UNLIMITED = Resources()


class Pod:
    """One pod: a virtual machine and the containers in it."""

    def __init__(self, pod_id: str, sessions: Sessions, services: PodServices) -> None:
        self.id = pod_id
        self._sessions = sessions
        self._services = services

    # --- life cycle -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Starts the machine and the containers. A failed start is undone.

        Raises:
            StateError: the pod runs, or is paused.
        """
        async with self._sessions.open(exclusive=True) as session:
            await self._services.lifecycle.start(session)

    @checked_arguments
    async def stop(self, grace_s: float = 10, force: bool = False) -> None:
        """Stops the containers, each with `grace_s` seconds to end by itself, and ends the machine.

        Works in every state; does nothing when the pod is stopped. With `force` the guest is
        not asked.
        """
        async with self._sessions.open(exclusive=True, is_ending=True) as session:
            await self._services.lifecycle.stop(session, grace_s, force)

    async def pause(self) -> None:
        """Pauses the machine.

        Raises:
            StateError: the pod does not run.
        """
        async with self._sessions.open(exclusive=True) as session:
            await self._services.lifecycle.pause(session)

    async def resume(self) -> None:
        """Resumes the paused machine; the containers continue unchanged.

        Raises:
            StateError: the pod is not paused.
        """
        async with self._sessions.open(exclusive=True) as session:
            await self._services.lifecycle.resume(session)

    @checked_arguments
    async def connect(self, network: str) -> None:
        """Connects a running pod whose machine has no network interface: it gets one at once.

        `network` is as for `Runtime.create`. Does nothing when it has interfaces of this network.

        Raises:
            StateError: the pod does not run.
            InvalidRequest: it has another network, or its plugins do not support this one.
            NetworkError: the network fails.
        """
        await self._services.late_network.connect(self._sessions, network)

    @checked_arguments
    async def delete(self, force: bool = False) -> None:
        """Stops the pod when it runs, and removes it with all its records.

        With `force` the guest is not asked, and unreadable records or missing plugins are no
        obstacle: the machine is looked for and ended, and the damage is reported in warnings.

        Raises:
            PodDamaged: a record is unreadable; `force` is necessary.
        """
        try:
            async with self._sessions.open(exclusive=True, is_ending=True) as session:
                await self._services.lifecycle.delete(session, force)
            await self._sessions.close_deleted()
        except VcError as error:
            if not force or isinstance(error, NotFound | Busy):
                raise
            await self._services.damaged.remove(self.id, error)
            await self._sessions.close_deleted()

    # --- snapshots and forks ----------------------------------------------------------------------

    @checked_arguments
    async def snapshot(self, name: str) -> Snapshot:
        """Saves the running pod with its memory as a snapshot; see `Runtime.restore`.

        Raises:
            AlreadyExists: there is a snapshot of this name.
            StateError: the pod does not run.
            InvalidRequest: something of the pod is not supported by snapshots; names it.
        """
        return await self._services.forks.save(self._sessions, name)

    @checked_arguments
    async def fork(
        self, count: int = 1, ports: Sequence[PortMapping] | None = None, network: str = ""
    ) -> Children[Pod]:
        """Starts copies of the running pod, each with its own identity: all of them or none.

        Each has `network`, as for `Runtime.create`, or a network like this pod's. It has no open
        connection, and publishes `ports`; for None the ports of this pod, each on a free port of
        the host. A pod in the namespace of somebody else needs a `network` for its copies. The
        result is a tuple that also says how long this pod stood still.

        Raises:
            StateError: the pod does not run.
            InvalidRequest: something of the pod is not supported by snapshots; names it.
        """
        names = tuple(fresh() for _ in range(count))
        forks = self._services.forks
        standstill = await forks.fork(self._sessions, names, ports, network)
        return Children(
            (Pod(name, forks.sessions(name), self._services) for name in names), standstill
        )

    # --- containers -------------------------------------------------------------------------------

    @checked_arguments
    async def create_container(self, spec: ContainerSpec) -> Container:
        """Creates a container. It starts with the pod, or by `Container.start` in a running pod.

        Raises:
            InvalidRequest: its id, rootfs or mounts are invalid.
            AlreadyExists: the pod has a container of this id.
            StateError: the pod is paused.
        """
        spec = containers.check(spec)
        async with self._sessions.open(exclusive=True) as session:
            await self._services.lifecycle.create_container(session, spec)
        return self.container(spec.id)

    async def annotations(self) -> dict[str, str]:
        """Returns the annotations, those set at creation and those set since."""
        async with self._sessions.open(exclusive=False) as session:
            return dict(session.config.annotations)

    async def ports(self) -> tuple[PortMapping, ...]:
        """Its published ports, each with its port on the host; none while it does not run."""
        async with self._sessions.open(exclusive=False) as session:
            return () if session.state.network is None else session.state.network.ports

    async def network_denials(self) -> tuple[NetworkDenial, ...]:
        """Returns what its network has refused since its start, the latest first.

        Raises:
            NetworkError: the network does not answer.
        """
        async with self._sessions.open(exclusive=True) as session:
            return await pod_network.denials(session)

    @checked_arguments
    async def annotate(self, annotations: Mapping[str, str | None]) -> dict[str, str]:
        """Sets annotations, and removes those that are None; returns all of them."""
        async with self._sessions.open(exclusive=True) as session:
            found = annotated(session.config.annotations, annotations)
            await session.store.put_pod_config(structs.replace(session.config, annotations=found))
            return found

    @checked_arguments
    async def exec(
        self,
        *args: str,
        container: str = "",
        env: Sequence[str] = (),
        cwd: str = "",
        user: str = "",
    ) -> Process:
        """Starts a process in a running container; its streams are kept until a client attaches.

        Args:
            args: the whole argv.
            container: id of the container; may be empty when the pod has only one.
            env: "NAME=value" words, in addition to those of the container's first process.
            cwd: path in the container; that of the first process when empty.
            user: that of the first process when empty.

        Raises:
            NotFound: no container was named and there is not exactly one.
        """
        found = self.container(container or await self.only_container())
        return await found.exec(ProcessSpec(args=args, env=tuple(env), cwd=cwd, user=user))

    async def only_container(self) -> str:
        """Returns the id of the pod's only container. Raises NotFound when it has none, or more."""
        async with self._sessions.open(exclusive=False) as session:
            return await session.only_container()

    @property
    def files(self) -> Files:
        """The files of the pod's only container; use `container(...).files` if it has more."""
        return self.container("").files

    def container(self, container_id: str) -> Container:
        """Returns a container of this pod; its existence is checked at the first call on it."""
        return Container(self._sessions, self.id, container_id, self._services.host)

    @checked_arguments
    async def launch(
        self,
        *args: str,
        container_id: str = "",
        image: str = "",
        rootfs: str | Path = "",
        env: Sequence[str] = (),
        cwd: str = "",
        user: str = "",
        mounts: Sequence[Mount] = (),
        devices: Sequence[HostDevice] = (),
        resources: Resources = _UNLIMITED,
        stdio: Stdio = Stdio.LOG,
        show_secrets: bool = False,
    ) -> Container:
        """Starts a command in a new container; starts the pod if it is not running.

        Args:
            args: the whole argv; with an image, the arguments after its entrypoint.
            container_id: generated when empty.
            image: image of the container; that of the pod when empty, if it has one.
            rootfs: a directory of the host instead of an image; not changed. The default is /.
            env: "NAME=value" words, in addition to a PATH or those of the image.
            cwd: path in the container; "/" or that of the image when empty.
            user: "uid[:gid]" or names; root or that of the image when empty.
            mounts: folders and files of the host.
            devices: devices of the host.
            resources: limits.
            stdio: destination of its output, `Container.logs` by default.
            show_secrets: whether paths of `pod.secret_paths` are visible if the rootfs is /.

        Raises:
            NotFound: there is no such image.
            CannotExecute: there is no such command in it.
        """
        if image and rootfs:
            raise InvalidRequest(
                f"the image {image} and the rootfs {rootfs} contradict each other; give one of them"
            )
        made_from = None if rootfs else await self._image(image)
        command_options = CommandOptions(
            env=env, cwd=cwd, user=user, mounts=mounts, devices=devices, resources=resources
        )
        spec = command_spec(
            container_id or fresh(), args, made_from, rootfs, stdio, command_options, show_secrets
        )
        container = await self.create_container(spec)
        async with Rollback() as rollback:
            rollback.push(container.delete, force=True)
            if (await self.status()).state is State.RUNNING:
                await container.start()
            else:
                await self.start()
        return container

    @checked_arguments
    async def run(
        self,
        *args: str,
        stdin: bytes | str = b"",
        image: str = "",
        rootfs: str | Path = "",
        env: Sequence[str] = (),
        cwd: str = "",
        user: str = "",
        mounts: Sequence[Mount] = (),
        devices: Sequence[HostDevice] = (),
        resources: Resources = _UNLIMITED,
        timeout_s: float | None = None,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        show_secrets: bool = False,
    ) -> Result:
        """Runs a command in a new container and deletes that; starts the pod if it is not running.

        `stdin` is its input; text is encoded as UTF-8. The command is killed after `timeout_s`
        seconds, or when it has written `max_output_bytes`; the result has the output up to then.
        Other arguments are those of `launch`.

        Raises:
            NotFound: there is no such image.
            CannotExecute: there is no such command in it.
            AgentError: the machine ended before the command.
        """
        command_options = CommandOptions(
            env=env, cwd=cwd, user=user, mounts=mounts, devices=devices, resources=resources
        )
        container = await self.launch(
            *args,
            image=image,
            rootfs=rootfs,
            stdio=Stdio.PIPES,
            show_secrets=show_secrets,
            **command_options,
        )
        try:
            return await (await container.process()).communicate(stdin, timeout_s, max_output_bytes)
        finally:
            await container.delete(force=True)

    # --- status -----------------------------------------------------------------------------------

    async def status(self, ask_guest: bool = True) -> pod_listing.PodStatus:
        """Returns the current status.

        Args:
            ask_guest: whether the guest is asked which processes run; otherwise the containers'
                last known status is returned. A guest that does not answer within `deadlines.view`
                is named in `unanswered`.

        Raises:
            NotFound: the pod does not exist.
            PodDamaged: its records are unreadable.
        """
        return await pod_views.status(self._sessions, ask_guest)

    async def stats(self) -> VmStats:
        """Returns the machine's use of host resources.

        Raises:
            StateError: the pod has no machine.
        """
        async with self._sessions.open(exclusive=False) as session:
            require(self._name, "measure it", session.state.state, ALIVE)
            return await session.hooks.vm_stats(pod=session.pod)

    async def console(self, tail_bytes: int = 65536) -> bytes:
        """Returns the last `tail_bytes` bytes of the console of the guest's kernel."""
        async with self._sessions.open(exclusive=False) as session:
            return await session.hooks.vm_console(pod=session.pod, tail_bytes=tail_bytes)

    async def refresh(self) -> None:
        """Updates the records of the pod and its containers, and reports what has ended."""
        async with self._sessions.open(exclusive=True) as session:
            await containers.reconcile(session)

    async def ended(self) -> str:
        """Returns the cause when the machine has ended; at once when there is none."""
        async with self._sessions.open(exclusive=False) as session:
            hooks, pod = session.hooks, session.pod
        return (await hooks.vm_wait(pod=pod)).reason

    async def close(self) -> None:
        """Closes the connection to the guest; the pod keeps running. May be called twice."""
        await self._sessions.close()

    @property
    def _name(self) -> str:
        return f"pod {self.id}"

    async def _image(self, text: str) -> Image | None:
        async with self._sessions.open(exclusive=False) as session:
            wanted = text or session.config.image
            return await self._services.host.images.get(wanted) if wanted else None
