"""What the host reads of others, one function per parser: any bytes, and no other errors than the
documented ones.

`python -m tests.fuzz` gives them bytes without end; tests/fuzz/test_corpora.py those that are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from google.protobuf.message import DecodeError
from vc_agent_grpc import checked_answers
from vc_agent_grpc._generated import agent_pb2 as pb
from vc_libvirt.save_image import SaveImage
from vc_network import denials
from vc_network.cni import results
from vc_network.errors import NetworkFailure
from vc_qemu import bounded_file, exit_reason, migration_stream
from vc_qemu.driver_state import SCHEMA, QemuState

from tests.fuzz.connections import dns_answer, dns_question, qmp_answers
from vc_core.cli.escapes import shown, shown_colours, shown_json
from vc_core.driver_kit import decode_record
from vc_core.engine.api.file_entries import Listing, file_change
from vc_core.engine.host.tar_reader import TarReader
from vc_core.engine.host.tar_unpacking import Destination, Unpacker
from vc_core.engine.state import records
from vc_core.images import archives, layout
from vc_core.images.image import ImageConfig
from vc_core.images.platforms import require
from vc_core.oci import bundle
from vc_core.spec import DriverState, VcError
from vc_core.spec.log_format import Reader

_LOG_BLOCK, _LOG_SUMMED = 4096, 8
_TAR_BLOCK = 512
_UNSAFE = frozenset(map(chr, (*range(9), 11, 12, *range(14, 32), 127)))


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vc-fuzz-", dir="/dev/shm") as path:
        yield Path(path)


def log_disk(data: bytes) -> None:
    """The disk of a container's log; after an odd first byte with right checksums."""
    if data[:1] and data[0] & 1:
        data = b"".join(
            _log_block(number, data[at : at + _LOG_BLOCK - 16])
            for number, at in enumerate(range(1, len(data), _LOG_BLOCK - 16))
        )
    with _folder() as folder:
        path = folder / "log"
        path.write_bytes(data)
        with Reader(path) as reader:
            for _ in range(2):
                read = sum(len(record.data) for record in reader.read())
                assert read <= len(data) + _LOG_BLOCK


def _log_block(place: int, content: bytes) -> bytes:
    """A block as the agent writes it, but for its records and perhaps its number."""
    number = place + 1 + (content[0] if content else 0) % 2
    rest = (struct.pack("<Q", number) + content).ljust(_LOG_BLOCK - _LOG_SUMMED, b"\0")
    return struct.pack("<4sI", b"VCL1", zlib.crc32(rest)) + rest


def archive_of_guest(data: bytes) -> None:
    """An archive that `vc cp` gets; after an odd first byte the checksums of headers are right."""
    archive = bytearray(data[1:])
    if data[:1] and data[0] & 1:
        for at in range(0, len(archive) - _TAR_BLOCK + 1, _TAR_BLOCK):
            if archive[at + 257 : at + 262] == b"ustar":
                _set_checksum(archive, at)
    asked = "." if data[:1] and data[0] & 2 else "a"
    chunks = [bytes(archive), b""]
    with _folder() as folder:
        into = folder / "into"
        into.mkdir()
        handle = os.open(into, os.O_PATH | os.O_DIRECTORY)
        try:
            to = Destination(handle, into, asked, "" if asked == "." else "b")
            with suppress(VcError):
                reader = TarReader(lambda: chunks.pop(0) if chunks else b"")
                Unpacker(reader, to, keep_owner=True).run()
        finally:
            os.close(handle)
        assert [one.name for one in folder.iterdir()] == ["into"]
        for one in into.rglob("*"):
            mode = one.lstat().st_mode
            assert not (mode & 0o6000 and one.is_file() and not one.is_symlink()), one
            assert not one.name.endswith(".vc-cp"), one


def _set_checksum(archive: bytearray, at: int) -> None:
    archive[at + 148 : at + 156] = b" " * 8
    total = sum(archive[at : at + _TAR_BLOCK])
    archive[at + 148 : at + 156] = b"%06o\0 " % total


def archive_of_image(data: bytes) -> None:
    """A tar archive that is perhaps an image."""
    with _folder() as folder:
        path = folder / "image.tar"
        path.write_bytes(data)
        archives.compression(path)
        with suppress(VcError):
            archives.chosen(archives.examine(path, "x"), "a:b", "x")


def image_layout(data: bytes) -> None:
    """Index, manifest and configuration of a layout, separated by zero bytes. In them @1 and @2 are
    the digests of the manifest and the configuration.
    """
    index, manifest, config, *_ = (*data.split(b"\0"), b"", b"", b"")
    with _folder() as folder:
        blobs = folder / "blobs/sha256"
        blobs.mkdir(parents=True)
        config_digest = hashlib.sha256(config).hexdigest()
        manifest = manifest.replace(b"@2", b"sha256:" + config_digest.encode())
        digest = hashlib.sha256(manifest).hexdigest()
        (blobs / config_digest).write_bytes(config)
        (blobs / digest).write_bytes(manifest)
        (folder / "index.json").write_bytes(index.replace(b"@1", b"sha256:" + digest.encode()))
        with suppress(VcError):
            found = layout.find(folder, name="x")
            layout.check(found, lambda step, done=0, total=0: None)
            require(found.config, None, "x")


def image_config(data: bytes) -> None:
    """The configuration of containers in an image."""
    with suppress(ValueError, RecursionError):
        document = json.loads(data)
        if isinstance(document, dict):
            ImageConfig.read(document)


_ANSWERS: tuple[tuple[type, Callable[..., object]], ...] = (
    (pb.NegotiateReply, lambda reply: checked_answers.agreed(reply, 1, 9)),
    (pb.WaitReply, checked_answers.exit_status),
    (pb.ListContainersReply, checked_answers.containers),
    (pb.ContainerStatsReply, checked_answers.stats),
    (pb.ListProcessesReply, checked_answers.processes),
)


def agent_answer(data: bytes) -> None:
    """A message of the guest's agent; the first byte chooses which."""
    kind, check = _ANSWERS[data[0] % len(_ANSWERS)] if data else _ANSWERS[0]
    with suppress(VcError, DecodeError):
        check(kind.FromString(data[1:]))


def agent_lines(data: bytes) -> None:
    """Lists of files, and changes of them."""
    with suppress(VcError):
        listing = Listing()
        for at in range(0, len(data), 50):
            listing.add(data[at : at + 50])
        for entry in listing.entries:
            assert "/" not in entry.name
    for line in data.split(b"\n"):
        with suppress(VcError):
            file_change(line)


_RECORDS = (
    records.PodConfig,
    records.PodState,
    records.ContainerState,
    records.ContainerSpec,
    DriverState,
)


def record(data: bytes) -> None:
    """config.json and state.json of pods and containers, and the states of drivers."""
    text = data[1:].decode(errors="surrogateescape")
    kind = _RECORDS[data[0] % len(_RECORDS)] if data else _RECORDS[0]
    with suppress(VcError):
        value = records.decode(text, kind, "it")
        assert records.decode(records.encode(value), kind, "it") == value
    with suppress(VcError):
        decode_record(data[1:], QemuState, SCHEMA, "it")


def oci_bundle(data: bytes) -> None:
    """config.json of a bundle."""
    with _folder() as folder:
        (folder / "config.json").write_bytes(data)
        with suppress(VcError):
            bundle.load(folder, "c")


def qemu_log(data: bytes) -> None:
    """QEMU's log, in which a guest can cause errors."""
    with _folder() as folder:
        log = folder / "qemu.log"
        exit_reason.make_log(log)
        with log.open("ab") as stream:
            stream.write(data)
        exit_reason.reason(log)
        exit_reason.is_paused(log)
        assert bounded_file.tail(log, 1 << 20, 1 << 20) == data


def qemu_state(data: bytes) -> None:
    """A saved machine's state, which a broken QEMU has written."""
    with _folder() as folder, (folder / "rest").open("wb") as rest, suppress(VcError, OSError):
        files = {"pc.ram": folder / "ram"}
        migration_stream.split(memoryview(data), rest, files)


def libvirt_state(data: bytes) -> None:
    """The same of libvirt."""
    with _folder() as folder:
        path = folder / "saved"
        path.write_bytes(data)
        with suppress(VcError):
            SaveImage.read(path).head("<domain/>")


def console(data: bytes) -> None:
    """Text for a terminal."""
    text = data.decode(errors="surrogateescape")
    assert not _UNSAFE & set(shown(text))
    shown_colours(text).encode()
    document = json.dumps(text, ensure_ascii=False)
    assert json.loads(shown_json(document)) == text


def nft_rules(data: bytes) -> None:
    """What nft prints of a pod's rules, with destinations that the guest has chosen."""
    with suppress(NetworkFailure):
        for one in denials.refused(data, 0):
            assert isinstance(one.target, str)
            assert isinstance(one.port, int)


def cni_result(data: bytes) -> None:
    """What a plugin of CNI answers to ADD."""
    with suppress(NetworkFailure):
        found = results.known(results.checked(data, "bridge"))
        for one in found.ips or ():
            one.address.partition("/")


TARGETS: dict[str, Callable[[bytes], None]] = {
    function.__name__: function
    for function in (
        agent_answer,
        agent_lines,
        archive_of_guest,
        archive_of_image,
        cni_result,
        console,
        dns_answer,
        dns_question,
        image_config,
        image_layout,
        libvirt_state,
        log_disk,
        nft_rules,
        oci_bundle,
        qemu_log,
        qemu_state,
        qmp_answers,
        record,
    )
}
