"""What the metrics say of a run at work: its status as values of the gauges that carry its name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from controller_svc.core import RoundStatus, RunStatus
from controller_svc.core.suspension import is_suspended
from seal.records import ScoreSum, Stage
from seal.restem.student import student_quantile
from seal.run_metrics import Values

GPU = "cuda"
"""Type of the device whose engine seconds are GPU seconds."""
_RETAINED = {"retained_policy": "policy", "retained": "edit", "retained_base": "base"}
"""Names of scores that are answers to retained questions, and whose they are."""
_MEANS = {
    "edit_tokens": ("seal_run_edit_tokens", ()),
    "distinct_1": ("seal_run_distinct_ratio", ("1",)),
    "distinct_2": ("seal_run_distinct_ratio", ("2",)),
    "duplicate": ("seal_run_duplicate_edits_ratio", ()),
    "ungraded": ("seal_run_ungraded_ratio", ()),
}
"""Measures of which the mean is shown: the gauge, and labels after round and stage."""
Value = tuple[str, tuple[str, ...], float]
"""Gauge, values of its own labels, value."""


def run_values(status: RunStatus, *, share: float, got_on_at: float) -> dict[str, Values]:
    """Values by gauge.

    `share`: of the run that is done, from 0 to 1; `got_on_at`: Unix time at which it last grew.
    """
    values: dict[str, dict[tuple[str, ...], float]] = {}
    for gauge, labels, value in _values(status, share, got_on_at):
        values.setdefault(gauge, {})[labels] = value
    return dict(values)


def _values(status: RunStatus, share: float, got_on_at: float) -> Iterator[Value]:
    yield "seal_run_progress_ratio", (), share
    yield "seal_run_last_progress_timestamp_seconds", (), got_on_at
    yield "seal_run_round", (), status.round
    if status.stage is not None and not (status.phase.terminal or is_suspended(status)):
        yield "seal_run_stage", (str(status.stage),), 1
    for entry in status.rounds:
        yield from _of_round(entry)
    yield from _cost(status)


def _of_round(entry: RoundStatus) -> Iterator[Value]:
    round = str(entry.round)
    for stage, scores in ((Stage.ROLLOUT, entry.rollout), (Stage.VALIDATE, entry.validation)):
        yield from _scores(round, str(stage), scores)
    for name, measure in entry.measures.items():
        stage_name, _, kind = name.partition("/")
        place = (round, stage_name)
        if kind == "gain":
            yield from _with_interval("seal_run_gain", place, measure)
        elif kind in _MEANS and measure.mean is not None:
            gauge, labels = _MEANS[kind]
            yield gauge, (*place, *labels), measure.mean
    for name, number in entry.outcomes.items():
        stage_name, _, outcome = name.partition("/")
        if stage_name != Stage.IMPROVE:  # its training is none
            yield "seal_run_inner_loops", (round, stage_name, outcome), number
    if Stage.IMPROVE in entry.seconds and entry.round > 0:
        for fate, number in {"kept": entry.kept, **entry.dropped}.items():
            yield "seal_run_edits", (round, fate), number


def _scores(round: str, stage: str, scores: Mapping[str, ScoreSum]) -> Iterator[Value]:
    for name, score in scores.items():
        if name not in _RETAINED:
            yield from _with_interval("seal_run_reward", (round, stage, name), score)
        elif score.mean is not None:
            yield "seal_run_retained_score", (round, _RETAINED[name]), score.mean


def _with_interval(gauge: str, labels: tuple[str, ...], score: ScoreSum) -> Iterator[Value]:
    if score.mean is None:
        return
    yield gauge, labels, score.mean
    if (half := half_width(score)) is not None:
        yield f"{gauge}_low", labels, score.mean - half
        yield f"{gauge}_high", labels, score.mean + half


def half_width(score: ScoreSum) -> float | None:
    """Half of a mean's 95 % interval by Student's t; None below two scores."""
    if score.squares is None or score.n < 2:
        return None
    variance = max(0.0, score.squares - score.total**2 / score.n) / (score.n - 1)
    return student_quantile(score.n - 1) * math.sqrt(variance / score.n)


def _cost(status: RunStatus) -> Iterator[Value]:
    for name, number in status.cost.tokens.items():
        yield "seal_run_tokens", _split(name), number
    for name, seconds in status.cost.engine_seconds.items():
        yield "seal_run_engine_seconds", _split(name), seconds
        if status.device == GPU:
            yield "seal_run_gpu_seconds", _split(name), seconds


def _split(name: str) -> tuple[str, str]:
    stage, _, kind = name.partition("/")
    return stage, kind
