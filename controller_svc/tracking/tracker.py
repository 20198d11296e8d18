"""Tells trackers what runs come to, in a thread of its own: never fails and never delays a run.

A tracker that is away is warned of once. What it has missed it gets with the next stage of the run,
or after some minutes; at the end it is said what is still missing.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Literal

import structlog

from controller_svc.core import Phase
from controller_svc.tracking.faults import cause_of, without_secrets
from controller_svc.tracking.ledger import Ledger
from controller_svc.tracking.model import Telling, TrackingSink
from controller_svc.tracking.reading import untold
from controller_svc.tracking.sinks import open_sink
from seal.artifacts import ArtifactStore
from seal.errors import SealError
from seal.records import Stage

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 300.0
"""After a failure, if the run has not moved meanwhile."""
MAX_KNOWN = 2048
"""Runs that are remembered to be wholly told; whether others are is asked of the store again."""
NOT_TRIED = "it has not been told yet"
Place = tuple[Phase, int, Stage | None, float | None]


@dataclass
class _Run:
    """What is known of a run that is tracked."""

    tracker: str
    telling: Telling | None = None
    """The newest that waits for its turn."""
    place: Place | None = None
    """Where the run was when it was told of last."""
    cause: str = NOT_TRIED
    """Why the tracker has not all of it; empty if it has."""
    failed_seconds: float | None = None
    """Time of the last failure, by the tracker's clock."""
    warned: bool = False

    def wants(self, telling: Telling, now_seconds: float) -> bool:
        """Whether there may be news, or the last try is long ago."""
        if _place(telling) != self.place:
            return True
        failed = self.failed_seconds
        return failed is not None and now_seconds - failed >= AGAIN_SECONDS


class Tracker:
    """Tells of the runs of one store. Its methods return at once, but `close`."""

    def __init__(
        self,
        store: ArtifactStore,
        *,
        open: Callable[[Literal["mlflow", "wandb"]], TrackingSink] = open_sink,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._open, self._clock = store, open, clock
        self._sinks: dict[str, TrackingSink] = {}
        self._runs: dict[str, _Run] = {}
        self._lock = threading.Lock()
        self._turns: SimpleQueue[str | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def tell(self, telling: Telling) -> None:
        """Tell of a run, if it is to be tracked and there may be news."""
        tracker = telling.spec.tracking.to
        if tracker == "none":
            return
        with self._lock:
            run = self._known(telling.run, tracker)
            if not run.wants(telling, self._clock()):
                return
            waits = run.telling is not None
            run.telling, run.place, run.failed_seconds = telling, _place(telling), None
            run.cause = NOT_TRIED
            if self._thread is None:
                # A daemon: a tracker that does not answer keeps no process from its end
                self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
                self._thread.start()
        if not waits:
            self._turns.put(telling.run)

    def _known(self, name: str, tracker: str) -> _Run:
        """What is known of a run; of too many the one that was told of the longest ago is dropped.

        One that the tracker has not all of is not: its owner is still to hear why.
        """
        run = self._runs.pop(name, None) or _Run(tracker=tracker)
        self._runs[name] = run
        if len(self._runs) > MAX_KNOWN:
            told = next((other for other, one in self._runs.items() if not one.cause), None)
            if told is not None:
                del self._runs[told]
        return run

    def missing(self, run: str) -> str:
        """Why a tracker has not all that it was to be told of a run; empty if it has."""
        with self._lock:
            known = self._runs.get(run)
            return known.cause if known is not None else ""

    def close(self, *, within_seconds: float) -> None:
        """Wait for what is still to be told, and say what could not be."""
        if self._thread is not None:
            self._turns.put(None)
            self._thread.join(within_seconds)
        with self._lock:
            left = {name: run for name, run in self._runs.items() if run.cause}
        for name, run in left.items():
            log.warning(
                "run not wholly tracked",
                run=name,
                tracker=run.tracker,
                cause=run.cause,
                remedy="what is missing is told when the run is resumed",
            )

    def stop(self) -> None:
        """Tell nothing more, and wait for nobody: another process goes on."""
        self._stopped = True
        self._turns.put(None)

    def _work(self) -> None:
        """Tell of one run after another."""
        while (name := self._turns.get()) is not None and not self._stopped:
            with self._lock:
                run = self._runs[name]
                telling, run.telling, run.cause = run.telling, None, NOT_TRIED
            if telling is not None:
                self._ended(run, telling, self._tell(telling))

    def _tell(self, telling: Telling) -> str:
        """Why it could not be told; empty if it was."""
        try:
            self._write(telling)
        except SealError as error:
            return cause_of(error)
        except Exception as error:  # noqa: BLE001 - the thread's boundary: a run is no other's
            log.debug(
                "tracking crashed",
                run=telling.run,
                traceback=without_secrets("".join(traceback.format_exception(error))),
            )
            return f"{type(error).__name__}: {cause_of(error)}"
        return ""

    def _write(self, telling: Telling) -> None:
        tracking = telling.spec.tracking
        if tracking.to == "none":
            return
        sink = self._sinks.get(tracking.to) or self._open(tracking.to)
        self._sinks[tracking.to] = sink
        ledger = Ledger(
            self._store,
            telling.run,
            sink=tracking.to,
            address=sink.place,
            experiment=tracking.experiment,
        )
        with untold(self._store, telling, ledger) as news:
            if news is None:
                return
            sink.write(news)
        for round in news.rounds:
            ledger.add_round(round.round)
        if news.end is not None:
            ledger.add_end(news.end.time_seconds)
        log.info("run tracked", run=telling.run, rounds=[one.round for one in news.rounds])

    def _ended(self, run: _Run, telling: Telling, cause: str) -> None:
        """Remember how it went, and say it once."""
        with self._lock:
            again, run.cause = run.warned, cause or (NOT_TRIED if run.telling is not None else "")
            run.failed_seconds = self._clock() if cause else None
            run.warned = bool(cause)
        if cause and not again:
            log.warning("run not tracked", run=telling.run, tracker=run.tracker, cause=cause)
        elif cause:
            log.info("run still not tracked", run=telling.run, tracker=run.tracker, cause=cause)


def _place(telling: Telling) -> Place:
    status = telling.status
    return status.phase, status.round, status.stage, status.finished_seconds
