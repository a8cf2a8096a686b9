"""A pod, as the user holds it: an id and calls on it. Nothing of its state is kept here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vc_core.engine.api import pod_views
from vc_core.engine.api.arguments import checked_arguments
from vc_core.engine.api.command_spec import CommandOptions, command_spec
from vc_core.engine.api.container import Container
from vc_core.engine.api.files import Files
from vc_core.engine.api.pod_views import PodStatus, Unanswered
from vc_core.engine.api.process import MAX_OUTPUT_BYTES, Process, Result
from vc_core.engine.clones.snapshots import Snapshot
from vc_core.engine.lifecycle import containers
from vc_core.engine.lifecycle.fork import Forks
from vc_core.engine.lifecycle.pod import PodLifecycle
from vc_core.engine.resources.host_files import HostFiles
from vc_core.engine.session.remove_damaged import DamagedPodRemover
from vc_core.engine.session.sessions import Sessions
from vc_core.engine.state.ids import annotated, fresh
from vc_core.engine.state.rollback import Rollback
from vc_core.engine.state.states import ALIVE, State, require
from vc_core.images import Image
from vc_core.spec.errors import (
    Busy,
    InvalidRequest,
    NotFound,
    OperationError,
    PodDamaged,
    VcError,
)
from vc_core.spec.values import (
    ContainerSpec,
    HostDevice,
    Mount,
    ProcessSpec,
    Resources,
    Stdio,
    VmStats,
)

_UNLIMITED = Resources()


@dataclass(frozen=True)
class PodServices:
    """What a pod's calls are passed on to.

    Attributes:
        lifecycle: starts, stops and deletes pods.
        forks: saves and forks pods.
        damaged: removes pods that cannot be read.
        host: files that containers are made from.
    """

    lifecycle: PodLifecycle
    forks: Forks
    damaged: DamagedPodRemover
    host: HostFiles


class Pod:
    """One pod: a virtual machine and the containers in it."""

    def __init__(self, pod_id: str, sessions: Sessions, services: PodServices) -> None:
        self.id = pod_id
        self._sessions = sessions
        self._services = services

    # --- its life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the machine and the containers. A failed start is undone.

        Raises:
            StateError: it runs, or is paused.
        """
        async with self._sessions.open(exclusive=True) as session:
            await self._services.lifecycle.start(session)

    @checked_arguments
    async def stop(self, grace_s: float = 10, force: bool = False) -> None:
        """Stops its containers, each with `grace_s` seconds to end by itself, and ends its machine.

        Works from every state; of a stopped pod: nothing. By force nobody is asked.
        """
        async with self._sessions.open(exclusive=True, is_ending=True) as session:
            await self._services.lifecycle.stop(session, grace_s, force)

    async def pause(self) -> None:
        """Pauses its machine.

        Raises:
            StateError: it does not run.
        """
        async with self._sessions.open(exclusive=True) as session:
            await self._services.lifecycle.pause(session)

    async def resume(self) -> None:
        """Lets its paused machine run; each container is as it was.

        Raises:
            StateError: it is not paused.
        """
        async with self._sessions.open(exclusive=True) as session:
            await self._services.lifecycle.resume(session)

    @checked_arguments
    async def delete(self, force: bool = False) -> None:
        """Stops it when it runs, and removes all that is known of it.

        By force nobody in the guest is asked, and what cannot be read or used of it is no obstacle:
        its machine is looked for and ended, and what was damaged is told as warnings.

        Raises:
            PodDamaged: it cannot be read; only by force it can be removed.
        """
        try:
            await self._delete(force)
        except VcError as error:
            if not force or isinstance(error, NotFound | Busy):
                raise
            await self._services.damaged.remove(self.id, error)
            await self._sessions.disconnect_removed()

    async def _delete(self, force: bool) -> None:
        async with self._sessions.open(exclusive=True, is_ending=True) as session:
            await self._services.lifecycle.delete(session, force)

    # --- pods out of it ---------------------------------------------------------------------------

    @checked_arguments
    async def snapshot(self, name: str) -> Snapshot:
        """Save the running pod with its memory as a snapshot; see `Runtime.restore`.

        Raises:
            AlreadyExists: there is a snapshot of this name.
            StateError: it does not run.
            InvalidRequest: a snapshot cannot contain something of it; names it.
        """
        return await self._services.forks.save(self._sessions, name)

    @checked_arguments
    async def fork(self, count: int = 1) -> tuple[Pod, ...]:
        """Start copies of the running pod, each with its own identity.

        All of them or none.

        Raises:
            StateError: it does not run.
            InvalidRequest: a snapshot cannot contain something of it; names it.
        """
        names = tuple(fresh() for _ in range(count))
        await self._services.forks.fork(self._sessions, names)
        return tuple(
            Pod(name, self._services.forks.sessions(name), self._services) for name in names
        )

    # --- what is in it ----------------------------------------------------------------------------

    @checked_arguments
    async def create_container(self, spec: ContainerSpec) -> Container:
        """Create a container. In a running pod it waits to be started, else it starts with the pod.

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
        """What was annotated, by its maker and since."""
        async with self._sessions.open(exclusive=False) as session:
            return dict(session.config.annotations)

    @checked_arguments
    async def annotate(self, annotations: Mapping[str, str | None]) -> dict[str, str]:
        """Sets annotations, and removes those that are None; gives all of them."""
        async with self._sessions.open(exclusive=True) as session:
            found = annotated(session.config.annotations, annotations)
            await session.store.put_pod_config(
                dataclasses.replace(session.config, annotations=found)
            )
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
        """Start a process in a running container; its streams are kept until a client attaches.

        Args:
            args: the whole argv.
            container: its id; may be empty when the pod has only one.
            env: "NAME=value" words, beside those of the container's first process.
            cwd: in the container; that of the first process when empty.
            user: that of the first process when empty.

        Raises:
            NotFound: no container was named and there is not exactly one.
        """
        found = self.container(container or await self.only_container())
        return await found.exec(ProcessSpec(args=args, env=tuple(env), cwd=cwd, user=user))

    async def only_container(self) -> str:
        """The id of the one container that it has. Raises NotFound when it has none, or more."""
        async with self._sessions.open(exclusive=False) as session:
            return await session.only_container()

    @property
    def files(self) -> Files:
        """Those of its only container; `container(...).files` where it has more."""
        return Files(self._sessions, self.id)

    def container(self, container_id: str) -> Container:
        """A container of this pod; its existence is checked at the first call on it."""
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
        """Start a command in a new container; start the pod if it is not running.

        Args:
            args: the whole argv; of an image, what stands behind its entrypoint.
            container_id: made up when empty.
            image: what the container is made from; that of the pod when empty, if it has one.
            rootfs: a directory of the host instead of an image; not changed. The default is /.
            env: "NAME=value" words, beside a PATH or those of the image.
            cwd: in the container; "/" or that of the image when empty.
            user: "uid[:gid]" or names; root or that of the image when empty.
            mounts: folders and files of the host.
            devices: of the host.
            resources: limits.
            stdio: where its output goes, `Container.logs` by default.
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
        """Run a command in a new container and delete that; start the pod if it is not running.

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

    # --- what is true of it -----------------------------------------------------------------------

    async def status(self, ask_guest: bool = True) -> PodStatus:
        """What is true of it now.

        Args:
            ask_guest: whether the guest is asked which processes live; without, containers are told
                as last seen. One that does not answer within `deadlines.view` is told as
                `unanswered`.

        Raises:
            NotFound: it does not exist.
            PodDamaged: it cannot be read.
        """
        try:
            return await pod_views.within(self._sessions.deadlines.view, self._status(ask_guest))
        except (Unanswered, Busy, OperationError) as error:
            if isinstance(error, PodDamaged):
                raise
            return await pod_views.known(self._sessions.store, pod_views.reason_of(error))

    async def _status(self, ask_guest: bool) -> PodStatus:
        async with self._sessions.open(exclusive=False, explains=False) as session:
            return await pod_views.asked(session, ask_guest)

    async def stats(self) -> VmStats:
        """What its machine uses of the host.

        Raises:
            StateError: it has no machine.
        """
        async with self._sessions.open(exclusive=False) as session:
            require(self._name, "measure it", session.state.state, ALIVE)
            return await session.hooks.vm_stats(pod=session.pod)

    async def console(self, tail_bytes: int = 65536) -> bytes:
        """The last of what its guest's kernel wrote."""
        async with self._sessions.open(exclusive=False) as session:
            return await session.hooks.vm_console(pod=session.pod, tail_bytes=tail_bytes)

    async def refresh(self) -> None:
        """Update the records of the pod and its containers, and report what has ended."""
        async with self._sessions.open(exclusive=True) as session:
            await containers.reconcile(session)

    async def ended(self) -> str:
        """Returns when its machine has ended, at once when it has none; tells why, for people."""
        async with self._sessions.open(exclusive=False) as session:
            hooks, pod = session.hooks, session.pod
        return (await hooks.vm_wait(pod=pod)).reason

    async def close(self) -> None:
        """Ends this process's connection to the guest; the pod goes on. May be called twice."""
        await self._sessions.close()

    @property
    def _name(self) -> str:
        return f"pod {self.id}"

    async def _image(self, text: str) -> Image | None:
        async with self._sessions.open(exclusive=False) as session:
            wanted = text or session.config.image
            return await self._services.host.images.get(wanted) if wanted else None
