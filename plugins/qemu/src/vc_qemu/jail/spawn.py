"""Starts a machine's process in its jail, and mounts folders in the jail of a running one."""

from __future__ import annotations

import contextlib
import fcntl
import io
import marshal
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vc_core.driver_kit import HostProcess
from vc_qemu.errors import QemuError
from vc_qemu.jail import calls, enter
from vc_qemu.jail.plan import OPEN_FILES

if TYPE_CHECKING:
    from vc_qemu.jail.enter import Plan

T = TypeVar("T")
Answer = tuple[str, str, str, int]

_ABOVE = 64
_SETTING = threading.Lock()  # of what applies to the whole process while a machine is started
_SIGNALS = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PLAN_FD, _ANSWER_FD = enter.MACHINES, enter.MACHINES + 1
# This folder follows those of the standard library, so that it hides none of its modules.
_BECOME = (
    "import sys; sys.path.append(sys.argv.pop(1)); from vc_qemu.jail.enter import main; main()"
)
_OURS = str(Path(enter.__file__).resolve().parents[2])


def start(
    plan: Plan, log: Path, descriptors: Mapping[int, int], meanwhile: Callable[[], None]
) -> HostProcess:
    """Starts a machine.

    Args:
        plan: the program to start and its jail.
        log: receives its messages.
        descriptors: number in the machine to number in this process; all below `enter.MACHINES`.
        meanwhile: work to do while another process enters the jail.

    Raises:
        enter.Failure: this host lacks a layer.
        QemuError: executing the program failed.
    """
    stdin = os.open(plan.stdin, os.O_RDONLY | os.O_CLOEXEC)
    messages = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        given = {0: stdin, 1: messages, 2: messages, **descriptors}
        if plan.user:
            return _by_another_process(plan, given, meanwhile)
        with contextlib.nullcontext() if plan.huge_pages else _no_huge_pages():
            process = HostProcess.of(_in_thread(lambda: _confined(plan, given)))
    finally:
        os.close(stdin)
        os.close(messages)
    if plan.namespaces:
        try:
            mount(process, False, f"/proc/{process.pid}/fd", OPEN_FILES, True, False)
        except OSError as error:
            if process.is_alive():  # else it has ended by itself, and its log has the reason
                process.send(signal.SIGKILL)
                step = f"mounting {OPEN_FILES}"
                raise enter.Failure("root", step, error.errno or 0) from error
    return process


def mount(
    process: HostProcess, user: bool, source: str, target: str, read_only: bool, has_devices: bool
) -> None:
    """Mounts a folder of the host in the jail of a machine. Arguments as for `enter.folder_into`.

    Raises:
        OSError: the kernel refused.
    """
    values = (process.pid, user, source, target, read_only, has_devices)
    if user:
        _ask("mount", values)
    else:
        _in_thread(lambda: enter.folder_into(*values))


def unmount(process: HostProcess, user: bool, target: str) -> None:
    """Removes such a mount. Nothing there is no error, nor is a process that has ended.

    Raises:
        OSError: the kernel refused.
    """
    try:
        if user:
            _ask("unmount", (process.pid, user, target))
        else:
            _in_thread(lambda: enter.folder_out_of(process.pid, user, target))
    except OSError:
        if process.is_alive():  # the mounts of one that has ended are gone with it
            raise


def _confined(plan: Plan, given: Mapping[int, int]) -> int:
    enter.leave_namespaces(plan)
    enter.leave_root(plan)
    enter.restrict(plan)
    return _spawn(plan.argv, given)


@contextlib.contextmanager
def _no_huge_pages() -> Iterator[None]:
    """Programs that are started in a block get no transparent huge pages.

    Nor does any thread of this process for what it maps meanwhile.
    """
    with _SETTING:
        before = calls.allow_huge_pages(False)
        try:
            yield
        finally:
            calls.allow_huge_pages(before)


def _in_thread(call: Callable[[], T]) -> T:
    """Runs a call in a thread that ends with it; no other thread of this process is confined."""
    with ThreadPoolExecutor(1, "vc-jail") as thread:
        return thread.submit(call).result()


def _spawn(argv: tuple[str, ...], given: Mapping[int, int]) -> int:
    # Copies above all numbers of the child, so that none overwrites a descriptor that is
    # copied later.
    high = {
        theirs: fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for theirs, ours in given.items()
    }
    actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in high.items()]
    try:
        return os.posix_spawn(
            argv[0],
            argv,
            {},
            file_actions=actions,
            setsid=True,
            setsigdef=_SIGNALS,
            setsigmask=(),
        )
    except OSError as error:
        raise QemuError(f"{argv[0]} cannot be run: {error.strerror}") from error
    finally:
        for copy in high.values():
            os.close(copy)


def _by_another_process(
    plan: Plan, given: Mapping[int, int], meanwhile: Callable[[], None]
) -> HostProcess:
    pid, answer = _helper(("start", plan.__dict__), given)
    with os.fdopen(answer, "rb") as stream:
        meanwhile()
        answers = _all(stream.read())
    os.waitpid(pid, 0)
    for kind, *words, code in answers:
        if kind == "failure":
            layer, step = words
            raise enter.Failure(layer, step, code)
        if kind == "error":
            raise QemuError(f"{plan.argv[0]} cannot be run: {os.strerror(code)}")
    started = [code for kind, _, _, code in answers if kind == "pid"]
    if not started:
        raise QemuError(f"{sys.executable} could not enter the jail of {plan.argv[0]}: no answer")
    try:
        return HostProcess.of(started[0])
    except (ProcessLookupError, FileNotFoundError) as error:
        raise QemuError(f"{plan.argv[0]} ended at once") from error


def _ask(what: str, values: tuple[object, ...]) -> None:
    pid, answer = _helper((what, values), {})
    with os.fdopen(answer, "rb") as stream:
        answers = _all(stream.read())
    _, status = os.waitpid(pid, 0)
    for _, path, _, code in answers:
        raise OSError(code, os.strerror(code), path or None)
    if status != 0:
        code = os.waitstatus_to_exitcode(status)
        raise QemuError(f"{sys.executable} could not enter the jail: it ended with {code}")


def _helper(message: tuple[str, object], given: Mapping[int, int]) -> tuple[int, int]:
    """Starts Python for one task; returns its pid and the descriptor on which it answers."""
    task = os.memfd_create("jail")
    answer, theirs = os.pipe()
    try:
        os.write(task, marshal.dumps(message))  # type: ignore[arg-type]  # of plain values
        os.lseek(task, 0, os.SEEK_SET)
        python = (sys.executable, "-I", "-S", "-c", _BECOME)
        command = (*python, _OURS, str(_PLAN_FD), str(_ANSWER_FD))
        return _spawn(command, {**given, _PLAN_FD: task, _ANSWER_FD: theirs}), answer
    except BaseException:
        os.close(answer)
        raise
    finally:
        os.close(task)
        os.close(theirs)


def _all(answers: bytes) -> list[Answer]:
    stream = io.BytesIO(answers)
    found = []
    while stream.tell() < len(answers):
        found.append(marshal.load(stream))  # noqa: S302 (written by enter.py)
    return found
