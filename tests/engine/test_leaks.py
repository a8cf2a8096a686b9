"""The tables of docs/reliability.md: a fault leaves what the pod's records know of, or nothing."""

from __future__ import annotations

import logging

import pytest

from tools import leaks

_EVERY = 17  # steps; all of them take minutes (`python -m tools.leaks`)


def written() -> dict[str, dict[str, list[str]]]:
    """The tables of the page."""
    text = leaks.PAGE.read_text().partition(leaks.BEGIN)[2].partition(leaks.END)[0]
    tables: dict[str, dict[str, list[str]]] = {}
    for part in text.split("### ")[1:]:
        title, _, rest = part.partition("\n")
        rows = [line for line in rest.splitlines() if line.startswith("| `")]
        cells = [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows]
        tables[title] = {step: found for step, *found in cells}
    return tables


def test_nothing_is_left_by_any_fault():
    tables = written()
    assert list(tables) == [one.name[0].upper() + one.name[1:] for one in leaks.OPERATIONS]
    left = {cell for steps in tables.values() for cells in steps.values() for cell in cells}
    assert left == {leaks.NOTHING, leaks.TAKEN_ALONG}


@pytest.mark.parametrize("number", range(len(leaks.OPERATIONS)))
async def test_the_tables_are_what_the_engine_does(number, caplog):
    caplog.set_level(logging.ERROR)  # each fault is a warning
    operation = leaks.OPERATIONS[number]
    steps = written()[operation.name[0].upper() + operation.name[1:]]
    checked = 0
    for column, fault in enumerate(leaks.FAULTS):
        for step in range(1 + (number + column) % _EVERY, 300, _EVERY):
            found = await leaks.outcome(operation, step, fault)
            if not found.step:
                break
            allowed = (leaks.NOTHING, steps[found.step][column])
            assert found.left in allowed, (fault, found)
            checked += 1
    calls = await leaks.outcome(operation, 1, leaks.FAULTS[0])
    assert checked or calls.step in steps
