"""What an Indexed Job does for a stage, with asyncio tasks.

Every shard is an index. One that fails is tried again after a pause, as often as its budget allows
(`backoffLimitPerIndex`); one whose error no retry mends is given up at once (FailIndex), and the
others go on. The stage has ended when every index has. Nobody else retries shards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from controller_svc.core import (
    SHARD_ATTEMPTS,
    AttemptBudget,
    FailedIndex,
    Reason,
    StageObserved,
    StartStage,
    format_ranges,
)
from seal.errors import Retryable, SealError, Superseded, error_class

log = structlog.get_logger(__name__)

SHARD_BUDGET = AttemptBudget(attempts=SHARD_ATTEMPTS, base_seconds=2.0, max_seconds=60.0)
"""Of one shard within one attempt of its stage."""
PARALLELISM = 16
"""Shards of a stage at work at once."""

Work = Callable[[int], Awaitable[None]]
"""Does one shard to its end."""


class IndexedStage:
    """One attempt of a stage at work in this process."""

    def __init__(
        self,
        action: StartStage,
        work: Work,
        *,
        budget: AttemptBudget = SHARD_BUDGET,
        changed: asyncio.Event,
    ) -> None:
        """`changed` is set whenever a shard has ended."""
        self._action, self._work, self._budget, self._changed = action, work, budget, changed
        self._places = asyncio.Semaphore(PARALLELISM)
        self._completed: set[int] = set()
        self._failed: dict[int, FailedIndex] = {}
        self._stopped = False
        self._tasks = [
            asyncio.create_task(self._index(shard), name=self._name(shard))
            for shard in range(action.shards)
        ]

    def observed(self) -> StageObserved:
        """How far it is."""
        return StageObserved(
            completed=format_ranges(self._completed),
            failed=dict(self._failed),
            ended=self.ended,
            message="stopped" if self._stopped else "",
        )

    @property
    def ended(self) -> bool:
        """True once nothing of it runs any more."""
        return all(task.done() for task in self._tasks)

    def stop(self) -> None:
        """Let go of what still runs; it has ended a moment later."""
        self._stopped = True
        for task in self._tasks:
            if not task.cancelling():
                task.cancel()

    async def gone(self) -> None:
        """Wait until nothing of it runs any more."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _name(self, shard: int) -> str:
        return f"{self._action.name}-{shard}"

    async def _index(self, shard: int) -> None:
        try:
            await asyncio.sleep(self._action.delay_seconds)
            attempt = 1
            while (error := await self._attempt(shard)) is not None:
                hopeless = error.permanent or error.reason == Reason.SUPERSEDED
                if hopeless or attempt >= self._budget.attempts:
                    self._failed[shard] = error
                    return
                attempt += 1
                name = self._name(shard)
                pause = self._budget.delay_seconds(
                    name=name, attempt=attempt, retry_after_seconds=error.retry_after_seconds
                )
                log.warning("shard again", task=name, attempt=attempt, delay_seconds=pause)
                await asyncio.sleep(pause)
            self._completed.add(shard)
        finally:
            # The task itself ends right after: whoever wakes finds it done
            asyncio.get_running_loop().call_soon(self._changed.set)

    async def _attempt(self, shard: int) -> FailedIndex | None:
        """One attempt of one shard, its error as data.

        This is the loop's boundary: no defect of a worker ends the controller.
        """
        name = self._name(shard)
        try:
            async with self._places:
                await self._work(shard)
        except SealError as error:
            reason = error_class(error).reason
            log.warning("shard failed", task=name, reason=reason, message=str(error))
            return failure(error)
        except Exception as error:
            log.exception("shard crashed", task=name)
            return FailedIndex(permanent=True, reason="Internal", message=unexpected(error))
        return None


def unexpected(error: Exception) -> str:
    """A defect for callers: without its text, which may hold data."""
    return f"unexpected {type(error).__name__}; see the log for the traceback"


def failure(error: SealError) -> FailedIndex:
    """A worker's error as the core sees it.

    An attempt in an old epoch is refused each time, but not the stage: two controllers may have
    claimed it, and the Job that both adopted is that of the older one.
    """
    superseded = isinstance(error, Superseded)
    return FailedIndex(
        permanent=not isinstance(error, Retryable | Superseded),
        reason=Reason.SUPERSEDED if superseded else error_class(error).reason,
        message=str(error),
        retry_after_seconds=error.retry_after_seconds or 0.0,
    )
