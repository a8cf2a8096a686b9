"""Attaches a machine to a namespace by taps and tc; what is attached is found by a note."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from vc_core.spec import Interface, Nic
from vc_network import loopback, netns, redirect
from vc_network.errors import NetworkFailure
from vc_network.namespace import folder

log = logging.getLogger(__name__)

_NOTE = "attached.json"


class _Attached(Struct, frozen=True):
    """The note. `namespace` is its identity: a path may name another one later."""

    path: str
    namespace: str
    interfaces: tuple[str, ...]
    loopback: str = ""  # the table of nft


async def prepare(path: Path) -> Nic:
    """Makes the tap of the first interface of a namespace, which need not exist. The tap is down.

    Raises:
        NetworkFailure: the tap cannot be made.
    """
    with netns.opened(path) as descriptor:
        return await netns.within(descriptor, redirect.first_tap)


async def attach(
    run_dir: Path, path: Path, prepared: tuple[int, ...] = (), namespace: str = ""
) -> tuple[Interface, ...]:
    """Attaches a machine to all interfaces of a namespace; returns them with their taps.

    What an earlier call has attached for this pod is detached. Connections to the namespace's own
    addresses stay redirected (`take_loopback`): whoever listens goes on.

    Args:
        run_dir: of the pod.
        path: of the namespace.
        prepared: the taps of the first interfaces, where they exist; nothing is attached then. The
            caller closes them.
        namespace: as NetworkRequest.namespace.

    Raises:
        NetworkFailure: a step failed, or another machine is attached. Nothing is left.
    """
    opened: list[int] = []
    try:
        with netns.opened(path, namespace) as descriptor:
            identity = netns.identity(descriptor)
            kept = "" if prepared else await _replaced(run_dir, identity)
            links = await netns.within(descriptor, redirect.look)
            if len(links) < len(prepared):
                raise NetworkFailure("the network has given the pod no interface")
            await netns.within(descriptor, lambda: redirect.open_taps(links, len(prepared), opened))
            # Only now: what another machine redirects is not ours to remove.
            names = tuple(link.name for link in links)
            note = _Attached(str(path), identity, names, kept)
            folder(run_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(run_dir, note)
            await netns.within(descriptor, lambda: redirect.connect(links))
    except BaseException:
        for tap in opened:
            os.close(tap)
        await detach(run_dir)
        raise
    return redirect.interfaces(links, [*prepared, *opened])


async def take_loopback(run_dir: Path) -> int:
    """Redirects connections to the namespace's own addresses in it; returns the listener.

    Raises:
        NetworkFailure: no machine is attached, or nft fails.
    """
    note = _note(run_dir)
    if note is None or not _exists(note):
        raise NetworkFailure("the pod is in no network namespace")
    table = loopback.new_table()
    _write(run_dir, structs.replace(note, loopback=table))  # what is not noted is not removed
    with netns.opened(Path(note.path)) as descriptor:
        if note.loopback:
            await netns.within(descriptor, lambda: loopback.give_back(note.loopback))
        return await netns.within(descriptor, lambda: loopback.take(table))


async def is_attached(run_dir: Path) -> bool:
    """Returns whether all interfaces are there and redirected."""
    note = _note(run_dir)
    if note is None:
        return False
    try:
        with netns.opened(Path(note.path)) as descriptor:
            if netns.identity(descriptor) != note.namespace:
                return False
            return await netns.within(
                descriptor, lambda: all(map(redirect.is_redirected, note.interfaces))
            )
    except NetworkFailure:  # the namespace is gone, or an interface of it
        return False


async def detach(run_dir: Path) -> None:
    """Removes the redirection, if the namespace still exists. May be called twice.

    Raises:
        NetworkFailure: tc fails.
    """
    note = _note(run_dir)
    if note is None:
        return
    if _exists(note):
        with netns.opened(Path(note.path)) as descriptor:
            await netns.within(descriptor, lambda: redirect.give_up(note.interfaces))
            if note.loopback:
                try:
                    await netns.within(descriptor, lambda: loopback.give_back(note.loopback))
                except NetworkFailure as error:  # nft may be gone; without a listener it is no use
                    log.warning("the table %s stays in %s: %s", note.loopback, note.path, error)
    (folder(run_dir) / _NOTE).unlink()


async def _replaced(run_dir: Path, namespace: str) -> str:
    """Detaches what the note says, but for the redirection of loopback in this namespace.

    Returns the table of that, empty for none.
    """
    note = _note(run_dir)
    if note is None or note.namespace != namespace:
        await detach(run_dir)
        return ""
    with netns.opened(Path(note.path)) as descriptor:
        await netns.within(descriptor, lambda: redirect.give_up(note.interfaces))
    return note.loopback


def _exists(note: _Attached) -> bool:
    try:
        with netns.opened(Path(note.path)) as descriptor:
            return netns.identity(descriptor) == note.namespace
    except NetworkFailure:
        return False


def _write(run_dir: Path, note: _Attached) -> None:
    new = folder(run_dir) / f"{_NOTE}.new"
    new.write_bytes(msgspec.json.encode(note))
    new.replace(folder(run_dir) / _NOTE)


def _note(run_dir: Path) -> _Attached | None:
    try:
        return msgspec.json.decode((folder(run_dir) / _NOTE).read_bytes(), type=_Attached)
    except (FileNotFoundError, msgspec.DecodeError):  # never made, or its writer was killed
        return None
