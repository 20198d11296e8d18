"""One round's numbers by the names under which a tracker shows them.

A slash makes a group of charts. An estimate is its mean, with the ends of its 95 % interval beside
it under `_low` and `_high`; what was not measured is left out, never 0.
"""

from __future__ import annotations

from collections.abc import Iterator

from seal.report import Report
from seal.report.numbers.model import Estimate, RetainedRow, RolloutReport, ScoreRow
from seal.sums import add

Number = tuple[str, float]


def round_metrics(report: Report, round: int) -> dict[str, float]:
    """All numbers of one round."""
    return dict(_numbers(report, round))


def _numbers(report: Report, round: int) -> Iterator[Number]:
    for row in report.rows:
        if row.round == round:
            yield from _validation(row)
    for kept in report.retained:
        if kept.round == round:
            yield from _retained(kept)
    for rollout in report.rollouts:
        if rollout.round == round:
            yield from _rollout(rollout)
    yield from _shapes(report, round)
    yield from _cost(report, round)


def _estimate(name: str, estimate: Estimate | None) -> Iterator[Number]:
    if estimate is None or estimate.mean is None:
        return
    yield name, estimate.mean
    if estimate.low is not None and estimate.high is not None:
        yield f"{name}_low", estimate.low
        yield f"{name}_high", estimate.high


def _validation(row: ScoreRow) -> Iterator[Number]:
    """Self-edits' reward and gain first: they are what a run is about."""
    if row.kind == "edit":
        yield from _estimate("reward", row.metrics.get("score"))
        yield from _estimate("gain", row.over_base.get("score"))
        yield from _estimate("gain_over_passage", row.over_passage.get("score"))
    for measure, estimate in row.metrics.items():
        yield from _estimate(f"validation/{row.kind}/{measure}", estimate)
    yield f"validation/{row.kind}/passages_missing", row.passages_missing
    yield f"validation/{row.kind}/answers_ungraded", row.answers_ungraded


def _retained(row: RetainedRow) -> Iterator[Number]:
    """`retained/policy` is the policy alone, the others are adapted models."""
    name = f"retained/{row.key.removesuffix(f'-{row.round}')}"
    yield from _estimate(f"{name}/score", row.score)
    yield from _estimate(f"{name}/accuracy", row.accuracy)
    yield from _estimate(f"{name}/accuracy_change", row.accuracy_change)


def _rollout(rollout: RolloutReport) -> Iterator[Number]:
    yield from _estimate("rollout/reward", rollout.reward)
    yield from _estimate("rollout/baseline", rollout.baseline)
    yield from _estimate("rollout/best", rollout.best)
    yield from _estimate("rollout/gain", rollout.gain)
    yield "selection/candidates", rollout.candidates
    yield "selection/kept", rollout.kept
    yield "selection/kept_parts", rollout.kept_parts
    yield "selection/abstaining", rollout.abstaining
    for decision, number in rollout.decisions.items():
        if decision != "kept":
            yield f"selection/dropped/{decision}", number
    for reason, number in rollout.dropped_parts.items():
        yield f"selection/dropped_parts/{reason}", number


def _shapes(report: Report, round: int) -> Iterator[Number]:
    for shape in report.shapes:
        if shape.round != round:
            continue
        name = f"edits/{shape.stage}"
        yield f"{name}/empty", shape.empty
        yield f"{name}/truncated", shape.truncated
        measured = {
            "tokens": shape.tokens.mean if shape.tokens else None,
            "unique_share": shape.unique_share,
            "distinct_pairs_share": shape.distinct_pairs_share,
            "diversity": shape.diversity,
        }
        yield from (
            (f"{name}/{what}", value) for what, value in measured.items() if value is not None
        )


def _cost(report: Report, round: int) -> Iterator[Number]:
    stages = [stage for stage in report.stages if stage.round == round]
    for stage in stages:
        yield f"cost/seconds/{stage.stage}", stage.seconds
        for outcome, number in stage.outcomes.items():
            yield f"outcomes/{stage.stage}/{outcome}", number
    yield "cost/seconds", sum(stage.seconds for stage in stages)
    for kind, tokens in add(*(stage.tokens for stage in stages)).items():
        yield f"cost/tokens/{kind}", tokens
    for kind, seconds in add(*(stage.engine_seconds for stage in stages)).items():
        yield f"cost/engine_seconds/{kind}", seconds
