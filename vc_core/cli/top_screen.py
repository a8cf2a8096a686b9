"""The screen of `vc top`: tables of pods, containers and processes, a log and events."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding
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
    from vc_core.engine.api.pod_listing import PodStatus
    from vc_core.engine.api.runtime import Runtime

_PODS = ("POD", "STATE", "CPU", "HOST MEMORY", "GUEST MEMORY", "LIMIT", "READ", "WRITE", "PIDS")
_CONTAINERS = ("CONTAINER", "STATE", "EXIT", "RESTARTS", "HEALTH")
_PROCESSES = ("PID", "UID", "STATE", "MEMORY", "CPU", "COMMAND")
_LOG_LINES = 200

Table = DataTable[Text]


class Screen(App[None]):
    """Shows the pods of this host; changes nothing."""

    CSS = """
    DataTable { height: 1fr; border: round $primary; }
    RichLog { width: 1fr; border: round $primary; }
    #containers { width: 1fr; }
    #processes { width: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),  # textual would only show a hint
    ]

    def __init__(self, runtime: Runtime, interval_s: float) -> None:
        super().__init__()
        self._runtime = runtime
        self._interval_s = interval_s
        # Kept while the pod is selected, as each Pod object opens a channel to its guest.
        self._pod: Pod | None = None
        self._container = ""

    def compose(self) -> ComposeResult:
        """Lay out pods above, containers and processes in the middle, log and events below."""
        yield _table("pods", _PODS)
        with Horizontal():
            yield _table("containers", _CONTAINERS)
            yield _table("processes", _PROCESSES)
        with Horizontal():
            yield _pane("log")
            yield _pane("events")
        yield Footer()

    def on_mount(self) -> None:
        """Start the workers that update the screen."""
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
        except VcError as error:  # it has no log, or was deleted
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
        # A pod that stopped or does not answer is shown so at the next update.
        with contextlib.suppress(VcError, Unanswered):
            if (pod := self._pod) is not None:
                status = await pod.status()
                containers = _containers(status)
                if self._container in {
                    item.id for item in status.containers if item.state is State.RUNNING
                }:
                    limit_s = self._runtime.config.deadlines.view
                    for item in await within(limit_s, pod.container(self._container).processes()):
                        used = (
                            size(item.resident_bytes),
                            f"{item.cpu_ns / 1e9:.1f} s",
                            " ".join(item.command),
                        )
                        processes[str(item.pid)] = (item.pid, item.uid, item.state, *used)
        _fill(self.query_one("#containers", DataTable), containers)
        _fill(self.query_one("#processes", DataTable), processes)


def _containers(pod: PodStatus) -> dict[str, Sequence[object]]:
    return {
        f"{pod.id}/{container.id}": (
            container.id,
            f"{container.state.value} (no answer)"
            if container.unanswered
            else container.state.value,
            "" if container.exit is None else exit_text(container.exit),
            container.restarts or "",
            container.health.value,
        )
        for container in pod.containers
    }


def _table(name: str, columns: Sequence[str]) -> Table:
    table: Table = DataTable(id=name, cursor_type="row", zebra_stripes=True)
    table.border_title = name
    for column in columns:
        table.add_column(column, key=column)
    return table


def _pane(name: str) -> RichLog:
    pane = RichLog(id=name, max_lines=_LOG_LINES, wrap=True)
    pane.border_title = name
    return pane


def _fill(table: Table, rows: Mapping[str, Sequence[object]]) -> None:
    """Update the rows of a table in place, so that the cursor stays on its row."""
    for key in [key.value for key in table.rows if key.value not in rows]:
        table.remove_row(str(key))
    for key, cells in rows.items():
        # Not plain strings, which textual would parse as markup.
        texts = [Text(shown(cell)) for cell in cells]
        if key not in table.rows:
            table.add_row(*texts, key=key)
            continue
        for column, text in zip(table.columns, texts, strict=True):
            table.update_cell(key, column, text, update_width=True)
