"""Wrong network plugins."""

from __future__ import annotations

import os
import socket

from msgspec import structs

from tests.testing.wrong import Wrong, table
from vc_core.spec import (
    TEMPLATE_MAC,
    Capability,
    DenialReason,
    NetworkDenial,
    NetworkError,
    hookimpl,
)
from vc_core.testing.mocks import MockNetwork
from vc_core.testing.mocks.world import MockConnection

NETWORKS: Wrong = {}
breaks = table(NETWORKS)


def on_tap(network, tap):
    (one,) = network.interfaces
    return structs.replace(
        network, interfaces=(structs.replace(one, nic=structs.replace(one.nic, descriptor=tap)),)
    )


@breaks("test_its_capabilities_are_those_of_a_network")
class Boasts(MockNetwork):
    @hookimpl
    async def network_capabilities(self, pod):
        return frozenset({Capability.CLONE})


@breaks("test_a_prepared_tap_passes_nothing")
class PassesEarly(MockNetwork):
    @hookimpl
    async def network_prepare(self, pod, request):
        taps = await super().network_prepare(pod, request)
        live = os.open(os.devnull, os.O_RDWR)
        os.dup2(live, taps[0].descriptor, inheritable=False)
        os.close(live)
        return taps


@breaks("test_a_prepared_tap_works_once_connected")
class StaysSilent(MockNetwork):
    @hookimpl
    async def network_connect(self, pod, request):
        tap = self._prepared.pop(pod.id, None)
        network = await super().network_connect(pod, request)
        return network if tap is None else on_tap(network, tap)


@breaks("test_connecting_keeps_the_prepared_taps")
class MakesAnotherTap(MockNetwork):
    @hookimpl
    async def network_connect(self, pod, request):
        network = await super().network_connect(pod, request)
        return on_tap(network, os.open(os.devnull, os.O_RDWR))


@breaks("test_a_prepared_tap_tells_of_the_mac")
class TellsAnotherMac(MockNetwork):
    @hookimpl
    async def network_prepare(self, pod, request):
        (tap,) = await super().network_prepare(pod, request)
        return (structs.replace(tap, mac=TEMPLATE_MAC),)


@breaks("test_preparing_removes_what_was_left")
class PreparesBeside(MockNetwork):
    @hookimpl
    async def network_prepare(self, pod, request):
        former = self.world.networks.get(pod.id)
        taps = await super().network_prepare(pod, request)
        if former is not None:
            self.world.networks[pod.id] = former
        return taps


@breaks("test_nothing_is_left_of_what_was_prepared")
class LeavesAFile(MockNetwork):
    @hookimpl
    async def network_prepare(self, pod, request):
        (pod.run_dir / "left").touch()
        return await super().network_prepare(pod, request)


@breaks("test_it_gives_an_open_tap")
class ReadOnly(MockNetwork):
    @hookimpl
    async def network_connect(self, pod, request):
        network = await super().network_connect(pod, request)
        return on_tap(network, os.open(os.devnull, os.O_RDONLY))


@breaks("test_the_configuration_fits_the_tap")
class OtherMac(MockNetwork):
    @hookimpl
    async def network_connect(self, pod, request):
        network = await super().network_connect(pod, request)
        (one,) = network.interfaces
        guest = structs.replace(one.guest, mac="02:00:00:00:00:09")
        return structs.replace(network, interfaces=(structs.replace(one, guest=guest),))


@breaks("test_ports_are_chosen")
class ChoosesNone(MockNetwork):
    def published(self, request):
        return request.ports


@breaks("test_ports_accept_connections")
class OpensLater(MockNetwork):
    @hookimpl
    async def network_connect(self, pod, request):
        network = await super().network_connect(pod, request)
        self.world.networks[pod.id] = MockConnection(())
        return network


@breaks("test_connecting_again_replaces_the_network")
class Adds(MockNetwork):
    @hookimpl
    async def network_connect(self, pod, request):
        former = self.world.networks.get(pod.id)
        network = await super().network_connect(pod, request)
        if former is not None:
            self.world.networks[pod.id] = former
        return network


@breaks("test_a_taken_port_is_refused")
class SaysNothing(MockNetwork):
    @hookimpl
    async def network_connect(self, pod, request):
        try:
            return await super().network_connect(pod, request)
        except NetworkError as error:
            raise NetworkError("it did not work") from error


@breaks("test_a_refused_pod_has_no_network")
class LeavesIt(MockNetwork):
    @hookimpl
    async def network_connect(self, pod, request):
        try:
            return await super().network_connect(pod, request)
        except NetworkError:
            self.world.networks[pod.id] = MockConnection(())
            raise


@breaks("test_it_tells_of_a_network_that_works")
class Pessimist(MockNetwork):
    @hookimpl
    async def network_is_connected(self, pod):
        return False


@breaks("test_it_tells_of_no_network")
class Optimist(MockNetwork):
    @hookimpl
    async def network_is_connected(self, pod):
        return True


@breaks("test_a_pod_without_a_network_was_refused_nothing")
class RefusesAll(MockNetwork):
    @hookimpl
    async def network_denials(self, pod):
        return (NetworkDenial(reason=DenialReason.ADDRESS),)


@breaks("test_ports_are_free_afterwards")
class KeepsPorts(MockNetwork):
    @hookimpl
    async def network_disconnect(self, pod):
        if pod.id in self.world.networks:
            self.world.networks[pod.id].is_alive = False


@breaks("test_disconnecting_twice_is_no_error")
class DisconnectsOnce(MockNetwork):
    @hookimpl
    async def network_disconnect(self, pod):
        del self.world.networks[pod.id]


@breaks("test_disconnecting_without_a_run_folder_is_no_error")
class ReadsTheFolder(MockNetwork):
    @hookimpl
    async def network_disconnect(self, pod):
        next(pod.run_dir.iterdir(), None)
        self.world.networks.pop(pod.id, None)


@breaks("test_it_tells_about_the_host")
class Silent(MockNetwork):
    @hookimpl
    async def network_diagnose(self):
        return ()


@breaks("test_networks_are_listed_by_name")
class ListsAsMade(MockNetwork):
    @hookimpl
    async def network_list(self):
        return tuple(self.world.named_networks.values())


@breaks("test_a_pod_can_be_in_a_new_network")
class KnowsNoPods(MockNetwork):
    @hookimpl
    async def network_list(self):
        return tuple(structs.replace(one, pods=()) for one in await super().network_list())


@breaks("test_two_networks_have_two_names")
class MakesItAgain(MockNetwork):
    @hookimpl
    async def network_create(self, wanted):
        self.world.named_networks.pop(wanted.name, None)
        return await super().network_create(wanted)


@breaks("test_a_removed_network_is_gone")
class KeepsNetworks(MockNetwork):
    @hookimpl
    async def network_remove(self, name):
        pass


@breaks("test_a_network_with_pods_is_kept")
class RemovesUnderPods(MockNetwork):
    @hookimpl
    async def network_remove(self, name):
        self.world.named_networks.pop(name, None)


@breaks("test_the_loopback_has_a_listener")
class HearsNothing(MockNetwork):
    @hookimpl
    async def network_take_loopback(self, pod):
        return socket.socket().detach()
