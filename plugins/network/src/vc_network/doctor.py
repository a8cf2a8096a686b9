"""The findings of `vc doctor` about networks of pods."""

from __future__ import annotations

import os
from pathlib import Path

from vc_core.driver_kit import find_program
from vc_core.driver_kit.seccomp_filter import SeccompError
from vc_core.spec import Finding, Verdict
from vc_network import confined
from vc_network.namespace import PACKAGES, TUN, TUN_REMEDY

_USER_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")


_OF_PASTA = ("unshare", "prlimit", "sleep", "nft", "ip", "pasta")
_OF_REDIRECTION = ("ip", "tc")


def diagnose() -> tuple[Finding, ...]:
    """Checks the programs, the tap device, user namespaces, and the filter of names."""
    return (_programs(_OF_PASTA), _tun(), _user_namespaces(), _filter_of_names())


def diagnose_redirected() -> tuple[Finding, ...]:
    """Checks what machines in namespaces of somebody else need."""
    return (_programs(_OF_REDIRECTION), _tun())


def _programs(names: tuple[str, ...]) -> Finding:
    missing = {PACKAGES[name] for name in names if find_program(name) is None}
    if missing:
        remedy = f"apt-get install {' '.join(sorted(missing))}"
        return Finding(
            subject="network programs",
            verdict=Verdict.BAD,
            detail="pods can have no network: programs are missing",
            remedy=remedy,
        )
    return Finding(
        subject="network programs",
        verdict=Verdict.GOOD,
        detail=f"found: {', '.join(sorted(names))}",
    )


def forwarding() -> Finding:
    """Checks what `kubectl port-forward` needs."""
    subject = "forwarding of ports"
    if find_program("nft") is None:
        return Finding(
            subject=subject,
            verdict=Verdict.WARNING,
            detail="'kubectl port-forward' does not reach pods of engines: nft is missing",
            remedy=f"apt-get install {PACKAGES['nft']}",
        )
    return Finding(subject=subject, verdict=Verdict.GOOD, detail="nft is installed")


def _tun() -> Finding:
    if os.access(TUN, os.R_OK | os.W_OK):
        return Finding(
            subject="network device", verdict=Verdict.GOOD, detail=f"{TUN} can be opened"
        )
    detail = f"{TUN} is missing" if not TUN.exists() else f"{TUN} may not be opened by this user"
    return Finding(
        subject="network device",
        verdict=Verdict.BAD,
        detail=detail,
        remedy=f"as root: {TUN_REMEDY}",
    )


def _filter_of_names() -> Finding:
    subject = "filter of names"
    try:
        confined.compiled()
    except SeccompError as error:
        detail = f"policies with names are refused: {error}"
        return Finding(
            subject=subject,
            verdict=Verdict.WARNING,
            detail=detail,
            remedy="apt-get install libseccomp2",
        )
    detail = "no files, capabilities and processes for what reads guests"
    return Finding(subject=subject, verdict=Verdict.GOOD, detail=detail)


def _user_namespaces() -> Finding:
    if _USER_NAMESPACES.exists() and int(_USER_NAMESPACES.read_text()) > 0:
        return Finding(
            subject="user namespaces", verdict=Verdict.GOOD, detail="this kernel allows them"
        )
    remedy = "as root: 'sysctl user.max_user_namespaces=15000'"
    return Finding(
        subject="user namespaces",
        verdict=Verdict.BAD,
        detail="this kernel allows none, and networks of pods need them",
        remedy=remedy,
    )
