"""Command-line options that describe a container, and the specification they make."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vc_core.cli import care
from vc_core.cli.units import SIZE, UNITS, Duration, bytes_of
from vc_core.defaults import Start
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import (
    DEFAULT_CAPABILITIES,
    DEFAULT_PATH,
    Capabilities,
    ContainerSpec,
    HostDevice,
    Mount,
    ProcessSpec,
    Resources,
    Rootfs,
    RootfsMode,
    Stdio,
)

if TYPE_CHECKING:
    from vc_core.engine.volumes import Volumes
    from vc_core.images import Image

F = TypeVar("F", bound=Callable[..., Any])

detach_keys_option = click.option(
    "--detach-keys", default="ctrl-p,ctrl-q", show_default=True, metavar="KEYS", help="Typed, they leave it running."
)
command_argument = click.argument("command", nargs=-1, type=click.UNPROCESSED)
passing = {"allow_interspersed_args": False}  # what follows the first word is the command's

_NOTHING = ProcessSpec((), (DEFAULT_PATH,))
_PERIOD_US = 100_000
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # anything else is a path
_PCI = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_ACCESS = {"ro": True, "r": True, "rm": True, "rw": False, "rwm": False}


timeout_option = click.option(
    "--timeout", "timeout_s", type=Duration(), metavar="TIME", help="Kill it after that, as in 30s; we exit with 124."
)
mib_option = click.option(
    "--vm-memory", "vm_memory", type=SIZE, metavar="SIZE", help="Memory of the machine, before limits of containers."
)

start_option = click.option(
    "--start",
    type=click.Choice([way.value for way in Start]),
    help="Boot, or go on from a frozen machine; 'auto' clones a template where that can be.",
)

_PROCESS = (
    click.option(
        "--env", "-e", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; without a value, pass ours."
    ),
    click.option("--workdir", "-w", default="", metavar="DIR", help="Where the command starts; / by default."),
    click.option("--user", "-u", default="", metavar="USER[:GROUP]", help="Numbers, or names the container knows."),
    click.option("--group", "groups", multiple=True, metavar="GROUP", help="One more group."),
    click.option("--cap-add", multiple=True, metavar="CAP", help="One more capability; ALL for every one."),
    click.option("--cap-drop", multiple=True, metavar="CAP", help="One capability less; ALL for none."),
    click.option("--tty", "-t", is_flag=True, help="Give it a terminal, ours where we have one."),
    click.option("--interactive", "-i", is_flag=True, help="For -it: input is passed in any case."),
    click.option("--new-privileges", is_flag=True, help="Let set-uid programs have their power."),
)
_LIMITS = (
    click.option("--cpus", type=click.FloatRange(0), metavar="N", help="How many processors it may use, as in 1.5."),
    click.option("--cpu-shares", type=int, metavar="N", help="Its weight among siblings; 1024 is usual."),
    click.option("--cpuset", metavar="LIST", help="Which of the guest's processors, as in 0-2,4."),
    click.option(
        "--memory", type=SIZE, metavar="SIZE", help="The most memory it may use; the machine grows by as much."
    ),
    click.option("--pids", type=click.IntRange(0), metavar="N", help="The most processes it may have."),
)
_CONTAINER = (
    click.option(
        "--rootfs",
        default="",
        metavar="PATH[:ro|:rw]",
        help="The container's root, where there is no IMAGE: a folder (/ is the host's own and the default), a file "
        "with a file system, or a block device. Changes vanish, unless :rw is said.",
    ),
    click.option("--entrypoint", metavar="WORDS", help="Words before the command, in place of the image's."),
    click.option(
        "--disk", type=SIZE, default=0, metavar="SIZE", help="Changes go to a disk, not to the guest's memory."
    ),
    click.option("--read-only", is_flag=True, help="The container's root cannot be written."),
    click.option(
        "--mount", "-v", "mounts", multiple=True, metavar="SRC:DST[:ro]", help="A path of the host, or a volume's name."
    ),
    click.option("--tmpfs", multiple=True, metavar="DST[:SIZE]", help="An empty folder in memory."),
    click.option("--shm-size", type=SIZE, default="64m", show_default=True, metavar="SIZE", help="Of its /dev/shm."),
    click.option(
        "--device",
        "devices",
        multiple=True,
        metavar="DEVICE[:DST][:ro]",
        help="A device or image file of the host, a PCI address, or vhost-user-{net,blk,scsi}=SOCKET[:DST].",
    ),
)


def process_options(function: F) -> F:
    """What concerns one process."""
    return _all(_PROCESS, function)


def limit_options(function: F) -> F:
    """Limits of a container."""
    return _all(_LIMITS, function)


def container_options(function: F) -> F:
    """What concerns a container, its limits and its process."""
    return _all((*_CONTAINER, *_LIMITS, *care.CARE, *_PROCESS), function)


def process_spec(command: Sequence[str], options: Mapping[str, Any], default: ProcessSpec = _NOTHING) -> ProcessSpec:
    """What the options of a process make.

    Args:
        command: argv.
        options: by name.
        default: what holds where no option says otherwise.

    Raises:
        InvalidRequest: no command, a variable without a name, or a folder that is not absolute.
    """
    command = command_words(command)
    workdir = options["workdir"] or default.cwd
    if workdir and not workdir.startswith("/"):
        raise InvalidRequest(f"--workdir {workdir!r} must be an absolute path in the container")
    env = options["env"]
    names = {word.partition("=")[0] for word in env}
    words = [word for word in default.env if word.partition("=")[0] not in names]
    for word in env:
        name, equals, value = word.partition("=")
        if not name:
            raise InvalidRequest(f"--env {word!r} has no name")
        if equals or name in os.environ:
            words.append(f"{name}={value if equals else os.environ[name]}")
    if options["tty"] and "TERM" in os.environ and not any(word.startswith("TERM=") for word in words):
        words.append(f"TERM={os.environ['TERM']}")
    return dataclasses.replace(
        _terminal() if options["tty"] else ProcessSpec(()),
        args=tuple(command),
        env=tuple(words),
        cwd=workdir,
        user=options["user"] or default.user,
        groups=tuple(options["groups"]),
        no_new_privileges=False if options["new_privileges"] else default.no_new_privileges,
        capabilities=_capabilities(options["cap_add"], options["cap_drop"], default.capabilities),
    )


def command_words(command: Sequence[str]) -> tuple[str, ...]:
    """A command as it was given, without the "--" before it, which click leaves standing behind a pod's name.

    Raises:
        InvalidRequest: there is none.
    """
    words = tuple(command[1:] if command and command[0] == "--" else command)
    if not words:
        raise InvalidRequest("no command was given; it stands behind -- or behind the name of an image")
    return words


def _terminal() -> ProcessSpec:
    """A process with one, as large as ours."""
    from vc_core.cli.terminal import size

    rows, columns = size()
    return ProcessSpec((), terminal=True, rows=rows, columns=columns)


def container_spec(
    container_id: str,
    command: Sequence[str],
    options: Mapping[str, Any],
    stdio: Stdio,
    volumes: Volumes,
    image: Image | None = None,
) -> ContainerSpec:
    """What the options of a container make.

    Args:
        container_id: its name.
        command: argv, or what stands behind the image's entrypoint.
        options: by name.
        stdio: what its first process's streams are connected to.
        volumes: of this host; one that is named and not there is made.
        image: what it is made from.

    Raises:
        InvalidRequest: an option whose value cannot be read.
    """
    mounts = [_mount(text, volumes) for text in options["mounts"]] + [_tmpfs(text) for text in options["tmpfs"]]
    default = _NOTHING
    words = options["entrypoint"]
    entrypoint = None if words is None else shlex.split(words)
    if image is not None:
        default = image.process(command, entrypoint)
        command = default.args
    elif entrypoint:
        command = (*entrypoint, *command)
    spec = ContainerSpec(
        container_id,
        dataclasses.replace(_rootfs(options["rootfs"] or "/", options["read_only"]), disk_bytes=options["disk"]),
        process_spec(command, options, default),
        tuple(mounts),
        stdio,
        devices=tuple(_device(text) for text in options["devices"]),
        resources=limits(options, Resources()),
        shm_bytes=options["shm_size"],
        restart=care.restart(options),
        health=care.health(options),
    )
    return spec if image is None else image.container(spec)


def limits(options: Mapping[str, Any], before: Resources) -> Resources:
    """Limits with those changed that were given; 0 takes one away."""
    cpus, memory, pids = options["cpus"], options["memory"], options["pids"]
    return dataclasses.replace(
        before,
        cpu_quota_us=before.cpu_quota_us if cpus is None else round(cpus * _PERIOD_US),
        cpu_period_us=before.cpu_period_us if cpus is None else _PERIOD_US,
        cpu_shares=before.cpu_shares if options["cpu_shares"] is None else options["cpu_shares"],
        cpuset=before.cpuset if options["cpuset"] is None else options["cpuset"],
        memory_bytes=before.memory_bytes if memory is None else memory,
        pids=before.pids if pids is None else pids,
    )


def mib(size: int | None) -> int | None:
    """Bytes as MiB, rounded up."""
    return None if size is None else -(-size // UNITS["m"])


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE words.

    Raises:
        InvalidRequest: one that is none.
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidRequest(f"{text!r} is not KEY=VALUE")
        found[key] = value
    return found


def annotation_changes(texts: Sequence[str]) -> dict[str, str | None]:
    """KEY=VALUE sets one, KEY- removes one."""
    removed = {text[:-1]: None for text in texts if text.endswith("-") and "=" not in text}
    return {**removed, **pairs([text for text in texts if text[:-1] not in removed])}


def _all(options: Sequence[Callable[[Any], Any]], function: F) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def _capabilities(added: Sequence[str], dropped: Sequence[str], default: Capabilities | None) -> Capabilities | None:
    if not added and not dropped:
        return default
    drop, add = ({f"CAP_{name.upper().removeprefix('CAP_')}" for name in names} for names in (dropped, added))
    if unknown := sorted((add | drop) - {*_EVERY, "CAP_ALL"}):
        raise InvalidRequest(f"there is no capability {unknown[0]}; capabilities(7) lists them")
    usual = default or Capabilities(*[DEFAULT_CAPABILITIES] * 3)

    def changed(names: Sequence[str], more: set[str]) -> tuple[str, ...]:
        base = () if "CAP_ALL" in drop else _EVERY if "CAP_ALL" in more else names
        return tuple(name for name in dict.fromkeys((*base, *sorted(more - {"CAP_ALL"}))) if name not in drop)

    return Capabilities(
        bounding=changed(usual.bounding, add),
        effective=changed(usual.effective, add),
        permitted=changed(usual.permitted, add),
        inheritable=changed(usual.inheritable, set()),
        ambient=changed(usual.ambient, set()),
    )


def _rootfs(text: str, read_only: bool) -> Rootfs:
    for suffix, mode in ((":rw", RootfsMode.READ_WRITE), (":ro", RootfsMode.READ_ONLY)):
        if text.endswith(suffix):
            if read_only and mode is RootfsMode.READ_WRITE:
                raise InvalidRequest("--read-only and a rootfs with :rw contradict each other")
            return Rootfs(Path(text.removesuffix(suffix)).absolute(), mode)
    return Rootfs(Path(text).absolute(), RootfsMode.READ_ONLY if read_only else RootfsMode.OVERLAY)


def _mount(text: str, volumes: Volumes) -> Mount:
    parts = text.split(":")
    if len(parts) == 2:
        parts.append("rw")
    if len(parts) != 3 or parts[2] not in ("ro", "rw"):
        raise InvalidRequest(f"--mount {text!r} is not SRC:DST or SRC:DST:ro")
    if _VOLUME.fullmatch(parts[0]):
        return Mount(volumes.create(parts[0], may_exist=True).path, parts[1], parts[2] == "ro")
    return Mount(Path(parts[0]).absolute(), parts[1], parts[2] == "ro")


def _tmpfs(text: str) -> Mount:
    destination, colon, size = text.partition(":")
    found = bytes_of(size.removeprefix("size="))
    if colon and found is None:
        raise InvalidRequest(f"--tmpfs {text!r} is not DST or DST:SIZE, as in /scratch:64m")
    return Mount.tmpfs(destination, found or 0)


def _device(text: str) -> HostDevice:
    kind, equals, path = text.partition("=")
    if equals and kind.startswith("vhost-user-"):
        path, _, destination = path.partition(":")
        return HostDevice(Path(path).absolute(), destination, kind=kind)
    if _PCI.fullmatch(text):
        return HostDevice(Path("/sys/bus/pci/devices") / text, "")
    parts = text.split(":")
    is_read_only = _ACCESS.get(parts[-1]) if len(parts) > 1 else None
    if is_read_only is not None:
        parts.pop()
    if len(parts) > 2 or not parts[-1].startswith("/"):
        raise InvalidRequest(f"--device {text!r} is not DEVICE, DEVICE:DST or DEVICE:DST:ro")
    return HostDevice(Path(parts[0]).absolute(), parts[-1], bool(is_read_only))


# capabilities(7), in the kernel's order.
_EVERY = tuple(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
        *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
        *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
        *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
        *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
        "CHECKPOINT_RESTORE",
    )
)
