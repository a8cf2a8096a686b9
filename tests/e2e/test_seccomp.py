"""The default seccomp filter in a real guest: what a container may not ask of the kernel."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.only("qemu")

# Numbers of x86-64; each call must fail with EPERM or ENOSYS before its arguments are looked at.
PROBE = """
import ctypes, errno, json, os, threading
libc = ctypes.CDLL(None, use_errno=True)
calls = {"unshare user": (272, 0x10000000), "clone user": (56, 0x10000011, 0, 0, 0, 0),
         "clone3": (435, 0, 0), "userfaultfd": (323, 0), "io_uring_setup": (425, 1, 0),
         "kcmp": (312, 1, 1, 0, 0, 0), "bpf": (321, 0, 0, 0), "keyctl": (250, 0, -4, 1),
         "add_key": (248, b"user", b"k", b"v", 1, -4), "mount": (165, 0, 0, 0, 0, 0),
         "perf_event_open": (298, 0, 0, -1, -1, 0), "setns": (308, 0, 0),
         "move_mount": (429, 0, 0, 0, 0, 0)}
got = {}
for name, (number, *args) in calls.items():
    answer = libc.syscall(number, *args)
    got[name] = "allowed" if answer >= 0 else errno.errorcode[ctypes.get_errno()]
thread = threading.Thread(target=lambda: got.update(thread="works")); thread.start(); thread.join()
child = os.fork()
if not child: os._exit(7)
got["fork"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(got))
"""
WORKS = {"thread": "works", "fork": 7}


def probed(done):
    found = json.loads(done.stdout)
    assert {name: found.pop(name) for name in WORKS} == WORKS
    return found


def test_containers_may_not_reach_the_kernels_attack_surface_also_by_exec(host):
    host.vc("run", "-d", "--name", "box", "--rootfs", "/", "sleep", "1000")
    for how in (["exec", "box", "--"], ["run", "--rootfs", "/"]):
        found = probed(host.vc(*how, "/usr/bin/python3", "-c", PROBE))
        assert {
            name: answer for name, answer in found.items() if answer not in {"EPERM", "ENOSYS"}
        } == {}
    host.vc("pod", "delete", "--force", "box")


def test_an_administrator_may_more(host):
    found = probed(
        host.vc("run", "--cap-add", "SYS_ADMIN", "--rootfs", "/", "/usr/bin/python3", "-c", PROBE)
    )
    assert found["unshare user"] == "allowed"
    assert found["userfaultfd"] in {"EPERM", "ENOSYS"}
