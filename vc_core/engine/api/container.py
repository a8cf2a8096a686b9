"""The API of a container: an id and calls on it. The object keeps none of its state."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import TYPE_CHECKING

from msgspec import structs

from vc_core.engine.api.arguments import checked_arguments
from vc_core.engine.api.container_status import ContainerStatus
from vc_core.engine.api.process import End, Process
from vc_core.engine.host.guest_text import shown
from vc_core.engine.lifecycle import containers, machine
from vc_core.engine.lifecycle.process_spec import added_process
from vc_core.engine.resources import container_log, vm_size
from vc_core.engine.resources.host_files import HostFiles
from vc_core.engine.session.session import Session
from vc_core.engine.session.sessions import Sessions
from vc_core.engine.state.ids import annotated, fresh
from vc_core.engine.state.records import ContainerState, shown_state
from vc_core.engine.state.states import AT_REST, State, require
from vc_core.spec.errors import AgentError, OperationError, StorageError, VcError
from vc_core.spec.events import EventSpec
from vc_core.spec.values import (
    DEFAULT_PATH,
    ContainerSpec,
    ContainerStats,
    ExitStatus,
    ProcessInfo,
    ProcessSpec,
    Resources,
    Stdio,
)

if TYPE_CHECKING:
    from vc_core.engine.api.files import Files

log = logging.getLogger(__name__)
_PS_BYTES = 4 << 20


class Container:
    """One container of a pod."""

    def __init__(self, sessions: Sessions, pod_id: str, container_id: str, host: HostFiles) -> None:
        self._sessions = sessions
        self._host = host
        self.pod_id = pod_id
        self.id = container_id

    @property
    def files(self) -> Files:
        """The files that the container sees, including its volumes.

        Available until the container is stopped or deleted, also after its first process has ended.
        """
        from vc_core.engine.api.files import Files  # with tarfile; few programs need it

        return Files(self._sessions, self.pod_id, self.id)

    async def start(self) -> Process:
        """Starts the container, also one that was stopped; returns its first process.

        Raises:
            StateError: the pod does not run, or the container runs already.
        """
        async with self._sessions.open(exclusive=True) as session:
            spec, state = await self._of(session)
            require(
                f"pod {session.pod.id}",
                f"start container {self.id}",
                session.state.state,
                [State.RUNNING],
            )
            require(self._name, "start it", state.state, AT_REST)
            state = await containers.start(session, self._host, spec)
            await session.notify(EventSpec.container_started, pod=session.pod, container_id=self.id)
        return Process(self._sessions, self.pod_id, self.id, state.token)

    @checked_arguments
    async def stop(self, grace_s: float = 10) -> None:
        """Asks the first process to end; kills all processes after `grace_s` seconds.

        Does nothing when the container is stopped.
        """
        async with self._sessions.open(exclusive=True, is_ending=True) as session:
            await session.store.container_spec(self.id)
            with self._asking_guest(session, "stop"):
                spec, state = await self._of(session)
            if state.state is State.STOPPED and not state.is_in_guest:
                return
            if session.is_alive:
                require(
                    f"pod {session.pod.id}",
                    f"stop container {self.id}",
                    session.state.state,
                    [State.RUNNING],
                )
            with self._asking_guest(session, "stop"):
                await containers.stop(session, spec, state, grace_s)

    @checked_arguments
    async def delete(self, force: bool = False) -> None:
        """Removes the container; a running one only with `force`, which kills it at once.

        With `force` the container is removed even when the guest fails to remove it: the machine is
        ended then, unless other containers run there.

        Raises:
            StateError: the container runs, or its pod is paused.
            OperationError: the guest fails to remove it, and `force` is not set or other containers
                run in the machine.
        """
        async with self._sessions.open(exclusive=True, is_ending=True) as session:
            await session.store.container_spec(self.id)
            try:
                await self._take_out(session, force)
            except OperationError as error:
                if isinstance(error, StorageError) or not force or await self._has_company(session):
                    raise
                await self._end_machine(session, error)
            self._host.disks.remove(session.pod.id, self.id)
            await session.store.delete(self.id)
            await session.notify(EventSpec.container_deleted, pod=session.pod, container_id=self.id)

    @checked_arguments
    async def exec(self, process: ProcessSpec, stdio: Stdio = Stdio.PIPES) -> Process:
        """Starts a further process in the container.

        Args:
            process: what to run. Empty fields default to the values of the first process: user,
                groups, folder, privileges, capabilities and limits. Its variables are added to
                those of the first process, or replace them.
            stdio: what its streams are connected to.

        Raises:
            StateError: the container does not run.
            AgentError: the program is missing or not executable.
        """
        token = fresh()
        async with self._sessions.open(exclusive=False) as session:
            await self._require_running(session, "execute in it")
            spec = await session.store.container_spec(self.id)
            complete = added_process(spec, session.config.hostname, process)
            await session.hooks.agent_exec(
                pod=session.pod, container_id=self.id, token=token, process=complete, stdio=stdio
            )
        return Process(self._sessions, self.pod_id, self.id, token)

    @checked_arguments
    async def kill(self, signal: int, everything: bool = False) -> None:
        """Sends a signal to the first process, or with `everything` to all processes.

        Raises:
            StateError: the container does not run.
        """
        async with self._sessions.open(exclusive=False) as session:
            token = await self._require_running(session, "signal it")
            await session.hooks.agent_signal(
                pod=session.pod,
                container_id=self.id,
                token="" if everything else token,
                signal=signal,
            )

    @checked_arguments
    async def update(self, limits: Resources) -> None:
        """Changes the limits, immediately if the container runs; the machine is resized to fit.

        Args:
            limits: all limits: one that is 0 or empty is removed.

        Raises:
            InvalidRequest: a limit is invalid, or the machine is unable to grow for it.
            StateError: its pod is paused.
        """
        vm_size.check(limits)
        async with self._sessions.open(exclusive=True) as session:
            spec, state = await self._of(session)
            if state.is_in_guest:
                require(
                    f"pod {session.pod.id}",
                    f"update container {self.id}",
                    session.state.state,
                    [State.RUNNING],
                )
                await containers.update(session, spec, limits)
            else:
                await session.store.put_container_spec(structs.replace(spec, resources=limits))

    async def annotations(self) -> dict[str, str]:
        """Returns the annotations, those set at creation and those set since."""
        async with self._sessions.open(exclusive=False) as session:
            return dict((await session.store.container_spec(self.id)).annotations)

    @checked_arguments
    async def annotate(self, annotations: Mapping[str, str | None]) -> dict[str, str]:
        """Sets annotations, and removes those that are None; returns all of them."""
        async with self._sessions.open(exclusive=True) as session:
            spec = await session.store.container_spec(self.id)
            found = annotated(dict(spec.annotations), annotations)
            await session.store.put_container_spec(
                structs.replace(spec, annotations=tuple(found.items()))
            )
            return found

    @checked_arguments
    async def ps(self, *args: str) -> str:
        """Returns the output of the container's own `ps` with these arguments, "-ef" by default.

        Raises:
            StateError: the container does not run.
            CannotExecute: it has no `ps`; `processes` needs none.
            AgentError: `ps` failed or wrote more than 4 MiB; includes its error output.
        """
        says_where = any(word.startswith("PATH=") for word in (await self.spec()).process.env)
        process = await self.exec(
            ProcessSpec(args=("ps", *(args or ("-ef",))), env=() if says_where else (DEFAULT_PATH,))
        )
        result = await process.communicate(max_output_bytes=_PS_BYTES)
        if result.end is End.TOO_MUCH_OUTPUT:
            raise AgentError(
                f"ps wrote more than {_PS_BYTES >> 20} MiB in container {self.id} and was killed"
            )
        if result.exit_code != 0:
            told = shown(result.stderr.decode(errors="replace").strip().partition("\n")[0])
            raise AgentError(
                f"ps {' '.join(args)} ended with {result.exit_code} in container {self.id}: {told}"
            )
        return result.stdout.decode(errors="replace")

    async def processes(self) -> tuple[ProcessInfo, ...]:
        """Returns the processes of the container.

        Raises:
            StateError: the container does not run.
        """
        async with self._sessions.open(exclusive=False) as session:
            await self._require_running(session, "list its processes")
            return await session.hooks.agent_list_processes(pod=session.pod, container_id=self.id)

    async def stats(self) -> ContainerStats:
        """Returns the container's use of the guest's resources.

        Available until the container is stopped or deleted, also after its first process has ended.

        Raises:
            StateError: the container is not in a guest, or its pod is paused.
        """
        async with self._sessions.open(exclusive=False) as session:
            await session.store.container_spec(self.id)
            state = (await containers.observed_states(session))[self.id]
            if not state.is_in_guest or session.state.state is not State.RUNNING:
                require(
                    self._name, "measure it", shown_state(session.state, state), [State.RUNNING]
                )
            await session.connection.open()
            return await session.hooks.agent_container_stats(pod=session.pod, container_id=self.id)

    async def wait(self) -> ExitStatus:
        """Returns when the first process has ended; at once when it has ended before.

        Raises:
            StateError: it was never started, or its machine ended first.
        """
        async with self._sessions.open(exclusive=False) as session:
            await session.store.container_spec(self.id)
            state = (await containers.observed_states(session))[self.id]
            if state.exit is not None:
                return state.exit
            require(self._name, "wait for it", state.state, [State.RUNNING])
        return await Process(self._sessions, self.pod_id, self.id, state.token).wait()

    async def process(self, may_wait: bool = False, token: str = "") -> Process:
        """Returns the first process, or one that `exec` has started, to attach to.

        Also returns one that has ended by itself: its output and its exit status are kept.

        Args:
            may_wait: whether to return also a first process in the guest that waits to be started.
            token: `Process.token` of one that `exec` has returned, here or in another process; by
                default the first one. Calls on a process that there is not raise AgentError.

        Raises:
            StateError: the container was not started, or is no longer in a guest.
        """
        async with self._sessions.open(exclusive=False) as session:
            await session.store.container_spec(self.id)
            # Without asking the guest: the process may be ending.
            state = await session.store.container_state(self.id)
            was_started = state.is_in_guest and (may_wait or state.state is not State.READY)
            if not was_started or session.state.state is not State.RUNNING:
                await self._require_running(session, "attach to it")
            return Process(self._sessions, self.pod_id, self.id, token or state.token)

    async def logs(
        self, follow: bool = False, tail: int | None = None, since_ns: int = 0
    ) -> AsyncGenerator[container_log.LogLine, None]:
        """Yields the output of a container that was created with Stdio.LOG.

        Available also after the container or its machine has ended.

        Args:
            follow: whether to wait for more, until its first process or its machine has ended.
            tail: maximum number of existing lines.
            since_ns: leaves out older lines; in nanoseconds since the epoch.

        Raises:
            NotFound: it has no log.
        """
        async for line in container_log.read(
            self._sessions, self._host.disks, self.id, follow, tail, since_ns
        ):
            yield line

    async def spec(self) -> ContainerSpec:
        """Returns the specification of the container, with its current limits."""
        async with self._sessions.open(exclusive=False) as session:
            return await session.store.container_spec(self.id)

    async def status(self) -> ContainerStatus:
        """Returns the current status.

        Raises:
            NotFound: the pod has no such container.
        """
        async with self._sessions.open(exclusive=False) as session:
            spec = await session.store.container_spec(self.id)
            state = (await containers.observed_states(session))[self.id]
            return ContainerStatus.of(session.state, spec, state)

    async def _take_out(self, session: Session, force: bool) -> None:
        """Removes the container from the guest and its devices from the machine."""
        with self._asking_guest(session, "delete"):
            spec, state = await self._of(session)
        if not force:
            require(self._name, "delete it", shown_state(session.state, state), AT_REST)
        if state.is_in_guest:
            wanted = f"delete container {self.id}"
            require(f"pod {session.pod.id}", wanted, session.state.state, [State.RUNNING])
            with self._asking_guest(session, "delete"):
                await containers.stop(session, spec, state, 0)
        elif session.state.state is State.RUNNING:
            with self._asking_guest(session, "delete"):
                await containers.clear(session, self.id)

    @contextlib.contextmanager
    def _asking_guest(self, session: Session, verb: str) -> Iterator[None]:
        """Converts an error of the guest to an OperationError that says how to end the machine."""
        try:
            yield
        except StorageError:
            raise
        except VcError as error:
            failed = (
                error
                if isinstance(error, OperationError)
                else AgentError(str(error), pod=session.pod.id)
            )
            if session.is_alive and "ends the machine" not in failed.message:
                failed = failed.with_detail(
                    f"; 'vc pod {verb} --force {session.pod.id}' ends the machine and all that "
                    "runs there"
                )
            if failed is error:
                raise
            raise failed from error

    async def _has_company(self, session: Session) -> bool:
        """Returns whether other containers run in the machine, or may run there."""
        others = [name for name in await session.store.containers() if name != self.id]
        states = [(await session.store.container_state(name)).state for name in others]
        return session.state.state is not State.RUNNING or State.RUNNING in states

    async def _end_machine(self, session: Session, error: OperationError) -> None:
        log.warning(
            "the machine of pod %s is ended with its container %s: %s",
            session.pod.id,
            self.id,
            error,
        )
        reason = await machine.shut_down(session, 0, force=True)
        await session.notify(EventSpec.pod_stopped, pod=session.pod, reason=reason)

    @property
    def _name(self) -> str:
        return f"container {self.id} of pod {self.pod_id}"

    async def _of(self, session: Session) -> tuple[ContainerSpec, ContainerState]:
        return await containers.of(session, self.id)

    async def _require_running(self, session: Session, verb: str) -> str:
        """Returns the token of the first process."""
        await session.store.container_spec(self.id)
        state = (await containers.observed_states(session))[self.id]
        require(self._name, verb, shown_state(session.state, state), [State.RUNNING])
        return state.token
