"""Files of machines saved by libvirt, read and combined with another machine's XML.

libvirt refuses to restore a machine under another uuid, but compares it only with the XML in the
file. The format has been the same since version 2, libvirt 0.9.4: libvirt.git,
src/qemu/qemu_saveimage.h, struct _virQEMUSaveHeader. Header and XML are followed by the stream
for QEMU.
"""

from __future__ import annotations

import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

from vc_libvirt.errors import LibvirtError

_HEADER = struct.Struct("=16s5I14I")
_MAGIC = b"LibvirtQemudSave"
_VERSION = 2
_RUNNING = 1


@dataclass(frozen=True)
class SaveImage:
    """A saved machine.

    Attributes:
        path: path of the file.
        xml: XML of the machine that was saved.
        begin: offset of the stream for QEMU, in bytes.
        compressed: libvirt's number of the compression of that stream.
    """

    path: Path
    xml: str
    begin: int
    compressed: int

    @classmethod
    def read(cls, path: Path) -> SaveImage:
        """Reads a file. Raises LibvirtError when it has another format or is unreadable."""
        try:
            with path.open("rb") as stream:
                fields = _HEADER.unpack(stream.read(_HEADER.size))
                magic, version, length, _running, compressed, cookie = fields[:6]
                if magic != _MAGIC or version != _VERSION:
                    raise LibvirtError(
                        f"{path} is no saved machine, or was written by a libvirt of another format"
                    )
                data = stream.read(length)
            xml = data[: cookie or None].partition(b"\0")[0].decode()
        except (OSError, struct.error, UnicodeDecodeError) as error:
            raise LibvirtError(f"the saved machine {path} cannot be read: {error}") from error
        return cls(path, xml, _HEADER.size + length, compressed)

    def head(self, xml: str) -> bytes:
        """Returns the header with the XML of another machine, in the state running."""
        data = xml.encode() + b"\0"
        return (
            _HEADER.pack(_MAGIC, _VERSION, len(data), _RUNNING, self.compressed, 0, *[0] * 14)
            + data
        )


class Feed:
    """Writes a saved machine with other XML into a pipe that libvirtd reads. Both methods block."""

    def __init__(self, image: SaveImage, xml: str, pipe: Path) -> None:
        self._image = image
        self._xml = xml
        self._pipe = pipe
        self._is_open = threading.Event()

    def run(self) -> None:
        """Returns when libvirtd has read everything, or has closed the pipe after an error."""
        try:
            with self._pipe.open("wb") as stream, self._image.path.open("rb") as source:
                self._is_open.set()
                stream.write(self._image.head(self._xml))
                stream.flush()
                at, end = self._image.begin, self._image.path.stat().st_size
                while at < end:
                    at += os.sendfile(stream.fileno(), source.fileno(), at, end - at)
        except BrokenPipeError:
            return

    def release(self) -> None:
        """Ends a `run` without a reader: opens the pipe, and closes it when `run` has opened it."""
        reader = os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK)
        self._is_open.wait()
        os.close(reader)
