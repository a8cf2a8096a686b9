"""The findings of `vc doctor` about QEMU and KVM on this host."""

from __future__ import annotations

import asyncio
import functools
import re
import subprocess

from vc_core.driver_kit import accelerator_finding, find_program, program_environment
from vc_core.spec import Finding, Guest, Verdict
from vc_qemu import accelerator
from vc_qemu.jail import probe
from vc_qemu.options import QemuOptions

OLDEST = (7, 2)
_VERSION = r"version (\d+)\.(\d+)"
_PACKAGE = "install the package qemu-system-x86"
_INSTALL = "apt-get install -y --no-install-recommends qemu-system-x86"


async def diagnose(options: QemuOptions, guests: tuple[Guest, ...]) -> tuple[Finding, ...]:
    """Returns findings on QEMU and the accelerator, which is tested when there is a guest image."""
    binary = find_program(options.binary)
    if binary is None:
        return (
            Finding(
                subject="QEMU",
                verdict=Verdict.BAD,
                detail=f"{options.binary} is missing",
                remedy=_PACKAGE,
                fix=_INSTALL,
            ),
        )
    text = subprocess.run(
        [binary, "--version"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=program_environment(),
    ).stdout
    match = re.search(_VERSION, text)
    line = text.partition("\n")[0]
    if match is None or (int(match[1]), int(match[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return (
            Finding(
                subject="QEMU",
                verdict=Verdict.BAD,
                detail=f"{line or 'does not say its version'}",
                remedy=f"use QEMU {oldest} or newer",
            ),
        )
    jail = await asyncio.to_thread(probe.findings, options.jail, binary, options.proof_dir)
    acceleration = await _acceleration(options, binary, guests)
    return (Finding(subject="QEMU", verdict=Verdict.GOOD, detail=line), acceleration, *jail)


async def _acceleration(options: QemuOptions, binary: str, guests: tuple[Guest, ...]) -> Finding:
    prove = functools.partial(accelerator.prove, options, binary, guests[0]) if guests else None
    return await accelerator_finding(options.accelerator, accelerator.OPTION, prove)
