"""vc top, on a screen that nobody sees."""

from __future__ import annotations

from pathlib import Path

from textual.widgets import DataTable, RichLog

from vc_core.cli.top_screen import Screen
from vc_core.spec import ContainerSpec, ProcessSpec, Rootfs


def cells(screen: Screen, name: str) -> list[list[str]]:
    table = screen.query_one(f"#{name}", DataTable)
    return [[str(cell) for cell in table.get_row(key)] for key in table.rows]


async def until(pilot, condition) -> None:
    for _ in range(200):
        if condition():
            return
        await pilot.pause(0.05)
    raise AssertionError([cells(pilot.app, name) for name in ("pods", "containers", "processes")])


async def test_what_there_is_and_what_happens_is_on_one_screen(open_runtime):
    async with open_runtime() as runtime:
        first = await runtime.create("one")
        await first.create_container(
            ContainerSpec(
                id="c", rootfs=Rootfs(path=Path("/")), process=ProcessSpec(args=("endless",))
            )
        )
        await first.start()
        await runtime.create("two")
        screen = Screen(runtime, 0.1)
        async with screen.run_test(size=(120, 40)) as pilot:
            await until(
                pilot,
                lambda: (
                    [row[:2] for row in cells(screen, "pods")]
                    == [["one", "running"], ["two", "ready"]]
                ),
            )
            await until(
                pilot,
                lambda: [row[:2] for row in cells(screen, "containers")] == [["c", "running"]],
            )
            await until(
                pilot, lambda: [row[-1] for row in cells(screen, "processes")] == ["endless"]
            )
            await pilot.press("down")
            await until(pilot, lambda: cells(screen, "containers") == [])
            await (await runtime.get("two")).delete()
            await until(pilot, lambda: [row[0] for row in cells(screen, "pods")] == ["one"])
            events = screen.query_one("#events", RichLog)
            await until(
                pilot, lambda: any("pod_deleted  two" in line.text for line in events.lines)
            )
            await pilot.press("q")
        await first.delete(force=True)


def test_without_a_terminal_it_says_so():
    from click.testing import CliRunner

    from vc_core.cli import vc

    done = CliRunner().invoke(vc, ["top"])
    assert "needs a terminal; use 'vc stats --json'" in str(done.exception)


async def test_a_process_named_like_markup_is_a_cell(open_runtime):
    async with open_runtime() as runtime:
        pod = await runtime.create("one")
        words = ("endless", "[/x]", "\x1b[2J")
        await pod.create_container(
            ContainerSpec(id="c", rootfs=Rootfs(path=Path("/")), process=ProcessSpec(args=words))
        )
        await pod.start()
        screen = Screen(runtime, 0.1)
        async with screen.run_test(size=(120, 40)) as pilot:
            await until(
                pilot,
                lambda: (
                    [row[-1] for row in cells(screen, "processes")] == [r"endless [/x] \x1b[2J"]
                ),
            )
            await pilot.press("q")
        await pod.delete(force=True)
