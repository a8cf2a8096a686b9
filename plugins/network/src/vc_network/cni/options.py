"""Options of the table [network.cni]."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CniOptions:
    """Where CNI's files are, and which network is the default one.

    Attributes:
        network: the network of pods that ask for `full`; empty for the first one by file name.
        config_dir: the directory of network configurations.
        plugin_dirs: the directories of CNI plugins, in the order of the search.
        cache_dir: where results are kept until the network is removed, also over a reboot.
        names: whether pods find each other by name, in networks whose gateway is this host.
        timeout_s: seconds for one call of a CNI plugin.
    """

    network: str = ""
    config_dir: Path = Path("/etc/cni/net.d")
    plugin_dirs: tuple[Path, ...] = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
    cache_dir: Path = Path("/var/lib/cni")
    names: bool = True
    timeout_s: float = 60.0

    def problems(self) -> Iterator[str]:
        """Yields what is wrong, one line each."""
        for name in ("config_dir", "cache_dir"):
            if not getattr(self, name).is_absolute():
                yield f"{name}: must be an absolute path"
        if not self.plugin_dirs or not all(path.is_absolute() for path in self.plugin_dirs):
            yield "plugin_dirs: must be absolute paths"
        if not self.timeout_s > 0:
            yield "timeout_s: must be more than 0"
