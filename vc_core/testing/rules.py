"""A rule: one sentence of the contract, and a test that a plugin keeps it."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from vc_core.defaults import Deadlines
from vc_core.driver_kit.timeouts import timeout_after
from vc_core.engine.wiring.wiring import Seat, Wiring
from vc_core.testing.mocks import (
    World,
    mock_agent,
    mock_device,
    mock_hypervisor,
    mock_network,
    mock_storage,
)

Suite = TypeVar("Suite")
Subject = TypeVar("Subject")

LIMIT_S = 30.0
"""Time limit in seconds for what the contract requires to happen at once."""

_MARK = "__vc_rule__"


def time_limit() -> asyncio.Timeout:
    """Returns a block that ends with TimeoutError after LIMIT_S seconds."""
    return timeout_after(LIMIT_S)


@dataclass(frozen=True)
class Rule:
    """The subject of a test of a suite.

    Attributes:
        operation: the hook's name.
        sentence: a sentence of the contract, verbatim.
    """

    operation: str
    sentence: str

    def __str__(self) -> str:
        return f'{self.operation}: "{self.sentence}"'


class ContractBroken(AssertionError):
    """A plugin does not keep a sentence of the contract.

    Attributes:
        rule: the rule with the sentence.
    """

    def __init__(self, rule: Rule, detail: object) -> None:
        self.rule = rule
        super().__init__(f"the contract says of {rule}\nbut {detail}")


Check = Callable[[Suite, Subject], Coroutine[Any, Any, None]]


def rule(
    operation: str, sentence: str
) -> Callable[[Check[Suite, Subject]], Callable[[Suite, Subject], None]]:
    """Makes a coroutine of a suite the test of one rule.

    pytest can call the test without a plugin for asyncio.
    """
    about = Rule(operation, sentence)

    def mark(check: Check[Suite, Subject]) -> Callable[[Suite, Subject], None]:
        @functools.wraps(check)
        def test(self: Suite, subject: Subject) -> None:
            try:
                asyncio.run(check(self, subject))
            except Exception as error:
                detail = (
                    str(error)
                    if isinstance(error, AssertionError)
                    else f"{type(error).__name__}: {error}"
                )
                raise ContractBroken(about, detail) from error

        setattr(test, _MARK, about)
        return test

    return mark


def rules_of(suite: type) -> Iterator[tuple[str, Rule]]:
    """Yields the names of a suite's tests, and their rules."""
    for name in dir(suite):
        found = getattr(getattr(suite, name), _MARK, None)
        if found is not None:
            yield name, found


def says(documentation: str, sentence: str) -> bool:
    """Returns whether a text contains a sentence, with any line breaks."""
    return re.sub(r"\s+", " ", sentence) in re.sub(r"\s+", " ", documentation)


def wired(world: World, **plugins: object) -> Wiring:
    """Wires plugins as the engine does, each in place of a mock.

    The keywords are hypervisor, agent, storage, device, network and observer.
    """
    given = {
        "hypervisor": mock_hypervisor(world)(),
        "agent": mock_agent(world)(),
        "storage": mock_storage(world)(),
        "device": mock_device(world)(),
        "network": mock_network(world)(),
        **plugins,
    }
    seats = [Seat(family, "subject", plugin) for family, plugin in given.items()]
    return Wiring(seats, Deadlines(default=LIMIT_S * 2, boot=120, lock=2, stop=10))


async def fails_with(kind: type[Exception], what: Coroutine[Any, Any, Any]) -> Exception:
    """Awaits a coroutine that must fail; returns the error.

    Raises:
        AssertionError: it succeeded, or failed with another error.
    """
    try:
        async with time_limit():
            outcome = await what
    except kind as error:
        return error
    except TimeoutError:
        raise AssertionError(f"it did not answer within {LIMIT_S:g} s") from None
    except Exception as error:
        raise AssertionError(
            f"it raised {type(error).__name__} ({error}), not {kind.__name__}"
        ) from error
    raise AssertionError(f"it gave {outcome!r} instead of raising {kind.__name__}")
