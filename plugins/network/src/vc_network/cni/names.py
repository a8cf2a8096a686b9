"""Names of the pods of a network: a dnsmasq on the network's gateway, while the network has pods.

The folder of a network holds a file for each pod, with its addresses and its name; dnsmasq reads
files that appear there and forgets files that are removed (--hostsdir). Other names are looked up
by the host's resolver.
"""

from __future__ import annotations

import ipaddress
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vc_core.driver_kit import HostProcess
from vc_network import starting
from vc_network.cni.locks import locked
from vc_network.errors import NetworkFailure
from vc_network.namespace import program

# Not below a private folder: dnsmasq reads it as the user nobody.
_FOLDER = Path("/run/virtcontainers-names")
_OPEN_FILES = 1024


@dataclass(frozen=True)
class Names:
    """The names of one network.

    Attributes:
        network: name of the network.
        base: folder of all networks.
    """

    network: str
    base: Path = _FOLDER

    async def add(
        self, container: str, name: str, addresses: Sequence[str], gateways: Sequence[str]
    ) -> None:
        """Adds a pod; names are answered on the gateways' addresses when this returns.

        Raises:
            NetworkFailure: dnsmasq fails; quotes it.
        """
        self.base.mkdir(mode=0o755, parents=True, exist_ok=True)
        async with await locked(self._lock):
            for folder in (self._folder, self._hosts):
                folder.mkdir(exist_ok=True)
                folder.chmod(0o755)
            lines = "".join(f"{address} {name}\n" for address in addresses)
            file = self._hosts / container
            file.write_text(lines)
            file.chmod(0o644)
            if not self.is_running():
                await self._end()
                await self._start(gateways)

    async def remove(self, container: str) -> None:
        """Removes a pod, and with the last one dnsmasq. May be called twice."""
        if not self._folder.exists():
            return
        async with await locked(self._lock):
            if not self._folder.exists():
                return
            (self._hosts / container).unlink(missing_ok=True)
            if self._hosts.exists() and any(self._hosts.iterdir()):
                return
            await self._end()
            shutil.rmtree(self._folder)
            self._lock.unlink()

    def is_running(self) -> bool:
        """Returns whether names are answered."""
        process = self._process()
        return process is not None and process.is_alive()

    def is_known(self, container: str) -> bool:
        """Returns whether a pod was added."""
        return (self._hosts / container).exists()

    @property
    def _folder(self) -> Path:
        return self.base / self.network

    @property
    def _hosts(self) -> Path:
        return self._folder / "hosts"

    @property
    def _pid_file(self) -> Path:
        return self._folder / "dnsmasq.pid"

    @property
    def _starting(self) -> Path:
        """The lock of dnsmasq's start."""
        return self._folder / "dnsmasq.lock"

    @property
    def _word(self) -> str:
        """The word of dnsmasq's command line that no other network's has."""
        return f"--pid-file={self._pid_file}"

    @property
    def _lock(self) -> Path:
        return self.base / f".{self.network}.lock"  # no network has such a name

    def _process(self) -> HostProcess | None:
        try:
            process = HostProcess.of(int(self._pid_file.read_text()))
            words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        return process if self._word.encode() in words else None

    async def _end(self) -> None:
        """Ends dnsmasq, also one that a killed starter was starting."""
        await starting.end(self._starting, self._process, self._found)

    def _found(self) -> tuple[HostProcess, ...]:
        return HostProcess.find_in(self.base, self._word)

    async def _start(self, gateways: Sequence[str]) -> None:
        """Starts dnsmasq, which goes to the background when it answers."""
        command = [program("dnsmasq"), "--conf-file=/dev/null", "--no-hosts", "--domain-needed"]
        command += [
            "--bind-interfaces",
            "--user=nobody",
            "--group=nogroup",
            "--except-interface=lo",
        ]
        command += [self._word, f"--hostsdir={self._hosts}"]
        command += [f"--listen-address={gateway}" for gateway in gateways]
        try:
            await starting.start(self._starting, command, _OPEN_FILES)
        except NetworkFailure as error:
            raise NetworkFailure(
                f"names of the network {self.network} cannot be answered: {error}; "
                "network.cni.names = false does without"
            ) from error


def resolvers_of_host() -> tuple[str, ...]:
    """Returns the host's name servers that others than the host itself can reach."""
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        return ()
    found = []
    for words in (line.split() for line in lines):
        if len(words) > 1 and words[0] == "nameserver":
            try:
                address = ipaddress.ip_address(words[1])
            except ValueError:  # a link-local one with a zone
                continue
            if not address.is_loopback:
                found.append(str(address))
    return tuple(found)
