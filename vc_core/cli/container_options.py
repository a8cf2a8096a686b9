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

from vc_core.cli import mounts, restart_options, security_options
from vc_core.cli.ulimits import ulimit
from vc_core.cli.units import SIZE, UNITS, Duration
from vc_core.defaults import Start
from vc_core.signals import signal_number
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import (
    DEFAULT_PATH,
    ContainerSpec,
    HostDevice,
    ProcessSpec,
    Resources,
    Rootfs,
    RootfsMode,
    Stdio,
)

if TYPE_CHECKING:
    from vc_core.engine.host.volumes import Volumes
    from vc_core.images import Image

F = TypeVar("F", bound=Callable[..., Any])

detach_keys_option = click.option(
    "--detach-keys",
    default="ctrl-p,ctrl-q",
    show_default=True,
    metavar="KEYS",
    help="Typed, they leave it running.",
)
command_argument = click.argument("command", nargs=-1, type=click.UNPROCESSED)
passing = {"allow_interspersed_args": False}  # what follows the first word is the command's
hostname_is_h = {"help_option_names": ["--help"]}  # -h is --hostname, as docker has it

_NOTHING = ProcessSpec((), (DEFAULT_PATH,))
_PERIOD_US = 100_000
_PCI = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_ACCESS = {"ro": True, "r": True, "rm": True, "rw": False, "rwm": False}


timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=Duration(),
    metavar="TIME",
    help="Kill it after that, as in 30s; we exit with 124.",
)
mib_option = click.option(
    "--vm-memory",
    "vm_memory",
    type=SIZE,
    metavar="SIZE",
    help="Memory of the machine, before limits of containers.",
)

start_option = click.option(
    "--start",
    type=click.Choice([way.value for way in Start]),
    help="Boot, or go on from a frozen machine; 'auto' clones a template where that can be.",
)

_PROCESS = (
    click.option(
        "--env",
        "-e",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Set a variable; without a value, pass ours.",
    ),
    click.option(
        "--env-file",
        "env_files",
        multiple=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Set the variables of a file, one NAME=VALUE a line; -e comes after it.",
    ),
    click.option(
        "--workdir", "-w", default="", metavar="DIR", help="Where the command starts; / by default."
    ),
    click.option(
        "--user",
        "-u",
        default="",
        metavar="USER[:GROUP]",
        help="Numbers, or names the container knows.",
    ),
    click.option(
        "--group-add", "--group", "groups", multiple=True, metavar="GROUP", help="One more group."
    ),
    click.option(
        "--cap-add", multiple=True, metavar="CAP", help="One more capability; ALL for every one."
    ),
    click.option(
        "--cap-drop", multiple=True, metavar="CAP", help="One capability less; ALL for none."
    ),
    click.option("--tty", "-t", is_flag=True, help="Give it a terminal, ours where we have one."),
    click.option("--interactive", "-i", is_flag=True, help="For -it: input is passed in any case."),
    click.option("--new-privileges", is_flag=True, help="Let set-uid programs have their power."),
)
_LIMITS = (
    click.option(
        "--cpus",
        type=click.FloatRange(0),
        metavar="N",
        help="How many processors it may use, as in 1.5.",
    ),
    click.option(
        "--cpu-shares", type=int, metavar="N", help="Its weight among siblings; 1024 is usual."
    ),
    click.option("--cpuset", metavar="LIST", help="Which of the guest's processors, as in 0-2,4."),
    click.option(
        "--memory",
        "-m",
        type=SIZE,
        metavar="SIZE",
        help="The most memory it may use; the machine grows by as much.",
    ),
    click.option(
        "--pids", type=click.IntRange(0), metavar="N", help="The most processes it may have."
    ),
)
_CONTAINER = (
    click.option(
        "--rootfs",
        default="",
        metavar="PATH[:ro|:rw]",
        help="The container's root, where there is no IMAGE: a folder (/ is the host's own and the default), a file "
        "with a file system, or a block device. Changes vanish, unless :rw is said.",
    ),
    click.option(
        "--hostname", "-h", default="", metavar="NAME", help="What the container calls itself."
    ),
    click.option(
        "--init",
        is_flag=True,
        help="Process 1 is not the command but one that removes orphans that have ended.",
    ),
    click.option(
        "--stop-signal", default="", metavar="SIGNAL", help="What asks the command to end; SIGTERM."
    ),
    click.option(
        "--security-opt",
        "security_opts",
        multiple=True,
        metavar="OPTION",
        help="no-new-privileges, seccomp=unconfined or systempaths=unconfined.",
    ),
    click.option(
        "--pull",
        type=click.Choice(["always", "missing", "never"]),
        default="never",
        show_default=True,
        help="When to fetch IMAGE from its registry first.",
    ),
    click.option(
        "--entrypoint", metavar="WORDS", help="Words before the command, in place of the image's."
    ),
    click.option(
        "--disk",
        type=SIZE,
        default=0,
        metavar="SIZE",
        help="Changes go to a disk, not to the guest's memory.",
    ),
    click.option("--read-only", is_flag=True, help="The container's root cannot be written."),
    click.option(
        "--show-secrets",
        is_flag=True,
        help="Also what pod.secret_paths hides of the host's own root, as /etc/shadow.",
    ),
    click.option(
        "--volume",
        "-v",
        "--mount",
        "mounts",
        multiple=True,
        metavar="SRC:DST[:OPTIONS]",
        help="A path of the host, or a volume's name: ./data:/data:ro. A new volume gets what the image has there.",
    ),
    click.option(
        "--tmpfs",
        multiple=True,
        metavar="DST[:OPTIONS]",
        help="An empty folder in memory, as in /x:size=64m,mode=1777.",
    ),
    click.option(
        "--shm-size",
        type=SIZE,
        default="64m",
        show_default=True,
        metavar="SIZE",
        help="Of its /dev/shm.",
    ),
    click.option(
        "--ulimit",
        "ulimits",
        multiple=True,
        metavar="NAME=SOFT[:HARD]",
        help="As in nofile=1024:65536.",
    ),
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
    return _all((*_CONTAINER, *_LIMITS, *restart_options.CARE, *_PROCESS), function)


def process_spec(
    command: Sequence[str], options: Mapping[str, Any], default: ProcessSpec = _NOTHING
) -> ProcessSpec:
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
    env = (*_of_files(options.get("env_files", ())), *options["env"])
    names = {word.partition("=")[0] for word in env}
    words = [word for word in default.env if word.partition("=")[0] not in names]
    for word in env:
        name, equals, value = word.partition("=")
        if not name or any(map(str.isspace, name)):
            raise InvalidRequest(
                f"--env {word!r} has no name of a variable; write it as NAME=VALUE"
            )
        if equals or name in os.environ:
            words.append(f"{name}={value if equals else os.environ[name]}")
    if (
        options["tty"]
        and "TERM" in os.environ
        and not any(word.startswith("TERM=") for word in words)
    ):
        words.append(f"TERM={os.environ['TERM']}")
    return dataclasses.replace(
        _terminal() if options["tty"] else ProcessSpec(()),
        args=tuple(command),
        env=tuple(
            {word.partition("=")[0]: word for word in words}.values()
        ),  # the last of a name holds
        cwd=workdir,
        user=options["user"] or default.user,
        groups=tuple(options["groups"]),
        no_new_privileges=False if options["new_privileges"] else default.no_new_privileges,
        capabilities=security_options.capabilities(
            options["cap_add"], options["cap_drop"], default.capabilities
        ),
    )


def command_words(command: Sequence[str]) -> tuple[str, ...]:
    """A command as it was given, without the "--" before it, which click leaves standing behind a pod's name.

    Raises:
        InvalidRequest: there is none.
    """
    words = tuple(command[1:] if command and command[0] == "--" else command)
    if not words:
        raise InvalidRequest(
            "no command was given; it stands behind -- or behind the name of an image"
        )
    return words


def _of_files(files: Sequence[Path]) -> list[str]:
    """The words of environment files: lines, of which empty ones and those that begin with # are left out."""
    words = []
    for file in files:
        try:
            lines = file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"--env-file {file} cannot be read: {error}") from error
        words += [
            line.lstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")
        ]
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
    mounted = [mounts.bind(text, volumes) for text in options["mounts"]]
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
        dataclasses.replace(
            _rootfs(options["rootfs"] or "/", options["read_only"]),
            disk_bytes=options["disk"],
            show_secrets=options["show_secrets"],
        ),
        dataclasses.replace(
            process_spec(command, options, default),
            rlimits=tuple(ulimit(text) for text in options["ulimits"]),
        ),
        (*mounted, *(mounts.tmpfs(text) for text in options["tmpfs"])),
        stdio,
        options["hostname"],
        devices=tuple(_device(text) for text in options["devices"]),
        resources=limits(options, Resources()),
        shm_bytes=options["shm_size"],
        restart=restart_options.restart(options),
        health=restart_options.health(options),
    )
    spec = security_options.confined(spec, options["security_opts"])
    if image is not None:
        spec = image.container(spec)
    if not options["stop_signal"]:
        return spec
    return dataclasses.replace(spec, stop_signal=signal_number(options["stop_signal"]))


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


def _rootfs(text: str, read_only: bool) -> Rootfs:
    for suffix, mode in ((":rw", RootfsMode.READ_WRITE), (":ro", RootfsMode.READ_ONLY)):
        if text.endswith(suffix):
            if read_only and mode is RootfsMode.READ_WRITE:
                raise InvalidRequest("--read-only and a rootfs with :rw contradict each other")
            return Rootfs(Path(text.removesuffix(suffix)).absolute(), mode)
    return Rootfs(Path(text).absolute(), RootfsMode.READ_ONLY if read_only else RootfsMode.OVERLAY)


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
