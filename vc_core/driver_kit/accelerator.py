"""Chooses KVM or emulation, by the user's setting and a test of this host."""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable

from vc_core.driver_kit.kvm_proof import KvmProof
from vc_core.spec import Finding, HypervisorError, InvalidRequest, Verdict

log = logging.getLogger(__name__)


class Accelerator(enum.StrEnum):
    """The accelerator of a machine, as configured."""

    AUTO = "auto"  # KVM if it is tested to work, else emulation with a warning
    KVM = "kvm"
    TCG = "tcg"  # emulation


async def choose_accelerator(
    setting: Accelerator, option: str, prove: Callable[[], Awaitable[KvmProof]]
) -> Accelerator:
    """Returns KVM or TCG for a new machine.

    Args:
        setting: the configured accelerator.
        option: the name of that option, for messages.
        prove: tests whether KVM works here; not called when the setting is TCG.

    Raises:
        HypervisorError: the setting is KVM, and KVM does not work here.
    """
    if setting is Accelerator.TCG:
        return Accelerator.TCG
    proof = await prove()
    if proof.works:
        return Accelerator.KVM
    if setting is Accelerator.KVM:
        raise HypervisorError(
            f"KVM does not work here: {proof.detail}; set {option} to auto or tcg"
        )
    level = logging.WARNING if proof.is_new else logging.INFO
    log.log(level, "KVM does not work here (%s); using TCG, which is slower", proof.detail)
    return Accelerator.TCG


async def accelerator_finding(
    setting: Accelerator, option: str, prove: Callable[[], Awaitable[KvmProof]] | None
) -> Finding:
    """Returns the finding of `vc doctor` about the accelerator.

    Args:
        setting: the configured accelerator.
        option: the name of that option, for the remedy.
        prove: tests whether KVM works here; None when there is no guest to test it with.
    """

    def finding(verdict: Verdict, detail: str, remedy: str = "") -> Finding:
        return Finding(subject="acceleration", verdict=verdict, detail=detail, remedy=remedy)

    if setting is Accelerator.TCG:
        return finding(Verdict.WARNING, "TCG, as configured", f"set {option} to auto")
    if prove is None:
        detail = "KVM was not tested, as there is no guest image"
        return finding(Verdict.WARNING, detail, "run 'vc guest build'")
    try:
        proof = await prove()
    except InvalidRequest as error:  # the folder of stored results is not private to this user
        detail, _, remedy = str(error).partition("; ")
        return finding(Verdict.BAD, detail, remedy)
    if proof.works:
        return finding(Verdict.GOOD, f"KVM: {proof.detail}")
    verdict = Verdict.BAD if setting is Accelerator.KVM else Verdict.WARNING
    remedy = "use a host where KVM works; pods run, slower"
    return finding(verdict, f"TCG, because {proof.detail}", remedy)
