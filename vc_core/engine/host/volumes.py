"""Named volumes: folders of the host that are kept when pods are deleted, for containers to share.

<volume.dir>/<name>/    the contents; the folder alone is the volume
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from vc_core.driver_kit.ownership import private_folder
from vc_core.engine.host.tree_removal import remove_tree
from vc_core.engine.state.ids import checked
from vc_core.spec.errors import AlreadyExists, InvalidRequest, NotFound


class Volume(Struct, frozen=True):
    """A named volume.

    Attributes:
        name: unique on this host.
        path: the folder to mount into containers.
        changed_ns: modification time of the folder, in nanoseconds since the epoch.
    """

    name: str
    path: Path
    changed_ns: int


class Volumes:
    """The volumes below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def list(self) -> tuple[Volume, ...]:
        """Returns all volumes, by name."""
        found = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        return tuple(
            self._volume(path) for path in found if path.is_dir() and not path.name.startswith(".")
        )

    def get(self, name: str) -> Volume:
        """Returns one volume.

        Raises:
            NotFound: there is no volume of this name.
        """
        path = self._folder / checked("volume", name)
        if not path.is_dir():
            known = ", ".join(one.name for one in self.list()) or "none"
            raise NotFound(f"no volume {name}; there are: {known}")
        return self._volume(path)

    def create(self, name: str, may_exist: bool = False) -> Volume:
        """Creates a volume.

        Raises:
            AlreadyExists: there is a volume of this name, unless `may_exist`.
            InvalidRequest: the name is invalid, or the folder belongs to another user.
        """
        path = self._folder / checked("volume", name)
        private_folder(self._folder, "volume.dir")
        try:
            path.mkdir(mode=0o755)
        except FileExistsError as error:
            if not may_exist:
                raise AlreadyExists(
                    f"there is a volume {name} already; 'vc volume rm {name}' removes it"
                ) from error
        return self._volume(path)

    def remove(self, name: str, used: Iterable[Path] = ()) -> None:
        """Removes a volume with all its contents.

        Args:
            name: name of the volume.
            used: sources of containers' mounts.

        Raises:
            NotFound: there is no volume of this name.
            InvalidRequest: a container uses it.
        """
        path = self.get(name).path
        real = path.resolve()
        if any(real in (source, *source.parents) for source in map(Path.resolve, used)):
            raise InvalidRequest(
                f"containers have the volume {name}; 'vc ps' shows them, delete those pods first"
            )
        gone = path.with_name(f".{name}")  # atomic: no incomplete volume is left
        remove_tree(gone)
        path.rename(gone)
        remove_tree(gone)

    @staticmethod
    def _volume(path: Path) -> Volume:
        return Volume(path.name, path, path.stat().st_mtime_ns)
