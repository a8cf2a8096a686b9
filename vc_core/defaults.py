"""What a configuration says where it says nothing: a dataclass for each of its tables.

`vc config init` prints them.
"""

from __future__ import annotations

import enum
import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vc_core.first_party import DEFAULT_DEVICES, DEFAULTS


class Start(enum.StrEnum):
    """How a pod's machine comes to run."""

    AUTO = "auto"  # template where hypervisor and agent can, else cold
    COLD = "cold"  # it boots
    TEMPLATE = "template"  # it is a clone of one that has booted and stands still
    POOL = "pool"  # it is a clone that was made in advance; where none is ready, one is made


SECRET_PATHS = (
    *("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/security/opasswd"),
    *("/etc/ssh/ssh_host_*_key", "/etc/ssl/private", "/etc/krb5.keytab"),
    *("/etc/wireguard", "/etc/NetworkManager/system-connections", "/etc/containers/auth.json"),
    *(
        "/var/lib/containers",
        "/var/lib/docker",
        "/var/lib/kubelet",
        "/var/lib/rancher",
        "/etc/kubernetes",
    ),
    *(
        "~/.ssh",
        "~/.gnupg",
        "~/.aws",
        "~/.azure",
        "~/.config/gcloud",
        "~/.kube",
        "~/.docker",
        "~/.netrc",
        "~/.pgpass",
    ),
    *(
        "~/.git-credentials",
        "~/.config/git/credentials",
        "~/.config/containers",
        "~/.config/gh",
        "~/.config/hub",
    ),
    *(
        "~/.npmrc",
        "~/.pypirc",
        "~/.cargo/credentials",
        "~/.cargo/credentials.toml",
        "~/.config/rclone",
        "~/.vault-token",
    ),
    *(
        "~/.my.cnf",
        "~/.terraform.d/credentials.tfrc.json",
        "~/.password-store",
        "~/.local/share/keyrings",
        "~/.mozilla",
    ),
    *(
        "~/.config/google-chrome",
        "~/.config/chromium",
        "~/.bash_history",
        "~/.zsh_history",
        "~/.python_history",
    ),
)
"""What is not seen of the host's own root."""


@dataclass(frozen=True)
class PodDefaults:
    """What a pod gets that does not say otherwise.

    Attributes:
        vcpus: at least 1.
        memory_mib: for the guest and for containers without a limit; limits come on top; at least
            64.
        start: how its machine comes to run.
        can_quiesce: its folders can be let go of for snapshots and forks, which makes file access
            slower.
        disable_block_device_use: shares a rootfs as a folder also where the guest could mount its
            device.
        asset_paths: patterns of files that a bundle's annotations may put in place of kernel, image
            and hypervisor.
        secret_paths: what a guest does not see where the host's own root is its rootfs; "~/" is
            every home.
    """

    vcpus: int = 1
    memory_mib: int = 256
    start: Start = Start.AUTO
    can_quiesce: bool = True
    disable_block_device_use: bool = False
    asset_paths: tuple[str, ...] = ()
    secret_paths: tuple[str, ...] = SECRET_PATHS

    def problems(self) -> Iterator[str]:
        """Values that cannot be."""
        for pattern in self.secret_paths:
            if (
                not pattern.startswith(("/", "~/"))
                or ".." in Path(pattern).parts
                or not pattern.strip("~/")
            ):
                yield f"pod.secret_paths: {pattern!r} is no absolute path and none below ~/"
        if self.vcpus < 1:
            yield "pod.vcpus: must be at least 1"
        if self.memory_mib < 64:
            yield "pod.memory_mib: must be at least 64"


def default_template_dir() -> Path:
    """Memory of the host, shared between processes, gone with a reboot: all that a template is."""
    uid = os.geteuid()
    return Path("/dev/shm/virtcontainers" if uid == 0 else f"/dev/shm/virtcontainers-{uid}")


@dataclass(frozen=True)
class TemplateDefaults:
    """Saved machines from which pods are cloned.

    Attributes:
        dir: holds them; private to the user.
        memory_dir: holds their memory instead, on a hugetlbfs for example; empty for `dir`.
        memory_mib: of a template; a larger pod gets the rest plugged; at least 64.
        keep: how many there may be; one more drops the one that was not used for the longest time.
    """

    dir: Path = field(default_factory=default_template_dir)
    memory_dir: str = ""
    memory_mib: int = 256
    keep: int = 4

    def problems(self) -> Iterator[str]:
        """Values that cannot be."""
        if self.memory_mib < 64:
            yield "template.memory_mib: must be at least 64"
        if self.keep < 1:
            yield "template.keep: must be at least 1"


@dataclass(frozen=True)
class PoolDefaults:
    """Clones made in advance.

    Attributes:
        size: how many wait.
    """

    size: int = 2

    def problems(self) -> Iterator[str]:
        """Values that cannot be."""
        if self.size < 1:
            yield "pool.size: must be at least 1"


def _lasting(name: str) -> Path:
    """A folder for what outlives a reboot of the host."""
    if os.geteuid() == 0:
        return Path("/var/lib/virtcontainers") / name
    return (
        Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
        / "virtcontainers"
        / name
    )


@dataclass(frozen=True)
class SnapshotDefaults:
    """Pods that were saved with their memory.

    Attributes:
        dir: holds them; private to the user.
    """

    dir: Path = field(default_factory=functools.partial(_lasting, "snapshots"))


@dataclass(frozen=True)
class ImageDefaults:
    """What containers start from.

    Attributes:
        dir: holds the images; private to the user.
    """

    dir: Path = field(default_factory=functools.partial(_lasting, "images"))


@dataclass(frozen=True)
class DataDefaults:
    """What containers write that outlives their machine.

    Attributes:
        dir: holds logs and disks; private to the user.
        log_mib: the size of a container's log; what is older is overwritten; at least 1.
    """

    dir: Path = field(default_factory=functools.partial(_lasting, "data"))
    log_mib: int = 16

    def problems(self) -> Iterator[str]:
        """Values that cannot be."""
        if self.log_mib < 1:
            yield "data.log_mib: must be at least 1"


@dataclass(frozen=True)
class VolumeDefaults:
    """Folders that outlive pods.

    Attributes:
        dir: holds the volumes; private to the user.
    """

    dir: Path = field(default_factory=functools.partial(_lasting, "volumes"))


@dataclass(frozen=True)
class Deadlines:
    """Seconds that an operation may last.

    Attributes:
        default: of every operation that `operations` does not name.
        boot: from the start of a machine to its agent's answer.
        lock: to wait for another process to leave a pod.
        stop: for a guest to end by itself when asked to.
        view: for a pod to answer to whoever only looks (ps, pod ls, stats, inspect); it is then
            shown as last known.
        operations: by the hook's name.
    """

    default: float = 60
    boot: float = 120
    lock: float = 60
    stop: float = 10
    view: float = 2
    operations: Mapping[str, float] = field(default_factory=dict)

    def of(self, operation: str) -> float:
        """The deadline of one operation, in seconds."""
        return self.operations.get(operation, self.default)


@dataclass(frozen=True)
class Use:
    """Which plugin does what.

    Attributes:
        hypervisor: who runs the machines.
        agent: who runs containers inside them.
        storage: who remembers pods.
        devices: who passes devices, side by side.
        observers: who watches or refuses, the first outermost.
    """

    hypervisor: str = DEFAULTS["hypervisor"]
    agent: str = DEFAULTS["agent"]
    storage: str = DEFAULTS["storage"]
    devices: tuple[str, ...] = DEFAULT_DEVICES
    observers: tuple[str, ...] = ()
