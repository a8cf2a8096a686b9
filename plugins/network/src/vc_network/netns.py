"""Network namespaces that are reached by a path, and work in them."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from vc_core.driver_kit import process_namespace
from vc_network.errors import NetworkFailure
from vc_network.host_programs import output
from vc_network.namespace import program

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
_LIBC = ctypes.CDLL(None, use_errno=True)
# Not that of the process: it may be in a namespace that it has made for a machine, with all
# threads but its first in the host's.
_HOSTS = (Path("/proc/thread-self/ns/net"), Path("/proc/1/ns/net"))


@contextmanager
def opened(path: Path, namespace: str = "") -> Iterator[int]:
    """Yields the descriptor of a network namespace.

    Args:
        path: of the namespace.
        namespace: as NetworkRequest.namespace; empty for any.

    Raises:
        NetworkFailure: there is none at this path, or another one.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NetworkFailure(f"the network namespace {path}: {error.strerror}") from error
    try:
        try:
            kind = fcntl.ioctl(descriptor, _NS_GET_NSTYPE)
        except OSError:
            kind = 0
        if kind != _CLONE_NEWNET:
            raise NetworkFailure(f"{path} is no network namespace")
        _check_same(path, descriptor, namespace)
        yield descriptor
    finally:
        os.close(descriptor)


def _check_same(path: Path, descriptor: int, namespace: str) -> None:
    """Refuses the namespace of a process which is not the one that the pod was created with."""
    if not namespace:
        return
    try:
        found = process_namespace(str(path), os.fstat(descriptor))
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NetworkFailure(f"the network namespace {path}: its process has ended") from error
    if found != namespace:
        raise NetworkFailure(
            f"{path} is another network namespace than when the pod was created, as the pid is "
            "that of another process or this has changed its namespace; create the pod anew"
        )


def identity(descriptor: int) -> str:
    """Returns text that tells a namespace from all others that exist."""
    found = os.fstat(descriptor)
    return f"{found.st_dev}:{found.st_ino}"


def is_hosts(descriptor: int) -> bool:
    """Returns whether this is the namespace of this thread, or of the host's first process."""
    hosts = set()
    for path in _HOSTS:
        try:
            found = path.stat()
        except OSError:  # another user's
            continue
        hosts.add(f"{found.st_dev}:{found.st_ino}")
    return identity(descriptor) in hosts


async def within(descriptor: int, work: Callable[[], T]) -> T:
    """Runs `work` in a namespace, in a thread of its own; its child processes run there, too.

    Raises:
        NetworkFailure: this user may not enter it.
    """
    result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    loop = result.get_loop()

    def tell(report: Callable[[Any], None], value: object) -> None:
        if not result.done():
            report(value)

    def run() -> None:
        # The thread ends in the namespace: nothing else ever runs in it.
        try:
            if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
                reason = os.strerror(ctypes.get_errno())
                raise NetworkFailure(
                    f"a network namespace cannot be entered: {reason}; only root of its user "
                    "namespace may. The plugin pasta needs no privilege: --network public"
                )
            value = work()
        except BaseException as error:
            loop.call_soon_threadsafe(tell, result.set_exception, error)
        else:
            loop.call_soon_threadsafe(tell, result.set_result, value)

    thread = threading.Thread(target=run, name="vc-netns", daemon=True)
    thread.start()
    try:
        return await asyncio.shield(result)
    finally:
        # A cancelled call leaves no thread that still works in the namespace.
        thread.join()


async def aside(work: Callable[[], T]) -> T:
    """Runs `work` in this thread's namespace, in a thread of its own: others go on meanwhile.

    Raises:
        NetworkFailure: this user may not enter a namespace.
    """
    with opened(Path("/proc/thread-self/ns/net")) as descriptor:
        return await within(descriptor, work)


def run(name: str, *arguments: str, text: str = "") -> str:
    """Runs a program of the host in this thread's namespace; returns its output.

    Raises:
        NetworkFailure: it is missing, failed, or did not end in time; quotes it.
    """
    return output([program(name), *arguments], f"{name} {' '.join(arguments)}", text)


def listed(*arguments: str) -> list[dict[str, Any]]:
    """Returns what `ip -json` lists in this thread's namespace."""
    answer = run("ip", "-json", *arguments).strip()
    return [one for one in json.loads(answer or "[]") if one]


def listed_together(*commands: str) -> list[list[dict[str, Any]]]:
    """Returns what one process of `ip -json` lists for each command.

    Raises:
        NetworkFailure: ip failed.
    """
    text = "".join(f"{command}\n" for command in commands)
    answer, found = run("ip", "-json", "-batch", "-", text=text).strip(), []
    decoder = json.JSONDecoder()
    while answer:
        one, end = decoder.raw_decode(answer)
        found.append([element for element in one if element])
        answer = answer[end:].lstrip()
    if len(found) != len(commands):
        raise NetworkFailure(f"ip answers {len(found)} of {len(commands)} commands")
    return found


def own_addresses() -> tuple[str, ...]:
    """Returns all addresses in this thread's namespace."""
    found = (address for link in listed("address", "show") for address in link["addr_info"])
    return tuple(sorted({address["local"] for address in found if "local" in address}))
