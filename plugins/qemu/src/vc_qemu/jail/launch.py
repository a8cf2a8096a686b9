"""Starts a machine's process with the configured layers of the jail that this host supports."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from vc_core.driver_kit import HostProcess
from vc_core.driver_kit.seccomp_filter import SeccompError
from vc_qemu import process
from vc_qemu.command_line import Machine, words
from vc_qemu.errors import QemuError
from vc_qemu.jail import files, limits, plan, spawn
from vc_qemu.jail.enter import Failure, Plan
from vc_qemu.jail.layers import REMEDIES, JailMode, Layer, Missing


class Jailed(Struct, frozen=True):
    """A process in its jail.

    Attributes:
        process: the process.
        missing: layers that this host lacks.
        is_off: whether there is no jail at all.
    """

    process: HostProcess
    missing: tuple[Missing, ...] = ()
    is_off: bool = False

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that confine it."""
        absent = {lack.layer for lack in self.missing}
        return () if self.is_off else tuple(layer for layer in Layer if layer not in absent)


def launch(
    mode: JailMode,
    machine: Machine,
    memories: Sequence[Path],
    known: Path,
    log: Path,
    descriptors: Mapping[int, int],
) -> Jailed:
    """Starts a machine.

    Args:
        mode: the configured mode.
        machine: the machine to start.
        memories: files of memory modules that are plugged before it begins.
        known: folder of stored results about QEMU's files.
        log: receives its messages.
        descriptors: number in the machine to number in this process.

    Raises:
        QemuError: starting failed; in strict mode also: a layer is missing.
    """
    if mode is JailMode.OFF:
        return Jailed(process.spawn(words(machine), log, descriptors), is_off=True)
    program = files.of_program(machine.binary, known)
    if machine.memory_file is not None and not machine.is_clone:
        machine.memory_file.touch(mode=0o600)  # a file must exist to be bound into the jail

    def wanted(absent: frozenset[Layer]) -> Plan:
        return plan.of_machine(machine, program, memories, absent)

    started = start(mode, wanted, log, descriptors, _load_monitor)
    most = max(machine.memory_mib, machine.max_memory_mib)
    vcpus = max(machine.vcpus, machine.max_vcpus)
    bounds = limits.Limits.of(machine.accelerator, most, vcpus)
    try:
        missing = {lack.layer: lack for lack in limit(mode, started, bounds, machine.uuid)}
        if machine.is_clone and (reason := _why_writable(memories, missing)):
            _miss(mode, missing, Layer.TEMPLATE, reason)
    except BaseException:
        started.process.send(signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # another process has started it
            os.waitpid(started.process.pid, 0)
        raise
    return Jailed(started.process, tuple(missing.values()))


def _load_monitor() -> None:
    """Imports the monitor while QEMU starts: the import takes longer."""
    import vc_qemu.monitor  # noqa: F401


def start(
    mode: JailMode,
    wanted: Callable[[frozenset[Layer]], Plan],
    log: Path,
    descriptors: Mapping[int, int],
    meanwhile: Callable[[], None],
) -> Jailed:
    """Starts a process; in auto mode without the layers that the kernel refuses.

    Args:
        mode: strict or auto.
        wanted: returns the plan without some layers.
        log: as for `launch`, like the next one.
        descriptors: descriptors to pass.
        meanwhile: work to do during the start.

    Raises:
        QemuError: starting failed; in strict mode also: a layer is missing.
    """
    missing: dict[Layer, Missing] = {}
    while True:
        try:
            started = spawn.start(wanted(frozenset(missing)), log, descriptors, meanwhile)
        except Failure as failure:
            layer = Layer(failure.layer)
            if layer is Layer.CAPABILITIES:
                raise QemuError(f"the jail: {failure}; {REMEDIES[layer]}") from failure
            _miss(mode, missing, layer, str(failure))
            if layer in (Layer.NAMESPACES, Layer.ROOT):  # one is useless without the other
                for other in (Layer.NAMESPACES, Layer.ROOT):
                    missing.setdefault(other, Missing(other, str(failure), REMEDIES[other]))
        except SeccompError as error:
            _miss(mode, missing, Layer.SECCOMP, str(error))
        else:
            return Jailed(started, tuple(missing.values()))


def limit(
    mode: JailMode, started: Jailed, bounds: limits.Limits, group: str
) -> tuple[Missing, ...]:
    """Sets the limits of a running process; returns all layers that it lacks then.

    Args:
        mode: strict or auto.
        started: the process.
        bounds: its limits.
        group: name of its control group.

    Raises:
        QemuError: in strict mode: setting the limits failed.
    """
    missing = {lack.layer: lack for lack in started.missing}
    is_root = os.geteuid() == 0
    has_user = not is_root and Layer.NAMESPACES not in missing
    try:
        limits.confine(started.process, bounds, is_alone=has_user)
        if is_root:
            limits.join_group(started.process, group, bounds)
        elif not has_user:
            reason = "its threads are counted with the user's other processes"
            _miss(mode, missing, Layer.LIMITS, reason)
    except OSError as error:
        reason = f"{error.filename or started.process.pid}: {error.strerror}"
        _miss(mode, missing, Layer.LIMITS, reason)
    return tuple(missing.values())


def _why_writable(memories: Sequence[Path], missing: Mapping[Layer, Missing]) -> str:
    """Returns why a clone could change memory shared with others; empty if it is unable to."""
    if memories:
        return "memory was plugged into the machine that was saved"
    lacks = [layer.value for layer in (Layer.ROOT, Layer.SECCOMP) if layer in missing]
    return f"it needs the layer {lacks[0]}" if lacks else ""


def _miss(mode: JailMode, missing: dict[Layer, Missing], layer: Layer, reason: str) -> None:
    lack = Missing(layer, reason, REMEDIES[layer])
    if mode is JailMode.STRICT:
        raise QemuError(f"hypervisor.qemu.jail is strict, and a layer is missing: {lack}")
    missing[layer] = lack
