"""vc network: networks of pods."""

from __future__ import annotations

import click

from vc_core.cli.completion import pod_id_argument
from vc_core.cli.escapes import shown
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import ago, echo_json, echo_table, json_option


@click.group()
def network() -> None:
    """Show what networks of pods have refused."""


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
