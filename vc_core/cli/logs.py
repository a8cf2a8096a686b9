"""vc logs: print the output of a container."""

from __future__ import annotations

import sys

import click

from vc_core.cli.completion import pod_id_argument
from vc_core.cli.container_options import container_id_option
from vc_core.cli.execute import chosen
from vc_core.cli.exit_codes import writing
from vc_core.cli.global_options import Settings, run_async
from vc_core.cli.render import echo_json_line, json_option
from vc_core.cli.timestamps import Since, moment
from vc_core.engine.resources.container_log import LogLine
from vc_core.spec.values import StreamName


@click.command("logs")
@click.option("--follow", "-f", is_flag=True, help="Wait for new output until the container stops.")
@click.option(
    "--tail",
    "-n",
    type=click.IntRange(0),
    metavar="N",
    help="Show only the last N lines.",
)
@click.option(
    "--since",
    type=Since(),
    default=None,
    metavar="TIME",
    help="Show lines since this time, e.g. 10m or 2026-01-31T12:00:00.",
)
@click.option("--timestamps", "-t", is_flag=True, help="Show the time of each line.")
@container_id_option
@json_option
@pod_id_argument()
@click.pass_obj
def logs(
    settings: Settings,
    /,
    pod_id: str,
    container_id: str,
    follow: bool,
    tail: int | None,
    since: int | None,
    timestamps: bool,
    as_json: bool,
) -> None:
    """Print the output of a container of POD that was started with 'vc run -d'.

    Its stderr is printed to stderr. The log is kept until the container is deleted, even if the
    container has stopped or its machine has crashed.
    """

    async def work() -> None:
        async with settings.runtime() as runtime:
            container = await chosen(await runtime.get(pod_id), container_id)
            shown = None
            async for line in container.logs(follow, tail, since or 0):
                if shown is not None and shown.stream is not line.stream:
                    _flush()  # so that a terminal has them in order
                _show(line, timestamps, as_json)
                if follow:
                    _flush()
                shown = line
            _flush()

    with writing():
        run_async(work())


def _show(line: LogLine, timestamps: bool, as_json: bool) -> None:
    if as_json:
        text = line.data.decode(errors="replace")
        echo_json_line(
            {"time": moment(line.time_ns), "stream": line.stream, "line": text.rstrip("\n")}
        )
        return
    stream = (sys.stdout if line.stream is StreamName.STDOUT else sys.stderr).buffer
    stream.write((f"{moment(line.time_ns)} ".encode() if timestamps else b"") + line.data)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
