"""Calls the plugins of a network: ADD, CHECK, DEL, STATUS and GC of CNI.

Protocol: containernetworking/cni, SPEC.md, "Section 2: Execution Protocol" and "Section 3:
Execution of Network Configurations".
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vc_core.driver_kit import program_environment
from vc_core.driver_kit.host_process import end_child
from vc_core.driver_kit.ownership import untrusted
from vc_core.driver_kit.timeouts import timeout_after
from vc_network.cni import results
from vc_network.cni.cache import INTERFACE
from vc_network.cni.configuration import NetworkList
from vc_network.errors import NetworkFailure

log = logging.getLogger(__name__)

_REMEDY = "install the package containernetworking-plugins"
_OTHER_VERSION = "give the network a cniVersion that the plugin supports, or install a newer plugin"
# SPEC.md, "Error": the plugin does not support the version; it misses a container, or a variable,
# which it says of a command that it does not know.
_UNKNOWN_VERSION, _UNKNOWN_COMMAND = 1, (3, 4)
_REASON_CHARACTERS = 300
_OF_NO_POD = ("STATUS", "GC")


class AddFailure(NetworkFailure):
    """ADD failed.

    Attributes:
        is_clean: whether nothing is left of it.
    """

    def __init__(self, message: str, is_clean: bool) -> None:
        super().__init__(message)
        self.is_clean = is_clean


class _OtherVersion(NetworkFailure):
    """The plugin does not support the version, and has done nothing."""


@dataclass(frozen=True)
class Chain:
    """The plugins of a network, for one pod.

    Attributes:
        network: the network.
        container: id of the pod for CNI.
        netns: path of the namespace; empty when it is gone.
        capabilities: arguments of capabilities, by capability.
        folders: where plugins are.
        timeout_s: seconds for one call.
    """

    network: NetworkList
    container: str
    netns: str
    capabilities: Mapping[str, Any]
    folders: Sequence[Path]
    timeout_s: float

    async def add(self) -> dict[str, Any]:
        """Adds the pod; returns the result of the last plugin.

        Raises:
            AddFailure: a plugin failed; quotes it. DEL of that one and those before it was called.
        """
        result: dict[str, Any] | None = None
        for number, plugin in enumerate(self.network.plugins):
            try:
                answer = await self._call("ADD", plugin, result)
                result = results.checked(answer, plugin["type"])
            except NetworkFailure as error:
                end = number if isinstance(error, _OtherVersion) else number + 1
                is_clean = await self._undo(plugin, self.network.plugins[:end], result)
                raise AddFailure(str(error), is_clean) from error
        assert result is not None  # a network has a plugin
        return result

    async def _undo(
        self,
        failed: Mapping[str, Any],
        called: Sequence[Mapping[str, Any]],
        result: dict[str, Any] | None,
    ) -> bool:
        """Returns whether DEL was successful for the plugins whose ADD was."""
        is_clean = True
        for plugin in reversed(called):
            try:
                await self._call("DEL", plugin, result)
            except NetworkFailure as error:
                log.warning("%s", error)
                is_clean = is_clean and plugin is failed  # which may refuse its configuration
        return is_clean

    async def check(self, result: dict[str, Any]) -> None:
        """Checks that the pod's network is as ADD left it.

        Two plugins of containernetworking-plugins 1.1.1 are not asked (plugins/meta): portmap,
        since for a port with an address of IPv4 it misses rules of IPv6, which ADD does not make;
        and bandwidth without a limit, since it crashes.

        Raises:
            NetworkFailure: it is not, or a plugin cannot tell; quotes the plugin.
        """
        for plugin in self.network.plugins:
            if plugin["type"] == "portmap":
                continue
            if plugin["type"] == "bandwidth" and not self._is_limited(plugin):
                continue
            await self._call("CHECK", plugin, result)

    async def check_ready(self) -> None:
        """Checks that the plugins can serve ADD (STATUS). Versions before 1.1.0 cannot tell.

        Raises:
            NetworkFailure: one cannot; quotes it.
        """
        if self.network.has_status_and_gc:
            for plugin in self.network.plugins:
                await self._call("STATUS", plugin, None)

    async def collect(self, valid: Sequence[tuple[str, str]]) -> None:
        """Lets the plugins remove what belongs to no pod (GC). Versions before 1.1.0 have none.

        Args:
            valid: container and interface of each attachment that there is in the network.

        Raises:
            NetworkFailure: a plugin failed; the first failure of several. All were called.
        """
        if not (self.network.has_status_and_gc and self.network.collects):
            return
        failures = []
        for plugin in self.network.plugins:
            known = [{"containerID": one, "ifname": name} for one, name in valid]
            try:
                await self._call("GC", {**plugin, "cni.dev/valid-attachments": known}, None)
            except NetworkFailure as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _is_limited(self, plugin: Mapping[str, Any]) -> bool:
        given = self._wanted(plugin).get("bandwidth", plugin)
        return isinstance(given, Mapping) and any(
            given.get(key) for key in ("ingressRate", "egressRate")
        )

    async def delete(self, result: dict[str, Any] | None) -> None:
        """Removes what there is of the pod, by all plugins in reverse order. May be called twice.

        Args:
            result: the result of ADD; None when it is not known.

        Raises:
            NetworkFailure: a plugin failed; the first failure of several.
        """
        failures = []
        for plugin in reversed(self.network.plugins):
            try:
                await self._call("DEL", plugin, result)
            except NetworkFailure as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def _call(
        self, command: str, plugin: Mapping[str, Any], result: dict[str, Any] | None
    ) -> bytes:
        kind = plugin["type"]
        has_pod = command not in _OF_NO_POD
        environment = {
            **{key: word for key, word in program_environment().items() if key[:4] != "CNI_"},
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container if has_pod else "",
            "CNI_NETNS": self.netns if has_pod else "",
            "CNI_IFNAME": INTERFACE if has_pod else "",
            "CNI_PATH": ":".join(map(str, self.folders)),
            "CNI_ARGS": "IgnoreUnknown=1",
        }
        child = await asyncio.create_subprocess_exec(
            _program(kind, self.folders),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd="/",
        )
        text = json.dumps(self._configuration(plugin, result, has_pod))
        try:
            async with timeout_after(self.timeout_s):
                answer, said = await child.communicate(text.encode())
        except TimeoutError as error:
            await end_child(child)
            raise NetworkFailure(
                f"the CNI plugin {kind} did not answer {command} within {self.timeout_s:g} s"
            ) from error
        except BaseException:
            await end_child(child)
            raise
        if child.returncode != 0:
            told = f"the CNI plugin {kind} refuses {command} in the network {self.network.name}: "
            reason, error_code = _reason(answer, said, child.returncode)
            is_older = command in _OF_NO_POD and error_code in _UNKNOWN_COMMAND
            if is_older or error_code == _UNKNOWN_VERSION:
                raise _OtherVersion(f"{told}{reason}; {_OTHER_VERSION}")
            raise NetworkFailure(f"{told}{reason}")
        return answer

    def _configuration(
        self, plugin: Mapping[str, Any], result: dict[str, Any] | None, has_pod: bool
    ) -> dict[str, Any]:
        own = {key: value for key, value in plugin.items() if key != "capabilities"}
        own |= {"name": self.network.name, "cniVersion": self.network.version}
        if has_pod and (wanted := self._wanted(plugin)):
            own["runtimeConfig"] = wanted
        if result is not None:
            own["prevResult"] = result
        return own

    def _wanted(self, plugin: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments of the capabilities that a plugin declares."""
        return {
            name: self.capabilities[name]
            for name, is_wanted in plugin.get("capabilities", {}).items()
            if is_wanted is True and name in self.capabilities
        }


def check_installed(network: NetworkList, folders: Sequence[Path]) -> None:
    """Refuses a network with plugins that are not there, before one of them does something.

    Raises:
        NetworkFailure: names them.
    """
    if lacking := missing(network, folders):
        where = ", ".join(map(str, folders))
        raise NetworkFailure(
            f"the network {network.name} has CNI plugins that are not in {where}: "
            f"{', '.join(lacking)}; {_REMEDY}"
        )


def missing(network: NetworkList, folders: Sequence[Path]) -> tuple[str, ...]:
    """Returns the plugins of a network that are not installed, with those for addresses."""
    kinds = [str(plugin["type"]) for plugin in network.plugins]
    for plugin in network.plugins:
        ipam = plugin.get("ipam")
        if isinstance(ipam, dict) and isinstance(ipam.get("type"), str):
            kinds.append(ipam["type"])
    return tuple(kind for kind in kinds if _find(kind, folders) is None)


def _find(kind: str, folders: Sequence[Path]) -> Path | None:
    paths = (folder / kind for folder in folders)
    return next((path for path in paths if path.is_file() and os.access(path, os.X_OK)), None)


def _program(kind: str, folders: Sequence[Path]) -> str:
    path = _find(kind, folders)
    if path is None:
        where = ", ".join(map(str, folders))
        raise NetworkFailure(f"there is no CNI plugin {kind} in {where}; {_REMEDY}")
    if reason := untrusted(path, frozenset({0})):
        raise NetworkFailure(f"the CNI plugin {path} is not used: {reason}")
    return str(path)


def _reason(answer: bytes, said: bytes, code: int | None) -> tuple[str, object]:
    """Returns one line of what a plugin says of its failure, and its code (SPEC.md, "Error")."""
    try:
        error = json.loads(answer)
        text = " ".join(str(error[key]) for key in ("msg", "details") if error.get(key))
        stated = error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        text, stated = said.decode(errors="replace"), None
    line = " ".join(text.split())
    if len(line) > _REASON_CHARACTERS:
        line = f"{line[:_REASON_CHARACTERS]} ..."
    return line or f"exit code {code}", stated
