"""Archives as a guest may send them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

from vc_core.engine.api import copy_paths
from vc_core.engine.host import tar_stream

FOLDER, SYMLINK, HARD_LINK, FIFO = (
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
)


def packed(*members: dict[str, Any], form: int = tarfile.GNU_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for given in members:
            fields = {"mode": 0o755 if given.get("type") == FOLDER else 0o644, **given}
            data = fields.pop("data", b"")
            info = tarfile.TarInfo(fields.pop("name"))
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


async def chunks_of(data: bytes, size: int = 1000):
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def copy(data: bytes, path: str, target: Path | str, keep_owner: bool = False) -> None:
    """As copy_out, with a guest that answers so."""
    with copy_paths.opened(path, str(target)) as destination:
        await tar_stream.unpack(chunks_of(data), destination, keep_owner)
