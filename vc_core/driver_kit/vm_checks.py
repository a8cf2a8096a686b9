"""Checks that a driver makes before it creates a machine or plugs a device."""

from __future__ import annotations

import os

from vc_core.spec import Guest, HypervisorError, VmSpec


def check_guest_files(guest: Guest) -> None:
    """Raises HypervisorError when the kernel or the initrd is missing or unreadable."""
    for path in (guest.kernel, guest.initrd):
        if not os.access(path, os.R_OK):
            raise HypervisorError(
                f"the guest's {path} is missing or unreadable; run 'vc guest build'"
            )


def check_size(spec: VmSpec, max_vcpus: int, max_memory_mib: int, table: str) -> None:
    """Raises HypervisorError when a machine would be larger than the options allow.

    Args:
        spec: the machine.
        max_vcpus: option of the same name.
        max_memory_mib: option of the same name.
        table: the table of these options in the configuration, for the remedy.
    """
    for requested, limit, unit, option in (
        (spec.vcpus, max_vcpus, "vCPUs", "max_vcpus"),
        (spec.memory_mib, max_memory_mib, "MiB of memory", "max_memory_mib"),
    ):
        if requested > limit:
            raise HypervisorError(
                f"{requested} {unit} were requested and the limit is {limit}; "
                f"raise {table}.{option}"
            )


def first_free(taken: set[int], count: int, places: str, remedy: str) -> int:
    """Returns the first number from 0 that is not taken.

    Args:
        taken: numbers in use.
        count: number of places.
        places: the kind of places, for the message.
        remedy: what the user can do when all are taken.

    Raises:
        HypervisorError: all are taken.
    """
    for number in range(count):
        if number not in taken:
            return number
    raise HypervisorError(f"all {count} {places} are taken; {remedy}")
