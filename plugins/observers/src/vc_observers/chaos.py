"""Fails or delays operations, to test how a program reacts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from vc_core.spec import FAMILIES, Operation, OperationError, around_all

_NAMES = frozenset(
    name for spec in FAMILIES.values() for name in vars(spec) if not name.startswith("_")
)


@dataclass(frozen=True)
class ChaosOptions:
    """Which operations fail or are delayed, by name.

    Attributes:
        fail: probability of a failure, from 0 to 1.
        delay_s: delay before the operation begins, in seconds.
        seed: seed of the random numbers, to repeat a run; 0 for another one each time.
    """

    fail: Mapping[str, float] = field(default_factory=dict)
    delay_s: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0

    def problems(self) -> Iterator[str]:
        """Yields a sentence for each invalid value."""
        for key, values in (("fail", self.fail), ("delay_s", self.delay_s)):
            for name in sorted(set(values) - _NAMES):
                yield f"{key}.{name}: is not an operation; see docs/hooks.md"


@around_all
class Chaos:
    """The plugin `chaos`."""

    options_type = ChaosOptions

    def __init__(self, options: ChaosOptions) -> None:
        self._options = options
        self._dice = random.Random(options.seed or None)

    @asynccontextmanager
    async def surround(self, operation: Operation) -> AsyncIterator[None]:
        name = operation.name
        if delay_s := self._options.delay_s.get(name, 0):
            await asyncio.sleep(delay_s)
        if self._dice.random() < self._options.fail.get(name, 0):
            raise OperationError("chaos has struck", name, "chaos", operation.pod)
        yield
