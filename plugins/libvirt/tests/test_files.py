"""What libvirt writes: logs of ended machines, files of saved ones; and our own records."""

from __future__ import annotations

import dataclasses
import os
import struct
import threading
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from vc_libvirt import checkpoint, exit_reason
from vc_libvirt.domain_xml import domain, owner_of, text
from vc_libvirt.driver_state import SCHEMA, LibvirtState
from vc_libvirt.errors import LibvirtError
from vc_libvirt.save_image import Feed, SaveImage

from vc_core.driver_kit import Accelerator, HostProcess, decode_record, encode_record
from vc_core.spec import Checkpoint, HypervisorError

STARTED = "2026-11-25 12:00:00.000+0000: starting up libvirt version: 9.0.0\n"
ENDED = "2026-11-25 12:00:01.000+0000: shutting down, reason={}\n"
SIGNAL = "2026-11-25T12:00:00.5Z qemu-system-x86_64: terminating on signal 15 from pid 7 ()\n"
WARNING = "2026-11-25T12:00:00.4Z qemu-system-x86_64: warning: 9p: odd\n"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (STARTED + ENDED.format("shutdown"), "the guest powered off or reset itself"),
        (STARTED + SIGNAL + ENDED.format("destroyed"), "it was ended"),
        (
            STARTED + SIGNAL + ENDED.format("shutdown"),
            "QEMU was ended by a signal (terminating on signal 15 from pid 7 ())",
        ),
        (
            STARTED + WARNING + ENDED.format("crashed"),
            "QEMU was killed or crashed, or the guest's kernel panicked",
        ),
        (
            STARTED + "2026-11-25T12:00:00Z qemu-system-x86_64: oops\n" + ENDED.format("failed"),
            "it did not start; the last it said: oops",
        ),
        (STARTED, "QEMU was killed or crashed"),
        ("", "QEMU was killed or crashed"),
    ],
)
def test_reasons(tmp_path, told, reason):
    log = tmp_path / "log"
    log.write_text(told)
    assert exit_reason.reason(log) == reason


def test_a_log_that_is_not_there_is_an_empty_one(tmp_path):
    assert exit_reason.tail(tmp_path / "none", 10) == b""
    (tmp_path / "log").write_text("0123456789abcdef")
    assert exit_reason.tail(tmp_path / "log", 4) == b"cdef"


def test_the_state_survives_a_process():
    state = LibvirtState(
        "u", Accelerator.KVM, True, HostProcess(7, 8), ("vc0",), 1, 256, name="vc-p-1"
    )
    for exported in (state, LibvirtState()):
        text = encode_record(exported, SCHEMA)
        assert decode_record(text, LibvirtState, SCHEMA, "the state") == exported


# --- files of saved machines ----------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path, wanted):
    """Writes one as libvirt does: its XML and a cookie lie between header and state."""

    def write(state: bytes, magic: bytes = b"LibvirtQemudSave") -> Path:
        xml, cookie = text(domain(wanted)).encode() + b"\0", b"<cookie/>\0"
        head = struct.pack("=16s5I14I", magic, 2, len(xml + cookie), 0, 0, len(xml), *[0] * 14)
        path = tmp_path / "image"
        path.write_bytes(head + xml + cookie + state)
        return path

    return write


def test_another_machine_goes_on_from_the_same_state(tmp_path, saved, wanted):
    state = bytes(range(256)) * 1000
    image = SaveImage.read(saved(state))
    assert ET.fromstring(image.xml).findtext("name") == wanted.name
    pipe = tmp_path / "pipe"
    pipe.touch()
    Feed(image, "<domain/>", pipe).run()
    again = SaveImage.read(pipe)
    assert again.xml == "<domain/>"
    assert pipe.read_bytes()[again.begin :] == state


@pytest.mark.parametrize("is_early", [True, False])
def test_whoever_reads_less_gets_no_more(tmp_path, saved, is_early):
    image, pipe = SaveImage.read(saved(bytes(1 << 20))), tmp_path / "pipe"
    os.mkfifo(pipe)
    feed = Feed(image, "<domain/>", pipe)
    feeding = threading.Thread(target=feed.run)
    if is_early:
        feeding.start()
        with pipe.open("rb"):
            pass
    releasing = threading.Thread(target=feed.release)
    releasing.start()
    if not is_early:
        feeding.start()
    for thread in (feeding, releasing):
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("magic", [b"LibvirtQemudPart", b"something else!!"])
def test_what_is_no_saved_machine_is_told(saved, magic):
    with pytest.raises(LibvirtError, match="is no saved machine"):
        SaveImage.read(saved(b"", magic))


def test_a_file_that_ends_early_is_told(saved):
    path = saved(b"")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(LibvirtError, match="cannot be read"):
        SaveImage.read(path)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (None, "cannot be read"),
        ("{", "damaged"),
        ('{"schema": 0}', "another version"),
        (
            '{"schema": 2, "vcpus": 1, "memory_mib": 256, "accelerator": "tcg", "image_bytes": 1}',
            "another size",
        ),
    ],
)
def test_damage_is_told(tmp_path, saved, record, problem):
    saved(b"state")
    if record is not None:
        (tmp_path / "machine.json").write_text(record)
    with pytest.raises(HypervisorError, match=problem):
        checkpoint.read(Checkpoint(folder=tmp_path, memory=tmp_path / "memory"))


def test_the_next_machine_has_a_name_of_its_own_and_the_same_devices(saved, wanted):
    image = SaveImage.read(saved(b""))
    folder = dataclasses.replace(wanted.shares[0], path=Path("/elsewhere"))
    child = dataclasses.replace(
        wanted,
        name="vc-q-1",
        uuid="7c0b1d9e-0000-4000-8000-000000000002",
        pod="q",
        shares=(folder,),
    )
    made = checkpoint.another(image, child, {})
    assert (made.findtext("name"), made.findtext("uuid")) == (child.name, child.uuid)
    assert owner_of(made.find("metadata")) == "q"
    assert made.find("devices/filesystem/source").get("dir") == "/elsewhere"
    assert made.find("genid").text is None, "a new generation, so that the guest reseeds"
