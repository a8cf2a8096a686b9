"""Root file systems that are folders of the host, bound by root where no guest can write.

A guest does not see the files of the host's own root that the configuration lists as secret. This
is enforced by the bind on the host, not in the guest, which may be hostile.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from vc_core.engine.host import bind_mounts, hidden_paths
from vc_core.engine.session.session import Session
from vc_core.engine.state.records import PodConfig
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import Rootfs, RootfsMode

log = logging.getLogger(__name__)

_HOSTS = Path("/")


def check(rootfs: Rootfs) -> None:
    """Refuses a root file system with secrets that are impossible to hide.

    Raises:
        InvalidRequest: the host's own root, writable.
    """
    is_writable = rootfs.mode is RootfsMode.READ_WRITE
    if is_writable and os.geteuid() == 0 and not rootfs.show_secrets and _is_hosts(rootfs.path):
        raise InvalidRequest(
            "secrets of the host's own root cannot be hidden where it is written to (:rw); "
            "remove :rw, or show them (--show-secrets)"
        )


def warn(config: PodConfig, rootfs: Rootfs) -> None:
    """Warns about secrets that an ordinary user's guest can read.

    Only root can leave something out of what is shared.
    """
    if os.geteuid() == 0 or rootfs.show_secrets or not _is_hosts(rootfs.path):
        return
    seen = [
        str(path) for path in hidden_paths.paths(config.secret_paths) if os.access(path, os.R_OK)
    ]
    if seen:
        more = f" and {len(seen) - 1} more" if len(seen) > 1 else ""
        log.warning(
            "the guest can read what this user can, %s%s included: only root's pods hide that; "
            "give an IMAGE, or --show-secrets if it may",
            seen[0],
            more,
        )


def name(rootfs: Rootfs) -> str:
    """Returns the name of its bind: containers with the same root file system share it."""
    about = f"{rootfs.path}\0{rootfs.mode is RootfsMode.READ_WRITE}\0{rootfs.show_secrets}"
    return hashlib.blake2b(os.fsencode(about), digest_size=8).hexdigest()


def show(session: Session, rootfs: Rootfs, hidden: tuple[Path, ...]) -> None:
    """Binds it among the pod's root file systems, unless it is bound."""
    if not bind_mounts.is_bound(session.roots_folder, name(rootfs)):
        bind_mounts.remove(session.roots_folder, name(rootfs))  # of a call that was killed
        bind(session, rootfs, session.roots_folder, hidden, name(rootfs), is_share=True)


def bind(
    session: Session,
    rootfs: Rootfs,
    folder: Path,
    hidden: tuple[Path, ...],
    bound_as: str = "",
    is_share: bool = False,
) -> str:
    """Binds it into a folder of the pod, with `hidden` covered; returns its name there."""
    if rootfs.mode is RootfsMode.READ_WRITE or not _is_hosts(rootfs.path):
        is_read_only = rootfs.mode is not RootfsMode.READ_WRITE
        return bind_mounts.add(rootfs.path, folder, is_read_only, True, bound_as, hidden, is_share)
    secrets = () if rootfs.show_secrets else hidden_paths.paths(session.config.secret_paths)
    return bind_mounts.add_host_root(
        folder, bound_as, hidden_paths.without_nested((*hidden, *secrets)), is_share
    )


def _is_hosts(path: Path) -> bool:
    """Returns whether a path is the host's own root, also where it is bound elsewhere."""
    return path.samefile(_HOSTS)
