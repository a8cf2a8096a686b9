"""KVM or TCG for a machine, and the guest that tests KVM: it powers off by itself."""

from __future__ import annotations

import uuid
from dataclasses import replace
from xml.etree import ElementTree as ET

from vc_core.driver_kit import Accelerator, KvmProof, choose_accelerator, prove_kvm
from vc_core.driver_kit.timeouts import timeout_after
from vc_core.spec import Guest
from vc_libvirt import domain_xml
from vc_libvirt.connection import Connection
from vc_libvirt.domain_xml import DOMAIN_TYPES, Domain, text
from vc_libvirt.errors import LibvirtError
from vc_libvirt.options import LibvirtOptions

OPTION = "hypervisor.libvirt.accelerator"


async def emulator(connection: Connection, options: LibvirtOptions) -> str:
    """Returns the path of the program by which libvirt runs machines.

    Raises:
        LibvirtError: libvirt has none for this type of machine.
    """
    if options.emulator:
        return options.emulator
    capabilities = await connection.call(
        lambda handle: str(
            handle.getDomainCapabilities(
                None, "x86_64", options.machine, DOMAIN_TYPES[Accelerator.TCG]
            )
        )
    )
    return ET.fromstring(capabilities).findtext("path") or ""


async def choose(
    connection: Connection, options: LibvirtOptions, domain: Domain, guest: Guest
) -> Accelerator:
    """Returns KVM or TCG, as configured or as tested.

    Raises:
        HypervisorError: KVM is configured and does not work here.
    """
    return await choose_accelerator(
        options.accelerator, OPTION, lambda: prove(connection, options, domain, guest)
    )


async def prove(
    connection: Connection, options: LibvirtOptions, domain: Domain, guest: Guest
) -> KvmProof:
    """Returns whether KVM works here: the stored result, or that of a guest booted now.

    libvirtd is asked each time whether it offers KVM at all, which requires no boot.

    Args:
        connection: connection to libvirtd.
        options: the configured options.
        domain: the machine that is to run on KVM.
        guest: the guest that is booted for the test.

    Raises:
        InvalidRequest: other users can write to the folder of stored results.
    """
    try:
        await connection.call(
            lambda handle: handle.getDomainCapabilities(
                domain.emulator, "x86_64", domain.machine, "kvm"
            )
        )
    except LibvirtError as error:
        return KvmProof(False, f"libvirtd offers none: {error}")
    small = replace(
        domain,
        accelerator=Accelerator.KVM,
        name=f"vc-proof-{uuid.uuid4().hex[:8]}",
        uuid=str(uuid.uuid4()),
        vcpus=1,
        memory_mib=256,
        max_memory_mib=256,
        parameters=guest.proof_parameters,
        shares=(),
    )
    return await prove_kvm(
        domain.emulator,
        options.proof_dir,
        lambda: _boot(connection, small, options.proof_timeout_s),
    )


async def _boot(connection: Connection, domain: Domain, limit_s: float) -> KvmProof:
    import libvirt

    xml = text(domain_xml.domain(domain))
    with connection.listening(domain.uuid) as listener:
        try:
            await connection.call(lambda handle: handle.createXML(xml, 0) and None)
        except LibvirtError as error:
            return KvmProof.failed(str(error))
        try:
            async with timeout_after(limit_s):
                end = await listener.stopped()
        except TimeoutError:
            return KvmProof.timed_out(limit_s)
        finally:
            try:
                await connection.on_domain(domain.uuid, lambda handle: handle.destroy())
            except LibvirtError as error:
                if error.code != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
    return KvmProof.booted() if end.in_order else KvmProof.failed("the guest crashed")
