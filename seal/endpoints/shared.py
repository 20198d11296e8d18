"""Answers that are asked for once: kept up to a bound, and shared while they are on their way."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass
class _Asked(Generic[Value]):
    """One question that is on its way."""

    task: asyncio.Task[Value]
    waiting: int = 0


class Shared(Generic[Key, Value]):
    """Values by key; belongs to one event loop.

    What failed is not kept: who asks again asks anew. When the last one who waits for a value
    leaves, the question is dropped.
    """

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._asked: dict[Key, _Asked[Value]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: Key, ask: Callable[[], Awaitable[Value]]) -> Value:
        """The value of a key, asked for if nobody has; raises what `ask` raises."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if (asked := self._asked.get(key)) is None:
            asked = self._asked[key] = _Asked(asyncio.ensure_future(self._ask(key, ask)))
        asked.waiting += 1
        try:
            return await asyncio.shield(asked.task)
        finally:
            asked.waiting -= 1
            if not asked.waiting:
                self._leave(key, asked)

    async def _ask(self, key: Key, ask: Callable[[], Awaitable[Value]]) -> Value:
        value = await ask()
        self._kept[key] = value
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        return value

    def _leave(self, key: Key, asked: _Asked[Value]) -> None:
        """Nobody waits any more: forget the question, and stop it if it has no answer yet."""
        if self._asked.get(key) is asked:
            del self._asked[key]
        asked.task.cancel()
