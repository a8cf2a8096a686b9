"""The template for the pods of a configuration."""

from __future__ import annotations

from vc_core.config import Config
from vc_core.defaults import Start
from vc_core.engine.clones import templates
from vc_core.engine.clones.templates import TemplateRequest
from vc_core.engine.resources import vm_size
from vc_core.engine.state.records import PluginChoice
from vc_core.engine.wiring import assemble
from vc_core.engine.wiring.wiring import Wiring
from vc_core.spec.values import PodRef, VmSpec


async def request(
    wiring: Wiring, config: Config, chosen: tuple[PluginChoice, ...]
) -> TemplateRequest:
    """Returns the template request for pods of a configuration and the current guest image.

    Args:
        wiring: of the chosen plugins.
        config: the configuration.
        chosen: its plugins.

    Raises:
        InvalidRequest: the chosen plugins do not support clones.
    """
    pod = PodRef(id="template", run_dir=config.template.dir)
    capabilities = await assemble.check_combination(wiring, pod)
    templates.check(Start.TEMPLATE, capabilities)
    defaults = config.pod
    guest = await wiring.hooks.agent_guest(pod=pod)
    spec = VmSpec(guest=guest, vcpus=defaults.vcpus, memory_mib=defaults.memory_mib)
    return TemplateRequest(
        chosen, templates.small(spec, config.template, vm_size.can_grow(capabilities))
    )
