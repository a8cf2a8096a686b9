"""The screen of `vc top`: tables of pods, containers and processes, a log and what happens."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import App, ComposeResult
from textual.containers import Horizontal
from textual.widgets import DataTable, Footer, RichLog

from vc_core.cli.escapes import shown, shown_colours
from vc_core.cli.render import exit_text, size
from vc_core.cli.stats import Use, row, samples_of
from vc_core.engine.api.pod_views import Unanswered, within
from vc_core.engine.state.states import State
from vc_core.spec.errors import NotFound, VcError

if TYPE_CHECKING:
    from textual.binding import BindingType

    from vc_core.engine.api.pod import Pod
    from vc_core.engine.api.pod_views import PodStatus
    from vc_core.engine.api.runtime import Runtime

_PODS = ("POD", "STATE", "CPU", "HOST MEMORY", "GUEST MEMORY", "LIMIT", "READ", "WRITE", "PIDS")
_CONTAINERS = ("CONTAINER", "STATE", "EXIT", "RESTARTS", "HEALTH")
_PROCESSES = ("PID", "UID", "STATE", "MEMORY", "CPU", "COMMAND")
_LOG_LINES = 200

Table = DataTable[Text]


class Screen(App[None]):
    """Shows what there is and what happens, again and again; changes nothing."""

    CSS = """
    DataTable { height: 1fr; border: round $primary; }
    RichLog { width: 1fr; border: round $primary; }
    #containers { width: 1fr; }
    #processes { width: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [("q", "quit", "Quit")]

    def __init__(self, runtime: Runtime, interval_s: float) -> None:
        super().__init__()
        self._runtime = runtime
        self._interval_s = interval_s
        self._pod: Pod | None = (
            None  # the same one for as long as it is looked at: each has a channel to its guest
        )
        self._container = ""

    def compose(self) -> ComposeResult:
        """Pods above, what is in the chosen one in the middle, what it writes and what happens below."""
        yield _table("pods", _PODS)
        with Horizontal():
            yield _table("containers", _CONTAINERS)
            yield _table("processes", _PROCESSES)
        with Horizontal():
            yield _pane("log")
            yield _pane("events")
        yield Footer()

    def on_mount(self) -> None:
        """Begins to look."""
        self._look()
        self._listen()

    @work
    async def _look(self) -> None:
        await self._show([])
        async for uses in samples_of(self._runtime, (), self._interval_s):
            await self._show(uses)

    @work
    async def _listen(self) -> None:
        pane = self.query_one("#events", RichLog)
        async with aclosing(self._runtime.events(follow=True)) as events:
            async for event in events:
                name = f"{event.pod}/{event.container}" if event.container else event.pod
                pane.write(Text(shown(f"{event.event}  {name}  {event.reason}".rstrip())))

    @work(exclusive=True, group="log")
    async def _read(self, pod_id: str, container_id: str) -> None:
        pane = self.query_one("#log", RichLog)
        pane.clear()
        try:
            pod = await self._runtime.get(pod_id)
            async with aclosing(
                pod.container(container_id).logs(follow=True, tail=_LOG_LINES)
            ) as lines:
                async for line in lines:
                    pane.write(
                        Text.from_ansi(
                            shown_colours(line.data.decode(errors="replace").rstrip("\r\n"))
                        )
                    )
        except (
            VcError
        ) as error:  # without a log, or gone; a log is a file, for which no channel was opened
            pane.write(Text(shown(error), style="dim"))

    @on(DataTable.RowHighlighted, "#pods")
    async def _choose_pod(self, event: DataTable.RowHighlighted) -> None:
        former, self._pod = self._pod, None
        if former is not None:
            await former.close()
        with contextlib.suppress(NotFound):  # deleted meanwhile
            self._pod = await self._runtime.get(event.row_key.value or "")
        await self._show_pod()

    @on(DataTable.RowHighlighted, "#containers")
    def _choose_container(self, event: DataTable.RowHighlighted) -> None:
        chosen = event.row_key.value or ""
        pod_id, _, self._container = chosen.partition("/")
        if self._container:
            self._read(pod_id, self._container)

    async def _show(self, uses: Sequence[Use]) -> None:
        used = {use.pod: row(use)[2:] for use in uses}
        nothing = ("",) * (len(_PODS) - 2)
        listing = await self._runtime.list()
        rows = {
            pod.id: (pod.id, pod.state.value, *used.get(pod.id, nothing)) for pod in listing.pods
        }
        rows |= {pod.id: (pod.id, pod.state, *nothing) for pod in listing.damaged}
        _fill(self.query_one("#pods", DataTable), rows)
        await self._show_pod()

    async def _show_pod(self) -> None:
        containers: dict[str, Sequence[object]] = {}
        processes: dict[str, Sequence[object]] = {}
        with contextlib.suppress(
            VcError, Unanswered
        ):  # it ends while we look, or hangs: the next look tells
            if (pod := self._pod) is not None:
                status = await pod.status()
                containers = _containers(status)
                if self._container in {
                    one.id for one in status.containers if one.state is State.RUNNING
                }:
                    limit_s = self._runtime.config.deadlines.view
                    for one in await within(limit_s, pod.container(self._container).processes()):
                        used = (
                            size(one.resident_bytes),
                            f"{one.cpu_ns / 1e9:.1f} s",
                            " ".join(one.command),
                        )
                        processes[str(one.pid)] = (one.pid, one.uid, one.state, *used)
        _fill(self.query_one("#containers", DataTable), containers)
        _fill(self.query_one("#processes", DataTable), processes)


def _containers(pod: PodStatus) -> dict[str, Sequence[object]]:
    return {
        f"{pod.id}/{one.id}": (
            one.id,
            f"{one.state.value} (no answer)" if one.unanswered else one.state.value,
            "" if one.exit is None else exit_text(one.exit),
            one.restarts or "",
            one.health.value,
        )
        for one in pod.containers
    }


def _table(name: str, columns: Sequence[str]) -> Table:
    made: Table = DataTable(id=name, cursor_type="row", zebra_stripes=True)
    made.border_title = name
    for column in columns:
        made.add_column(column, key=column)
    return made


def _pane(name: str) -> RichLog:
    made = RichLog(id=name, max_lines=_LOG_LINES, wrap=True)
    made.border_title = name
    return made


def _fill(table: Table, rows: Mapping[str, Sequence[object]]) -> None:
    """Changes what has changed: who looks at a row keeps it."""
    for key in [key.value for key in table.rows if key.value not in rows]:
        table.remove_row(str(key))
    for key, cells in rows.items():
        texts = [
            Text(shown(cell)) for cell in cells
        ]  # a string would be markup: [/x] in it is an error
        if key not in table.rows:
            table.add_row(*texts, key=key)
            continue
        for column, text in zip(table.columns, texts, strict=True):
            table.update_cell(key, column, text, update_width=True)
