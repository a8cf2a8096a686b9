"""The agent family: the one who runs containers inside the guest, and the guest image that holds
it.

A plugin object holds at most one connection. Except for agent_capabilities, agent_guest,
agent_disconnect and the operations on guest images, all need agent_connect before. Every operation
raises AgentError when the guest does not answer; NotFound for a container or process that the guest
does not know, unless said otherwise. An AgentRefusal, which is an AgentError, says that the guest
answered: after any other AgentError the machine may be about to end, and a call waits a moment for
that.
"""

from __future__ import annotations

from vc_core.spec.markers import operation, optional_operation, unbounded_operation
from vc_core.spec.values import (
    AgentInfo,
    Capability,
    Channel,
    ContainerStats,
    ExitStatus,
    FilesRequest,
    Finding,
    Guest,
    GuestContainer,
    GuestContainerStatus,
    KernelSource,
    PodRef,
    PodSetup,
    ProcessInfo,
    ProcessSpec,
    ProcessStreams,
    Report,
    Resources,
    Stdio,
)


class AgentSpec:
    """Operations named agent_*."""

    @operation
    async def agent_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        """Says which channels it can speak through, and what it can do beyond what all must.

        Raises nothing.
        """
        raise NotImplementedError

    @operation
    async def agent_guest(self, pod: PodRef) -> Guest:
        """The guest image for a pod that boots now.

        Raises AgentError when none has been built, naming the command.
        """
        raise NotImplementedError

    @optional_operation
    async def agent_prepare(self, pod: PodRef) -> None:
        """Does what a connection needs that takes time, but no guest.

        Called while a machine starts.
        """
        raise NotImplementedError

    @operation
    async def agent_connect(self, pod: PodRef, channel: Channel) -> AgentInfo:
        """Connects through a fresh channel and agrees on a protocol. The guest has opened its side.

        Raises AgentError when the versions do not meet, naming both.
        """
        raise NotImplementedError

    @operation
    async def agent_disconnect(self, pod: PodRef) -> None:
        """Ends the connection; the guest goes on. May be called twice, and without a connection."""
        raise NotImplementedError

    @operation
    async def agent_set_up_pod(self, pod: PodRef, setup: PodSetup) -> None:
        """Gives a guest its identity. Called before any container is made, and again in a machine
        that goes on from a saved one, whose containers take it on, too. May be called twice.
        """
        raise NotImplementedError

    @optional_operation
    async def agent_quiesce(self, pod: PodRef) -> None:
        """Makes the guest quiet, so that the machine can be checkpointed.

        Returns when the guest has let go of all folders of the host. Containers go on. Nothing is
        written to logs from then on. A process that uses such a folder waits until agent_unquiesce
        or the end of this connection. Only containers of a pod with PodOptions.can_quiesce may have
        folders. A guest without containers also does once what each clone would do again: it loads
        what containers always need. It then holds nothing that two pods must not share;
        agent_set_up_pod gives each its own.

        Called before vm_checkpoint. Declared by Capability.QUIESCE. Raises AgentError naming the
        folder by its tag when the guest cannot let go of it; nothing waits then.
        """
        raise NotImplementedError

    @optional_operation
    async def agent_unquiesce(self, pod: PodRef) -> None:
        """Ends the quiet: the guest opens the folders again, and processes that wait go on.

        Called after vm_checkpoint, and in a machine that starts from the checkpoint. May be called
        twice. Declared by Capability.QUIESCE. Raises AgentError when a folder is not there.
        """
        raise NotImplementedError

    @operation
    async def agent_tear_down_pod(self, pod: PodRef) -> None:
        """Kills every container, unmounts, lets the guest power off; returns as it does.

        May be called twice.
        """
        raise NotImplementedError

    @operation
    async def agent_create_container(self, pod: PodRef, container: GuestContainer) -> None:
        """Makes the container; its first process exists and waits, or runs when `container.starts`
        says so.

        On failure nothing of it is left in the guest. `container.log` is there only for agents that
        declare Capability.LOG. What a process with Stdio.LOG has written is on that disk before its
        end is told. Restart and HealthCheck are asked only of those that declare
        Capability.SUPERVISE. What Mount.copy_up asks for is in the folder before the first process
        exists.

        Raises AlreadyExists when the guest has a container of this id, CannotExecute when its
        program is not there. Raises AgentError when a file of Resources.unified is not there.
        """
        raise NotImplementedError

    @operation
    async def agent_start_container(self, pod: PodRef, container_id: str) -> None:
        """Lets the first process of a created container run.

        Raises CannotExecute when that is not possible.
        """
        raise NotImplementedError

    @operation
    async def agent_remove_container(self, pod: PodRef, container_id: str) -> None:
        """Kills what is left of the container and forgets it.

        An unknown one is no error: may be called twice.
        """
        raise NotImplementedError

    @operation
    async def agent_list_containers(self, pod: PodRef) -> tuple[GuestContainerStatus, ...]:
        """All containers that the guest has, and whether their first processes live.

        A check that fails as often as it may makes its container unhealthy. One that succeeds makes
        it healthy.
        """
        raise NotImplementedError

    @operation
    async def agent_update_container(
        self, pod: PodRef, container_id: str, resources: Resources
    ) -> None:
        """Changes the limits of a container that the guest has; what is 0 or empty has none
        afterwards.
        """
        raise NotImplementedError

    @optional_operation
    async def agent_online(self, pod: PodRef, vcpus: int, plugged_memory_mib: int) -> None:
        """Returns when the guest uses exactly this many vCPUs, and this much memory beyond that of
        its start.

        Called after vm_resize, also when that could not take vCPUs away. Declared by
        Capability.ONLINE. Raises AgentError when they do not come.
        """
        raise NotImplementedError

    @operation
    async def agent_container_stats(self, pod: PodRef, container_id: str) -> ContainerStats:
        """Measures what one container uses of the guest.

        Called by `Container.stats` and `vc stats`. The container was created and not removed; its
        first process may have ended.
        """
        raise NotImplementedError

    @operation
    async def agent_list_processes(self, pod: PodRef, container_id: str) -> tuple[ProcessInfo, ...]:
        """The processes of one container that have not ended.

        Called by `Container.processes` and `vc ps`. The container was created and not removed.
        """
        raise NotImplementedError

    @operation
    async def agent_exec(
        self,
        pod: PodRef,
        container_id: str,
        token: str,
        process: ProcessSpec,
        stdio: Stdio,
    ) -> None:
        """Starts one more process, known by `token` from then on, in a started container.

        Called by `Container.exec`; the container's first process runs. Raises CannotExecute when
        its program cannot be executed.
        """
        raise NotImplementedError

    @optional_operation
    async def agent_serve_files(
        self, pod: PodRef, container_id: str, token: str, request: FilesRequest
    ) -> None:
        """Starts a process of the agent's own that reads or writes the files of a container.

        Called by `Container.files`, for reading, writing, listing and watching. The process is
        known by `token` from then on, as if agent_exec had started it with Stdio.PIPES; its streams
        and its exit code are the answer. It exits with 0, or writes one line to stderr that says
        why and exits with 2 when nothing is at the path, with 3 when the request does not fit what
        is there (a file where a folder must be, input that is no archive), and with 1 for all else.
        The container's first process may have ended. No path leads out of what the container sees.
        Declared by Capability.FILES.
        """
        raise NotImplementedError

    @operation
    async def agent_attach(self, pod: PodRef, container_id: str, token: str) -> ProcessStreams:
        """The streams of a process that was made with Stdio.PIPES. Raises AgentError while another
        client has them.

        Of a process with Stdio.LOG they are what comes from now on; it has no input.
        """
        raise NotImplementedError

    @unbounded_operation
    async def agent_wait(self, pod: PodRef, container_id: str, token: str) -> ExitStatus:
        """Returns when the process has ended; at once when it has. The answer stays until the
        container is removed.

        A first process that another one follows has not ended.
        """
        raise NotImplementedError

    @operation
    async def agent_signal(self, pod: PodRef, container_id: str, token: str, signal: int) -> None:
        """Sends a signal to one process, or to all of the container when `token` is empty.

        SIGKILL, SIGTERM and the container's stop signal ask for its end: no other process follows.
        Raises StateError when the one process has ended. Raises InvalidRequest when the guest's
        kernel has no signal of this number.
        """
        raise NotImplementedError

    @operation
    async def agent_resize(
        self, pod: PodRef, container_id: str, token: str, rows: int, columns: int
    ) -> None:
        """Sets the size of a process's terminal. Raises AgentError when it has none."""
        raise NotImplementedError

    @unbounded_operation
    async def agent_build_guest(self, source: KernelSource, report: Report) -> Guest:
        """Makes the guest image for this host and makes it current; does nothing when it is there.
        Belongs to no pod.

        Raises AgentError when a file of `source` is not there. Raises AgentError naming the
        missing program and the package that has it.
        """
        raise NotImplementedError

    @operation
    async def agent_list_guests(self) -> tuple[Guest, ...]:
        """All guest images, the current one first. Belongs to no pod."""
        raise NotImplementedError

    @operation
    async def agent_remove_guest(self, guest_id: str) -> Guest:
        """Deletes the one image whose id begins so.

        Belongs to no pod. Raises NotFound when none or several do.
        """
        raise NotImplementedError

    @operation
    async def agent_diagnose(self) -> tuple[Finding, ...]:
        """What a user should know: is there a guest image, and what building one would need.

        Belongs to no pod.
        """
        raise NotImplementedError
