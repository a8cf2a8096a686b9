"""The default seccomp filter: what it allows with which capabilities, and that it compiles."""

from __future__ import annotations

from pathlib import Path

from vc_agent_grpc.image.seccomp_program import compiled
from vc_agent_grpc.oci_spec import spec_of
from vc_agent_grpc.seccomp import default_filter, digest

from vc_core.spec import (
    DEFAULT_CAPABILITIES,
    Confinement,
    ContainerSpec,
    GuestContainer,
    GuestDriver,
    GuestRootfs,
    Plugged,
    ProcessSpec,
    Rootfs,
)

ADMIN = (*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN")


def outright(document, action):
    """Names that get an action whatever their arguments are."""
    rules = [
        rule for rule in document["syscalls"] if rule["action"] == action and not rule.get("args")
    ]
    return {name for rule in rules for name in rule["names"]}


def test_namespaces_mounts_and_key_rings_need_an_administrator():
    refused = {
        "unshare",
        "setns",
        "mount",
        "umount2",
        "move_mount",
        "keyctl",
        "add_key",
        "clone3",
        "clone",
    }
    assert outright(default_filter(DEFAULT_CAPABILITIES), "SCMP_ACT_ALLOW") & refused == set()
    assert outright(default_filter(ADMIN), "SCMP_ACT_ALLOW") >= {
        "unshare",
        "setns",
        "mount",
        "clone",
        "clone3",
    }


def test_clone_is_allowed_but_for_flags_of_namespaces():
    rules = [
        rule
        for rule in default_filter(DEFAULT_CAPABILITIES)["syscalls"]
        if "clone" in rule["names"]
    ]
    arguments = [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    assert rules == [{"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": arguments}]


def test_calls_that_kernel_attacks_begin_with_are_refused():
    attacked = {
        "userfaultfd",
        "io_uring_setup",
        "io_uring_enter",
        "bpf",
        "perf_event_open",
        "kcmp",
        "kexec_load",
    }
    assert outright(default_filter(DEFAULT_CAPABILITIES), "SCMP_ACT_ALLOW") & attacked == set()


def test_the_filter_compiles_and_depends_on_capabilities():
    plain, admin = compiled(default_filter(DEFAULT_CAPABILITIES)), compiled(default_filter(ADMIN))
    assert len(plain) % 8 == 0
    assert len(plain) > 4096
    assert plain != admin
    assert digest(default_filter(DEFAULT_CAPABILITIES)) != digest(default_filter(ADMIN))


def document_of(seccomp, compiled_filter):
    confinement = Confinement(seccomp=seccomp)
    spec = ContainerSpec(
        id="c",
        rootfs=Rootfs(path=Path("/r")),
        process=ProcessSpec(args=("true",)),
        confinement=confinement,
    )
    return spec_of(
        GuestContainer(
            spec=spec,
            token="token",
            rootfs=GuestRootfs(plugged=Plugged(id="", driver=GuestDriver.NINE_P, address="tag")),
        ),
        compiled_filter,
    )


def test_a_container_is_filtered_unless_it_says_otherwise():
    documents = [document_of(text, b"program") for text in (None, "", '{"a": 1}')]
    assert [document["linux"].get("seccomp") for document in documents] == [
        default_filter(DEFAULT_CAPABILITIES),
        None,
        {"a": 1},
    ]
    compiled_ones = [
        "run.oci.seccomp_bpf_data" in document["annotations"] for document in documents
    ]
    assert compiled_ones == [True, False, False]
