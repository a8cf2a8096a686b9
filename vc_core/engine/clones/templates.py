"""Templates: saved machines from which pods are cloned. Made by whoever comes first, used by all,
dropped at will.

A folder each, below the configured one: what the hypervisor has saved, and a manifest, which is
written last. A folder gets its name when it is complete. Its lock is held by all who clone from it,
alone by who makes or removes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from vc_core.defaults import Deadlines, Start, TemplateDefaults
from vc_core.driver_kit.file_lock import FileLock, LockTimeout, lock_file
from vc_core.driver_kit.ownership import private_folder, write_private_file
from vc_core.engine.clones import standalone_vm
from vc_core.engine.clones.standalone_vm import StandaloneVm
from vc_core.engine.state.ids import fresh
from vc_core.engine.state.records import PluginChoice, decode, encode
from vc_core.engine.state.rollback import Rollback
from vc_core.engine.wiring.catalog import Catalog
from vc_core.spec.errors import Busy, InvalidRequest, NotFound, VcError
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import Capability, Checkpoint, PodRef, Share, VmSize, VmSpec

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_MEMORY = "memory"
_HALF = "half-"
_LEFT = "left-by"
NOTHING = "nothing"
FILES = "files"
ROOTS = "roots"
# Shares that every template has: the first root file system, and what root binds for its pods.
TAGS = ("vc0", "vc1")


@dataclass(frozen=True)
class Template:
    """A template as people see it.

    Attributes:
        key: of all that shapes it.
        hypervisor: the plugin that made it.
        guest: the id of the image that it has booted.
        size: of its machine.
        made_ns: since the epoch.
        memory: the file of its memory.
        boot: of the host.
        sizes: of all its files, by name, when it was complete: one that has others now is damaged.
        bytes: what its files take.
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


@dataclass(frozen=True)
class TemplateRequest:
    """What a template is wanted for.

    Attributes:
        plugins: of the pod.
        spec: the machine, without shares.
    """

    plugins: tuple[PluginChoice, ...]
    spec: VmSpec


class Templates:
    """The templates of one configuration."""

    def __init__(self, defaults: TemplateDefaults, catalog: Catalog, deadlines: Deadlines) -> None:
        self.defaults = defaults
        self._catalog = catalog
        self._deadlines = deadlines

    @asynccontextmanager
    async def origin(self, hooks: Hooks, request: TemplateRequest) -> AsyncIterator[Checkpoint]:
        """The template that fits, for the length of a block in which nobody can remove it; made
        when there is none.

        Raises:
            OperationError: it cannot be made.
            InvalidRequest: the folder is not ours.
        """
        folder = self.folder()
        key = await self.key(hooks, request)
        while True:
            async with await self._lock(key, exclusive=False):
                found = self._read(folder / key)
                if found is not None:
                    os.utime(folder / key / _MANIFEST)
                    yield Checkpoint(folder / key, found.memory)
                    return
            await self.make(hooks, request)

    async def make(self, hooks: Hooks, request: TemplateRequest) -> Template:
        """The template that fits; boots a machine and saves it when there is none."""
        folder = self.folder()
        key = await self.key(hooks, request)
        async with await self._lock(key, exclusive=True):
            found = self._read(folder / key)
            if found is None:
                await self._sweep(key)
                self._check_room(request.spec.memory_mib)
                found = await self._make(key, request)
        await self._drop_oldest(key)
        return found

    async def list(self) -> tuple[Template, ...]:
        """Those that are complete, the last used first. What killed makers left is taken away."""
        folder = self.folder()
        await self._sweep_all()
        manifests = sorted(folder.glob(f"*/{_MANIFEST}"), key=lambda path: -path.stat().st_mtime_ns)
        found = (
            self._read(manifest.parent)
            for manifest in manifests
            if not manifest.parent.name.startswith(_HALF)
        )
        return tuple(template for template in found if template is not None)

    async def remove(self, prefix: str) -> Template:
        """Drops one; pods that were cloned from it go on.

        Raises:
            NotFound: none begins with `prefix`, or several do.
        """
        known = await self.list()
        found = [template for template in known if template.key.startswith(prefix)]
        if len(found) != 1:
            keys = ", ".join(template.key for template in known) or "none"
            raise NotFound(
                f"{len(found) or 'no'} templates begin with {prefix!r}; there are: {keys}"
            )
        async with await self._lock(found[0].key, exclusive=True):
            self._drop(self.folder() / found[0].key, found[0].memory)
            self._lock_path(found[0].key).unlink(missing_ok=True)
        return found[0]

    # --- making -----------------------------------------------------------------------------------

    async def _make(self, key: str, request: TemplateRequest) -> Template:
        target = self.folder() / key
        half = target.with_name(_HALF + key)
        memory_dir = self.defaults.memory_dir
        memory = Path(memory_dir) / f"vc-{key}-{fresh()}" if memory_dir else half / _MEMORY
        half.mkdir(mode=0o700)
        write_private_file(half / _LEFT, str(memory))
        log.info("making the template %s", key)
        async with Rollback() as rollback:
            rollback.push(self._sweep, key)
            await self._boot_and_save(half, Checkpoint(half, memory), request)
            final = memory if memory_dir else target / _MEMORY
            hypervisor = next(
                choice.name for choice in request.plugins if choice.family == "hypervisor"
            )
            size = VmSize(request.spec.vcpus, request.spec.memory_mib)
            sizes = _sizes(half, memory)
            made = Template(
                key,
                hypervisor,
                request.spec.guest.id,
                size,
                time.time_ns(),
                final,
                _host_boot(),
                sizes,
            )
            write_private_file(half / _MANIFEST, encode(made))
            half.rename(target)
        return dataclasses.replace(made, bytes=_bytes(target, final))

    async def _boot_and_save(
        self, half: Path, checkpoint: Checkpoint, request: TemplateRequest
    ) -> None:
        """Boots a machine of its own, readies its guest, saves it and ends it; when it fails,
        `_sweep` ends it.
        """
        machine = StandaloneVm(self._catalog, self._deadlines, request.plugins, _pod_of(half))
        (half / NOTHING).mkdir(mode=0o700)
        await machine.start(
            dataclasses.replace(request.spec, shares=empty_shares(half), checkpoint_to=checkpoint)
        )
        async with machine.connected():
            await machine.hooks.agent_quiesce(pod=machine.pod)
        await machine.hooks.vm_checkpoint(pod=machine.pod, into=checkpoint)
        await machine.end()
        machine.forget()
        (half / _LEFT).unlink()

    # --- clearing up ------------------------------------------------------------------------------

    async def _sweep_all(self) -> None:
        folder = self.folder()
        for half in folder.glob(f"{_HALF}*"):
            await self._sweep_unlocked(half.name.removeprefix(_HALF))
        for manifest in folder.glob(f"*/{_MANIFEST}"):
            if self._read(manifest.parent) is None:  # of an earlier boot of the host, or damaged
                await self._sweep_unlocked(manifest.parent.name)

    async def _sweep_unlocked(self, key: str) -> None:
        try:
            lock = await self._lock(key, exclusive=True, limit_s=0)
        except Busy:
            return  # being made or used
        async with lock:
            await self._sweep(key)

    async def _sweep(self, key: str) -> None:
        """Takes away what a maker left that was killed, its machine included, and a template that
        cannot be used.
        """
        folder = self.folder()
        half = folder / (_HALF + key)
        if half.exists():
            await standalone_vm.end_left(self._catalog, self._deadlines, _pod_of(half))
            await _discard(half, _memory_of_half(half))
        if (folder / key).exists() and self._read(folder / key) is None:
            self._drop(folder / key, self._memory_of(folder / key))

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
                    continue  # somebody else was faster

    @staticmethod
    def _drop(folder: Path, memory: Path) -> None:
        with contextlib.suppress(OSError):  # damaged: it is no file
            (folder / _MANIFEST).unlink(missing_ok=True)  # first: without it there is no template
        memory.unlink(missing_ok=True)
        shutil.rmtree(folder)

    # --- looking ----------------------------------------------------------------------------------

    def _read(self, folder: Path) -> Template | None:
        """A complete template of this boot of the host."""
        manifest = folder / _MANIFEST
        if not manifest.exists():
            return None
        try:
            found = decode(manifest.read_text(), Template, str(manifest))
        except (VcError, OSError, UnicodeDecodeError) as error:
            log.warning("a template cannot be used: %s", error)
            return None
        if found.boot != _host_boot():
            return None
        if found.sizes != _sizes(folder, found.memory):
            log.warning(
                "the template %s is damaged: its files have other sizes than when it was made",
                found.key,
            )
            return None
        return dataclasses.replace(found, bytes=_bytes(folder, found.memory))

    def _memory_of(self, folder: Path) -> Path:
        try:
            return decode((folder / _MANIFEST).read_text(), Template, str(folder)).memory
        except (VcError, OSError, UnicodeDecodeError):
            return folder / _MEMORY

    async def key(self, hooks: Hooks, request: TemplateRequest) -> str:
        """The name of the template that fits: of all that shapes a machine, and of this boot of the
        host.
        """
        pod = PodRef("template", self.folder())
        spec = dataclasses.replace(
            request.spec,
            shares=empty_shares(pod.run_dir),
            checkpoint_to=Checkpoint(pod.run_dir, pod.run_dir),
        )
        told = await hooks.vm_fingerprint(pod=pod, spec=spec)
        # Whoever runs the machine and whoever lives in it; who stores, passes devices or watches
        # leaves no trace in it.
        shaping = [choice for choice in request.plugins if choice.family in ("hypervisor", "agent")]
        versions = [f"{choice.family} {choice.name} {choice.version}" for choice in shaping]
        return hashlib.sha256("\n".join([told, _host_boot(), *versions]).encode()).hexdigest()[:16]

    async def _lock(self, key: str, exclusive: bool, limit_s: float | None = None) -> FileLock:
        limit = self._deadlines.boot if limit_s is None else limit_s
        try:
            return await lock_file(self._lock_path(key), exclusive, limit)
        except LockTimeout as error:
            raise Busy(f"the template {key} is being made or used: {error}") from error

    def _lock_path(self, key: str) -> Path:
        return self.folder() / f"{key}.lock"

    def folder(self) -> Path:
        """Where they lie, made when it is not there.

        Raises:
            InvalidRequest: it is somebody else's.
        """
        return private_folder(self.defaults.dir, "template.dir")

    def _check_room(self, memory_mib: int) -> None:
        where = Path(self.defaults.memory_dir) if self.defaults.memory_dir else self.folder()
        usage = shutil.disk_usage(where)
        free_mib = usage.free >> 20
        if usage.total and free_mib < memory_mib:  # a hugetlbfs tells nothing
            raise InvalidRequest(
                f"{where} has {free_mib} MiB left and a template may take {memory_mib}; "
                "make room there, set "
                "template.dir, or start with --start cold"
            )


CLONING = frozenset({Capability.CLONE, Capability.QUIESCE})
"""What starting from a template needs of both sides."""


def check(start: Start, capabilities: frozenset[Capability]) -> None:
    """Refuses a way to start that these plugins do not have.

    Raises:
        InvalidRequest: naming what they lack.
    """
    missing = CLONING - capabilities
    if start in (Start.TEMPLATE, Start.POOL) and missing:
        lacks = " and ".join(sorted(missing))
        raise InvalidRequest(
            f"the chosen plugins cannot start from a template: they lack {lacks}; start cold"
        )


def small(spec: VmSpec, defaults: TemplateDefaults, can_grow: bool) -> VmSpec:
    """The machine of the template for a machine: one for all sizes, where machines can grow."""
    if not can_grow:
        return spec
    return dataclasses.replace(spec, vcpus=1, memory_mib=min(spec.memory_mib, defaults.memory_mib))


def _pod_of(half: Path) -> PodRef:
    return PodRef(f"template-{half.name.removeprefix(_HALF)}", half)


def empty_shares(run_dir: Path) -> tuple[Share, ...]:
    """What stands in for folders that a machine has no use for yet."""
    nothing = run_dir / NOTHING
    return tuple(Share(tag, nothing, True) for tag in TAGS)


def _memory_of_half(half: Path) -> Path:
    try:
        return Path((half / _LEFT).read_text() or half / _MEMORY)
    except (OSError, UnicodeDecodeError):
        return half / _MEMORY


async def _discard(half: Path, memory: Path) -> None:
    memory.unlink(missing_ok=True)
    shutil.rmtree(half)


def _sizes(folder: Path, memory: Path) -> dict[str, int]:
    files = {
        memory,
        *(file for file in folder.iterdir() if file.is_file() and file.name != _MANIFEST),
    }
    return {file.name: file.stat().st_size for file in files if file.exists()}


def _bytes(folder: Path, memory: Path) -> int:
    """What is really taken: a guest's memory is a file with holes."""
    files = {memory, *folder.iterdir()}
    return sum(file.stat().st_blocks * 512 for file in files if file.exists())


def _host_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
