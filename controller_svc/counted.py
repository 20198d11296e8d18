"""What stages came to, counted once by the metrics: on a cluster as on a laptop.

The workers of a stage may be gone before anybody scrapes them, so what they came to travels in
their summaries to the status, and is counted when it is first seen there.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Counter

from controller_svc.core import RunStatus
from controller_svc.run_values import GPU
from seal.metrics import Metrics
from seal.records import ScoreSum, Stage
from seal.sums import add


def count_news(metrics: Metrics, before: RunStatus, after: RunStatus) -> None:
    """Count what is in a status and was not in the one before."""
    _count(metrics.inner_loops, _outcomes(before), _outcomes(after))
    _count(metrics.edits_dropped, _dropped(before), _dropped(after))
    _count(metrics.answers, {}, _answers(before, after))
    _count(metrics.stage_tokens, before.cost.tokens, after.cost.tokens)
    seconds = before.cost.engine_seconds, after.cost.engine_seconds
    _count(metrics.stage_engine_seconds, *seconds)
    if after.device == GPU:
        _count(metrics.stage_gpu_seconds, *seconds)
    kept = sum(entry.kept for entry in after.rounds) - sum(entry.kept for entry in before.rounds)
    metrics.edits_kept.inc(max(0, kept))  # of many rounds an object shows only the newest


def _count(counter: Counter, before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Count what has grown; a name is the counter's labels, with a slash between."""
    for name, amount in after.items():
        if (more := amount - before.get(name, 0)) > 0:
            counter.labels(*name.split("/")).inc(more)


def _outcomes(status: RunStatus) -> dict[str, int]:
    """Inner loops by outcome; the training of an M-step is none."""
    counts = [
        {name.rpartition("/")[2]: number}
        for entry in status.rounds
        for name, number in entry.outcomes.items()
        if not name.startswith(f"{Stage.IMPROVE}/")
    ]
    return add(*counts, status.adaptation.edits if status.adaptation is not None else {})


def _dropped(status: RunStatus) -> dict[str, int]:
    return add(*(entry.dropped for entry in status.rounds))


def _answers(before: RunStatus, after: RunStatus) -> dict[str, float]:
    """Answers by grade of the stages that have ended in between; those of old rounds are gone."""
    known = _ungraded(before)
    news = [measure for place, measure in _ungraded(after).items() if place not in known]
    ungraded = sum(measure.total for measure in news)
    return {"graded": sum(measure.n for measure in news) - ungraded, "ungraded": ungraded}


def _ungraded(status: RunStatus) -> dict[tuple[int, str], ScoreSum]:
    """Answers without a grade by the round and the stage that has asked."""
    found = {
        (entry.round, name): measure
        for entry in status.rounds
        for name, measure in entry.measures.items()
        if name.endswith("/ungraded")
    }
    if status.adaptation is not None and "ungraded" in status.adaptation.measures:
        found[0, "ungraded"] = status.adaptation.measures["ungraded"]
    return found
