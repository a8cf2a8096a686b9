"""The entry point of the API: opens a configuration, creates and finds pods."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from vc_core.config import Config, load
from vc_core.defaults import Start
from vc_core.engine.api import (
    configured_template,
    diagnose,
    event_stream,
    networks,
    pod_listing,
    pod_views,
)
from vc_core.engine.api.arguments import checked_arguments
from vc_core.engine.api.in_use import used_mount_sources, used_roots
from vc_core.engine.api.pod import Pod
from vc_core.engine.api.pod_config import pod_config
from vc_core.engine.api.pod_listing import Listing, PodStatus
from vc_core.engine.api.pod_services import PodServices
from vc_core.engine.clones import pool_process, templates
from vc_core.engine.clones.pool import Pool
from vc_core.engine.clones.snapshots import Snapshots
from vc_core.engine.clones.templates import Template, TemplateRequest, Templates
from vc_core.engine.host import hidden_paths
from vc_core.engine.host.container_disks import ContainerDisks
from vc_core.engine.host.volumes import Volumes
from vc_core.engine.lifecycle.fork import Forks, PodOps
from vc_core.engine.lifecycle.late_network import LateNetwork
from vc_core.engine.lifecycle.machine import MachineBoot
from vc_core.engine.lifecycle.pod import PodLifecycle
from vc_core.engine.resources.host_files import HostFiles
from vc_core.engine.session.remove_damaged import DamagedPodRemover
from vc_core.engine.session.sessions import Sessions
from vc_core.engine.state.boot_assets import Assets
from vc_core.engine.state.event_journal import Event, Journal
from vc_core.engine.state.ids import checked, fresh
from vc_core.engine.state.records import PodConfig, PodState, Store, encode
from vc_core.engine.state.rollback import Rollback
from vc_core.engine.state.states import State
from vc_core.engine.wiring import assemble, network_choice
from vc_core.engine.wiring.catalog import Catalog, Factory
from vc_core.engine.wiring.fork_guard import Origin
from vc_core.engine.wiring.wiring import Wiring
from vc_core.images import Image, Images
from vc_core.spec.events import EventSpec
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import Finding, NetworkPolicy, PodOptions, PodRef, PortMapping

_APART, _OURS = PodOptions(), Assets()


class Runtime:
    """Creates, finds and lists pods. Use it as `async with Runtime.open() as runtime:`."""

    def __init__(self, config: Config, catalog: Catalog) -> None:
        self.config = config
        self.catalog = catalog
        self._chosen = assemble.choices(config, catalog)
        self._journal = Journal(config.data.dir)
        self._wire = functools.partial(
            assemble.wire, catalog, deadlines=config.deadlines, journal=self._journal
        )
        self._wiring: Wiring = self._wire(self._chosen)
        self.templates = Templates(config.template, catalog, config.deadlines)
        self.pool = Pool(
            self.templates,
            catalog,
            config.deadlines,
            functools.partial(pool_process.spawn, config, config.pool.size),
        )
        limit = config.deadlines.lock
        disks = ContainerDisks(config.data)
        self._host = HostFiles(
            Images(config.image.dir, limit), disks, hidden_paths.stores(config, catalog)
        )
        delete = functools.partial(self.delete, force=True)
        configured = functools.partial(network_choice.of_copy, config, catalog)
        check = functools.partial(network_choice.check_new, self._wire)
        self.forks = Forks(
            PodOps(self.hooks, configured, check, self._sessions, self._register, delete),
            Snapshots(config.snapshot.dir, limit),
            Snapshots(config.template.dir / "forks", limit),
            self._host,
        )
        self.networks = networks.Networks(config, catalog)
        boot = MachineBoot(self.templates, self.pool, self._host)
        self._services = PodServices(
            PodLifecycle(boot, self.pool, self._host),
            self.forks,
            LateNetwork(functools.partial(network_choice.of_running, config, catalog), check),
            DamagedPodRemover(
                self.hooks, catalog, self._chosen, self._wire, self.pool, disks, limit
            ),
            self._host,
        )
        self._connected: set[Sessions] = set()
        self._origin = Origin()

    @classmethod
    def open(
        cls, config: Config | None = None, plugins: Mapping[tuple[str, str], Factory] | None = None
    ) -> Runtime:
        """Wires the chosen plugins.

        Args:
            config: the configuration; None loads the file that takes precedence, or the defaults.
            plugins: plugins given in code by (family, name), in addition to the installed ones.

        Raises:
            ConfigError, PluginError, PluginContractError: with all problems.
        """
        return cls(config if config is not None else load(), Catalog(plugins))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes this process's connections; the pods keep running. May be called twice."""
        while self._connected and self._origin.is_here():
            await self._connected.pop().close()

    @property
    def hooks(self) -> Hooks:
        """Operations that belong to no pod."""
        return self._wiring.hooks

    @property
    def images(self) -> Images:
        """The images that containers are made from."""
        return self._host.images

    @checked_arguments
    async def create(
        self,
        pod_id: str = "",
        *,
        vcpus: int | None = None,
        memory_mib: int | None = None,
        hostname: str = "",
        annotations: Mapping[str, str] | None = None,
        options: PodOptions = _APART,
        assets: Assets = _OURS,
        start: Start | None = None,
        can_quiesce: bool | None = None,
        image: str = "",
        network: str = "",
        ports: Sequence[PortMapping] = (),
        policy: NetworkPolicy = network_choice.NO_LIMITS,
    ) -> Pod:
        """Creates a pod; its machine boots when the pod is started.

        Args:
            pod_id: generated when empty.
            vcpus: number of processors; the configured default when None.
            memory_mib: memory in MiB; the configured default when None.
            hostname: the pod's id when empty.
            annotations: stored and returned unchanged.
            options: options that all its containers share.
            assets: files that replace the guest's and the hypervisor's.
            start: how its machine is started; the configured way when None.
            can_quiesce: whether its folders can be closed for snapshots and forks; as configured
                when None.
            image: the image of containers that name none; see `Runtime.images`.
            network: "none", "public" (no private addresses) or "full"; as configured when empty.
            ports: of the host that lead into the pod.
            policy: destinations and rates of its network; what is empty there is as configured.

        Raises:
            InvalidRequest: an id, size, option or file is invalid.
            AlreadyExists: the id is taken.
            NotFound: there is no such image.
        """
        if image:
            image = (await self.images.get(image)).id
        wanted = network_choice.request(self.config, network, ports, policy, options.dns)
        config = pod_config(
            network_choice.plugins(self.catalog, self.config, self._chosen, wanted),
            self.config.pod,
            pod_id=pod_id,
            vcpus=vcpus,
            memory_mib=memory_mib,
            hostname=hostname,
            annotations=annotations or {},
            options=options,
            assets=assets,
            start=start,
            can_quiesce=can_quiesce,
            image=image,
            network=wanted,
        )
        await self._register(config)
        return self._pod(config.id)

    async def _register(self, config: PodConfig) -> None:
        pod = PodRef(id=config.id, run_dir=await self.hooks.storage_run_dir(pod_id=config.id))
        wiring = self._wiring if config.plugins == self._chosen else self._wire(config.plugins)
        capabilities = await assemble.check_combination(wiring, pod)
        templates.check(config.start, capabilities)
        network_choice.check(config, capabilities)
        await self.hooks.storage_create(pod_id=config.id, config=encode(config))
        async with Rollback() as rollback:
            rollback.push(self.hooks.storage_delete, pod_id=config.id, container_id="")
            await Store(self.hooks, config.id).put_pod_state(PodState(State.READY))
        await self._wiring.notify(EventSpec.pod_created, pod=pod)

    @checked_arguments
    async def delete(self, pod_id: str, force: bool = False) -> None:
        """Removes a pod, as `Pod.delete` does; with `force` also a damaged one.

        Raises:
            NotFound: there is no pod of this id.
        """
        pod = self._pod(checked("pod", pod_id))
        try:
            await pod.delete(force)
        finally:
            await pod.close()

    @asynccontextmanager
    async def pod(
        self,
        pod_id: str = "",
        *,
        vcpus: int | None = None,
        memory_mib: int | None = None,
        hostname: str = "",
        options: PodOptions = _APART,
        start: Start | None = None,
        image: str = "",
        network: str = "",
        ports: Sequence[PortMapping] = (),
        policy: NetworkPolicy = network_choice.NO_LIMITS,
    ) -> AsyncIterator[Pod]:
        """Provides a started pod for the length of a block; deletes it at the end in any case."""
        pod = await self.create(
            pod_id,
            vcpus=vcpus,
            memory_mib=memory_mib,
            hostname=hostname,
            options=options,
            start=start,
            image=image,
            network=network,
            ports=ports,
            policy=policy,
        )
        try:
            await pod.start()
            yield pod
        finally:
            if self._origin.is_here():  # else it is the parent's
                await pod.delete(force=True)
                await pod.close()

    @checked_arguments
    async def get(self, pod_id: str) -> Pod:
        """Returns an existing pod.

        Raises:
            NotFound: there is no pod of this id.
        """
        checked("pod", pod_id)
        await Store(self.hooks, pod_id).pod_config()
        return self._pod(pod_id)

    @checked_arguments
    async def restore(
        self, name: str, pod_id: str = "", ports: Sequence[PortMapping] = (), network: str = ""
    ) -> Pod:
        """Creates a pod that continues from the state of a snapshot.

        Args:
            name: name of the snapshot.
            pod_id: generated when empty.
            ports: ports of the host that are forwarded to the pod.
            network: as for `create`; empty for a network like that of the saved pod.

        Raises:
            NotFound: there is no snapshot of this name.
            AlreadyExists: the id is taken.
            InvalidRequest: something that the saved pod had is missing on this host; names it.
        """
        made = checked("pod", pod_id) if pod_id else fresh()
        return self._pod(await self.forks.restore(name, made, ports, network))

    @checked_arguments
    async def list(self, ask_guests: bool = False) -> Listing:
        """Returns all pods, by their records and the processes of their machines.

        Only pods whose records do not tell are asked, concurrently and for `deadlines.view`: those
        with a network, those whose machine has ended by itself or is being saved and, with
        `ask_guests`, those that run containers. A pod that is unreadable or does not answer delays
        or hides none of the others.
        """

        async def ask(pod_id: str) -> PodStatus:
            return await pod_views.closed_after(self._pod(pod_id), ask_guests)

        return await pod_listing.listing(self.hooks, lambda: ask, ask_guests)

    async def events(self, follow: bool = False, since_ns: int = 0) -> AsyncGenerator[Event, None]:
        """Yields the recorded events of pods, oldest first.

        Args:
            follow: whether to wait for more, without an end. Meanwhile pods and containers that end
                by themselves are noticed at once.
            since_ns: leaves out older events; in nanoseconds since the epoch.
        """
        async with aclosing(
            event_stream.events(self, self._journal) if follow else self._journal.events()
        ) as found:
            async for event in found:
                if event.time_ns >= since_ns:
                    yield event

    async def make_template(self) -> Template:
        """Returns the template for pods of this configuration; creates it if missing.

        Raises:
            InvalidRequest: the chosen plugins do not support clones.
        """
        return await self.templates.make(self.hooks, await self.template_request())

    async def remove_template(self, prefix: str) -> Template:
        """Removes a template and the pool machines cloned from it; pods keep running.

        Raises:
            NotFound: no template, or more than one, begins with `prefix`.
        """
        removed = await self.templates.remove(prefix)
        for waiting in self.pool.list():
            if waiting.key == removed.key:
                await self.pool.drop(waiting)
        return removed

    async def remove_image(self, text: str) -> str:
        """Removes a name of an image, and the image with its last name; returns what was removed.

        Raises:
            NotFound: there is no such image.
            InvalidRequest: a container uses it.
        """
        return await self.images.remove(text, await self._used_roots())

    @property
    def volumes(self) -> Volumes:
        """Named folders that are kept when pods are deleted."""
        return Volumes(self.config.volume.dir)

    async def remove_volume(self, name: str) -> None:
        """Removes a volume with all its contents.

        Raises:
            NotFound: there is no volume of this name.
            InvalidRequest: a container uses it.
        """
        self.volumes.remove(name, used_mount_sources((await self.list()).pods))

    async def prune_images(self, also_named: bool = False) -> tuple[Image, ...]:
        """Removes images without a name, or all that no container uses; returns them."""
        return await self.images.prune(await self._used_roots(), also_named)

    async def _used_roots(self) -> set[Path]:
        return used_roots((await self.list()).pods, await self.images.list())

    async def template_request(self) -> TemplateRequest:
        """Returns the template request for pods of this configuration and the current guest image.

        Raises:
            InvalidRequest: the chosen plugins do not support clones.
        """
        return await configured_template.request(self._wiring, self.config, self._chosen)

    async def diagnose(self) -> tuple[Finding, ...]:
        """Reports whether this host is fit for the chosen plugins."""
        damaged = (await self.list()).damaged
        return await diagnose.findings(self.hooks, self.config, self.catalog, damaged)

    def _pod(self, pod_id: str) -> Pod:
        return Pod(pod_id, self._sessions(pod_id), self._services)

    def _sessions(self, pod_id: str) -> Sessions:
        return Sessions(pod_id, self.hooks, self._wire, self.config.deadlines, self._connected)
