"""The machine of a pod whose record is lost: libvirt knows which file its console writes to, and
whose it is.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from vc_libvirt.connection import Connection
from vc_libvirt.domain_xml import owner_of


async def end(connection: Connection, pod: str, console: Path, limit_s: float) -> bool:
    """Ends every machine of the pod that writes its console to this file. Whether there was one.

    Raises:
        LibvirtError: libvirtd does not answer, or refuses.
        TimeoutError: it does not answer in time.
    """

    def work(handle: Any) -> bool:
        found = [
            domain for domain in handle.listAllDomains() if is_of(domain.XMLDesc(), pod, console)
        ]
        for domain in found:
            domain.destroy()
        return bool(found)

    async with asyncio.timeout(limit_s):
        return await connection.call(work)


def is_of(xml: str, pod: str, console: Path) -> bool:
    """Whether a machine is that of a pod: pods of two stores may have the same name, but not the
    same folder.
    """
    made = ET.fromstring(xml)
    files = {source.get("path") for source in made.iterfind("devices/serial/source")}
    return owner_of(made.find("metadata")) == pod and str(console) in files
