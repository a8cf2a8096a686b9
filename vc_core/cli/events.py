"""vc events and vc inspect."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from vc_core.cli.completion import pod_ids_argument
from vc_core.cli.escapes import shown
from vc_core.cli.exit_codes import writing
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import echo_json, echo_json_line, json_option
from vc_core.cli.timestamps import Since, moment
from vc_core.engine.state.event_journal import Event
from vc_core.spec.errors import NotFound

if TYPE_CHECKING:
    from vc_core.engine.api.runtime import Runtime


@click.command("events")
@click.option("--follow", "-f", is_flag=True, help="Wait for new events until Ctrl-C.")
@click.option(
    "--since",
    type=Since(),
    default=None,
    metavar="TIME",
    help="Show events since this time, e.g. 10m or 2026-01-31T12:00:00.",
)
@json_option
@pod_ids_argument(required=False)
@click.pass_obj
def events(
    settings: Settings, follow: bool, since: int | None, as_json: bool, pod_ids: tuple[str, ...]
) -> None:
    """Print events of PODs, by default of all.

    There is no daemon, so the end of a container or machine is recorded by the next command that
    looks at its pod, and immediately by 'vc events -f'.
    """

    async def work() -> None:
        async with settings.runtime() as runtime:
            async for event in runtime.events(follow, since or 0):
                if not pod_ids or event.pod in pod_ids:
                    _show(event, as_json)

    with writing():
        run_async(work())


def _show(event: Event, as_json: bool) -> None:
    if as_json:
        echo_json_line(event)
    else:
        when = moment(event.time_ns)
        name = f"{event.pod}/{event.container}" if event.container else event.pod
        code = "" if event.exit_code is None else f"exit {event.exit_code}"
        more = ", ".join(filter(None, (code, event.reason)))
        click.echo(f"{when}  {event.event:18}  {shown(name)}{f'  ({shown(more)})' if more else ''}")
    sys.stdout.flush()


@click.command("inspect")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def inspect(settings: Settings, names: tuple[str, ...]) -> None:
    """Print details of pods, images and volumes as a JSON list.

    If several have the same NAME, a pod is shown before an image before a volume.
    """

    async def find(runtime: Runtime, name: str) -> object:
        with contextlib.suppress(NotFound):
            return await (await runtime.get(name)).status()
        with contextlib.suppress(NotFound):
            return await runtime.images.get(name)
        with contextlib.suppress(NotFound):
            return runtime.volumes.get(name)
        raise NotFound(
            f"no pod, image or volume {name}; "
            "'vc pod ls', 'vc image ls' and 'vc volume ls' list them"
        )

    async def work() -> list[object]:
        async with settings.runtime() as runtime:
            return [await find(runtime, name) for name in names]

    echo_json(run_async(work()))
