"""Root file systems that are folders of the host, as root shows them: bound where no guest can
write.

Of the host's own root a guest does not see what the configuration lists as secret. That is enforced
in what is bound, not in the guest, which may be hostile.
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
    """Refuses what would show secrets that cannot be hidden.

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
    """Says what an ordinary user's guest can read: nobody but root can take something out of what
    is shared.
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
    """Under which it is bound: containers with the same root file system share it."""
    about = f"{rootfs.path}\0{rootfs.mode is RootfsMode.READ_WRITE}\0{rootfs.show_secrets}"
    return hashlib.blake2b(os.fsencode(about), digest_size=8).hexdigest()


def show(session: Session, rootfs: Rootfs, hidden: tuple[Path, ...]) -> None:
    """Makes sure that it is bound among the pod's root file systems."""
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
    """Binds it into a folder of the pod; gives the name that it has there. What it has of `hidden`
    is covered.
    """
    if rootfs.mode is RootfsMode.READ_WRITE or not _is_hosts(rootfs.path):
        is_read_only = rootfs.mode is not RootfsMode.READ_WRITE
        return bind_mounts.add(rootfs.path, folder, is_read_only, True, bound_as, hidden, is_share)
    secrets = () if rootfs.show_secrets else hidden_paths.paths(session.config.secret_paths)
    return bind_mounts.add_host_root(
        folder, bound_as, hidden_paths.without_nested((*hidden, *secrets)), is_share
    )


def _is_hosts(path: Path) -> bool:
    """Also where it is bound elsewhere."""
    return path.samefile(_HOSTS)
