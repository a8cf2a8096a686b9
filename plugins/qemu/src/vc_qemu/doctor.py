"""Which accelerator, and what a user should know about this host."""

from __future__ import annotations

import logging
import re
import subprocess

from vc_core.driver_kit import Accelerator, KvmProof, find_program, program_environment, prove_kvm
from vc_core.spec import Finding, Guest, InvalidRequest, Verdict
from vc_qemu import kvm_probe
from vc_qemu.command_line import proof_words
from vc_qemu.errors import QemuError
from vc_qemu.options import QemuOptions

log = logging.getLogger(__name__)

OLDEST = (7, 2)
_VERSION = re.compile(r"version (\d+)\.(\d+)")
_PACKAGE = "install the package qemu-system-x86"
_INSTALL = "apt-get install -y --no-install-recommends qemu-system-x86"


async def accelerator(options: QemuOptions, binary: str, guest: Guest) -> str:
    """What was chosen, or what is proven: "kvm" or "tcg".

    Raises:
        QemuError: KVM was demanded and does not work here.
    """
    if options.accelerator is Accelerator.TCG:
        return "tcg"
    found = await _prove(options, binary, guest)
    if found.works:
        return "kvm"
    if options.accelerator is Accelerator.KVM:
        raise QemuError(
            f"KVM does not work here: {found.detail}; set hypervisor.qemu.accelerator to auto or tcg"
        )
    say = log.warning if found.is_new else log.info
    say("KVM does not work here (%s); using TCG, which is slower", found.detail)
    return "tcg"


async def _prove(options: QemuOptions, binary: str, guest: Guest) -> KvmProof:
    command = proof_words(binary, guest.kernel, guest.initrd, guest.proof_parameters)
    return await prove_kvm(
        binary, options.proof_dir, lambda: kvm_probe.boot(command, options.proof_timeout_s)
    )


async def diagnose(options: QemuOptions, guests: tuple[Guest, ...]) -> tuple[Finding, ...]:
    """Findings on the binary and on the acceleration, which is proven when there is a guest to prove it with."""
    binary = find_program(options.binary)
    if binary is None:
        return (Finding("QEMU", Verdict.BAD, f"{options.binary} is missing", _PACKAGE, _INSTALL),)
    text = subprocess.run(
        [binary, "--version"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=program_environment(),
    ).stdout
    match = _VERSION.search(text)
    line = text.partition("\n")[0]
    if match is None or (int(match[1]), int(match[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return (
            Finding(
                "QEMU",
                Verdict.BAD,
                f"{line or 'does not say its version'}",
                f"use QEMU {oldest} or newer",
            ),
        )
    return (Finding("QEMU", Verdict.GOOD, line), await _acceleration(options, binary, guests))


async def _acceleration(options: QemuOptions, binary: str, guests: tuple[Guest, ...]) -> Finding:
    if options.accelerator is Accelerator.TCG:
        return Finding(
            "acceleration",
            Verdict.WARNING,
            "TCG, as configured",
            "set hypervisor.qemu.accelerator to auto",
        )
    if not guests:
        return Finding(
            "acceleration",
            Verdict.WARNING,
            "KVM is not proven: there is no guest",
            "run 'vc guest build'",
        )
    try:
        found = await _prove(options, binary, guests[0])
    except InvalidRequest as error:
        detail, _, remedy = str(error).partition("; ")
        return Finding("acceleration", Verdict.BAD, detail, remedy)
    if found.works:
        return Finding("acceleration", Verdict.GOOD, f"KVM: {found.detail}")
    verdict = Verdict.BAD if options.accelerator is Accelerator.KVM else Verdict.WARNING
    return Finding(
        "acceleration",
        verdict,
        f"TCG, because {found.detail}",
        "use a host where KVM works; pods run, slower",
    )
