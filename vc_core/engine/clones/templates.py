"""Templates: saved machines from which pods are cloned.

A template is made by the first process that needs it and used by all; it may be removed at any
time. Each is a folder with the files of the hypervisor and a manifest. Processes that clone from it
share its lock; a process that makes or removes it holds the lock exclusively.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct, structs

from vc_core.artifact_store import HALF, MANIFEST, ArtifactStore, remove_tree
from vc_core.defaults import Deadlines, Start, TemplateDefaults
from vc_core.driver_kit.ownership import write_private_file
from vc_core.engine.clones import standalone_vm
from vc_core.engine.clones.standalone_vm import StandaloneVm, TemplateNic
from vc_core.engine.state.ids import fresh
from vc_core.engine.state.records import PluggedNic, PluginChoice, decode, encode
from vc_core.engine.wiring.catalog import Catalog
from vc_core.spec.errors import Busy, InvalidRequest, NotFound, VcError
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import Capability, Checkpoint, PodRef, Share, VmSize, VmSpec

log = logging.getLogger(__name__)

_MEMORY = "memory"
_LEFT = "left-by"
NOTHING = "nothing"
FILES = "files"
ROOTS = "roots"
# Shares that every template has: the first root file system, and what root binds for its pods.
TAGS = ("vc0", "vc1")


class Template(Struct, frozen=True):
    """A template, as shown to people.

    Attributes:
        key: hash of everything that shapes it.
        hypervisor: the plugin that made it.
        guest: id of the image that it has booted.
        size: size of its machine.
        made_ns: time of its creation, in nanoseconds since the epoch.
        memory: file of its memory.
        boot: boot id of the host.
        sizes: sizes in bytes of all its files, by name, when it was complete; a template with other
            sizes is damaged.
        bytes: disk space of its files, in bytes.
        nics: network interfaces of its machine: one, or none.
    """

    key: str
    hypervisor: str
    guest: str
    size: VmSize
    made_ns: int
    memory: Path
    boot: str
    sizes: dict[str, int]
    bytes: int = 0
    nics: tuple[PluggedNic, ...] = ()


class Origin(Struct, frozen=True):
    """A saved machine that machines are cloned from, and its network interfaces."""

    checkpoint: Checkpoint
    nics: tuple[PluggedNic, ...]


class TemplateRequest(Struct, frozen=True):
    """The properties of a requested template.

    Attributes:
        plugins: the plugins of the pod.
        spec: the machine, without shares.
        nic: for a template with an interface: what it is made with. Clones may have others: see
            TEMPLATE_MAC.
    """

    plugins: tuple[PluginChoice, ...]
    spec: VmSpec
    nic: TemplateNic | None = None


class Templates:
    """The templates of one configuration."""

    def __init__(self, defaults: TemplateDefaults, catalog: Catalog, deadlines: Deadlines) -> None:
        self.defaults = defaults
        self._catalog = catalog
        self._deadlines = deadlines
        self._artifacts = ArtifactStore(
            defaults.dir, "template.dir", "template", deadlines.boot, self._clear_half
        )

    @asynccontextmanager
    async def origin(self, hooks: Hooks, request: TemplateRequest) -> AsyncIterator[Origin]:
        """Provides the matching template for the length of a block, locked against removal.

        Makes the template when there is none.

        Raises:
            OperationError: making it failed.
            InvalidRequest: the folder belongs to another user.
        """
        key = await self.key(hooks, request)
        folder = self._artifacts.path(key)
        while True:
            async with await self._artifacts.lock(key, exclusive=False):
                found = self._read(key)
                if found is not None:
                    os.utime(folder / MANIFEST)
                    yield Origin(Checkpoint(folder=folder, memory=found.memory), found.nics)
                    return
            await self.make(hooks, request)

    async def make(self, hooks: Hooks, request: TemplateRequest) -> Template:
        """Returns the matching template; boots a machine and saves it when there is none."""
        key = await self.key(hooks, request)
        async with await self._artifacts.lock(key, exclusive=True):
            found = self._read(key)
            if found is None:
                self._discard_unusable(key)
                found = await self._make(key, request)
        await self._drop_oldest(key)
        return found

    async def list(self) -> tuple[Template, ...]:
        """Returns the complete templates, the last used first. Removes what killed makers left."""
        self.folder()
        await self._sweep()
        found = [self._read(name) for name in self._artifacts.names()]
        return tuple(
            sorted(
                (template for template in found if template is not None),
                key=lambda template: -self._used_ns(template.key),
            )
        )

    async def remove(self, prefix: str) -> Template:
        """Removes a template; pods that were cloned from it keep running.

        Raises:
            NotFound: no template, or more than one, begins with `prefix`.
        """
        known = await self.list()
        found = [template for template in known if template.key.startswith(prefix)]
        if len(found) != 1:
            keys = ", ".join(template.key for template in known) or "none"
            raise NotFound(
                f"{len(found) or 'no'} templates begin with {prefix!r}; there are: {keys}"
            )
        async with await self._artifacts.lock(found[0].key, exclusive=True):
            self._discard(found[0].key, found[0].memory)
            self._artifacts.remove_unused_lock(found[0].key)
        return found[0]

    # --- making -----------------------------------------------------------------------------------

    async def _make(self, key: str, request: TemplateRequest) -> Template:
        memory_dir = self.defaults.memory_dir
        log.info("making the template %s", key)
        async with self._artifacts.making(key) as half:
            self._check_room(request.spec.memory_mib)
            memory = Path(memory_dir) / f"vc-{key}-{fresh()}" if memory_dir else half / _MEMORY
            write_private_file(half / _LEFT, str(memory))
            checkpoint = Checkpoint(folder=half, memory=memory)
            nics = await self._boot_and_save(half, checkpoint, request)
            made = Template(
                key=key,
                hypervisor=next(
                    choice.name for choice in request.plugins if choice.family == "hypervisor"
                ),
                guest=request.spec.guest.id,
                size=VmSize(vcpus=request.spec.vcpus, memory_mib=request.spec.memory_mib),
                made_ns=time.time_ns(),
                memory=memory if memory_dir else self._artifacts.path(key) / _MEMORY,
                boot=_host_boot(),
                sizes=_sizes(half, memory),
                nics=nics,
            )
            folder = self._artifacts.complete(half, key, encode(made))
        return structs.replace(made, bytes=_bytes(folder, made.memory))

    async def _boot_and_save(
        self, half: Path, checkpoint: Checkpoint, request: TemplateRequest
    ) -> tuple[PluggedNic, ...]:
        """Boots a machine, prepares its guest, saves the machine and ends it.

        Returns its network interfaces. When it fails, `_clear_half` ends the machine.
        """
        machine = StandaloneVm(self._catalog, self._deadlines, request.plugins, _pod_of(half))
        (half / NOTHING).mkdir(mode=0o700)
        await machine.start(
            structs.replace(request.spec, shares=empty_shares(half), checkpoint_to=checkpoint)
        )
        async with machine.connected():
            nics = () if request.nic is None else (await machine.plug(request.nic),)
            await machine.hooks.agent_quiesce(pod=machine.pod)
        await machine.hooks.vm_checkpoint(pod=machine.pod, into=checkpoint)
        await machine.end()
        machine.forget()
        (half / _LEFT).unlink()
        return nics

    # --- clearing up ------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Removes what killed makers left, and unusable templates."""
        await self._artifacts.sweep()
        for name in self._artifacts.names():
            if self._read(name) is None:  # of an earlier boot of the host, or damaged
                with contextlib.suppress(Busy):  # it is being made or used
                    async with await self._artifacts.lock(name, exclusive=True, limit_s=0):
                        self._discard_unusable(name)
                        self._artifacts.remove_unused_lock(name)

    async def _clear_half(self, half: Path) -> None:
        """Removes an incomplete template with its machine and its memory."""
        if half.exists():
            await standalone_vm.end_left(self._catalog, self._deadlines, _pod_of(half))
            _memory_of_half(half).unlink(missing_ok=True)
            await remove_tree(half)

    def _discard_unusable(self, key: str) -> None:
        if self._artifacts.path(key).exists() and self._read(key, log.warning) is None:
            self._discard(key, self._memory_of(key))

    def _discard(self, key: str, memory: Path) -> None:
        memory.unlink(missing_ok=True)
        self._artifacts.discard(key)

    def _used_ns(self, key: str) -> int:
        """Returns when it was last used, in nanoseconds since the epoch."""
        try:
            return (self._artifacts.path(key) / MANIFEST).stat().st_mtime_ns
        except FileNotFoundError:  # removed meanwhile
            return 0

    async def _drop_oldest(self, kept: str) -> None:
        for template in (await self.list())[self.defaults.keep :]:
            if template.key != kept:
                log.info(
                    "dropping the template %s, which was not used for the longest time",
                    template.key,
                )
                try:
                    await self.remove(template.key)
                except NotFound:
                    continue  # another process was faster

    # --- looking ----------------------------------------------------------------------------------

    def _read(self, key: str, tell: Callable[[str], None] = log.debug) -> Template | None:
        """Returns a complete template of this boot of the host.

        Args:
            key: of the template.
            tell: is told what is damaged: a warning only by the caller that then removes it, for
                one template is read several times.
        """
        folder = self._artifacts.path(key)
        manifest = folder / MANIFEST
        if not manifest.exists():
            return None
        try:
            found = decode(manifest.read_text(), Template, str(manifest))
        except (VcError, OSError, UnicodeDecodeError) as error:
            tell(f"a template cannot be used and is removed: {error}")
            return None
        if found.boot != _host_boot():
            return None
        if found.sizes != _sizes(folder, found.memory):
            tell(
                f"the template {found.key} is damaged: its files have other sizes than when it was "
                "made; it is removed"
            )
            return None
        return structs.replace(found, bytes=_bytes(folder, found.memory))

    def _memory_of(self, key: str) -> Path:
        folder = self._artifacts.path(key)
        try:
            return decode((folder / MANIFEST).read_text(), Template, str(folder)).memory
        except (VcError, OSError, UnicodeDecodeError):
            return folder / _MEMORY

    async def key(self, hooks: Hooks, request: TemplateRequest) -> str:
        """Returns the key of the matching template: a hash of all that shapes a machine."""
        pod = PodRef(id="template", run_dir=self.folder())
        spec = structs.replace(
            request.spec,
            shares=empty_shares(pod.run_dir),
            checkpoint_to=Checkpoint(folder=pod.run_dir, memory=pod.run_dir),
        )
        told = await hooks.vm_fingerprint(pod=pod, spec=spec)
        # Only the hypervisor and the agent shape a machine; storage, device and observer plugins
        # leave no trace in it.
        shaping = [choice for choice in request.plugins if choice.family in ("hypervisor", "agent")]
        versions = [f"{choice.family} {choice.name} {choice.version}" for choice in shaping]
        parts = [told, _host_boot(), *versions, *standalone_vm.shaped_by(request.nic)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def folder(self) -> Path:
        """The folder of the templates; created when it does not exist.

        Raises:
            InvalidRequest: it belongs to another user.
        """
        return self._artifacts.root()

    def _check_room(self, memory_mib: int) -> None:
        where = Path(self.defaults.memory_dir) if self.defaults.memory_dir else self.folder()
        usage = shutil.disk_usage(where)
        free_mib = usage.free >> 20
        if usage.total and free_mib < memory_mib:  # a hugetlbfs does not report its use
            raise InvalidRequest(
                f"{where} has {free_mib} MiB left and a template may take {memory_mib}; "
                "make room there, set "
                "template.dir, or start with --start cold"
            )


CLONING = frozenset({Capability.CLONE, Capability.QUIESCE})
"""The capabilities of hypervisor and agent that starting from a template requires."""


def check(start: Start, capabilities: frozenset[Capability]) -> None:
    """Refuses a start mode that these plugins do not support.

    Raises:
        InvalidRequest: naming the missing capabilities.
    """
    missing = CLONING - capabilities
    if start in (Start.TEMPLATE, Start.POOL) and missing:
        lacks = " and ".join(sorted(missing))
        raise InvalidRequest(
            f"the chosen plugins cannot start from a template: they lack {lacks}; start cold"
        )


def small(spec: VmSpec, defaults: TemplateDefaults, can_grow: bool) -> VmSpec:
    """Returns the template's machine for a machine: one for all sizes, where machines can grow."""
    if not can_grow:
        return spec
    return structs.replace(spec, vcpus=1, memory_mib=min(spec.memory_mib, defaults.memory_mib))


def _pod_of(half: Path) -> PodRef:
    return PodRef(id=f"template-{half.name.removeprefix(HALF)}", run_dir=half)


def empty_shares(run_dir: Path) -> tuple[Share, ...]:
    """Returns the placeholders for shares that a machine does not use yet."""
    nothing = run_dir / NOTHING
    return tuple(Share(tag=tag, path=nothing, read_only=True) for tag in TAGS)


def _memory_of_half(half: Path) -> Path:
    try:
        return Path((half / _LEFT).read_text() or half / _MEMORY)
    except (OSError, UnicodeDecodeError):
        return half / _MEMORY


def _sizes(folder: Path, memory: Path) -> dict[str, int]:
    files = {
        memory,
        *(file for file in folder.iterdir() if file.is_file() and file.name != MANIFEST),
    }
    return {file.name: file.stat().st_size for file in files if file.exists()}


def _bytes(folder: Path, memory: Path) -> int:
    """Returns the disk space used, in bytes; a file with a guest's memory is sparse."""
    files = {memory, *folder.iterdir()}
    return sum(file.stat().st_blocks * 512 for file in files if file.exists())


def _host_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
