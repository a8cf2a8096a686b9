"""Calls the plugins of a network: ADD, CHECK and DEL of CNI.

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
from vc_network.cni.cache import INTERFACE
from vc_network.cni.configuration import NetworkList
from vc_network.errors import NetworkFailure

log = logging.getLogger(__name__)

_REMEDY = "install the package containernetworking-plugins"


class AddFailure(NetworkFailure):
    """ADD failed.

    Attributes:
        is_clean: whether nothing is left of it.
    """

    def __init__(self, message: str, is_clean: bool) -> None:
        super().__init__(message)
        self.is_clean = is_clean


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
                result = _result(answer, plugin["type"])
            except NetworkFailure as error:
                done = self.network.plugins[:number]
                raise AddFailure(str(error), await self._undo(plugin, done, result)) from error
        assert result is not None  # a network has a plugin
        return result

    async def _undo(
        self,
        failed: Mapping[str, Any],
        done: Sequence[Mapping[str, Any]],
        result: dict[str, Any] | None,
    ) -> bool:
        """Returns whether DEL was successful for the plugins whose ADD was."""
        is_clean = True
        for plugin in (failed, *reversed(done)):
            try:
                await self._call("DEL", plugin, result)
            except NetworkFailure as error:
                log.warning("%s", error)
                is_clean = is_clean and plugin is failed  # which may refuse its configuration
        return is_clean

    async def check(self, result: dict[str, Any]) -> None:
        """Checks that the pod's network is as ADD left it.

        portmap is not asked: for a port with an address of IPv4 it misses rules of IPv6, which ADD
        does not make (containernetworking-plugins 1.1.1, plugins/meta/portmap/main.go).

        Raises:
            NetworkFailure: it is not, or a plugin cannot tell; quotes the plugin.
        """
        for plugin in self.network.plugins:
            if plugin["type"] != "portmap":
                await self._call("CHECK", plugin, result)

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
    ) -> str:
        kind = plugin["type"]
        environment = {
            **{key: word for key, word in program_environment().items() if key[:4] != "CNI_"},
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": INTERFACE,
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
        text = json.dumps(self._configuration(plugin, result))
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
            raise NetworkFailure(
                f"the CNI plugin {kind} refuses {command} in the network {self.network.name}: "
                f"{_reason(answer, said, child.returncode)}"
            )
        return answer.decode(errors="replace")

    def _configuration(
        self, plugin: Mapping[str, Any], result: dict[str, Any] | None
    ) -> dict[str, Any]:
        own = {key: value for key, value in plugin.items() if key != "capabilities"}
        own |= {"name": self.network.name, "cniVersion": self.network.version}
        wanted = {
            name: self.capabilities[name]
            for name, is_wanted in plugin.get("capabilities", {}).items()
            if is_wanted is True and name in self.capabilities
        }
        if wanted:
            own["runtimeConfig"] = wanted
        if result is not None:
            own["prevResult"] = result
        return own


def _result(answer: str, kind: str) -> dict[str, Any]:
    try:
        result = json.loads(answer)
    except ValueError:
        result = None
    if not isinstance(result, dict):
        raise NetworkFailure(f"the CNI plugin {kind} answered no result: {answer[:200]!r}")
    return result


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


def _reason(answer: bytes, said: bytes, code: int | None) -> str:
    """Returns one line of what a plugin says of its failure (SPEC.md, "Error")."""
    try:
        error = json.loads(answer)
        text = " ".join(str(error[key]) for key in ("msg", "details") if error.get(key))
    except (ValueError, KeyError, TypeError, AttributeError):
        text = said.decode(errors="replace")
    line = " ".join(text.split())
    return line or f"exit code {code}"
