"""Ends the machine of a pod whose record is lost: its XML names the pod and its console file."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from vc_core.driver_kit.timeouts import timeout_after
from vc_libvirt.connection import Connection
from vc_libvirt.domain_xml import owner_of


async def end(connection: Connection, pod: str, console: Path, limit_s: float) -> bool:
    """Ends every machine of the pod with this console file; returns whether there was one.

    Raises:
        LibvirtError: libvirtd does not answer, or refuses.
        TimeoutError: it does not answer in time.
    """

    def work(handle: Any) -> bool:
        domains = [
            domain for domain in handle.listAllDomains() if is_of(domain.XMLDesc(), pod, console)
        ]
        for domain in domains:
            domain.destroy()
        return bool(domains)

    async with timeout_after(limit_s):
        return await connection.call(work)


def is_of(xml: str, pod: str, console: Path) -> bool:
    """Returns whether a machine is a pod's.

    Pods of two stores may have the same name, but never the same folder.
    """
    domain = ET.fromstring(xml)
    files = {source.get("path") for source in domain.iterfind("devices/serial/source")}
    return owner_of(domain.find("metadata")) == pod and str(console) in files
