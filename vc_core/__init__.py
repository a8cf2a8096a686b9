"""Containers in lightweight virtual machines, every driver a plugin.

    async with Runtime.open() as runtime:
        async with runtime.pod() as pod:
            result = await pod.run("uname", "-a")

The same API without asyncio is in `vc_core.blocking`. Names are imported when they are first used.
"""

from __future__ import annotations

from vc_core.lazy_names import lazy_names

__version__ = "0.1.0"

TYPE_CHECKING = False  # as typing has it, which takes longer to import than all of this

if TYPE_CHECKING:
    from vc_core.config import Config, load
    from vc_core.defaults import Start
    from vc_core.engine.api.children import Children
    from vc_core.engine.api.container import Container
    from vc_core.engine.api.container_status import ContainerStatus
    from vc_core.engine.api.file_entries import Change, FileChange, FileInfo, FileKind
    from vc_core.engine.api.files import Files
    from vc_core.engine.api.pod import Pod
    from vc_core.engine.api.pod_listing import Listing, PodStatus
    from vc_core.engine.api.process import End, Process, Result
    from vc_core.engine.api.runtime import Runtime
    from vc_core.engine.resources.container_log import LogLine
    from vc_core.engine.state.boot_assets import Asset, Assets
    from vc_core.engine.state.states import State
    from vc_core.images import Image, ImageConfig, ImageError, Images
    from vc_core.spec.errors import VcError
    from vc_core.spec.values import (
        Capabilities,
        Confinement,
        ContainerSpec,
        Dns,
        ExitStatus,
        Health,
        HealthCheck,
        HostDevice,
        HostEntry,
        Mount,
        MountKind,
        NetworkPolicy,
        NetworkRule,
        OciHook,
        OciHooks,
        PodOptions,
        PortMapping,
        PortProtocol,
        ProcessSpec,
        Reserved,
        Resources,
        Restart,
        RestartPolicy,
        Rlimit,
        Rootfs,
        RootfsMode,
        StandIn,
        Stdio,
        StreamName,
        VmSize,
    )

_HOMES = {
    "Asset": "vc_core.engine.state.boot_assets",
    "Assets": "vc_core.engine.state.boot_assets",
    "Capabilities": "vc_core.spec.values",
    "Change": "vc_core.engine.api.file_entries",
    "Children": "vc_core.engine.api.children",
    "Config": "vc_core.config",
    "Confinement": "vc_core.spec.values",
    "Container": "vc_core.engine.api.container",
    "ContainerSpec": "vc_core.spec.values",
    "ContainerStatus": "vc_core.engine.api.container_status",
    "Dns": "vc_core.spec.values",
    "End": "vc_core.engine.api.process",
    "ExitStatus": "vc_core.spec.values",
    "FileChange": "vc_core.engine.api.file_entries",
    "FileInfo": "vc_core.engine.api.file_entries",
    "FileKind": "vc_core.engine.api.file_entries",
    "Files": "vc_core.engine.api.files",
    "Health": "vc_core.spec.values",
    "HealthCheck": "vc_core.spec.values",
    "HostDevice": "vc_core.spec.values",
    "HostEntry": "vc_core.spec.values",
    "Image": "vc_core.images",
    "ImageConfig": "vc_core.images",
    "ImageError": "vc_core.images",
    "Images": "vc_core.images",
    "NetworkPolicy": "vc_core.spec.values",
    "NetworkRule": "vc_core.spec.values",
    "OciHook": "vc_core.spec.values",
    "OciHooks": "vc_core.spec.values",
    "Listing": "vc_core.engine.api.pod_listing",
    "LogLine": "vc_core.engine.resources.container_log",
    "Mount": "vc_core.spec.values",
    "MountKind": "vc_core.spec.values",
    "Pod": "vc_core.engine.api.pod",
    "PodOptions": "vc_core.spec.values",
    "PortMapping": "vc_core.spec.values",
    "PortProtocol": "vc_core.spec.values",
    "PodStatus": "vc_core.engine.api.pod_listing",
    "Process": "vc_core.engine.api.process",
    "ProcessSpec": "vc_core.spec.values",
    "Reserved": "vc_core.spec.values",
    "Resources": "vc_core.spec.values",
    "Restart": "vc_core.spec.values",
    "RestartPolicy": "vc_core.spec.values",
    "Result": "vc_core.engine.api.process",
    "Rlimit": "vc_core.spec.values",
    "Rootfs": "vc_core.spec.values",
    "RootfsMode": "vc_core.spec.values",
    "Runtime": "vc_core.engine.api.runtime",
    "Start": "vc_core.defaults",
    "State": "vc_core.engine.state.states",
    "StandIn": "vc_core.spec.values",
    "Stdio": "vc_core.spec.values",
    "StreamName": "vc_core.spec.values",
    "VcError": "vc_core.spec.errors",
    "VmSize": "vc_core.spec.values",
    "load": "vc_core.config",
}

__all__ = [
    "Asset",
    "Assets",
    "Capabilities",
    "Change",
    "Children",
    "Config",
    "Confinement",
    "Container",
    "ContainerSpec",
    "ContainerStatus",
    "Dns",
    "End",
    "ExitStatus",
    "FileChange",
    "FileInfo",
    "FileKind",
    "Files",
    "Health",
    "HealthCheck",
    "HostDevice",
    "HostEntry",
    "Image",
    "ImageConfig",
    "ImageError",
    "Images",
    "Listing",
    "LogLine",
    "Mount",
    "MountKind",
    "NetworkPolicy",
    "NetworkRule",
    "OciHook",
    "OciHooks",
    "Pod",
    "PodOptions",
    "PodStatus",
    "PortMapping",
    "PortProtocol",
    "Process",
    "ProcessSpec",
    "Reserved",
    "Resources",
    "Restart",
    "RestartPolicy",
    "Result",
    "Rlimit",
    "Rootfs",
    "RootfsMode",
    "Runtime",
    "StandIn",
    "Start",
    "State",
    "Stdio",
    "StreamName",
    "VcError",
    "VmSize",
    "load",
]


__getattr__ = lazy_names(__name__, _HOMES)
