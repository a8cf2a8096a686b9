"""The settings of each table of the configuration, with their defaults.

`vc config init` writes them to a file, with the attribute descriptions as comments.
"""

from __future__ import annotations

import enum
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct, field

from vc_core.driver_kit.ownership import home_folder, is_system_root, user_number
from vc_core.first_party import DEFAULT_DEVICES, DEFAULTS, NO_NETWORK
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import NetworkPolicy


class Start(enum.StrEnum):
    """How the machine of a pod starts."""

    AUTO = "auto"  # "template" if the hypervisor and the agent support it, else "cold"
    COLD = "cold"  # boot
    TEMPLATE = "template"  # clone a saved machine
    POOL = "pool"  # take a clone from the pool; without one, clone a template


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
"""Default of `PodDefaults.secret_paths`."""


class PodDefaults(Struct, frozen=True):
    """Defaults of pods.

    Attributes:
        vcpus: number of virtual CPUs; at least 1.
        memory_mib: memory for the guest and for containers without a limit; container limits are
            added to it; at least 64.
        start: how the machine starts.
        can_quiesce: whether shared directories can be detached for snapshots and forks, which makes
            file access slower.
        disable_block_device_use: whether a rootfs is always shared as a directory, even if the
            guest could mount its block device.
        asset_paths: patterns of files that annotations of a bundle may name as kernel, image and
            hypervisor.
        secret_paths: paths that are hidden if the rootfs is the root of the host; "~/" is the home
            of every user.
        allow: destinations that pods with a network may reach, as for --allow; empty for all that
            the network reaches.
        deny: destinations that they may not reach, as for --deny.
        rate_in: limit of what each of them receives, e.g. "10mbit"; empty for none.
        rate_out: limit of what each of them sends.
    """

    vcpus: int = 1
    memory_mib: int = 256
    start: Start = Start.AUTO
    can_quiesce: bool = True
    disable_block_device_use: bool = False
    asset_paths: tuple[str, ...] = ()
    secret_paths: tuple[str, ...] = SECRET_PATHS
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    rate_in: str = ""
    rate_out: str = ""

    def network_policy(self) -> NetworkPolicy:
        """The limits of pods that state none.

        Raises:
            InvalidRequest: a setting is invalid.
        """
        return NetworkPolicy.of(self.allow, self.deny, self.rate_in, self.rate_out)

    def problems(self) -> Iterator[str]:
        """Yield invalid settings."""
        for key in ("allow", "deny", "rate_in", "rate_out"):
            try:
                NetworkPolicy.of(**{key: getattr(self, key)})
            except InvalidRequest as error:
                yield f"pod.{key}: {error}"
        for pattern in self.secret_paths:
            if (
                not pattern.startswith(("/", "~/"))
                or ".." in Path(pattern).parts
                or not pattern.strip("~/")
            ):
                yield f"pod.secret_paths: {pattern!r} must be an absolute path or begin with ~/"
        if self.vcpus < 1:
            yield "pod.vcpus: must be at least 1"
        if self.memory_mib < 64:
            yield "pod.memory_mib: must be at least 64"


def default_template_dir() -> Path:
    """A directory on a tmpfs, because templates do not survive a reboot."""
    shared = "/dev/shm/virtcontainers"
    return Path(shared if is_system_root() else f"{shared}-{user_number()}")


class TemplateDefaults(Struct, frozen=True):
    """Templates: saved machines that pods are cloned from.

    Attributes:
        dir: directory of the templates; private to the user.
        memory_dir: directory of their memory, for example on a hugetlbfs; empty for `dir`.
        memory_mib: memory of a template; a larger pod gets the rest hot-plugged; at least 64.
        keep: maximum number of templates; a new one replaces the least recently used.
    """

    dir: Path = field(default_factory=default_template_dir)
    memory_dir: str = ""
    memory_mib: int = 256
    keep: int = 4

    def problems(self) -> Iterator[str]:
        """Yield invalid settings."""
        if self.memory_mib < 64:
            yield "template.memory_mib: must be at least 64"
        if self.keep < 1:
            yield "template.keep: must be at least 1"


class PoolDefaults(Struct, frozen=True):
    """Machines that are cloned in advance.

    Attributes:
        size: number of machines that are kept ready.
    """

    size: int = 2

    def problems(self) -> Iterator[str]:
        """Yield invalid settings."""
        if self.size < 1:
            yield "pool.size: must be at least 1"


def _lasting(name: str) -> Path:
    """A directory that survives a reboot of the host."""
    if is_system_root():
        return Path("/var/lib/virtcontainers") / name
    return (
        Path(os.environ.get("XDG_STATE_HOME") or home_folder() / ".local/state")
        / "virtcontainers"
        / name
    )


class SnapshotDefaults(Struct, frozen=True):
    """Snapshots: pods that are saved with their memory.

    Attributes:
        dir: directory of the snapshots; private to the user.
    """

    dir: Path = field(default_factory=functools.partial(_lasting, "snapshots"))


class ImageDefaults(Struct, frozen=True):
    """Images.

    Attributes:
        dir: directory of the images; private to the user.
    """

    dir: Path = field(default_factory=functools.partial(_lasting, "images"))


class DataDefaults(Struct, frozen=True):
    """Logs and disks of containers.

    Attributes:
        dir: directory of logs and disks; private to the user.
        log_mib: size of a container's log; the oldest output is overwritten; at least 1.
    """

    dir: Path = field(default_factory=functools.partial(_lasting, "data"))
    log_mib: int = 16

    def problems(self) -> Iterator[str]:
        """Yield invalid settings."""
        if self.log_mib < 1:
            yield "data.log_mib: must be at least 1"


class VolumeDefaults(Struct, frozen=True):
    """Volumes: directories that outlive pods.

    Attributes:
        dir: directory of the volumes; private to the user.
    """

    dir: Path = field(default_factory=functools.partial(_lasting, "volumes"))


class Deadlines(Struct, frozen=True):
    """Time limits, in seconds.

    Attributes:
        default: of every operation that `operations` does not name.
        boot: from the start of a machine to the first answer of its agent.
        lock: for another process to release the lock of a pod.
        stop: for a guest to shut down.
        view: for a pod to answer ps, pod ls, stats and inspect; after it, its last known state is
            shown.
        operations: of single operations, by the name of the hook.
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


class Use(Struct, frozen=True):
    """Names of the plugins to use.

    Attributes:
        hypervisor: runs the machines.
        agent: runs containers in a machine.
        storage: stores the state of pods.
        devices: pass devices to machines.
        observers: trace, measure or refuse operations; the first is the outermost.
        network: connects pods; "none" gives a pod no network unless it asks for one.
    """

    hypervisor: str = DEFAULTS["hypervisor"]
    agent: str = DEFAULTS["agent"]
    storage: str = DEFAULTS["storage"]
    devices: tuple[str, ...] = DEFAULT_DEVICES
    observers: tuple[str, ...] = ()
    network: str = NO_NETWORK
