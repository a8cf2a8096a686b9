"""Networks of names: listed, made and removed by the network plugin that has such."""

from __future__ import annotations

from vc_core.config import Config
from vc_core.engine.api.arguments import checked_arguments
from vc_core.engine.wiring import assemble, network_choice
from vc_core.engine.wiring.catalog import Catalog
from vc_core.spec.errors import NotFound
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import NamedNetwork, NewNetwork


class Networks:
    """The networks of names of this host."""

    def __init__(self, config: Config, catalog: Catalog) -> None:
        self._config = config
        self._catalog = catalog

    async def list(self) -> tuple[NamedNetwork, ...]:
        """Returns all of them, by name.

        Raises:
            PluginNotFound: no plugin has such networks.
            UnsupportedOperation: the configured plugin has none.
        """
        return await self._hooks().network_list()

    @checked_arguments
    async def get(self, name: str) -> NamedNetwork:
        """Returns one of them.

        Raises:
            NotFound: there is none of this name.
        """
        found = {one.name: one for one in await self.list()}
        if name not in found:
            known = ", ".join(found) or "none"
            raise NotFound(f"no network {name}; there are: {known}")
        return found[name]

    @checked_arguments
    async def create(
        self,
        name: str,
        subnets: tuple[str, ...] = (),
        has_ipv6: bool = False,
        is_internal: bool = False,
        mtu: int = 0,
    ) -> NamedNetwork:
        """Makes a network; see NewNetwork for the arguments.

        Raises:
            NetworkError: the name or a subnet is in use or not valid.
        """
        wanted = NewNetwork(
            name=name, subnets=subnets, has_ipv6=has_ipv6, is_internal=is_internal, mtu=mtu
        )
        return await self._hooks().network_create(wanted=wanted)

    @checked_arguments
    async def remove(self, name: str) -> None:
        """Removes a network.

        Raises:
            NotFound: there is none of this name.
            NetworkError: `create` has not made it, or pods are in it.
        """
        await self.get(name)
        await self._hooks().network_remove(name=name)

    def _hooks(self) -> Hooks:
        name = network_choice.plugin_of_names(self._config)
        others = assemble.choices(self._config, self._catalog)
        chosen = [choice for choice in others if choice.family != "network"]
        chosen.append(assemble.choice_of(self._config, self._catalog, "network", name))
        return assemble.wire(self._catalog, chosen, self._config.deadlines).hooks
