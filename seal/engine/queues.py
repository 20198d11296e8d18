"""What waits for the engine: tasks, and a queue that is fair between runs."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import structlog

from seal.errors import Internal, SealError

log = structlog.get_logger(__name__)

Result = TypeVar("Result")
Kind = Literal["train", "generate", "evaluate"]
"""Kinds of work, each with a queue of its own."""
KINDS: tuple[Kind, ...] = ("train", "generate", "evaluate")


@dataclass(eq=False)
class EngineTask(Generic[Result]):
    """One request in the engine, as its caller sees it."""

    run: str
    request: Any
    on_progress: Callable[..., None] | None
    job: Any = None
    """The tokenised form of a request."""
    on_text: Callable[[str], None] | None = None
    future: concurrent.futures.Future[Result] = field(default_factory=concurrent.futures.Future)
    queued_at: float = field(default_factory=time.monotonic)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Ask the engine to drop the request at its next step; a finished one stays finished."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """True once `cancel` was called."""
        return self._cancelled.is_set()

    @property
    def unwanted(self) -> bool:
        """True once nobody waits for a result: it was cancelled, or has ended already."""
        return self.cancelled or self.future.done()

    def succeed(self, result: Result) -> None:
        """End with a result, unless it has ended: the watch may have given up the engine."""
        with suppress(concurrent.futures.InvalidStateError):
            self.future.set_result(result)

    def fail(self, error: SealError) -> None:
        """End with an error, unless it has ended."""
        with suppress(concurrent.futures.InvalidStateError):
            self.future.set_exception(error)

    def tell(self, *news: Any) -> None:
        """Call `on_progress`; if it raises, its own task ends with Internal, and no other."""
        self._call(self.on_progress, *news)

    def say(self, text: str) -> None:
        """Call `on_text` in the same way."""
        self._call(self.on_text, text)

    def _call(self, callback: Callable[..., None] | None, *news: Any) -> None:
        if callback is None or self.future.done():
            return
        try:
            callback(*news)
        except Exception as error:  # the caller's code: nothing is known of what it raises
            log.exception("progress_callback_failed", run=self.run)
            self.fail(Internal(f"the progress callback failed: {error!r}"))


TaskT = TypeVar("TaskT", bound=EngineTask[Any])


class FairQueue(Generic[TaskT]):
    """First in, first out within a run, round-robin between runs.

    Safe to use from any thread; what one thread has seen waiting only that thread may take.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[str, deque[TaskT]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return sum(len(tasks) for tasks in self._runs.values())

    def __iter__(self) -> Iterator[TaskT]:
        """All tasks in the order in which they will be taken."""
        with self._lock:
            waiting = [list(tasks) for tasks in self._runs.values()]
        for place in range(max((len(tasks) for tasks in waiting), default=0)):
            for tasks in waiting:
                if place < len(tasks):
                    yield tasks[place]

    def put(self, task: TaskT) -> None:
        """Append a task to its run."""
        with self._lock:
            self._runs.setdefault(task.run, deque()).append(task)

    def take(self, wanted: Callable[[TaskT], bool] = lambda _: True) -> TaskT | None:
        """Take the first task, of the run that was served longest ago, that is wanted.

        None if there is none.
        """
        with self._lock:
            for run, tasks in self._runs.items():
                for place, task in enumerate(tasks):
                    if wanted(task):
                        del tasks[place]
                        if tasks:
                            self._runs.move_to_end(run)
                        else:
                            del self._runs[run]
                        return task
        return None
