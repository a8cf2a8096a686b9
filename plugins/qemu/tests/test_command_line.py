"""QEMU's command line as a structured value, and as QEMU itself reads it."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
from msgspec import structs
from vc_qemu import checkpoint, machine_config
from vc_qemu.command_line import FolderShare, Machine, option, words
from vc_qemu.options import QemuOptions

from vc_core.driver_kit import Accelerator
from vc_core.spec import Guest, HypervisorError, PodRef, VmSpec

MACHINE = Machine(
    binary="/usr/bin/qemu-system-x86_64",
    name="pod",
    uuid="7c0b1d9e-0000-4000-8000-000000000001",
    accelerator="tcg",
    machine="q35",
    cpu="max",
    vcpus=1,
    max_vcpus=4,
    memory_mib=256,
    max_memory_mib=4096,
    memory_slots=16,
    shared_memory=False,
    kernel=Path("/guest/vmlinux"),
    initrd=Path("/guest/initrd"),
    parameters=("console=ttyS0", "quiet"),
    run_dir=Path("/run/pod"),
    shares=(FolderShare("vc0", Path("/a,b=c d"), read_only=True),),
    root_ports=1,
    share_slots=1,
    is_root=True,
)


def chosen_cpu(folder: Path, accelerator: Accelerator, configured: str = "") -> str:
    guest = Guest(id="g", kernel=Path("/k"), initrd=Path("/i"), parameters=(), proof_parameters=())
    spec = VmSpec(guest=guest, vcpus=1, memory_mib=256)
    pod = PodRef(id="p", run_dir=folder)
    options = QemuOptions(cpu=configured)
    return machine_config.machine_of(options, pod, spec, "/usr/bin/qemu", accelerator, "").cpu


def pairs(machine: Machine) -> list[tuple[str, str]]:
    told = words(machine)[1:]
    return [(told[at], told[at + 1]) for at in range(len(told) - 1) if told[at].startswith("-")]


def test_values_are_escaped_in_one_place():
    assert (
        option("local", id="x", path="/a,b=c d", readonly=True)
        == "local,id=x,path=/a,,b=c d,readonly=on"
    )


def test_the_whole_line():
    golden = (Path(__file__).parent / "golden_command_line.txt").read_text().splitlines()
    assert list(words(MACHINE)) == golden


def test_the_sandbox_is_always_on():
    assert (
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ) in pairs(MACHINE)


@pytest.mark.parametrize(
    ("vcpus", "memory_mib", "smp", "memory"),
    [(1, 256, "1,maxcpus=4", "256M,slots=16,maxmem=4096M"), (8, 8192, "8,maxcpus=8", "8192M")],
)
def test_ceilings_are_never_below_the_start(vcpus, memory_mib, smp, memory):
    found = dict(pairs(structs.replace(MACHINE, vcpus=vcpus, memory_mib=memory_mib)))
    assert (found["-smp"], found["-m"]) == (smp, memory)


def test_only_root_gives_files_away_and_only_where_it_may_write():
    shares = (
        FolderShare("ro", Path("/a"), read_only=True),
        FolderShare("rw", Path("/b"), read_only=False),
    )
    machine = structs.replace(MACHINE, shares=shares, share_slots=0)
    models = {
        is_root: [
            value.partition("security_model=")[2].partition(",")[0]
            for key, value in pairs(structs.replace(machine, is_root=is_root))
            if key == "-fsdev"
        ]
        for is_root in (True, False)
    }
    assert models == {True: ["none", "passthrough"], False: ["none", "none"]}


@pytest.mark.vm
def test_qemu_itself_accepts_the_line(tmp_path):
    binary = shutil.which("qemu-system-x86_64")
    if binary is None:
        pytest.skip("qemu-system-x86_64 is not installed (the package qemu-system-x86)")
    (tmp_path / "a,b=c d").mkdir()
    machine = structs.replace(
        MACHINE,
        cpu=chosen_cpu(tmp_path, Accelerator.TCG),
        binary=binary,
        run_dir=tmp_path,
        shares=(FolderShare("vc0", tmp_path / "a,b=c d", read_only=True),),
    )
    line = [
        word
        for word in words(machine)
        if word not in ("-kernel", "/guest/vmlinux", "-initrd", "/guest/initrd")
    ]
    at = line.index("-append")
    del line[at : at + 2]
    line[line.index("socket,id=monitor,fd=3,server=on,wait=off")] = "stdio,id=monitor"
    talk = '{"execute":"qmp_capabilities"}{"execute":"query-status"}{"execute":"quit"}'
    done = subprocess.run(
        [*line, "-S"], input=talk, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"status": "prelaunch"' in done.stdout


def test_an_emulated_cpu_does_not_promise_fast_copies_of_bytes(tmp_path):
    assert chosen_cpu(tmp_path, Accelerator.TCG) == "max,-erms,-fsrm"
    assert chosen_cpu(tmp_path, Accelerator.KVM) == "host"
    assert chosen_cpu(tmp_path, Accelerator.TCG, "qemu64") == "qemu64"


def test_memory_that_is_shared_is_counted_once():
    found = pairs(structs.replace(MACHINE, shared_memory=True))
    assert [value for name, value in found if name == "-object"] == [
        "memory-backend-memfd,id=ram,size=256M,share=on"
    ]
    assert "memory-backend=ram" in dict(found)["-machine"], (
        "it is the machine's memory, not more of it"
    )
    assert dict(found)["-m"].startswith("256M,")


def test_root_ports_stand_where_the_guest_is_told_they_are():
    found = pairs(structs.replace(MACHINE, root_ports=24))
    places = [
        value.rpartition("=")[2]
        for name, value in found
        if name == "-device" and "pcie-root-port" in value
    ]
    assert places == [f"{0x1E - number:x}" for number in range(24)]


def test_what_gives_memory_back_takes_a_place():
    found = [
        value
        for name, value in pairs(structs.replace(MACHINE, balloon_port=0))
        if "balloon" in value
    ]
    assert found == ["virtio-balloon-pci,id=balloon,bus=rp0,free-page-reporting=on"]


@pytest.mark.parametrize(
    ("vcpus", "memory_mib", "setting"), [(99, 256, "max_vcpus"), (1, 5120, "max_memory_mib")]
)
def test_a_machine_above_its_ceilings_is_refused_with_the_setting(
    tmp_path, vcpus, memory_mib, setting
):
    spec = VmSpec(
        guest=Guest(
            id="g", kernel=Path("/k"), initrd=Path("/i"), parameters=(), proof_parameters=()
        ),
        vcpus=vcpus,
        memory_mib=memory_mib,
    )
    with pytest.raises(
        HypervisorError, match=rf"the limit is \d+; raise hypervisor\.qemu\.{setting}"
    ):
        machine_config.machine_of(
            QemuOptions(),
            PodRef(id="p", run_dir=tmp_path),
            spec,
            "/usr/bin/qemu",
            Accelerator.TCG,
            "",
        )


def test_a_template_of_another_checkpoint_format_is_not_looked_for(monkeypatch, tmp_path):
    for name in ("qemu", "kernel", "initrd"):
        (tmp_path / name).write_text(name)
    machine = structs.replace(
        MACHINE,
        binary=str(tmp_path / "qemu"),
        kernel=tmp_path / "kernel",
        initrd=tmp_path / "initrd",
    )
    today = machine_config.fingerprint(machine)
    assert machine_config.fingerprint(machine) == today
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "SCHEMA", checkpoint.SCHEMA + 1)
        assert machine_config.fingerprint(machine) != today
    # Fields may change without a new number: such a template was called damaged at each start.
    older = dataclasses.make_dataclass(
        "Manifest",
        [(one.name, one.type) for one in dataclasses.fields(checkpoint.Manifest)][:-1],
    )
    monkeypatch.setattr(checkpoint, "Manifest", older)
    assert machine_config.fingerprint(machine) != today
