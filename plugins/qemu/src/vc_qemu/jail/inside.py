"""Mounts of folders of the host in the jail of a running machine."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from vc_core.driver_kit import HostProcess
from vc_qemu.errors import QemuError
from vc_qemu.jail import spawn


class View(Struct, frozen=True):
    """A running machine's view of the host.

    Attributes:
        process: the machine.
        run_dir: folder of its files.
        has_root: whether it has a root of its own, into which folders must be mounted.
    """

    process: HostProcess
    run_dir: Path
    has_root: bool

    def show(self, folder: Path, point: Path, read_only: bool, has_devices: bool = False) -> None:
        """Makes a folder of the host visible to the machine at a prepared mount point.

        Raises:
            QemuError: the kernel refused.
        """
        if not self.has_root:
            point.parent.mkdir(mode=0o700, exist_ok=True)
            point.unlink(missing_ok=True)
            point.symlink_to(folder)
            return
        self.hide(point)  # of an interrupted call
        try:
            spawn.mount(
                self.process,
                self._is_users(),
                str(folder.resolve()),
                str(point),
                read_only,
                has_devices,
            )
        except OSError as error:
            raise QemuError(
                f"{folder} cannot be shown to the jail of QEMU: {error.strerror}"
            ) from error

    def hide(self, point: Path) -> None:
        """Undoes `show`. A mount that is gone is no error.

        Raises:
            QemuError: the kernel refused.
        """
        if not self.has_root:
            point.unlink(missing_ok=True)
            return
        try:
            spawn.unmount(self.process, self._is_users(), str(point))
        except OSError as error:
            raise QemuError(
                f"{point} cannot be taken from the jail of QEMU: {error.strerror}"
            ) from error

    def show_devices(self) -> None:
        """Makes the host's PCI devices visible to QEMU in /sys and /dev/vfio.

        Raises:
            QemuError: the kernel refused.
        """
        if not self.has_root:
            return
        for folder, read_only in ((Path("/sys"), True), (Path("/dev/vfio"), False)):
            if folder.exists():  # if it is missing, QEMU reports that
                self.show(folder, folder, read_only, has_devices=not read_only)

    def _is_users(self) -> bool:
        """Returns whether it has a user namespace of its own."""
        own = Path("/proc/self/ns/user").readlink()
        return Path(f"/proc/{self.process.pid}/ns/user").readlink() != own
