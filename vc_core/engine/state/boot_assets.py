"""A pod's own files that replace the guest's and the hypervisor's, checked before each boot."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct, structs

from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import Guest

_NO_PATH = Path()


class Asset(Struct, frozen=True):
    """A file and its expected digest.

    Attributes:
        path: absolute path; empty for none.
        sha512: digest of the whole file, in hex digits; empty accepts any content.
    """

    path: Path = _NO_PATH
    sha512: str = ""

    @property
    def is_given(self) -> bool:
        """Whether a file is given."""
        return self.path != _NO_PATH


class Assets(Struct, frozen=True):
    """The files that a pod replaces.

    Attributes:
        kernel: the kernel that the guest boots.
        image: the guest's initial root file system: an initrd that contains the agent.
        hypervisor: the program that runs the machine.
    """

    kernel: Asset = Asset()
    image: Asset = Asset()
    hypervisor: Asset = Asset()


def check(assets: Assets) -> None:
    """Checks every given file, which is read to its end.

    Raises:
        InvalidRequest: a path is not absolute, or a file is missing, empty or does not match
            its digest.
    """
    for field in structs.fields(assets):
        asset: Asset = getattr(assets, field.name)
        if asset.is_given:
            _check(field.name, asset)


def apply(assets: Assets, guest: Guest) -> Guest:
    """Returns the guest with the pod's own files."""
    kernel = assets.kernel.path if assets.kernel.is_given else guest.kernel
    initrd = assets.image.path if assets.image.is_given else guest.initrd
    return structs.replace(guest, kernel=kernel, initrd=initrd)


def _check(kind: str, asset: Asset) -> None:
    if not asset.path.is_absolute():
        raise InvalidRequest(f"the {kind} {asset.path} must be an absolute path")
    import hashlib

    try:
        with asset.path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha512").hexdigest()
            size = stream.tell()
    except OSError as error:
        raise InvalidRequest(f"the {kind} {asset.path} cannot be read: {error.strerror}") from error
    if size == 0:
        raise InvalidRequest(f"the {kind} {asset.path} is empty")
    if asset.sha512 and found != asset.sha512.lower():
        raise InvalidRequest(
            f"the {kind} {asset.path} has the SHA-512 {found}, "
            f"and {asset.sha512.lower()} was demanded"
        )
