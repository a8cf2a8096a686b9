"""vc network: networks of pods."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
import msgspec

from vc_core.cli.completion import pod_id_argument
from vc_core.cli.escapes import shown
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import ago, echo_json, echo_table, json_option

if TYPE_CHECKING:
    from vc_core.spec.values import NamedNetwork


@click.group()
def network() -> None:
    """Manage networks of pods, and show what they have refused.

    Networks of names are those of CNI: pods of one network reach each other, also by name.
    """


@network.command("log")
@json_option
@pod_id_argument()
@click.pass_obj
def log(settings: Settings, as_json: bool, pod_id: str) -> None:
    """List what the network of POD has refused since its start, the latest first.

    Packets to one destination, and look-ups of one name, are added up. A pod that was stopped has
    no list; 'vc events' has its first packets.
    """

    async def work() -> None:
        async with settings.runtime() as runtime:
            found = await (await runtime.get(pod_id)).network_denials()
        if as_json:
            echo_json(found)
            return
        echo_table(
            ("REASON", "PROTOCOL", "TARGET", "PORT", "COUNT", "LAST"),
            (
                (
                    one.reason.value,
                    one.protocol,
                    shown(one.target),
                    one.port or "",
                    one.count,
                    ago(one.last_ns) if one.last_ns else "",
                )
                for one in found
            ),
        )

    run_async(work())


@network.command("ls")
@json_option
@click.pass_obj
def ls(settings: Settings, as_json: bool) -> None:
    """List networks."""

    async def work() -> tuple[NamedNetwork, ...]:
        async with settings.runtime() as runtime:
            return await runtime.networks.list()

    found = run_async(work())
    if as_json:
        echo_json(found)
        return
    rows = [
        (one.name, " ".join(one.subnets), "yes" if one.is_internal else "", len(one.pods))
        for one in found
    ]
    echo_table(("NETWORK", "SUBNETS", "INTERNAL", "PODS"), rows)


@network.command("inspect")
@click.argument("names", metavar="NETWORK...", nargs=-1, required=True)
@click.pass_obj
def inspect(settings: Settings, names: tuple[str, ...]) -> None:
    """Print details of networks as JSON, with the pods that are in them."""

    async def work() -> list[object]:
        async with settings.runtime() as runtime:
            found = [await runtime.networks.get(name) for name in names]
        return [
            {**msgspec.to_builtins(one), "definition": json.loads(one.definition)} for one in found
        ]

    echo_json(run_async(work()))


@network.command("create")
@click.argument("name", metavar="NETWORK")
@click.option(
    "--subnet",
    "subnets",
    multiple=True,
    metavar="ADDRESS/LENGTH",
    show_default="a free one of 10.210.0.0/16",
    help="Subnet of the pods; may be repeated for IPv4 and IPv6.",
)
@click.option("--ipv6", "has_ipv6", is_flag=True, help="Add a subnet of IPv6.")
@click.option(
    "--internal",
    "is_internal",
    is_flag=True,
    help="Let pods reach each other only, and publish no ports.",
)
@click.option(
    "--mtu", type=click.IntRange(0), default=0, show_default="that of the uplink", help="MTU."
)
@click.pass_obj
def create(
    settings: Settings,
    name: str,
    subnets: tuple[str, ...],
    has_ipv6: bool,
    is_internal: bool,
    mtu: int,
) -> None:
    """Make a network: a bridge of this host with its subnet. Print its name."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            made = await runtime.networks.create(name, subnets, has_ipv6, is_internal, mtu)
            click.echo(made.name)

    run_async(work())


@network.command("rm")
@click.argument("names", metavar="NETWORK...", nargs=-1, required=True)
@click.pass_obj
def rm(settings: Settings, names: tuple[str, ...]) -> None:
    """Remove networks. A network that pods are in is refused."""

    async def work() -> None:
        async with settings.runtime() as runtime:
            for name in names:
                await runtime.networks.remove(name)
                click.echo(name)

    run_async(work())
