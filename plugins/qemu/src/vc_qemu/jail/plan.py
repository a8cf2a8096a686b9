"""Determines the jail of a machine: its files, and their places."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from msgspec import structs

from vc_qemu.command_line import CONSOLE, Machine, slot_path, words
from vc_qemu.jail import seccomp
from vc_qemu.jail.enter import Plan
from vc_qemu.jail.files import Program
from vc_qemu.jail.layers import Layer

OPEN_FILES = "/proc/self/fd"
"""QEMU's 9p server changes modes and attributes of files by their paths below this folder."""

_SHARES = Path("/shares")
# The capabilities(7) with which QEMU sets the owners of a guest's files: CHOWN, DAC_OVERRIDE,
# FOWNER, FSETID, SETFCAP. Not DAC_READ_SEARCH, which permits opening files by handle anywhere, and
# not MKNOD.
_OVER_FILES = (0, 1, 3, 4, 31)
_READS_ONLY = (8, 2)  # from here on QEMU can map a read-only file privately
_FOR_PCI = ("/dev/vfio", "/sys")  # mounted when a PCI device of the host is plugged


def of_machine(
    machine: Machine, program: Program, memories: Iterable[Path], absent: Collection[Layer]
) -> Plan:
    """Returns the jail of a machine.

    Args:
        machine: the machine with paths of the host. Its files have the same paths in the jail,
            except for shares.
        program: QEMU.
        memories: files of memory modules that are plugged before it begins.
        absent: layers to leave out.

    Raises:
        SeccompError: libseccomp is missing or refuses the filter.
    """
    modules = [str(path) for path in memories]
    has_root = Layer.ROOT not in absent
    is_read = machine.is_clone and not modules and has_root and Layer.SECCOMP not in absent
    is_told = is_read and program.version >= _READS_ONLY
    inside = structs.replace(_inside(machine) if has_root else machine, memory_is_read=is_told)
    plan = of_words(words(inside), program, machine.run_dir, absent, is_read and not is_told)
    # The memory of a clone is a file's. What else could lie in huge pages is translated code and
    # the heap. They become larger by that and not faster: benchmarks/README.md has the figures.
    plan.huge_pages = not (machine.is_clone and machine.accelerator == "tcg")
    if is_read and not is_told:
        plan.stdin = str(machine.memory_file)
    files = [(str(machine.kernel), "r"), (str(machine.initrd), "r")]
    files.append((str(machine.run_dir / CONSOLE), "w"))
    if machine.accelerator == "kvm":
        files.append(("/dev/kvm", "d"))
    if machine.memory_file is not None:
        files.append((str(machine.memory_file), "r" if is_read else "w"))
    files += [(path, "w") for path in modules]
    plan.files += tuple((os.path.realpath(path), path, how) for path, how in files)
    plan.shares = tuple(
        (str(share.path.resolve()), str(_SHARES / str(number)), share.read_only)
        for number, share in enumerate(machine.shares)
    )
    slots = [str(slot_path(machine.run_dir, number)) for number in range(machine.share_slots)]
    plan.folders += (*slots, *_FOR_PCI)
    return plan


def of_words(
    argv: tuple[str, ...],
    program: Program,
    place: Path,
    absent: Collection[Layer],
    memory_is_stdin: bool = False,
) -> Plan:
    """Returns the jail of a QEMU that requires only its own files.

    Args:
        argv: its command line.
        program: QEMU.
        place: a folder of the machine's files, without other files of the jail.
        absent: layers to leave out.
        memory_is_stdin: as for `seccomp.compiled`.

    Raises:
        SeccompError: libseccomp is missing or refuses the filter.
    """
    has_root = Layer.ROOT not in absent
    is_root = os.geteuid() == 0
    resolved = functools.cache(os.path.realpath)  # most libraries are in one folder
    files = tuple((_real(path, resolved), path, "r") for path in program.files)
    files += (("/dev/null", "/dev/null", "d"),)  # with it QEMU tests how files are locked
    if not is_root:
        files += ((OPEN_FILES, OPEN_FILES, "r"),)
    has_filter = Layer.SECCOMP not in absent
    return Plan(
        argv=argv,
        stdin="/dev/null",
        namespaces=has_root,
        user=(os.geteuid(), os.getegid()) if has_root and not is_root else (),
        place=str(place),
        files=files,
        shares=(),
        folders=(OPEN_FILES,) if is_root else (),  # mounted when the process is there
        capabilities=sum(1 << number for number in _OVER_FILES) if is_root else 0,
        program=seccomp.compiled(has_root, memory_is_stdin) if has_filter else b"",
        huge_pages=True,
    )


def _real(path: str, resolved: Callable[[str], str]) -> str:
    """Returns a path without links, asking `resolved` for that of its folder."""
    folder, name = os.path.split(path)
    real = os.path.join(resolved(folder), name)  # noqa: PTH118
    return resolved(real) if os.path.islink(real) else real  # noqa: PTH114


def _inside(machine: Machine) -> Machine:
    shares = tuple(
        structs.replace(share, path=_SHARES / str(number))
        for number, share in enumerate(machine.shares)
    )
    return structs.replace(machine, shares=shares)
