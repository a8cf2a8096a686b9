"""What a user should know about this host's libvirt."""

from __future__ import annotations

from vc_core.driver_kit import Accelerator
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
    """Findings on libvirtd and on the acceleration, which is proven when there is a guest to prove it with.

    Args:
        connection: to libvirtd.
        options: as configured.
        guests: to prove with, the current one first.
        sample: a machine as it would be made.
    """
    try:
        version = _numbers(await connection.call(lambda handle: int(handle.getLibVersion())))
        program = await accelerator.emulator(connection, options)
    except LibvirtError as error:
        return (Finding("libvirt", Verdict.BAD, str(error), _PACKAGES),)
    told = ".".join(map(str, version))
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return (Finding("libvirt", Verdict.BAD, told, f"use libvirt {oldest} or newer"),)
    found = Finding("libvirt", Verdict.GOOD, f"{told} at {options.uri}, which runs {program}")
    return (found, await _acceleration(connection, options, guests, sample))


async def _acceleration(
    connection: Connection, options: LibvirtOptions, guests: tuple[Guest, ...], sample: Domain
) -> Finding:
    if options.accelerator is Accelerator.TCG:
        remedy = "set hypervisor.libvirt.accelerator to auto"
        return Finding("acceleration", Verdict.WARNING, "TCG, as configured", remedy)
    if not guests:
        return Finding(
            "acceleration",
            Verdict.WARNING,
            "KVM is not proven: there is no guest",
            "run 'vc guest build'",
        )
    found = await accelerator.prove(connection, options, sample, guests[0])
    if found.works:
        return Finding("acceleration", Verdict.GOOD, f"KVM: {found.detail}")
    verdict = Verdict.BAD if options.accelerator is Accelerator.KVM else Verdict.WARNING
    return Finding(
        "acceleration",
        verdict,
        f"TCG, because {found.detail}",
        "use a host where KVM works; pods run, slower",
    )


def _numbers(version: int) -> tuple[int, int, int]:
    """Libvirt's way to say a version: 1,000,000 * major + 1,000 * minor + release."""
    return version // 1_000_000, version // 1_000 % 1_000, version % 1_000
