"""The list of pods for a process that needs nothing else: it loads no drivers of machines."""

from __future__ import annotations

import functools
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from vc_core.config import Config
from vc_core.engine.api.pod_listing import Listing, PodStatus, listing
from vc_core.engine.wiring import assemble
from vc_core.engine.wiring.catalog import Catalog

if TYPE_CHECKING:
    from vc_core.engine.api.runtime import Runtime


async def list_pods(config: Config, ask_guests: bool = False) -> Listing:
    """Returns the same as `Runtime.list`, without a runtime unless a pod must be asked.

    Args:
        config: the configuration.
        ask_guests: as for `Runtime.list`.

    Raises:
        ConfigError, PluginError, PluginContractError: of the store and the observers; of other
            plugins when a pod must be asked.
    """
    catalog = Catalog()
    async with AsyncExitStack() as stack:

        @functools.cache
        def runtime() -> Runtime:
            from vc_core.engine.api.runtime import Runtime

            made = Runtime(config, catalog)
            stack.push_async_exit(made)
            return made

        async def ask(pod_id: str) -> PodStatus:
            from vc_core.engine.api.pod_views import closed_after

            return await closed_after(await runtime().get(pod_id), ask_guests)

        return await listing(assemble.wire_storage(config, catalog).hooks, ask, ask_guests)
