"""The kernel modules in the initrd, and the order in which they are loaded."""

from __future__ import annotations

import io
import lzma
from pathlib import Path

from vc_agent_grpc.image.errors import ImageError

# The modules for each purpose of the agent (guest/src/machine/boot.rs). `boot` is always
# loaded, the others when first needed. File systems require crc32c at mount time, which is only
# a soft dependency.
PURPOSES: dict[str, tuple[str, ...]] = {
    "boot": ("virtio_pci", "virtio_console"),
    "9p": ("9pnet_virtio", "9p"),
    "overlay": ("overlay",),
    "scsi": ("virtio_scsi", "sd_mod"),
    "virtio-blk": ("virtio_blk",),
    "net": ("virtio_net",),
    "bridge": ("bridge",),
    "tcp-diag": ("tcp_diag",),
    "ext4": ("crc32c_generic", "ext4"),
    "erofs": ("crc32c_generic", "erofs"),
    "fuse": ("fuse",),
    "tun": ("tun",),
    "balloon": ("virtio_balloon",),
}


def collect(tree: Path) -> dict[str, bytes]:
    """Reads the modules of PURPOSES, and all their dependencies.

    Args:
        tree: a `lib/modules/<release>` folder. A downloaded package has no modules.dep (its
            post-install step generates it), so dependencies are read from the modules themselves.

    Returns:
        File name to content: the modules (unpacked) and one `<purpose>.list` each, in load order.

    Raises:
        ImageError: a module is neither in the folder nor built in.
    """
    paths = {_module_name(path.name): path for path in tree.rglob("*.ko*")}
    builtin = _builtin(tree)
    files: dict[str, bytes] = {}
    for purpose, names in PURPOSES.items():
        order: list[str] = []
        for name in names:
            _visit(name, paths, builtin, files, order)
        files[f"{purpose}.list"] = "".join(f"{name}.ko\n" for name in order).encode()
    return files


def _visit(
    name: str, paths: dict[str, Path], builtin: set[str], files: dict[str, bytes], order: list[str]
) -> None:
    if name in builtin or name in order:
        return
    if name not in paths:
        raise ImageError(
            f"the kernel has no module {name}; the package linux-image-amd64 has it, "
            "its cloud flavour has not"
        )
    content = files.setdefault(f"{name}.ko", _read(paths[name]))
    for dependency in _depends(content):
        _visit(dependency, paths, builtin, files, order)
    order.append(name)


def _depends(module: bytes) -> list[str]:
    from elftools.elf.elffile import ELFFile

    section = ELFFile(io.BytesIO(module)).get_section_by_name(".modinfo")
    fields = section.data().split(b"\0") if section is not None else []
    value = next(
        (field[len(b"depends=") :] for field in fields if field.startswith(b"depends=")), b""
    )
    return [_module_name(name) for name in value.decode().split(",") if name]


def _builtin(tree: Path) -> set[str]:
    file = tree / "modules.builtin"
    return (
        {_module_name(line) for line in file.read_text().splitlines()} if file.exists() else set()
    )


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def _module_name(path: str) -> str:
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")
