"""The findings of `vc doctor` about libvirt on this host."""

from __future__ import annotations

import functools

from vc_core.driver_kit import accelerator_finding
from vc_core.spec import Finding, Guest, Verdict
from vc_libvirt import accelerator
from vc_libvirt.connection import Connection
from vc_libvirt.domain_xml import Domain
from vc_libvirt.errors import LibvirtError
from vc_libvirt.options import LibvirtOptions

OLDEST = (8, 0)
_PACKAGES = "install the packages libvirt-daemon-system and qemu-system-x86, and start libvirtd"


async def diagnose(
    connection: Connection, options: LibvirtOptions, guests: tuple[Guest, ...], sample: Domain
) -> tuple[Finding, ...]:
    """Returns findings on libvirtd and the accelerator, tested when there is a guest image.

    Args:
        connection: connection to libvirtd.
        options: the configured options.
        guests: the guest images, the current one first.
        sample: a machine as it would be created.
    """
    try:
        version = _numbers(await connection.call(lambda handle: int(handle.getLibVersion())))
        program = await accelerator.emulator(connection, options)
    except LibvirtError as error:
        return (
            Finding(subject="libvirt", verdict=Verdict.BAD, detail=str(error), remedy=_PACKAGES),
        )
    number = ".".join(map(str, version))
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return (
            Finding(
                subject="libvirt",
                verdict=Verdict.BAD,
                detail=number,
                remedy=f"use libvirt {oldest} or newer",
            ),
        )
    finding = Finding(
        subject="libvirt",
        verdict=Verdict.GOOD,
        detail=f"{number} at {options.uri}, which runs {program}",
    )
    prove = (
        functools.partial(accelerator.prove, connection, options, sample, guests[0])
        if guests
        else None
    )
    return (finding, await accelerator_finding(options.accelerator, accelerator.OPTION, prove))


def _numbers(version: int) -> tuple[int, int, int]:
    """Splits libvirt's version number: 1,000,000 * major + 1,000 * minor + release."""
    return version // 1_000_000, version // 1_000 % 1_000, version % 1_000
