"""Determines which layers of the jail this host supports, with a QEMU without a machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
from pathlib import Path

from vc_core.spec import Finding, Verdict
from vc_qemu.command_line import MONITOR_FD, SANDBOX, option
from vc_qemu.errors import QemuError
from vc_qemu.jail import files, launch, limits, plan
from vc_qemu.jail.enter import Plan
from vc_qemu.jail.layers import ABOUT, REMEDIES, JailMode, Layer, Missing
from vc_qemu.sockets import listening_socket

_ANSWER_S = 20.0


def findings(mode: JailMode, binary: str, known: Path) -> tuple[Finding, ...]:
    """Returns a finding on each layer that confines machines on this host.

    Args:
        mode: the configured mode.
        binary: QEMU's path.
        known: as for `launch.launch`.
    """
    if mode is JailMode.OFF:
        remedy = "set hypervisor.qemu.jail to auto"
        return (_finding("jail", Verdict.WARNING, "off, as configured", remedy),)
    try:
        missing = {lack.layer: lack for lack in _missing(binary, known)}
    except QemuError as error:
        remedy = "set hypervisor.qemu.jail to off, and report this"
        return (_finding("jail", Verdict.BAD, f"QEMU does not start in it: {error}", remedy),)
    bad = Verdict.BAD if mode is JailMode.STRICT else Verdict.WARNING
    return tuple(
        _finding(f"jail: {layer.value}", bad, missing[layer].reason, missing[layer].remedy)
        if layer in missing
        else _finding(f"jail: {layer.value}", Verdict.GOOD, ABOUT[layer])
        for layer in Layer
    )


def _finding(subject: str, verdict: Verdict, detail: str, remedy: str = "") -> Finding:
    return Finding(subject=subject, verdict=verdict, detail=detail, remedy=remedy)


def _missing(binary: str, known: Path) -> tuple[Missing, ...]:
    """Starts QEMU in the jail, and waits until its monitor answers.

    Raises:
        QemuError: it does not start.
    """
    program = files.of_program(binary, known)
    with tempfile.TemporaryDirectory(prefix="vc-jail-") as name:
        folder = Path(name)
        log = folder / "log"
        with listening_socket(folder / "qmp") as monitor:
            started = launch.start(
                JailMode.AUTO,
                lambda absent: _plan(program, folder, absent),
                log,
                {MONITOR_FD: monitor.fileno()},
                lambda: None,
            )
        try:
            _greet(folder / "qmp", log)
            missing = launch.limit(JailMode.AUTO, started, limits.Limits(1024, 64), "doctor")
        finally:
            started.process.send(signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # another process has started it
                os.waitpid(started.process.pid, 0)
            limits.leave_groups()
    lacks = {lack.layer: lack for lack in missing}
    if absent := {Layer.ROOT, Layer.SECCOMP} & set(lacks):
        reason = f"it needs the layer {min(absent).value}"
        lacks[Layer.TEMPLATE] = Missing(Layer.TEMPLATE, reason, REMEDIES[Layer.TEMPLATE])
    return tuple(lacks.values())


def _plan(program: files.Program, folder: Path, absent: frozenset[Layer]) -> Plan:
    words = ("-machine", "none", "-nodefaults", "-no-user-config", "-display", "none")
    chardev = option("socket", id="monitor", fd=MONITOR_FD, server=True, wait=False)
    monitor = ("-chardev", chardev, "-mon", option("monitor", mode="control"))
    argv = (program.files[0], *words, *SANDBOX, *monitor)
    return plan.of_words(argv, program, folder, absent)


def _greet(path: Path, log: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_ANSWER_S)
        try:
            client.connect(str(path))
            if b"QMP" in client.recv(4096):
                return
        except OSError as error:
            raise QemuError(f"its monitor does not answer: {error}") from error
    raise QemuError(log.read_text(errors="replace").strip() or "it ended without a message")
