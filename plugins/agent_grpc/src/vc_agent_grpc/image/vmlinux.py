"""Extracts the kernel from a compressed kernel image.

Source of the offsets: Documentation/arch/x86/boot.rst of the Linux kernel. Booting `vmlinux`
through its PVH entry saves the guest from unpacking itself, which under software emulation takes
longer than the rest of the boot.
"""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import zlib
from collections.abc import Callable

from vc_agent_grpc.image.errors import ImageError

_SETUP_SECTORS = 0x1F1
_BOOT_MAGIC = 0x202
_PAYLOAD = 0x248  # offset from the end of the setup code, then length; 32 bits each
_ELF = b"\x7fELF"
_PVH_NOTE = b"Xen\0"


def extract_vmlinux(image: bytes) -> bytes:
    """Unpacks a bzImage; returns an uncompressed kernel unchanged.

    Args:
        image: the file's bytes.

    Returns:
        An ELF kernel with a PVH entry.

    Raises:
        ImageError: not a kernel, an unknown compression, or a kernel without CONFIG_PVH.
    """
    kernel = image if image.startswith(_ELF) else _unpack(_payload(image))
    if not kernel.startswith(_ELF):
        raise ImageError(
            "the kernel's payload is not an ELF file; name another kernel with --kernel"
        )
    if _PVH_NOTE not in kernel:
        raise ImageError(
            "the kernel has no PVH entry (CONFIG_PVH); name another kernel with --kernel"
        )
    return kernel


def _payload(image: bytes) -> bytes:
    if len(image) < 0x260 or image[_BOOT_MAGIC : _BOOT_MAGIC + 4] != b"HdrS":
        raise ImageError(
            "not an x86 kernel image; name one with --kernel (usually /boot/vmlinuz-…)"
        )
    start = ((image[_SETUP_SECTORS] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    return image[start + offset : start + offset + length]


def _unpack(payload: bytes) -> bytes:
    for magic, unpack in _FORMATS:
        if payload.startswith(magic):
            return unpack(payload)
    raise ImageError(
        f"unknown kernel compression (it begins with {payload[:6].hex()}); "
        "give an uncompressed vmlinux with --kernel"
    )


def _xz(data: bytes) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data)


def _lzma(data: bytes) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data)


def _gzip(data: bytes) -> bytes:
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data)


def _bzip2(data: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(data)


def _zstd(data: bytes) -> bytes:
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
        return bytes(reader.read())


def _lz4(data: bytes) -> bytes:
    """Unpacks the legacy frame of `lz4 -l`.

    It is a magic number, then blocks of up to 8 MiB, each after its compressed size.
    """
    import lz4.block

    parts, position = [], 4
    while position + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, position)
        position += 4
        if size == 0 or position + size > len(data):
            break  # the kernel's build appends the unpacked size
        parts.append(
            lz4.block.decompress(data[position : position + size], uncompressed_size=8 << 20)
        )
        position += size
    return b"".join(parts)


_FORMATS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\xfd7zXZ\0", _xz),
    (b"\x28\xb5\x2f\xfd", _zstd),
    (b"\x02\x21\x4c\x18", _lz4),
    (b"\x1f\x8b", _gzip),
    (b"BZh", _bzip2),
    (b"\x5d\0\0", _lzma),
)
