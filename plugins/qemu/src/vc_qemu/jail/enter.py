"""Enters the jail.

A user namespace applies to a whole process; everything else can apply to one thread. For root this
module runs in a thread of the calling process, which then starts the machine. For other users
`main` runs in a process that becomes the machine. Its start takes as long as that of Python, so
this imports little, and only modules of the standard library or beside it.
"""

from __future__ import annotations

import marshal
import os
import sys

from vc_qemu.jail import calls, root
from vc_qemu.jail.calls import Opened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MACHINES = 10
"""The machine's own descriptors are below this number."""


class Failure(Exception):
    """The kernel refused a step.

    Attributes:
        layer: the layer that requires it, a value of `layers.Layer`.
        step: the step.
        code: the kernel's error number.
    """

    def __init__(self, layer: str, step: str, code: int) -> None:
        super().__init__(layer, step, code)
        self.layer, self.step, self.code = layer, step, code

    def __str__(self) -> str:
        return f"{self.step}: {os.strerror(self.code)}"


class Plan:
    """The program to start and its jail, as plain values that `marshal` supports.

    Attributes:
        argv: argv of the machine; its program first.
        stdin: file for the standard input, opened for reading.
        namespaces: whether it gets namespaces and a root of its own.
        user: user and group id, if the other namespaces require a user namespace; else empty.
        place: argument of `root.enter`, like the next three.
        files: files that it can access.
        shares: shares that it can access.
        folders: mount points for later mounts.
        capabilities: mask of the capabilities that it keeps.
        program: the seccomp filter; empty for none.
        huge_pages: whether it may have transparent huge pages, as this process has.
    """

    argv: tuple[str, ...]
    stdin: str
    namespaces: bool
    user: tuple[int, ...]
    place: str
    files: tuple[tuple[str, str, str], ...]
    shares: tuple[tuple[str, str, bool], ...]
    folders: tuple[str, ...]
    capabilities: int
    program: bytes
    huge_pages: bool

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)


def leave_namespaces(plan: Plan) -> None:
    """Leaves the namespaces: programs started afterwards get a pid namespace of their own.

    Raises:
        Failure: the kernel refused.
    """
    _step("namespaces", "a working folder of its own", lambda: calls.unshare(calls.FS))
    os.umask(0o077)
    # Descriptors that the caller has left open must not reach the machine.
    _step("namespaces", "open files", lambda: calls.keep_descriptors_below(MACHINES))
    if plan.user:
        _step("namespaces", "a user namespace", lambda: _new_user_namespace(*plan.user))
    if plan.namespaces:
        kinds = calls.NEWNS | calls.OTHER_NAMESPACES
        _step("namespaces", "mount, pid, net, IPC, UTS", lambda: calls.unshare(kinds))


def leave_root(plan: Plan) -> None:
    """Enters the root of the jail, as the second step.

    Raises:
        Failure: the kernel refused.
    """
    if plan.namespaces:
        may_move = not plan.user
        _step(
            "root",
            "a root of its own",
            lambda: root.enter(plan.place, plan.files, plan.shares, plan.folders, may_move),
        )
    os.chdir("/")


def restrict(plan: Plan) -> None:
    """Drops privileges of the calling thread and of the programs it starts.

    Raises:
        Failure: the kernel refused.
    """
    kept = plan.capabilities
    _step("capabilities", "dropping capabilities", lambda: calls.keep_capabilities(kept))
    _step("capabilities", "no_new_privs", calls.set_no_new_privileges)
    if plan.program:
        _step("seccomp", "the seccomp filter", lambda: calls.load_filter(plan.program))


def folder_into(
    pid: int, user: bool, source: str, target: str, read_only: bool, has_devices: bool
) -> None:
    """Mounts a folder of the host in a jail. The thread, or process, must end afterwards.

    Args:
        pid: pid of the machine.
        user: whether it has a user namespace.
        source: a folder of the host, without links.
        target: a folder of the jail.
        read_only: also for mounts below.
        has_devices: whether device nodes in it can be opened.

    Raises:
        OSError: the kernel refused.
    """
    with Opened() as opened:
        mounts = _namespaces_of(opened, pid, user)
        calls.unshare(calls.NEWNS)
        root.receive_mounts()
        origin = opened.path(source, os.O_DIRECTORY)
        tree, hidden = root.tree(origin, source, read_only, has_devices=has_devices)
        opened.add(tree)
        if hidden:  # in this namespace, which is private and ends with this thread
            calls.attach(tree, origin)
            root.cover(tree, hidden)
            tree = opened.add(calls.clone(tree, recursive=True))
        calls.join(mounts, calls.NEWNS)
        calls.attach(tree, opened.path(target, os.O_DIRECTORY | os.O_NOFOLLOW))


def folder_out_of(pid: int, user: bool, target: str) -> None:
    """Removes the mount of `folder_into`. Nothing there is no error.

    Raises:
        OSError: the kernel refused.
    """
    with Opened() as opened:
        mounts = _namespaces_of(opened, pid, user)
        calls.unshare(calls.FS)
        calls.join(mounts, calls.NEWNS)
        calls.unmount(target)


def main() -> None:
    """Reads a task from the descriptor of the first argument, answers on the second."""
    source, answer = (int(word) for word in sys.argv[1:3])
    with open(source, "rb") as file:  # noqa: PTH123 (a descriptor)
        what, values = marshal.load(file)  # noqa: S302 (of the process that started this one)
    os.set_inheritable(answer, False)
    try:
        if what == "start":
            _become(Plan(**values), answer)
        elif what == "mount":
            folder_into(*values)
        else:
            folder_out_of(*values)
    except Failure as failure:
        os.write(answer, marshal.dumps(("failure", failure.layer, failure.step, failure.code)))
    except OSError as error:
        os.write(answer, marshal.dumps(("error", error.filename or "", "", error.errno or 0)))


def _become(plan: Plan, answer: int) -> None:
    """Becomes the machine. In a pid namespace a child does, which is its first process."""
    if not plan.huge_pages:
        calls.allow_huge_pages(False)
    leave_namespaces(plan)
    if plan.namespaces:
        if child := os.fork():
            os.write(answer, marshal.dumps(("pid", "", "", child)))
            os._exit(0)
        os.setsid()
    leave_root(plan)
    restrict(plan)
    os.execve(plan.argv[0], plan.argv, {})  # noqa: S606 (no shell is wanted)


def _new_user_namespace(uid: int, gid: int) -> None:
    calls.unshare(calls.NEWUSER)
    calls.write("/proc/self/setgroups", "deny")
    calls.write("/proc/self/uid_map", f"{uid} {uid} 1")
    calls.write("/proc/self/gid_map", f"{gid} {gid} 1")


def _namespaces_of(opened: Opened, pid: int, user: bool) -> int:
    """Enters the user namespace of a machine, if it has one; returns its mount namespace."""
    mounts = opened.add(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
    if user:
        owner = opened.add(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC))
        calls.join(owner, calls.NEWUSER)
    return mounts


def _step(layer: str, step: str, call: Callable[[], None]) -> None:
    try:
        call()
    except OSError as error:
        about = f" ({error.filename})" if error.filename else ""
        raise Failure(layer, step + about, error.errno or 0) from error
