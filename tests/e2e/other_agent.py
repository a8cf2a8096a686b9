"""Another agent plugin, which brings no program that stands in: that of gRPC without its own."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

_MODULE = '''"""An agent without a stand-in."""

from vc_agent_grpc.plugin import GrpcAgent
from vc_core.spec import Capability, hookimpl


class BareAgent(GrpcAgent):
    """The plugin `bare`."""

    @hookimpl
    async def agent_capabilities(self, pod):
        return await super().agent_capabilities(pod) - {Capability.STAND_IN}

    @hookimpl
    async def agent_stand_in(self, pod, channel, container_id, token, role):
        raise AssertionError("it is called without its capability")
'''
_METADATA = "Metadata-Version: 2.1\nName: vc-bare\nVersion: 1.0.0\nRequires-Dist: virtcontainers\n"


def installed(folder: Path) -> str:
    """Installs the plugin `bare` beside ours, in an environment below a folder.

    Returns its Python. What a stand-in imports does not depend on its caller's variables.
    """
    packages = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    packages.mkdir(parents=True)
    ours = sysconfig.get_path("purelib")
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    (packages / "vc_bare.py").write_text(_MODULE)
    described = packages / "vc_bare-1.0.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(_METADATA)
    (described / "entry_points.txt").write_text("[vc_core.agent]\nbare = vc_bare:BareAgent\n")
    base = Path(sys.base_prefix) / "bin" / f"python{sysconfig.get_python_version()}"
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to(base)
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
    return str(folder / "bin/python")
