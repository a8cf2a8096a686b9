"""What CNI has to remember of a pod until DEL: libcni's cache.

Format and place are those of containernetworking/cni, libcni/api.go (`cachedInfo`), so that other
programs see which addresses and ports are in use. The folder survives a reboot.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vc_core.driver_kit import write_private_file
from vc_core.spec import PodRef
from vc_network.errors import NetworkFailure

INTERFACE = "eth0"
NETNS = "/run/netns/vc-"
_KIND = "cniCacheV1"
_ID_BYTES = 4
_HALF = "."  # prefix of a file that is not yet written whole


@dataclass(frozen=True)
class Attachment:
    """A pod in a network.

    Attributes:
        container: id of the pod for CNI.
        network: name of the network.
        config: text of the network's configuration at ADD.
        capabilities: arguments of capabilities at ADD, by capability.
        result: result of ADD; None if ADD did not end.
        netns: path of the pod's namespace.
    """

    container: str
    network: str
    config: str
    capabilities: dict[str, Any]
    result: dict[str, Any] | None
    netns: str

    def ports(self) -> Iterator[tuple[tuple[str, int], str]]:
        """Yields protocol and number of each port of the host, and its address, empty for all."""
        mappings = self.capabilities.get("portMappings")
        for one in mappings if isinstance(mappings, list) else ():
            match one:
                case {"hostPort": int(number)}:
                    address = str(one.get("hostIP") or "")
                    yield (str(one.get("protocol") or "tcp").lower(), number), address


class Cache:
    """The cache below one folder.

    Attributes:
        folder: of the files.
        lock: held by who changes which networks, ports and pods there are.
        calls: held by who calls ADD or DEL, not exclusively, or GC, exclusively (SPEC.md,
            "Lifecycle & Ordering").
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "results"
        self.lock = folder / "vc.lock"
        self.calls = folder / "vc-calls.lock"

    def path(self, network: str, container: str) -> Path:
        """Returns the file of an attachment."""
        return self.folder / f"{network}-{container}-{INTERFACE}"

    def write(self, attachment: Attachment) -> None:
        """Writes an attachment; a reader sees the former one or this one."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = {
            "kind": _KIND,
            "containerId": attachment.container,
            "config": base64.b64encode(attachment.config.encode()).decode(),
            "ifName": INTERFACE,
            "networkName": attachment.network,
            "netns": attachment.netns,
            "capabilityArgs": attachment.capabilities,
            "result": attachment.result,
        }
        path = self.path(attachment.network, attachment.container)
        half = path.with_name(f"{_HALF}{path.name}")
        write_private_file(half, json.dumps(text))
        half.rename(path)

    def remove(self, network: str, container: str) -> None:
        """Removes an attachment, if it is there."""
        self.path(network, container).unlink(missing_ok=True)

    def remove_unfinished(self, container: str) -> None:
        """Removes what a writer that was killed has left of a pod; its former file stays."""
        for name in self._files():
            if name.startswith(_HALF) and name.endswith(f"-{container}-{INTERFACE}"):
                (self.folder / name).unlink(missing_ok=True)

    def networks_of(self, container: str) -> tuple[str, ...]:
        """Returns the names of the networks in which a pod is, also of unreadable attachments."""
        end = f"-{container}-{INTERFACE}"
        names = self._names()
        return tuple(name.removesuffix(end) for name in names if name.endswith(end))

    def read(self, network: str, container: str) -> Attachment | None:
        """Returns an attachment; None for a missing or damaged one."""
        return _decode(self.path(network, container))

    def containers(self, network: str) -> tuple[str, ...]:
        """Returns the ids of the containers in a network; perhaps also others of no network."""
        start, end = f"{network}-", f"-{INTERFACE}"
        return tuple(
            name.removeprefix(start).removesuffix(end)
            for name in self._names()
            if name.startswith(start) and name.endswith(end)
        )

    def identities(self, network: str) -> list[tuple[str, str]]:
        """Returns container and interface of all attachments to a network, also other programs'.

        Raises:
            NetworkFailure: one cannot be read, so that it is not known what there is.
        """
        found = []
        for name in self._names():
            try:
                one = json.loads((self.folder / name).read_text())
                if one["networkName"] == network:
                    found.append((str(one["containerId"]), str(one["ifName"])))
            except FileNotFoundError:  # removed meanwhile
                continue
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise NetworkFailure(
                    f"{self.folder / name} cannot be read: leases of the network {network} that "
                    "belong to no pod are not removed"
                ) from error
        return found

    def all(self) -> Iterator[Attachment]:
        """Yields all attachments that are readable, also those of other programs."""
        for name in self._names():
            found = _decode(self.folder / name)
            if found is not None:
                yield found

    def _names(self) -> list[str]:
        return [name for name in self._files() if not name.startswith(_HALF)]

    def _files(self) -> list[str]:
        try:
            return sorted(path.name for path in self.folder.iterdir())
        except (FileNotFoundError, PermissionError):  # an ordinary user is in no network
            return []


def container_of(pod: PodRef) -> str:
    """Returns the id of a pod for CNI, distinct also from pods of other state folders."""
    folder_id = hashlib.blake2b(str(pod.run_dir).encode(), digest_size=_ID_BYTES).hexdigest()
    return f"{pod.id}-{folder_id}"


def pod_of(attachment: Attachment) -> str:
    """Returns the id of the pod of an attachment, or what another program calls its container."""
    pod, separator, folder_id = attachment.container.rpartition("-")
    is_ours = separator and len(folder_id) == 2 * _ID_BYTES and attachment.netns.startswith(NETNS)
    return pod if is_ours else attachment.container


def _decode(path: Path) -> Attachment | None:
    try:
        found = json.loads(path.read_text())
        result = found["result"]
        if not isinstance(result, dict | None) or found["ifName"] != INTERFACE:
            return None
        return Attachment(
            str(found["containerId"]),
            str(found["networkName"]),
            base64.b64decode(found["config"], validate=True).decode(),
            dict(found.get("capabilityArgs") or {}),
            result,
            str(found.get("netns", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, binascii.Error):
        return None
