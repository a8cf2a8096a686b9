"""Agent operations over gRPC: one connection (client.py), and the guest images (image/)."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vc_agent_grpc import grpc_fork, image, seccomp
from vc_agent_grpc.options import SYSTEM_CACHE, GrpcAgentOptions
from vc_core.spec import (
    DEFAULT_CAPABILITIES,
    AgentError,
    AgentInfo,
    AgentSpec,
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
    NotFound,
    PodRef,
    PodSetup,
    ProcessInfo,
    ProcessSpec,
    ProcessStreams,
    Report,
    Resources,
    StandIn,
    Stdio,
    Verdict,
    hookimpl,
)

if TYPE_CHECKING:
    from vc_agent_grpc.client import Client

_PARAMETERS = (
    *(
        "console=ttyS0",
        "quiet",
        "panic=-1",
        "rdinit=/init",
        "tsc=reliable",
        "no_timer_check",
        "noreplace-smp",
    ),
    # With room for memory above 4 GiB, Linux reserves 64 MiB as bounce buffers for devices without
    # 64-bit DMA; all devices of the machine have it.
    "swiotlb=noforce",
)
_PROOF = ("panic=-1", "quiet", "rdinit=/init", "--", "--prove")


def _client_module() -> ModuleType:
    """Imports the client, whose import of grpc takes time."""
    grpc_fork.prepare()
    return grpc_fork.client_module()


_STARTER = "--starter"


class GrpcAgent(AgentSpec):
    """The plugin `grpc`."""

    options_type = GrpcAgentOptions

    def __init__(self, options: GrpcAgentOptions) -> None:
        self._options = options
        self._connection: Client | None = None

    @hookimpl
    async def agent_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        # No VSOCK_CHANNEL: the agent listens on virtio-serial ports and unix sockets only.
        able = {
            Capability.UNIX_CHANNEL,
            Capability.TERMINAL,
            Capability.SHARE,
            Capability.DRIVE,
            Capability.ONLINE,
            Capability.QUIESCE,
        }
        able |= {Capability.SUPERVISE, Capability.LOG, Capability.FILES, Capability.NETWORK}
        able |= {Capability.STAND_IN, Capability.START_HOOKS}
        guest = self._guest_in_use
        if guest is not None and _STARTER in guest.stand_in_options:
            able.add(Capability.STARTER)
        return frozenset(able)

    # --- connection -------------------------------------------------------------------------------

    @hookimpl
    async def agent_prepare(self, pod: PodRef) -> None:
        _client_module()

    @hookimpl
    async def agent_connect(self, pod: PodRef, channel: Channel) -> AgentInfo:
        client = _client_module()
        self._connection = await client.connect(f"unix:{channel.address}")
        return self._connection.info

    @hookimpl
    async def agent_disconnect(self, pod: PodRef) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @property
    def _client(self) -> Client:
        if self._connection is None:
            raise AgentError("there is no connection to the guest's agent")
        return self._connection

    # --- pod, containers, processes ---------------------------------------------------------------

    @hookimpl
    async def agent_set_up_pod(self, pod: PodRef, setup: PodSetup) -> None:
        await self._client.set_up_pod(setup)

    @hookimpl
    async def agent_quiesce(self, pod: PodRef) -> None:
        await self._client.quiesce()

    @hookimpl
    async def agent_unquiesce(self, pod: PodRef) -> None:
        await self._client.unquiesce()

    @hookimpl
    async def agent_tear_down_pod(self, pod: PodRef) -> None:
        await self._client.tear_down_pod()

    @hookimpl
    async def agent_create_container(self, pod: PodRef, container: GuestContainer) -> None:
        await self._client.create_container(container, self._compiled_filter)

    @hookimpl
    async def agent_start_container(self, pod: PodRef, container_id: str) -> None:
        await self._client.start_container(container_id)

    @hookimpl
    async def agent_remove_container(self, pod: PodRef, container_id: str) -> None:
        await self._client.remove_container(container_id)

    @hookimpl
    async def agent_list_containers(self, pod: PodRef) -> tuple[GuestContainerStatus, ...]:
        return await self._client.list_containers()

    @hookimpl
    async def agent_update_container(
        self, pod: PodRef, container_id: str, resources: Resources
    ) -> None:
        await self._client.update_container(container_id, resources)

    @hookimpl
    async def agent_online(self, pod: PodRef, vcpus: int, plugged_memory_mib: int) -> None:
        await self._client.online(vcpus, plugged_memory_mib)

    @hookimpl
    async def agent_container_stats(self, pod: PodRef, container_id: str) -> ContainerStats:
        return await self._client.container_stats(container_id)

    @hookimpl
    async def agent_list_processes(self, pod: PodRef, container_id: str) -> tuple[ProcessInfo, ...]:
        return await self._client.list_processes(container_id)

    @hookimpl
    async def agent_exec(
        self,
        pod: PodRef,
        container_id: str,
        token: str,
        process: ProcessSpec,
        stdio: Stdio,
    ) -> None:
        await self._client.execute(container_id, token, process, stdio)

    @hookimpl
    async def agent_serve_files(
        self, pod: PodRef, container_id: str, token: str, request: FilesRequest
    ) -> None:
        await self._client.serve_files(container_id, token, request)

    @hookimpl
    async def agent_attach(self, pod: PodRef, container_id: str, token: str) -> ProcessStreams:
        return await self._client.attach(container_id, token)

    @hookimpl
    async def agent_stand_in(
        self, pod: PodRef, channel: Channel, container_id: str, token: str, role: StandIn
    ) -> tuple[str, ...]:
        guest = self._guest_in_use
        program = None if guest is None else guest.stand_in
        if program is None:
            raise AgentError("the guest image has no vc-stand-in; run 'vc guest build'")
        ends = "machine" if role.ends_machine else "process"
        words = [str(program), channel.address, container_id, token, ends]
        if role.listener is not None and role.dial_channel is not None:
            words += "--listener", str(role.listener), "--dial-socket", role.dial_channel.address
        if role.memory_group:
            words += "--memory-group", role.memory_group
        if role.starter is not None:
            words += _STARTER, str(role.starter)
        return tuple(words)

    @hookimpl
    async def agent_wait(self, pod: PodRef, container_id: str, token: str) -> ExitStatus:
        return await self._client.wait(container_id, token)

    @hookimpl
    async def agent_signal(self, pod: PodRef, container_id: str, token: str, signal: int) -> None:
        await self._client.signal(container_id, token, signal)

    @hookimpl
    async def agent_resize(
        self, pod: PodRef, container_id: str, token: str, rows: int, columns: int
    ) -> None:
        await self._client.resize(container_id, token, rows, columns)

    # --- guest images -----------------------------------------------------------------------------

    @hookimpl
    async def agent_guest(self, pod: PodRef) -> Guest:
        chosen = self._options.guest
        cache = next(
            (cache for cache in self._caches() if image.images(cache)), self._options.cache
        )
        try:
            return self._guest(image.find(cache, chosen) if chosen else image.current(cache))
        except image.ImageError as error:
            raise AgentError(str(error)) from error

    @hookimpl
    async def agent_build_guest(self, source: KernelSource, report: Report) -> Guest:
        from vc_agent_grpc.image import builder

        loop = asyncio.get_running_loop()

        def tell(line: str) -> None:
            loop.call_soon_threadsafe(report, line)

        options = (self._options.cache, tell, source.image, source.modules, source.agent)
        try:
            return self._guest(await asyncio.to_thread(builder.build, *options))
        except image.ImageError as error:
            raise AgentError(str(error)) from error

    @hookimpl
    async def agent_list_guests(self) -> tuple[Guest, ...]:
        return tuple(
            self._guest(found) for cache in self._caches() for found in image.images(cache)
        )

    @hookimpl
    async def agent_remove_guest(self, guest_id: str) -> Guest:
        try:
            return self._guest(await asyncio.to_thread(image.remove, self._options.cache, guest_id))
        except image.ImageError as error:
            raise NotFound(str(error)) from error

    @hookimpl
    async def agent_diagnose(self) -> tuple[Finding, ...]:
        from vc_agent_grpc.image import builder

        guests = [self._guest(found) for cache in self._caches() for found in image.images(cache)]
        missing = builder.missing()
        tools = [
            Finding(
                subject="building guests",
                verdict=Verdict.WARNING if guests else Verdict.BAD,
                detail=detail,
                remedy=remedy,
                fix=fix,
            )
            for detail, remedy, fix in missing
        ]
        if not missing:
            tools = [
                Finding(
                    subject="building guests",
                    verdict=Verdict.GOOD,
                    detail="all that it needs is here",
                )
            ]
        if not guests:
            return (
                *tools,
                Finding(
                    subject="guest image",
                    verdict=Verdict.BAD,
                    detail=f"none in {self._options.cache}",
                    remedy="run 'vc guest build'",
                    fix="vc guest build",
                ),
            )
        damaged = [
            one
            for cache in self._caches()
            for one in image.images(cache)
            if not image.is_whole(one)
        ]
        tools += [
            Finding(
                subject="guest image",
                verdict=Verdict.BAD if one.id == guests[0].id else Verdict.WARNING,
                detail=f"{one.id} is damaged: its kernel or initrd is not what was built",
                remedy="run 'vc guest build'" if one.is_current else f"'vc guest rm {one.id}'",
                fix="vc guest build" if one.is_current else "",
            )
            for one in damaged
        ]
        if guests[0].id in {one.id for one in damaged}:
            return tuple(tools)
        return (
            *tools,
            Finding(
                subject="guest image",
                verdict=Verdict.GOOD,
                detail=f"{guests[0].id}: {guests[0].description}",
            ),
        )

    @functools.cached_property
    def _compiled_filter(self) -> bytes:
        """Returns the compiled filter of the current guest image, if it is of this version's list.

        Empty otherwise.
        """
        wanted = seccomp.digest(seccomp.default_filter(DEFAULT_CAPABILITIES))
        built = (
            found for cache in self._caches() for found in image.images(cache) if found.is_current
        )
        return next((found.filter for found in built if found.inputs.get("seccomp") == wanted), b"")

    @functools.cached_property
    def _guest_in_use(self) -> image.Guest | None:
        """The guest image in use; None if there is none."""
        chosen = self._options.guest
        found = [one for cache in self._caches() for one in image.images(cache)]
        fit = (one for one in found if one.id.startswith(chosen) if chosen or one.is_current)
        return next(fit, None)

    def _caches(self) -> list[Path]:
        """Returns the caches: the user's own, then that of root, which all users share."""
        return list(dict.fromkeys((self._options.cache, SYSTEM_CACHE)))

    def _guest(self, found: image.Guest) -> Guest:
        return Guest(
            id=found.id,
            kernel=found.kernel,
            initrd=found.initrd,
            parameters=(*_PARAMETERS, *self._options.kernel_parameters),
            proof_parameters=_PROOF,
            description=f"Linux {found.release}",
            size_bytes=found.size_bytes,
            is_current=found.is_current,
            program=found.program,
        )
