"""Building guest images: archive, kernel, modules, programs; each from inputs that the
tests make.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import struct
import subprocess
from pathlib import Path

import lz4.block
import pytest
import zstandard
from vc_agent_grpc import GrpcAgent, GrpcAgentOptions, image, plugin
from vc_agent_grpc.image import agent_program, builder, kernel, programs
from vc_agent_grpc.image.cpio import Archive
from vc_agent_grpc.image.vmlinux import extract_vmlinux

from vc_core.spec import Capability, PodRef, Verdict

KERNEL = b"\x7fELF" + b"Xen\0" + bytes(range(256)) * 40


def bzimage(payload: bytes) -> bytes:
    """A kernel image as Documentation/arch/x86/boot.rst lays it out, with one setup sector."""
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 0, len(payload))
    return bytes(head) + payload + b"tail"


def lz4_legacy(data: bytes) -> bytes:
    block = lz4.block.compress(data, store_size=False)
    return (
        b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block + struct.pack("<I", len(data))
    )


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        bz2.compress,
        lambda data: lzma.compress(data, lzma.FORMAT_XZ) + struct.pack("<I", len(data)),
        lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
        zstandard.ZstdCompressor().compress,
        lz4_legacy,
    ],
    ids=["gzip", "bzip2", "xz", "lzma", "zstd", "lz4"],
)
def test_every_compression_that_distributions_use(pack):
    assert extract_vmlinux(bzimage(pack(KERNEL))) == KERNEL


def test_an_uncompressed_kernel_is_taken_as_it_is():
    assert extract_vmlinux(KERNEL) == KERNEL


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"nonsense" * 200, "not an x86 kernel image"),
        (bzimage(b"unknown"), "unknown kernel compression"),
        (bzimage(gzip.compress(b"no elf")), "not an ELF file"),
        (bzimage(gzip.compress(b"\x7fELF no note")), "no PVH entry"),
    ],
)
def test_what_is_no_kernel_says_so(data, words):
    with pytest.raises(image.ImageError, match=words):
        extract_vmlinux(data)


def test_archives_are_equal_for_equal_inputs_and_cpio_reads_them(tmp_path):
    def archive(order):
        made = Archive()
        for path, content in order:
            made.add_file(path, content, 0o755)
        made.add_folder("/dev")
        return made.to_bytes()

    files = [("/bin/busybox", b"program"), ("/etc/a", b"x" * 5)]
    data = archive(files)
    assert data == archive(reversed(files))
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed (the package busybox-static)")
    subprocess.run(
        [busybox, "cpio", "-idm"], input=data, cwd=tmp_path, check=True, capture_output=True
    )
    assert (tmp_path / "bin/busybox").read_bytes() == b"program"
    assert (tmp_path / "etc/a").read_text() == "xxxxx"
    assert (tmp_path / "dev").is_dir()


def test_a_programs_libraries_come_along():
    found = programs.with_libraries(programs.find("crun", "crun"))
    assert any(path.startswith("/lib/libc.so") for path in found)
    assert any("ld-linux" in path for path in found)
    assert not programs.with_libraries(Path(shutil.which("busybox") or "/bin/busybox"))


def test_a_missing_program_names_its_package():
    with pytest.raises(image.ImageError, match="install the package some-package"):
        programs.find("no-such-program", "some-package")


def test_a_kernel_that_is_not_there_says_so(tmp_path):
    with pytest.raises(image.ImageError, match="is missing or not readable"):
        kernel.from_paths(tmp_path / "vmlinuz-1", None)
    (tmp_path / "vmlinuz-1").write_bytes(KERNEL)
    with pytest.raises(
        image.ImageError, match="has no kernel modules; give their directory with --modules"
    ):
        kernel.from_paths(tmp_path / "vmlinuz-1", tmp_path)


def test_no_cargo_names_the_packages(monkeypatch):
    monkeypatch.setattr(agent_program, "find_program", lambda _: None)
    with pytest.raises(
        image.ImageError,
        match=r"cargo 1\.88 or newer is missing; install the packages cargo-web and rustc-web",
    ):
        agent_program.find_cargo()


def test_a_cargo_that_is_too_old_is_passed_over(tmp_path, monkeypatch):
    old = tmp_path / "cargo"
    old.write_text("#!/bin/sh\necho cargo 1.63.0\n")
    old.chmod(0o755)
    monkeypatch.setenv("CARGO", str(old))
    monkeypatch.setenv("PATH", str(tmp_path))
    try:
        assert agent_program.find_cargo() != old
    except image.ImageError as error:
        assert "cargo is cargo 1.63.0" in str(error)  # noqa: PT017


def test_the_agents_build_obeys_no_file_of_the_current_folder(tmp_path, monkeypatch):
    """cargo and rustup read .cargo/config.toml and rust-toolchain.toml there, which can name any
    program.
    """
    cargo = tmp_path / "bin/cargo"
    cargo.parent.mkdir()
    cargo.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo cargo 1.99.0 && exit\n'
        f"pwd >{tmp_path}/where; exit 1\n"
    )
    cargo.chmod(0o755)
    monkeypatch.setenv("CARGO", "cargo")
    monkeypatch.setenv("PATH", f":.:{tmp_path}/bin:/usr/bin:/bin")
    trap = tmp_path / "trap"
    trap.mkdir()
    shutil.copy("/bin/false", trap / "cargo")
    monkeypatch.chdir(trap)
    with pytest.raises(image.ImageError, match="the guest agent cannot be built"):
        agent_program.built(tmp_path / "cache", lambda _: None)
    assert (tmp_path / "where").read_text() == "/\n"


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """A kernel whose modules are all built in, and a stand-in for the agent's program."""
    modules = tmp_path / "modules/1.2.3"
    modules.mkdir(parents=True)
    names = [name for names in builder.modules.PURPOSES.values() for name in names]
    (modules / "modules.builtin").write_text("".join(f"kernel/{name}.ko\n" for name in names))
    (tmp_path / "vmlinuz-1.2.3").write_bytes(bzimage(gzip.compress(KERNEL)))
    (tmp_path / "agent").write_bytes(b"an agent")
    return (tmp_path / "vmlinuz-1.2.3", modules, tmp_path / "agent")


def test_images_are_made_once_per_content_and_never_overwritten(tmp_path, inputs):
    cache, told = tmp_path / "cache", []
    first = builder.build(cache, told.append, *inputs)
    assert (first.release, first.is_current, told) == (
        "1.2.3",
        True,
        ["packing the guest image for Linux 1.2.3"],
    )
    assert first.kernel.read_bytes() == KERNEL
    again = builder.build(cache, told.append, *inputs)
    assert (again, len(told)) == (first, 1)
    inputs[2].write_bytes(b"another agent")
    second = builder.build(cache, told.append, *inputs)
    assert second.id != first.id
    assert first.kernel.exists(), "an old image stays while pods may use it"
    assert [found.id for found in image.images(cache)] == [second.id, first.id]
    inputs[2].write_bytes(b"an agent")
    assert builder.build(cache, told.append, *inputs).id == first.id, (
        "the old one is current again, nothing is packed"
    )
    assert len(told) == 2
    image.remove(cache, second.id[:6])
    assert [found.id for found in image.images(cache)] == [first.id]
    image.remove(cache, first.id)
    with pytest.raises(image.ImageError, match="run 'vc guest build'"):
        image.current(cache)


@pytest.mark.parametrize("name", ["vmlinux", "initrd"])
@pytest.mark.parametrize(
    "damage", [lambda data: data[:100], lambda data: b"x" + data[1:], lambda data: b""]
)
async def test_a_damaged_image_is_told_and_built_again(tmp_path, inputs, monkeypatch, name, damage):
    cache = tmp_path / "cache"
    built = builder.build(cache, lambda _: None, *inputs)
    agent = GrpcAgent(GrpcAgentOptions(cache))
    monkeypatch.setattr(plugin, "SYSTEM_CACHE", cache)
    file = built.kernel.with_name(name)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    (found,) = [one for one in await agent.agent_diagnose() if one.subject == "guest image"]
    assert (found.verdict, found.fix) == (Verdict.BAD, "vc guest build")
    assert "is damaged" in found.detail
    again = builder.build(cache, lambda _: None, *inputs)
    assert (again.id, file.read_bytes()) == (built.id, whole)
    (found,) = [one for one in await agent.agent_diagnose() if one.subject == "guest image"]
    assert found.verdict is Verdict.GOOD


def test_an_image_is_readable_for_others_whatever_the_umask(tmp_path, inputs):
    before = os.umask(0o077)
    try:
        built = builder.build(tmp_path / "cache", lambda _: None, *inputs)
        os.umask(0)
        image.remove(tmp_path / "cache", built.id)
        open_built = builder.build(tmp_path / "cache", lambda _: None, *inputs)
    finally:
        os.umask(before)
    for path in (
        tmp_path / "cache/guest",
        *open_built.kernel.parent.iterdir(),
        open_built.kernel.parent,
    ):
        mode = path.stat().st_mode
        assert mode & 0o044 == 0o044, path
        assert not mode & 0o022, path


def test_what_its_stand_in_does_is_told_by_an_image(tmp_path, inputs):
    def built(content: bytes) -> tuple[str, ...]:
        stand_in = inputs[2].with_name("vc-stand-in")
        stand_in.write_bytes(content)
        stand_in.chmod(0o755)
        return builder.build(tmp_path / "cache", lambda _: None, *inputs).stand_in_options

    assert built(b"#!/bin/sh\n[ $1 = --options ] && echo --listener && echo --starter\n") == (
        "--listener",
        "--starter",
    )
    assert built(b"#!/bin/sh\nexit 1\n") == (), "an older one"
    with pytest.raises(image.ImageError, match="vc-stand-in cannot be used"):
        built(b"no program")


@pytest.mark.parametrize(("options", "is_able"), [(["--starter"], True), ([], False)])
async def test_a_stand_in_starts_containers_if_its_image_says_so(tmp_path, options, is_able):
    folder = tmp_path / "guest/x"
    folder.mkdir(parents=True)
    about = {"id": "x", "release": "1", "inputs": {}, "stand_in_options": options}
    (folder / "manifest.json").write_text(json.dumps(about))
    agent = GrpcAgent(GrpcAgentOptions(cache=tmp_path, guest="x"))
    able = await agent.agent_capabilities(pod=PodRef(id="p", run_dir=tmp_path))
    assert (Capability.STARTER in able) is is_able


def test_a_module_that_the_kernel_lacks_is_named(tmp_path, inputs):
    (inputs[1] / "modules.builtin").write_text("")
    with pytest.raises(
        image.ImageError,
        match="the kernel has no module virtio_pci; the package linux-image-amd64 has it",
    ):
        builder.build(tmp_path / "cache", lambda _: None, *inputs)


def test_every_file_of_the_agent_counts_for_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, proto = agent_program.source()
    not_built = shutil.ignore_patterns("target", "tests")
    shutil.copytree(project, tmp_path / "guest", ignore=not_built)
    shutil.copytree(proto.parent, tmp_path / "proto")
    monkeypatch.setattr(
        agent_program, "source", lambda: (tmp_path / "guest", tmp_path / "proto" / proto.name)
    )
    seen = {agent_program.source_digest()}
    files = [
        path for path in tmp_path.rglob("*") if path.suffix in {".rs", ".toml", ".lock", ".proto"}
    ]
    assert (
        len({path.parent for path in files}) > 3
    )  # modules in folders of their own are among them
    for file in files:
        file.write_bytes(file.read_bytes() + b"\n")
        seen.add(agent_program.source_digest())
    assert len(seen) == len(files) + 1


def test_the_agents_source_is_found():
    project, proto = agent_program.source()
    assert (project / "Cargo.lock").is_file()
    assert proto.is_file()
    assert len(agent_program.source_digest()) == 16


def test_without_package_lists_the_remedy_is_told_before_the_agent_is_built(tmp_path, monkeypatch):
    apt = tmp_path / "apt-cache"
    apt.write_text("#!/bin/sh\necho 'E: No packages found' >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        agent_program, "built", lambda *_: pytest.fail("it was built first, which takes minutes")
    )
    with pytest.raises(
        image.ImageError, match="no package list knows linux-image-amd64; run 'apt-get update'"
    ):
        builder.build(tmp_path / "cache", lambda _: None)
