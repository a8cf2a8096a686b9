"""The contract suite of network plugins."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import shutil
import socket

import pytest
from msgspec import structs

from vc_core.spec import (
    TEMPLATE_MAC,
    Capability,
    Finding,
    NetworkError,
    Nic,
    UnsupportedOperation,
)
from vc_core.testing.network_subject import NetworkSubject
from vc_core.testing.rules import fails_with, rule

_KNOWN = frozenset(
    {Capability.PORTS, Capability.NETWORK_POLICY, Capability.RATES, Capability.NETWORKS}
)
_VNET_HEADER_BYTES = 10  # linux/virtio_net.h: struct virtio_net_hdr
# To everybody, of the local experimental type (IEEE 802, 88b5): nobody reads it.
_FRAME = bytes(_VNET_HEADER_BYTES) + b"\xff" * 6 + bytes(6) + b"\x88\xb5" + bytes(46)


def _takes_frames(tap: int) -> bool:
    try:
        os.write(tap, _FRAME)
    except OSError:
        return False
    return True


def _close(taps: tuple[Nic, ...] | list[Nic]) -> None:
    for one in taps:
        os.close(one.descriptor)


class NetworkContract:
    """All rules of network plugins. Subclass it and override the fixture `subject`."""

    @pytest.fixture
    def subject(self) -> NetworkSubject:
        """The plugin under test, provided by its author."""
        raise NotImplementedError("give a fixture `subject` that returns a NetworkSubject")

    @rule(
        "network_capabilities",
        "Returns the optional capabilities on this host: PORTS, NETWORK_POLICY, RATES, NETWORKS.",
    )
    async def test_its_capabilities_are_those_of_a_network(self, subject: NetworkSubject) -> None:
        declared = await subject.network().network_capabilities(pod=subject.pod())
        assert declared <= _KNOWN, f"it declares {sorted(declared - _KNOWN)}"

    @rule("network_prepare", "Creates the taps of the pod's network, which pass nothing yet")
    async def test_a_prepared_tap_passes_nothing(self, subject: NetworkSubject) -> None:
        network, pod = subject.network(), subject.pod()
        taps = await subject.prepare(network, pod)
        passed = [one.id for one in taps if _takes_frames(one.descriptor)]
        _close(taps)
        await network.network_disconnect(pod=pod)
        assert taps, "there is no tap"
        assert not passed, f"the network is not connected, and {passed} take frames of the guest"

    @rule(
        "network_prepare", "it gets the taps, and loads and runs while network_connect is at work."
    )
    async def test_a_prepared_tap_works_once_connected(self, subject: NetworkSubject) -> None:
        network, pod = subject.network(), subject.pod()
        taps = await subject.prepare(network, pod)
        copies = [structs.replace(one, descriptor=os.dup(one.descriptor)) for one in taps]
        await network.network_connect(pod=pod, request=subject.plain)
        _close(taps)
        dead = [one.id for one in copies if not _takes_frames(one.descriptor)]
        _close(copies)
        await network.network_disconnect(pod=pod)
        assert not dead, f"the network is connected, and {dead} take no frames of the guest"

    @rule("network_prepare", "Guests that have TEMPLATE_MAC are told by it")
    async def test_a_prepared_tap_tells_of_the_mac(self, subject: NetworkSubject) -> None:
        network, pod = subject.network(), subject.pod()
        taps = await subject.prepare(network, pod)
        made = await network.network_connect(pod=pod, request=subject.plain)
        _close(taps)
        await network.network_disconnect(pod=pod)
        told = [one.mac == TEMPLATE_MAC for one in taps]
        assert told == [one.guest.mac == TEMPLATE_MAC for one in made.interfaces[: len(told)]]

    @rule("network_prepare", "It first removes what an earlier call for this pod has left.")
    async def test_preparing_removes_what_was_left(self, subject: NetworkSubject) -> None:
        pod = subject.pod()
        await subject.connect(pod)
        network = subject.network()
        taps = await subject.prepare(network, pod)
        connected = await subject.network().network_is_connected(pod=pod)
        _close(taps)
        await network.network_disconnect(pod=pod)
        assert not connected, "the former network is still there"

    @rule("network_prepare", "network_disconnect removes the rest of it.")
    async def test_nothing_is_left_of_what_was_prepared(self, subject: NetworkSubject) -> None:
        network, pod = subject.network(), subject.pod()
        _close(await subject.prepare(network, pod))
        await network.network_disconnect(pod=pod)
        assert not await subject.network().network_is_connected(pod=pod), "it is connected"
        assert not [*pod.run_dir.iterdir()], "files are left in the pod's run folder"

    @rule("network_connect", "the first interfaces have the taps of that call, in their order.")
    async def test_connecting_keeps_the_prepared_taps(self, subject: NetworkSubject) -> None:
        network, pod = subject.network(), subject.pod()
        taps = await subject.prepare(network, pod)
        made = await network.network_connect(pod=pod, request=subject.plain)
        got = [one.nic.descriptor for one in made.interfaces]
        for descriptor in {*got, *(one.descriptor for one in taps)}:
            os.close(descriptor)
        await network.network_disconnect(pod=pod)
        assert got[: len(taps)] == [one.descriptor for one in taps], "it made other taps"

    @rule("network_connect", "Creates the pod's network; returns its tap")
    async def test_it_gives_an_open_tap(self, subject: NetworkSubject) -> None:
        pod = subject.pod()
        network = await subject.network().network_connect(pod=pod, request=subject.plain)
        descriptors = [interface.nic.descriptor for interface in network.interfaces]
        try:
            assert descriptors, "there is no interface"
            for descriptor in descriptors:
                flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
                assert flags & os.O_ACCMODE == os.O_RDWR, (
                    "the descriptor is not open for reading and writing"
                )
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            await subject.network().network_disconnect(pod=pod)

    @rule("network_connect", "returns its tap, configuration and published ports.")
    async def test_the_configuration_fits_the_tap(self, subject: NetworkSubject) -> None:
        pod = subject.pod()
        network = await subject.connect(pod)
        await subject.network().network_disconnect(pod=pod)
        assert network.interfaces, "there is no interface"
        for interface in network.interfaces:
            guest, nic = interface.guest, interface.nic
            assert guest.mac == nic.mac, f"the guest looks for {guest.mac} and the tap is {nic.mac}"
            assert guest.mtu <= nic.mtu, (
                f"the guest sends {guest.mtu} bytes and the tap takes {nic.mtu}"
            )
            versions = {ipaddress.ip_interface(address).version for address in guest.addresses}
            assert versions, "the guest gets no address"
            gateways = [ipaddress.ip_address(gateway).version for gateway in guest.gateways]
            assert len(set(gateways)) == len(gateways) and set(gateways) <= versions, (
                f"gateways are {guest.gateways}"
            )

    @rule("network_connect", "in the order of the request, each with its port on the host.")
    async def test_ports_are_chosen(self, subject: NetworkSubject) -> None:
        request, pod = await subject.ports(), subject.pod()
        network = await subject.connect(pod, request)
        await subject.network().network_disconnect(pod=pod)
        assert [port.guest_port for port in network.ports] == [80, 443], (
            f"it published {network.ports}"
        )
        numbers = {port.host_port for port in network.ports}
        assert len(numbers - {0}) == 2, f"the ports of the host are {sorted(numbers)}"

    @rule("network_connect", "The ports accept connections when it returns")
    async def test_ports_accept_connections(self, subject: NetworkSubject) -> None:
        request, pod = await subject.ports(), subject.pod()
        network = await subject.connect(pod, request)
        closed = [port.host_port for port in network.ports if not subject.accepts(port)]
        await subject.network().network_disconnect(pod=pod)
        assert not closed, f"nobody accepts connections on {closed}"

    @rule("network_connect", "it first removes what an earlier call for this pod has left.")
    async def test_connecting_again_replaces_the_network(self, subject: NetworkSubject) -> None:
        request, pod = await subject.ports(), subject.pod()
        first = await subject.connect(pod, request)
        try:
            await subject.connect(pod, structs.replace(request, ports=first.ports[:1]))
            still = subject.accepts(first.ports[1])
        finally:
            await subject.network().network_disconnect(pod=pod)
        assert not still, f"port {first.ports[1].host_port} of the first network is still there"

    @rule("network_connect", "Raises NetworkError when a port is taken, naming the port")
    async def test_a_taken_port_is_refused(self, subject: NetworkSubject) -> None:
        request, pod, other = await subject.ports(), subject.pod(), subject.pod("other")
        taken = (await subject.connect(other, request)).ports[0]
        wanted = structs.replace(request, ports=(taken,))
        try:
            error = await fails_with(
                NetworkError, subject.network().network_connect(pod=pod, request=wanted)
            )
        finally:
            await subject.network().network_disconnect(pod=other)
            await subject.network().network_disconnect(pod=pod)
        assert str(taken.host_port) in str(error), f"it says {error}"

    @rule("network_connect", "nothing of the network is left then.")
    async def test_a_refused_pod_has_no_network(self, subject: NetworkSubject) -> None:
        request, pod, other = await subject.ports(), subject.pod(), subject.pod("other")
        first = await subject.connect(other, request)
        free = structs.replace(first.ports[0], host_port=0)
        wanted = structs.replace(request, ports=(free, first.ports[1]))
        await fails_with(NetworkError, subject.network().network_connect(pod=pod, request=wanted))
        connected = await subject.network().network_is_connected(pod=pod)
        await subject.network().network_disconnect(pod=pod)
        await subject.network().network_disconnect(pod=other)
        assert not connected, "the pod is connected"

    @rule("network_is_connected", "Returns whether the pod's network works.")
    async def test_it_tells_of_a_network_that_works(self, subject: NetworkSubject) -> None:
        pod = subject.pod()
        await subject.connect(pod)
        connected = await subject.network().network_is_connected(pod=pod)
        await subject.network().network_disconnect(pod=pod)
        assert connected, "it says of a network that was just connected that it does not work"

    @rule("network_is_connected", "or after disconnecting.")
    async def test_it_tells_of_no_network(self, subject: NetworkSubject) -> None:
        pod = subject.pod()
        assert not await subject.network().network_is_connected(pod=pod), (
            "a pod has one that was never connected"
        )
        await subject.connect(pod)
        await subject.network().network_disconnect(pod=pod)
        assert not await subject.network().network_is_connected(pod=pod), (
            "a pod has one after disconnecting"
        )

    @rule("network_take_loopback", "Returns a listening TCP socket")
    async def test_the_loopback_has_a_listener(self, subject: NetworkSubject) -> None:
        network, pod = subject.network(), subject.pod()
        await subject.connect(pod)
        try:
            descriptor = await network.network_take_loopback(pod=pod)
        except UnsupportedOperation:
            pytest.skip("it does not implement network_take_loopback")
        finally:
            await network.network_disconnect(pod=pod)
        with socket.socket(fileno=descriptor) as found:
            listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            assert (found.type, listens) == (socket.SOCK_STREAM, 1), f"it returned {found}"

    @rule("network_denials", "Empty for a pod without a network.")
    async def test_a_pod_without_a_network_was_refused_nothing(
        self, subject: NetworkSubject
    ) -> None:
        pod = subject.pod()
        assert await subject.network().network_denials(pod=pod) == ()
        await subject.connect(pod)
        connected = await subject.network().network_denials(pod=pod)
        await subject.network().network_disconnect(pod=pod)
        assert connected == (), f"a guest that has sent nothing was refused {connected}"
        assert await subject.network().network_denials(pod=pod) == ()

    @rule("network_disconnect", "Removes the pod's network; its ports are free afterwards.")
    async def test_ports_are_free_afterwards(self, subject: NetworkSubject) -> None:
        request, pod = await subject.ports(), subject.pod()
        network = await subject.connect(pod, request)
        await subject.network().network_disconnect(pod=pod)
        taken = [port.host_port for port in network.ports if subject.accepts(port)]
        assert not taken, f"connections are still accepted on {taken}"

    @rule("network_disconnect", "May be called twice.")
    async def test_disconnecting_twice_is_no_error(self, subject: NetworkSubject) -> None:
        pod = subject.pod()
        await subject.connect(pod)
        for _ in range(2):
            await subject.network().network_disconnect(pod=pod)

    @rule("network_disconnect", "A run folder that is gone after a reboot of the host is no error.")
    async def test_disconnecting_without_a_run_folder_is_no_error(
        self, subject: NetworkSubject
    ) -> None:
        pod = subject.pod()
        shutil.rmtree(pod.run_dir)
        await subject.network().network_disconnect(pod=pod)

    @rule("network_list", "Returns the networks that pods can be in, by name.")
    async def test_networks_are_listed_by_name(self, subject: NetworkSubject) -> None:
        wanted = [await subject.named(name) for name in ("second", "first")]
        made = [await subject.network().network_create(wanted=one) for one in wanted]
        listed = [one.name for one in await subject.network().network_list()]
        for one in made:
            await subject.network().network_remove(name=one.name)
        assert [name for name in listed if name in {one.name for one in made}] == [
            made[1].name,
            made[0].name,
        ], f"it listed {listed}"

    @rule("network_create", "Makes a network;")
    async def test_a_pod_can_be_in_a_new_network(self, subject: NetworkSubject) -> None:
        wanted, pod = await subject.named(), subject.pod()
        made = await subject.network().network_create(wanted=wanted)
        try:
            request = structs.replace(subject.plain, name=made.name)
            await subject.connect(pod, request)
            found = {one.name: one for one in await subject.network().network_list()}
            await subject.network().network_disconnect(pod=pod)
            assert found[made.name].pods == (pod.id,), f"in it is {found[made.name].pods}"
        finally:
            await subject.network().network_disconnect(pod=pod)
            await subject.network().network_remove(name=made.name)
        assert (made.name, made.is_own, bool(made.subnets)) == (wanted.name, True, True), (
            f"it made {made}"
        )

    @rule("network_create", "Raises NetworkError when there is a network of this name")
    async def test_two_networks_have_two_names(self, subject: NetworkSubject) -> None:
        wanted = await subject.named()
        await subject.network().network_create(wanted=wanted)
        try:
            error = await fails_with(NetworkError, subject.network().network_create(wanted=wanted))
        finally:
            await subject.network().network_remove(name=wanted.name)
        assert wanted.name in str(error), f"it says {error}"

    @rule("network_remove", "Removes a network that network_create made.")
    async def test_a_removed_network_is_gone(self, subject: NetworkSubject) -> None:
        wanted = await subject.named()
        await subject.network().network_create(wanted=wanted)
        await subject.network().network_remove(name=wanted.name)
        left = [one.name for one in await subject.network().network_list()]
        assert wanted.name not in left, f"it lists {left}"

    @rule("network_remove", "or when pods are in it; names them.")
    async def test_a_network_with_pods_is_kept(self, subject: NetworkSubject) -> None:
        wanted, pod = await subject.named(), subject.pod()
        await subject.network().network_create(wanted=wanted)
        try:
            await subject.connect(pod, structs.replace(subject.plain, name=wanted.name))
            error = await fails_with(
                NetworkError, subject.network().network_remove(name=wanted.name)
            )
        finally:
            await subject.network().network_disconnect(pod=pod)
            await subject.network().network_remove(name=wanted.name)
        assert pod.id in str(error), f"it says {error}"

    @rule(
        "network_diagnose",
        "Reports whether this host is fit for the plugin: programs, devices, permissions.",
    )
    async def test_it_tells_about_the_host(self, subject: NetworkSubject) -> None:
        findings = await subject.network().network_diagnose()
        assert findings, "it found nothing to tell"
        assert all(isinstance(finding, Finding) and finding.detail for finding in findings), (
            f"it told {findings}"
        )
