"""Which accelerator a machine gets, and a guest on KVM that powers off by itself."""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import replace
from xml.etree import ElementTree as ET

from vc_core.driver_kit import Accelerator, KvmProof, prove_kvm
from vc_core.spec import Guest
from vc_libvirt.connection import Connection
from vc_libvirt.domain_xml import Domain, domain, text
from vc_libvirt.errors import LibvirtError
from vc_libvirt.options import LibvirtOptions

log = logging.getLogger(__name__)

EMULATED = "qemu"  # libvirt's word for a machine without KVM


async def emulator(connection: Connection, options: LibvirtOptions) -> str:
    """The program that libvirt runs machines with.

    Raises:
        LibvirtError: it can run none of this kind.
    """
    if options.emulator:
        return options.emulator
    told = await connection.call(
        lambda handle: str(handle.getDomainCapabilities(None, "x86_64", options.machine, EMULATED))
    )
    return ET.fromstring(told).findtext("path") or ""


async def kind(
    connection: Connection, options: LibvirtOptions, wanted: Domain, guest: Guest
) -> str:
    """What was chosen, or what is proven.

    Raises:
        LibvirtError: KVM was demanded and does not work here.
    """
    if options.accelerator is Accelerator.TCG:
        return EMULATED
    found = await prove(connection, options, wanted, guest)
    if found.works:
        return "kvm"
    if options.accelerator is Accelerator.KVM:
        raise LibvirtError(
            f"KVM does not work here: {found.detail}; set hypervisor.libvirt.accelerator to auto or tcg"
        )
    say = log.warning if found.is_new else log.info
    say("KVM does not work here (%s); using TCG, which is slower", found.detail)
    return EMULATED


async def prove(
    connection: Connection, options: LibvirtOptions, wanted: Domain, guest: Guest
) -> KvmProof:
    """What is known, or found out now.

    That libvirtd itself has no KVM is asked each time: it takes no boot.
    """
    try:
        await connection.call(
            lambda handle: handle.getDomainCapabilities(
                wanted.emulator, "x86_64", wanted.machine, "kvm"
            )
        )
    except LibvirtError as error:
        return KvmProof(False, f"libvirtd offers none: {error}")
    small = replace(
        wanted,
        kind="kvm",
        name=f"vc-proof-{uuid.uuid4().hex[:8]}",
        uuid=str(uuid.uuid4()),
        vcpus=1,
        memory_mib=256,
        max_memory_mib=256,
        parameters=guest.proof_parameters,
        shares=(),
    )
    return await prove_kvm(
        wanted.emulator,
        options.proof_dir,
        lambda: _boot(connection, small, options.proof_timeout_s),
    )


async def _boot(connection: Connection, small: Domain, limit_s: float) -> KvmProof:
    import libvirt

    with connection.listening(small.uuid) as listener:
        try:
            await connection.call(lambda handle: handle.createXML(text(domain(small)), 0) and None)
        except LibvirtError as error:
            return KvmProof(False, f"a guest on KVM failed: {error}")
        try:
            async with asyncio.timeout(limit_s):
                in_order = (await listener.stopped()).in_order
        except TimeoutError:
            return KvmProof(False, f"a guest on KVM did not reach userspace within {limit_s:g} s")
        finally:
            try:
                await connection.on_domain(small.uuid, lambda found: found.destroy())
            except LibvirtError as error:
                if error.code != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
    if not in_order:
        return KvmProof(False, "a guest on KVM crashed")
    return KvmProof(True, "a guest on KVM booted and powered off")
