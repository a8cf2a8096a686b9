"""The network namespace of a process that becomes a stand-in.

Engines put interfaces into the network namespace of a container, which they look for at the pid of
its first process: docker 20 to 27 by a hook (libnetwork-setkey), later ones after `create`. With a
stand-in in the host's namespace they would change the addresses and routes of the host. So the
process that becomes the stand-in enters the container's namespace before anything else. What it
does then is done by a thread that has stayed in the host's.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import msgspec

from vc_runtime.errors import RuntimeFailure

log = logging.getLogger(__name__)

_CLONE_NEWNET = 0x40000000
_NONE, _GIVEN = "none", "ns:"
_AT_CREATE = ("prestart", "createRuntime", "createContainer")


def in_network_of(folder: Path, work: Callable[[], Sequence[str]]) -> Sequence[str]:
    """Calls `work`, while this process is in the network namespace of a bundle's container.

    That is a new one, when config.json has one without a path. One with a path is entered for hooks
    only.

    Args:
        folder: the bundle.
        work: called in the namespaces of the caller.

    Raises:
        RuntimeFailure: the namespace cannot be made or entered.
    """
    path = _namespace(folder)
    if path is None:
        return work()
    is_inside = Event()
    failures: list[OSError] = []

    def work_outside() -> Sequence[str]:
        is_inside.wait()
        if failures:
            raise RuntimeFailure(
                "the container's network namespace cannot be entered, so that its stand-in would "
                f"show the host's: {failures[0].strerror}"
            )
        return work()

    # The thread exists before this one leaves the namespace: who is root of a user namespace
    # cannot go back to that of the host.
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(work_outside)
        try:
            _enter(path)
        except OSError as error:
            if os.geteuid() == 0 or error.errno != errno.EPERM:
                failures.append(error)
            else:  # the engine of an ordinary user cannot change the host's network, either
                log.info("the container has no network namespace of its own: %s", error.strerror)
        finally:
            is_inside.set()
        return result.result()


def network_of(network: str, pid: int) -> tuple[str, str]:
    """Returns the network of a pod, and the namespace to look at again when the container starts.

    The second is empty when the namespace has an interface by now.

    Args:
        network: that of the bundle: "none" for a new namespace, or "ns:" and a path.
        pid: the process that becomes the stand-in.
    """
    own = f"/proc/{pid}/ns/net"
    path = own if network == _NONE else network.removeprefix(_GIVEN)
    if not is_connected(path):
        return network, path
    return f"{_GIVEN}{path}", ""


def is_connected(path: str) -> bool:
    """Returns whether this is another network namespace than that of this thread, and has an
    interface with a route of IPv4 or an address of IPv6. Loopback, and what is down, is none.
    """
    # A thread of its own: one that has entered a namespace stays there.
    with ThreadPoolExecutor(1) as pool:
        return bool(pool.submit(_interfaces, path).result() - {"lo"})


def _interfaces(path: str) -> set[str]:
    """Returns the interfaces of a namespace, which the thread enters; of its own one none."""
    own = Path("/proc/thread-self/ns/net").stat()
    try:
        if os.path.samestat(Path(path).stat(), own):
            return set()
        _enter(path)
    except OSError as error:
        log.info("the network namespace %s cannot be looked at: %s", path, error.strerror)
        return set()
    routes = Path("/proc/thread-self/net/route").read_text().splitlines()[1:]
    names = {line.split()[0] for line in routes}
    addresses = Path("/proc/thread-self/net/if_inet6")  # not there without IPv6
    if addresses.exists():
        names |= {line.split()[-1] for line in addresses.read_text().splitlines()}
    return names


def _namespace(folder: Path) -> str | None:
    """Returns the path of the network namespace, empty for a new one, None when none is entered.

    A config.json that is wrong has none: who reads it next says what is wrong.
    """
    try:
        document = msgspec.json.decode((folder / "config.json").read_bytes())
        for one in document["linux"]["namespaces"]:
            if one["type"] == "network":
                path = str(one.get("path") or "")
                hooks = document.get("hooks") or {}
                is_needed = not path or any(hooks.get(kind) for kind in _AT_CREATE)
                return path if is_needed else None
    except (OSError, msgspec.DecodeError, AttributeError, KeyError, TypeError):
        return None
    return None


def _enter(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if not path:
        if libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return
    namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if libc.setns(namespace, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(namespace)
