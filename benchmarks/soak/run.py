"""The soak itself: queue everything, watch it go, keep nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.common import held
from benchmarks.soak.figures import Served
from seal.engine import Engine, EngineTask, TrainingProgress, TrainingRequest, TrainingResult
from seal.errors import PreconditionFailed, Transient


def resident_bytes() -> int:
    """Resident set of this process now.

    Raises PreconditionFailed where the system does not tell (it is Linux's /proc).
    """
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        raise PreconditionFailed(
            "resident memory is read from /proc/self/statm, which is not here",
            remedy="run it on Linux",
        )
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class _Watched:
    """One adapter on its way."""

    number: int
    run: str
    cancel: EngineTask[TrainingResult] | None = None
    """Its task, if it is to be cancelled after the first step."""
    admitted: int | None = None


class _Watch:
    """What the engine's thread reports; only that thread writes."""

    def __init__(
        self, total: int, measure: Callable[[], int], on_end: Callable[[Served], None] | None
    ) -> None:
        self._total, self._measure, self._on_end = total, measure, on_end
        self._admissions = 0
        self.served: list[Served] = []
        self.all_ended = threading.Event()

    def progressed(self, watched: _Watched, news: TrainingProgress) -> None:
        """After each step of an adapter."""
        if news.step == 1:
            watched.admitted = self._admissions
            self._admissions += 1
            if watched.cancel is not None:
                watched.cancel.cancel()
                watched.cancel = None

    def ended(self, watched: _Watched, future: Future[TrainingResult]) -> None:
        """When its result is there, or its error."""
        error = future.exception()
        outcome = future.result().outcome.value if error is None else type(error).__name__
        served = Served(
            number=watched.number,
            run=watched.run,
            outcome=outcome,
            admitted=watched.admitted,
            ended=len(self.served),
            measured_bytes=self._measure(),
        )
        self.served.append(served)
        if self._on_end is not None:
            self._on_end(served)
        if len(self.served) == self._total:
            self.all_ended.set()


def soak(
    engine: Engine,
    requests: Sequence[TrainingRequest],
    *,
    cancel_every: int = 0,
    stall_seconds: float = 600.0,
    measure: Callable[[], int] = resident_bytes,
    on_end: Callable[[Served], None] | None = None,
) -> tuple[Served, ...]:
    """Train all requests, queued in their order before the first begins.

    Gives what became of each, in the order in which they ended. Every `cancel_every`-th is
    cancelled after its first step. `measure` is called when one ends. Raises Transient if nothing
    ends for `stall_seconds`, naming how many are missing.
    """
    watch = _Watch(len(requests), measure, on_end)
    first = replace(requests[0], run="hold", examples=requests[0].examples[:1])
    with held(engine, first):
        for number, request in enumerate(requests):
            _queue(
                engine,
                watch,
                _Watched(number, request.run),
                request,
                cancel=cancel_every > 0 and number % cancel_every == 0,
            )
    ended = -1
    while not watch.all_ended.wait(stall_seconds):
        if len(watch.served) == ended:
            raise Transient(
                f"{len(requests) - ended} of {len(requests)} adapters did not end",
                remedy="look for the engine's error in the log",
            )
        ended = len(watch.served)
    return tuple(watch.served)


def _queue(
    engine: Engine, watch: _Watch, watched: _Watched, request: TrainingRequest, *, cancel: bool
) -> None:
    """Hand one request in and keep no reference to its task, whose future holds the adapter."""
    task = engine.train(request, on_progress=lambda news: watch.progressed(watched, news))
    if cancel:
        watched.cancel = task
    task.future.add_done_callback(lambda future: watch.ended(watched, future))
