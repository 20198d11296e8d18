"""The metrics that carry the name of a run: made anew at each scrape from what runs said last.

A run that has ended is still shown for a while, so that its last numbers are scraped, and then goes
with all of its series: however many runs come, those that are shown are those at work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

SHOWN_AFTER_END_SECONDS = 300.0
"""A few scrapes, as they come once a minute at most."""

Place = tuple[str, str]
"""Namespace and name of a run."""
PLACE_LABELS = ("namespace", "run")


@dataclass(frozen=True)
class RunGauge:
    """One gauge that every run has."""

    name: str
    labels: tuple[str, ...]
    """Beside those of the run."""
    help: str


_BY_ROUND, _BY_STAGE = ("round",), ("round", "stage")
_COST = ("stage", "kind")
_REWARD_KINDS = (
    "baseline (the model alone), edit (mean of a context's candidates), best (its best), and those "
    "of the bounds"
)
RUN_GAUGES = (
    RunGauge("seal_run_progress_ratio", (), "Share of a run that is done."),
    RunGauge(
        "seal_run_last_progress_timestamp_seconds",
        (),
        "Unix time at which a run last got on: a shard or a stage ended, or its share grew.",
    ),
    RunGauge("seal_run_round", (), "Round at work."),
    RunGauge("seal_run_stage", ("stage",), "1 for the stage at work; none while it is suspended."),
    RunGauge(
        "seal_run_reward",
        (*_BY_STAGE, "kind"),
        f"Mean reward over contexts, by kind: {_REWARD_KINDS}. Stage validate is held out.",
    ),
    RunGauge(
        "seal_run_reward_low",
        (*_BY_STAGE, "kind"),
        "Lower end of its 95 % interval by Student's t; a report has it by bootstrap.",
    ),
    RunGauge("seal_run_reward_high", (*_BY_STAGE, "kind"), "Upper end of its 95 % interval."),
    RunGauge(
        "seal_run_gain", _BY_STAGE, "Mean over contexts of what edits gain over the baseline."
    ),
    RunGauge("seal_run_gain_low", _BY_STAGE, "Lower end of its 95 % interval."),
    RunGauge("seal_run_gain_high", _BY_STAGE, "Upper end of its 95 % interval."),
    RunGauge(
        "seal_run_retained_score",
        (*_BY_ROUND, "model"),
        "Mean score by the run's grader on the retained questions, by model: policy (alone; of "
        "round 0 the model before all rounds), edit (after an edit is learnt), base (of a warm "
        "start).",
    ),
    RunGauge(
        "seal_run_edits", (*_BY_ROUND, "fate"), "Edits of a round: kept, or why they were dropped."
    ),
    RunGauge(
        "seal_run_inner_loops", (*_BY_STAGE, "outcome"), "Inner loops of a stage, by outcome."
    ),
    RunGauge("seal_run_edit_tokens", _BY_STAGE, "Mean length of an edit, tokens."),
    RunGauge(
        "seal_run_distinct_ratio",
        (*_BY_STAGE, "n"),
        "Different n-grams of words among all in one context's edits (distinct-n), mean over "
        "contexts; n is 1 or 2.",
    ),
    RunGauge(
        "seal_run_duplicate_edits_ratio",
        _BY_STAGE,
        "Share of edits that repeat an earlier one of their context.",
    ),
    RunGauge("seal_run_ungraded_ratio", _BY_STAGE, "Share of answers that could not be graded."),
    RunGauge(
        "seal_run_tokens", _COST, "Tokens so far, by stage and kind: generate, train, evaluate."
    ),
    RunGauge("seal_run_engine_seconds", _COST, "Engine seconds so far, by stage and kind."),
    RunGauge(
        "seal_run_gpu_seconds", _COST, "All of them if the trainer computes on a GPU, likewise."
    ),
)

Values = Mapping[tuple[str, ...], float]
"""Values of one gauge by the values of its own labels."""


@dataclass
class _Run:
    values: Mapping[str, Values]
    ended_at: float | None = None


class RunMetrics(Collector):
    """Shows what runs said last. Safe to use from any thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._runs: dict[Place, _Run] = {}

    def show(self, place: Place, values: Mapping[str, Values], *, ended: bool) -> None:
        """What a run says now, by gauge; once it has ended it goes after a while."""
        with self._lock:
            before = self._runs.get(place)
            since = before.ended_at if before is not None else None
            now = self._clock()
            self._runs[place] = _Run(values, (now if since is None else since) if ended else None)

    def forget(self, place: Place) -> None:
        """A run has gone, or is another's to show."""
        with self._lock:
            self._runs.pop(place, None)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """All gauges, without values."""
        return [_family(gauge) for gauge in RUN_GAUGES]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All gauges with their values, for one scrape."""
        runs = self._shown()
        for gauge in RUN_GAUGES:
            family = _family(gauge)
            for place, values in runs.items():
                for labels, value in values.get(gauge.name, {}).items():
                    family.add_metric((*place, *labels), value)
            yield family

    def _shown(self) -> dict[Place, Mapping[str, Values]]:
        with self._lock:
            oldest = self._clock() - SHOWN_AFTER_END_SECONDS
            for place, run in list(self._runs.items()):
                if run.ended_at is not None and run.ended_at < oldest:
                    del self._runs[place]
            return {place: run.values for place, run in self._runs.items()}


def _family(gauge: RunGauge) -> GaugeMetricFamily:
    return GaugeMetricFamily(gauge.name, gauge.help, labels=(*PLACE_LABELS, *gauge.labels))
