"""Which accelerator, and what a user should know about this host."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess

from vc_core.spec import Finding, Guest, Verdict
from vc_qemu import proof
from vc_qemu.command_line import proof_words
from vc_qemu.errors import QemuError
from vc_qemu.options import Accelerator, QemuOptions

log = logging.getLogger(__name__)

OLDEST = (7, 2)
_VERSION = re.compile(r"version (\d+)\.(\d+)")
_PACKAGE = "install the package qemu-system-x86"


async def accelerator(options: QemuOptions, binary: str, guest: Guest) -> str:
    """What was chosen, or what is proven: "kvm" or "tcg".

    Raises:
        QemuError: KVM was demanded and does not work here.
    """
    if options.accelerator is Accelerator.TCG:
        return "tcg"
    command = proof_words(binary, guest.kernel, guest.initrd, guest.proof_parameters)
    found = await proof.proven(command, options.proof_dir, options.proof_timeout_s)
    if found.works:
        return "kvm"
    if options.accelerator is Accelerator.KVM:
        raise QemuError(f"KVM does not work here: {found.detail}; set hypervisor.qemu.accelerator to auto or tcg")
    say = log.warning if found.is_new else log.info
    say("KVM does not work here (%s); using TCG, which is slower", found.detail)
    return "tcg"


async def diagnose(options: QemuOptions) -> tuple[Finding, ...]:
    """Findings on the binary and on the acceleration, as far as it has been proven."""
    binary = shutil.which(options.binary)
    if binary is None:
        return (Finding("QEMU", Verdict.BAD, f"{options.binary} is missing", _PACKAGE),)
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout
    match = _VERSION.search(text)
    line = text.partition("\n")[0]
    if match is None or (int(match[1]), int(match[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return (Finding("QEMU", Verdict.BAD, f"{line or 'does not say its version'}", f"use QEMU {oldest} or newer"),)
    return (Finding("QEMU", Verdict.GOOD, line), _acceleration(options, binary))


def _acceleration(options: QemuOptions, binary: str) -> Finding:
    if options.accelerator is Accelerator.TCG:
        return Finding("acceleration", Verdict.WARNING, "TCG, as configured", "set hypervisor.qemu.accelerator to auto")
    found = proof.remembered(binary, options.proof_dir)
    if found is None:
        return Finding("acceleration", Verdict.WARNING, "KVM is not proven yet", "start a pod: the first one proves it")
    if found.works:
        return Finding("acceleration", Verdict.GOOD, f"KVM: {found.detail}")
    verdict = Verdict.BAD if options.accelerator is Accelerator.KVM else Verdict.WARNING
    return Finding(
        "acceleration", verdict, f"TCG, because {found.detail}", "use a host where KVM works; pods run, slower"
    )
