"""Completes the specification of a process with the defaults of its container."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from msgspec import structs

from vc_core.spec.values import ContainerSpec, ProcessSpec

T = TypeVar("T")


def first_process(spec: ContainerSpec, hostname: str) -> ProcessSpec:
    """Returns the complete specification of a container's first process.

    Args:
        spec: the container.
        hostname: host name of its pod.
    """
    process = spec.process
    env = process.env
    name = spec.hostname or hostname
    if spec.has_default_mounts and name:  # a bundle's environment is as in its config.json
        env = merged_env((f"HOSTNAME={name}",), env)
    return structs.replace(
        process,
        env=env,
        cwd=process.cwd or "/",
        user=process.user or "0:0",
        no_new_privileges=process.no_new_privileges is not False,
    )


def added_process(spec: ContainerSpec, hostname: str, wanted: ProcessSpec) -> ProcessSpec:
    """Returns the complete specification of a further process of a running container.

    Empty or None fields get the values of the first process.
    """
    first = first_process(spec, hostname)
    limits = {limit.kind: limit for limit in (*first.rlimits, *wanted.rlimits)}
    return structs.replace(
        wanted,
        env=merged_env(first.env, wanted.env),
        cwd=wanted.cwd or first.cwd,
        user=wanted.user or first.user,
        groups=tuple(dict.fromkeys((*first.groups, *wanted.groups))),
        no_new_privileges=_or(wanted.no_new_privileges, first.no_new_privileges),
        capabilities=wanted.capabilities or first.capabilities,
        rlimits=tuple(limits.values()),
        umask=_or(wanted.umask, first.umask),
        oom_score_adj=_or(wanted.oom_score_adj, first.oom_score_adj),
    )


def merged_env(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    """Returns the words of both; for the same name, the word of `second`."""
    names = {word.partition("=")[0] for word in second}
    return (*(word for word in first if word.partition("=")[0] not in names), *second)


def _or(wanted: T | None, otherwise: T | None) -> T | None:
    return otherwise if wanted is None else wanted
