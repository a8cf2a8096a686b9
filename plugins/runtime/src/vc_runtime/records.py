"""What `--root` holds: one record for each container. All else is in the store of pods."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from vc_core.driver_kit.host_process import HostProcess
from vc_core.driver_kit.ownership import trusted_owners, untrusted
from vc_runtime.errors import DamagedRecord, RuntimeFailure, UnknownContainer

log = logging.getLogger(__name__)

_ID = re.compile(r"[\w+.-]{1,1024}")  # as runc
_HEX_ID = re.compile(r"[0-9a-f]{64}")
_CHOOSING = (
    *("HOME", "VC_CONFIG", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"),
    "XDG_RUNTIME_DIR",
)
_POD_ID_LENGTH = 12  # sockets of machines have short paths
_FILE = "container.json"
_GROUP_FILE = "group.json"
_HOOKS_FILE = "hooks.json"


def choosing_environment() -> dict[str, str]:
    """Returns the variables of this process that choose a configuration and a store."""
    return {name: os.environ[name] for name in _CHOOSING if name in os.environ}


def pod_id_of(container_id: str) -> str:
    """Returns the pod's id: the short form of engines' ids, or else a digest of the id."""
    if _HEX_ID.fullmatch(container_id):
        return container_id[:_POD_ID_LENGTH]
    return hashlib.blake2b(container_id.encode(), digest_size=6).hexdigest()


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A container of a caller.

    Attributes:
        id: the caller's name of it.
        pod: id of its pod; empty before there is one.
        container: its id in the pod.
        owns_pod: whether the pod is deleted with it.
        bundle: absolute path of its bundle.
        namespace: path of the network namespace from which the pod gets its interfaces at `start`,
            as it had none at `create`; empty for none.
        pid: its stand-in; 0 before there is one.
        start_ticks: start time of that process, as in proc(5).
        was_started: whether `start` has succeeded.
        is_paused: whether its processes are suspended.
        shares_pids: whether its other processes may outlive its first one, as the pid namespace is
            not its own.
        created_ns: in nanoseconds since the epoch.
        annotations: those of config.json.
        environment: what `create` had of the variables that choose a configuration and a store.
            Engines pass fewer of them to later commands.
    """

    id: str
    pod: str
    container: str
    owns_pod: bool
    bundle: str
    namespace: str = ""
    pid: int = 0
    start_ticks: int = 0
    was_started: bool = False
    is_paused: bool = False
    shares_pids: bool = False
    created_ns: int = 0
    annotations: dict[str, str] = {}
    environment: dict[str, str] = {}

    @property
    def stand_in(self) -> HostProcess:
        """The process that stands in for the first one of the container."""
        return HostProcess(self.pid, self.start_ticks)

    def restore_environment(self) -> None:
        """Makes this process choose the configuration and the store of `create`."""
        for name in _CHOOSING if self.environment else ():
            os.environ.pop(name, None)
        os.environ.update(self.environment)

    @property
    def status(self) -> str:
        """The state in the words of the runtime-spec."""
        if not self.pid:
            return "creating"
        if not self.stand_in.is_alive():
            return "stopped"
        if self.is_paused:
            return "paused"
        return "running" if self.was_started else "created"


class Records:
    """The records below one `--root`."""

    def __init__(self, root: Path) -> None:
        """Args:
        root: the folder, which need not exist.

        Raises:
            RuntimeFailure: another user can write it: a record says what is killed and opened.
        """
        self._root = root.absolute()
        self._check()

    def _check(self) -> None:
        if os.path.lexists(self._root) and (reason := untrusted(self._root, trusted_owners())):
            raise RuntimeFailure(
                f"--root {self._root} is not used: {reason}; name a folder of yours"
            )

    def add(self, record: Record) -> None:
        """Stores the record of a new container.

        Raises:
            RuntimeFailure: the id is invalid or taken.
        """
        folder = self._folder(record.id)
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._check()  # it may be another user's who was faster
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            raise RuntimeFailure(f"container with id exists: {record.id}") from None
        try:
            self.put(record)
        except BaseException:
            shutil.rmtree(folder)
            raise

    def get(self, container_id: str) -> Record:
        """Returns a record.

        Raises:
            UnknownContainer: there is none.
            DamagedRecord: it cannot be read, or was not written because `create` was killed.
        """
        folder = self._folder(container_id)
        try:
            text = (folder / _FILE).read_bytes()
            return msgspec.json.decode(text, type=Record)
        except (FileNotFoundError, NotADirectoryError) as error:
            if folder.is_dir():
                raise DamagedRecord(container_id, error) from error
            raise UnknownContainer(container_id) from None
        except (OSError, msgspec.MsgspecError) as error:
            raise DamagedRecord(container_id, error) from error

    def put(self, record: Record) -> None:
        """Stores a record that exists."""
        self._replace(record.id, _FILE, msgspec.json.encode(record))

    def put_group(self, container_id: str, path: str) -> None:
        """Stores which control group a container gets, before there is one to be left.

        It is a file of its own: a damaged record does not lose it, and it is no part of what the
        stand-in and its machine change.
        """
        self._replace(container_id, _GROUP_FILE, msgspec.json.encode(path))

    def group(self, container_id: str) -> str:
        """Returns the path of a container's control group; empty when it got none.

        Raises:
            DamagedRecord: it cannot be read.
        """
        try:
            text = (self._folder(container_id) / _GROUP_FILE).read_bytes()
            return msgspec.json.decode(text, type=str)
        except FileNotFoundError:
            return ""
        except (OSError, msgspec.MsgspecError) as error:
            raise DamagedRecord(container_id, error) from error

    def put_hooks(self, container_id: str, text: bytes) -> None:
        """Stores hooks that are to run, before the first of them runs."""
        self._replace(container_id, _HOOKS_FILE, text)

    def hooks(self, container_id: str) -> bytes:
        """Returns the hooks of a container; empty when none has run."""
        try:
            return (self._folder(container_id) / _HOOKS_FILE).read_bytes()
        except FileNotFoundError:
            return b""

    def _replace(self, container_id: str, name: str, text: bytes) -> None:
        file = self._folder(container_id) / name
        half = file.with_name(f".{os.getpid()}")
        half.write_bytes(text)
        half.replace(file)

    @contextmanager
    def opened(self, container_id: str) -> Iterator[int]:
        """Provides a descriptor of the folder of a record.

        Raises:
            UnknownContainer: there is none.
        """
        try:
            folder = os.open(self._folder(container_id), os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise UnknownContainer(container_id) from None
        try:
            yield folder
        finally:
            os.close(folder)

    def remove(self, container_id: str) -> None:
        """Removes a record; one that is gone is no error."""
        try:
            shutil.rmtree(self._folder(container_id))
        except FileNotFoundError:
            return

    def all(self) -> Iterator[Record]:
        """Yields all records; damaged ones are left out with a warning."""
        for folder in sorted(self._root.iterdir()) if self._root.is_dir() else ():
            try:
                yield self.get(folder.name)
            except UnknownContainer:  # it was deleted meanwhile
                continue
            except RuntimeFailure as error:
                log.warning("%s", error)

    @contextmanager
    def locked(self, container_id: str) -> Iterator[None]:
        """Keeps other commands on the same container waiting during a block."""
        with self.opened(container_id) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield

    def _folder(self, container_id: str) -> Path:
        if not _ID.fullmatch(container_id) or container_id in {".", ".."}:
            raise RuntimeFailure(f"invalid container id {container_id!r}")
        return self._root / container_id
