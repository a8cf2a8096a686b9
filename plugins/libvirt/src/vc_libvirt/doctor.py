"""The findings of `vc doctor` about libvirt on this host."""

from __future__ import annotations

import functools
import uuid
from dataclasses import replace
from xml.etree import ElementTree as ET

from vc_core.driver_kit import HostProcess, accelerator_finding
from vc_core.spec import Finding, Guest, Verdict
from vc_libvirt import accelerator, confinement, domain_xml
from vc_libvirt.confinement import ABOUT, REMEDIES, Facts, Layer
from vc_libvirt.connection import Connection
from vc_libvirt.domain_xml import Domain, text
from vc_libvirt.errors import LibvirtError
from vc_libvirt.options import LibvirtOptions

OLDEST = (8, 0)
_PACKAGES = "install the packages libvirt-daemon-system and qemu-system-x86, and start libvirtd"


async def diagnose(
    connection: Connection, options: LibvirtOptions, guests: tuple[Guest, ...], sample: Domain
) -> tuple[Finding, ...]:
    """Returns findings on libvirtd, the accelerator and the confinement of machines.

    The last two are tested when there is a guest image.

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
    acceleration = await accelerator_finding(options.accelerator, accelerator.OPTION, prove)
    drivers = await _security_drivers(connection)
    confined = await _confinement(connection, sample) if guests else ()
    return (finding, acceleration, drivers, *confined)


async def _security_drivers(connection: Connection) -> Finding:
    capabilities = await connection.call(lambda handle: str(handle.getCapabilities()))
    names = ", ".join(confinement.models(ET.fromstring(capabilities)))
    return Finding(subject="libvirt's security drivers", verdict=Verdict.GOOD, detail=names)


async def _confinement(connection: Connection, sample: Domain) -> tuple[Finding, ...]:
    """Returns a finding on each layer of libvirt's confinement of a machine that runs no guest."""
    try:
        lacks = await _lacks(connection, sample)
    except (LibvirtError, OSError) as error:
        detail = f"no machine could be started to look at it: {error}"
        return (
            Finding(
                subject="libvirt's confinement",
                verdict=Verdict.BAD,
                detail=detail,
                remedy="see the log of libvirtd",
            ),
        )
    return tuple(
        Finding(
            subject=f"libvirt's confinement: {layer.value}",
            verdict=Verdict.WARNING,
            detail=lacks[layer],
            remedy=REMEDIES[layer],
        )
        if layer in lacks
        else Finding(
            subject=f"libvirt's confinement: {layer.value}",
            verdict=Verdict.GOOD,
            detail=ABOUT[layer],
        )
        for layer in Layer
    )


async def _lacks(connection: Connection, sample: Domain) -> dict[Layer, str]:
    """Starts a paused machine, which ends with this connection at the latest, and looks at it."""
    import libvirt

    machine_uuid = str(uuid.uuid4())
    small = replace(sample, name=f"vc-doctor-{machine_uuid[:8]}", uuid=machine_uuid, shares=())
    xml = text(domain_xml.domain(small))
    flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
    await connection.call(lambda handle: handle.createXML(xml, flags) and None)
    try:
        process = HostProcess.find("-uuid", machine_uuid)
        if process is None:
            raise LibvirtError("the machine of the test has ended")
        domain = await connection.on_domain(machine_uuid, lambda handle: str(handle.XMLDesc()))
        return confinement.lacks(Facts.of(process.pid, ET.fromstring(domain)))
    finally:
        await connection.on_domain(machine_uuid, lambda handle: handle.destroy())


def _numbers(version: int) -> tuple[int, int, int]:
    """Splits libvirt's version number: 1,000,000 * major + 1,000 * minor + release."""
    return version // 1_000_000, version // 1_000 % 1_000, version % 1_000
