"""The findings of `vc doctor` about this host."""

from __future__ import annotations

from collections.abc import Iterable

from vc_core.config import Config
from vc_core.engine.api.pod_listing import DamagedPod
from vc_core.engine.wiring import network_choice
from vc_core.engine.wiring.catalog import Catalog
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import Finding, Verdict


async def findings(
    hooks: Hooks, config: Config, catalog: Catalog, damaged: Iterable[DamagedPod]
) -> tuple[Finding, ...]:
    """Returns the findings of the plugins, the pods and the image tools, in this order."""
    from vc_core.images import programs

    return (
        *await hooks.vm_diagnose(guests=await hooks.agent_list_guests()),
        *await hooks.agent_diagnose(),
        *await hooks.storage_diagnose(),
        *await network_choice.diagnose(config, catalog),
        *(
            Finding(subject=f"pod {pod.id}", verdict=Verdict.BAD, detail=pod.reason)
            for pod in damaged
        ),
        *programs.diagnose(),
    )
