"""The agent family: runs containers inside the guest, and provides the guest image.

A plugin object holds at most one connection. Except for agent_capabilities, agent_guest,
agent_disconnect and the operations on guest images, all operations need agent_connect before. Every
operation raises AgentError when the guest does not answer; NotFound for a container or process that
the guest does not know, unless said otherwise. An AgentRefusal, which is an AgentError, means that
the guest answered: after any other AgentError the machine may be about to end, and the engine waits
briefly for that.
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
    StandIn,
    Stdio,
)


class AgentSpec:
    """The operations named agent_*."""

    @operation
    async def agent_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        """Returns the channels that this agent supports, and its optional capabilities.

        Raises nothing.
        """
        raise NotImplementedError

    @operation
    async def agent_guest(self, pod: PodRef) -> Guest:
        """Returns the guest image for a pod that boots now.

        Raises AgentError when none has been built, naming the command.
        """
        raise NotImplementedError

    @optional_operation
    async def agent_prepare(self, pod: PodRef) -> None:
        """Does the slow part of connecting that needs no guest.

        Called while a machine starts.
        """
        raise NotImplementedError

    @operation
    async def agent_connect(self, pod: PodRef, channel: Channel) -> AgentInfo:
        """Connects through a new channel and negotiates the version of the protocol.

        The guest has opened its side. Raises AgentError naming both ranges when the versions of the
        two sides do not overlap.
        """
        raise NotImplementedError

    @operation
    async def agent_disconnect(self, pod: PodRef) -> None:
        """Ends the connection; the guest keeps running.

        May be called twice, and without a connection.
        """
        raise NotImplementedError

    @operation
    async def agent_set_up_pod(self, pod: PodRef, setup: PodSetup) -> None:
        """Gives a guest its identity.

        Called before any container is made, and again in a machine that starts from a saved one,
        whose containers take on the identity, too. May be called twice.

        With PodSetup.networks (Capability.NETWORK) each interface has exactly these addresses and
        routes afterwards, whatever it had before. Raises AgentError when an interface does not
        appear. No TCP connection of a saved machine survives in one that starts from it
        (GuestNetwork.restored_mac).
        """
        raise NotImplementedError

    @optional_operation
    async def agent_quiesce(self, pod: PodRef) -> None:
        """Quiesces the guest, so that the machine can be checkpointed.

        Returns when the guest has closed all folders of the host. Containers keep running. Nothing
        is written to logs from then on. A process that uses such a folder waits until
        agent_unquiesce or the end of this connection. Only containers of a pod with
        PodOptions.can_quiesce may have folders. A guest without containers also does in advance
        what each clone would otherwise repeat: it loads what every container needs. It then
        contains nothing that two pods must not share; agent_set_up_pod gives each its own.

        Called before vm_checkpoint. Declared by Capability.QUIESCE. Raises AgentError naming a
        folder by its tag when the guest fails to close it; no process waits then.
        """
        raise NotImplementedError

    @optional_operation
    async def agent_unquiesce(self, pod: PodRef) -> None:
        """Ends the quiesced state: the guest reopens the folders, and waiting processes continue.

        Called after vm_checkpoint, and in a machine that starts from the checkpoint. May be called
        twice. Declared by Capability.QUIESCE. Raises AgentError when a folder is missing.
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
        """Creates the container; its first process exists and waits to be started.

        With `container.starts` the process runs at once. On failure nothing of the container is
        left in the guest. `container.log` is set only for agents that declare Capability.LOG. The
        output of a process with Stdio.LOG is on that disk before its end is reported. Restart and
        HealthCheck are used only with agents that declare Capability.SUPERVISE, and
        OciHooks.start_container with those that declare Capability.START_HOOKS: each of these is
        run in the container when that is started, before its process, and is killed at its time
        limit, which is never 0. When one fails, the process is not run and ends with a code that
        is not 0. What Mount.copy_up
        asks for is in the folder before the first process exists.

        Raises AlreadyExists when the guest has a container of this id, CannotExecute when its
        program is not there. Raises AgentError when a file of Resources.unified is not there.
        Raises NotFound when the container of Confinement.pid_container_id is not in the guest.
        """
        raise NotImplementedError

    @operation
    async def agent_start_container(self, pod: PodRef, container_id: str) -> None:
        """Starts the first process of a created container.

        Raises CannotExecute when that is not possible.
        """
        raise NotImplementedError

    @operation
    async def agent_remove_container(self, pod: PodRef, container_id: str) -> None:
        """Kills all processes of the container and removes it from the guest.

        An unknown one is no error: may be called twice.
        """
        raise NotImplementedError

    @operation
    async def agent_list_containers(self, pod: PodRef) -> tuple[GuestContainerStatus, ...]:
        """Returns all containers of the guest, and whether their first processes run.

        As many consecutive failed checks as HealthCheck.retries make a container unhealthy. A
        successful check makes it healthy.
        """
        raise NotImplementedError

    @operation
    async def agent_update_container(
        self, pod: PodRef, container_id: str, resources: Resources
    ) -> None:
        """Replaces the limits of a container of the guest.

        A limit that is 0 or empty is removed.
        """
        raise NotImplementedError

    @optional_operation
    async def agent_online(self, pod: PodRef, vcpus: int, plugged_memory_mib: int) -> None:
        """Waits until the guest uses exactly this many vCPUs, and this much memory beyond
        its first.

        Called after vm_resize, also when vm_resize failed to remove vCPUs. `plugged_memory_mib`
        does not include the memory at the machine's start. Declared by Capability.ONLINE. Raises
        AgentError when the vCPUs or the memory do not appear.
        """
        raise NotImplementedError

    @operation
    async def agent_container_stats(self, pod: PodRef, container_id: str) -> ContainerStats:
        """Measures a container's use of the guest's resources.

        Called by `Container.stats` and `vc stats`. The container was created and not removed; its
        first process may have ended.
        """
        raise NotImplementedError

    @operation
    async def agent_list_processes(self, pod: PodRef, container_id: str) -> tuple[ProcessInfo, ...]:
        """Returns the processes of one container that have not ended.

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
        """Starts a further process, identified by `token`, in a started container.

        Called by `Container.exec`; the container's first process runs. Raises CannotExecute when
        its program is missing or not executable. CannotExecute.is_missing tells the two apart.
        """
        raise NotImplementedError

    @optional_operation
    async def agent_serve_files(
        self, pod: PodRef, container_id: str, token: str, request: FilesRequest
    ) -> None:
        """Starts a process of the agent itself that reads or writes the files of a container.

        Called by `Container.files`, for reading, writing, listing and watching. The process is
        identified by `token` from then on, as if agent_exec had started it with Stdio.PIPES; its
        streams and its exit code are the answer. It exits with 0 on success. Otherwise it writes
        one line with the reason to stderr and exits with 2 when nothing is at the path, with 3 when
        the request does not fit what is there (a file instead of a folder, input that is no
        archive), and with 1 on any other error. The container's first process may have ended. No
        path leads out of the file systems that the container sees. Declared by Capability.FILES.
        """
        raise NotImplementedError

    @operation
    async def agent_attach(self, pod: PodRef, container_id: str, token: str) -> ProcessStreams:
        """Returns the streams of a process that was started with Stdio.PIPES.

        A first process may wait for its start still; agent_wait takes it then, too. For a process
        with Stdio.LOG they carry the output from now on, and accept no input. Raises AgentError
        while another client has the streams.
        """
        raise NotImplementedError

    @optional_operation
    async def agent_stand_in(
        self, pod: PodRef, channel: Channel, container_id: str, token: str, role: StandIn
    ) -> tuple[str, ...]:
        """Returns the command line of a program that stands in on the host for a process.

        Called by `Process.stand_in`. The process was started with Stdio.PIPES, and no client has
        its streams. The program uses `channel` alone, which the caller has opened for it. It
        connects its descriptors 0 to 2 to the streams of the process, and then writes "ok" to its
        descriptor 3, or else the reason why not, and closes it. A terminal on descriptor 0 is in
        raw mode; the program follows its size. It forwards the signals that it gets, and ends with
        the exit code of the process. It ends with 137 when the machine ends first. Killing the
        program kills the process. With `role.ends_machine` the machine ends after the program,
        however that has ended, and what containers have written to folders of the host is there. A
        connection to `role.listener` is forwarded to the address and port of the guest that it was
        meant for; one that is refused there is reset. With `role.memory_group` the program is
        killed in that group when the process was killed at its container's limit of memory. Each
        connection of the program's own user, or of root, to `role.starter` asks it to start the
        container: it answers "ok" when that runs, or else the reason why not, and closes the
        connection. In a machine that starts from a saved one, the first process of a container goes
        on without the program, and its output is read by nobody. Declared by Capability.STAND_IN,
        `role.starter` by Capability.STARTER. In place of an agent that has no such program,
        `vc-runtime` has one of its own.
        """
        raise NotImplementedError

    @unbounded_operation
    async def agent_wait(self, pod: PodRef, container_id: str, token: str) -> ExitStatus:
        """Returns when the process has ended; at once when it has ended before.

        The exit status is kept until the container is removed. A first process that is followed by
        a restart has not ended.
        """
        raise NotImplementedError

    @operation
    async def agent_signal(self, pod: PodRef, container_id: str, token: str, signal: int) -> None:
        """Sends a signal to one process, or to all of the container when `token` is empty.

        SIGKILL, SIGTERM and the container's stop signal ask for its end: it is not restarted.
        Raises StateError when the one process has ended.
        Raises InvalidRequest when the guest's kernel has no signal of this number.
        """
        raise NotImplementedError

    @operation
    async def agent_resize(
        self, pod: PodRef, container_id: str, token: str, rows: int, columns: int
    ) -> None:
        """Sets the size of a process's terminal, in characters.

        Raises AgentError when the process has no terminal.
        """
        raise NotImplementedError

    @unbounded_operation
    async def agent_build_guest(self, source: KernelSource, report: Report) -> Guest:
        """Builds the guest image for this host and makes it current; does nothing when it exists.

        Belongs to no pod. Raises AgentError when a file of `source` is not there. Raises AgentError
        naming the missing program and the package that has it.
        """
        raise NotImplementedError

    @operation
    async def agent_list_guests(self) -> tuple[Guest, ...]:
        """Returns all guest images, the current one first. Belongs to no pod."""
        raise NotImplementedError

    @operation
    async def agent_remove_guest(self, guest_id: str) -> Guest:
        """Deletes the guest image whose id begins with `guest_id`; returns it.

        Belongs to no pod. Raises NotFound when no image or more than one matches.
        """
        raise NotImplementedError

    @operation
    async def agent_diagnose(self) -> tuple[Finding, ...]:
        """Reports whether there is a guest image, and what is missing to build one.

        Belongs to no pod.
        """
        raise NotImplementedError
