"""The E-steps and the cost of every stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from seal.domains import get_domain
from seal.records import ContextRecord
from seal.report.numbers.details import decisions
from seal.report.numbers.entries import Decision
from seal.report.numbers.estimates import Estimator
from seal.report.numbers.model import Bin, Reliability, RolloutReport, StageReport
from seal.report.numbers.parts import extreme_parts
from seal.report.numbers.scores import by_passage, evaluation_score
from seal.report.numbers.shapes import histogram
from seal.report.numbers.source import RunFiles, Stage
from seal.restem.reward import mean, present
from seal.restem.rollout import candidates_of, shared_repeats
from seal.restem.statistics import paired_differences, pass_counts, reliability
from seal.sums import add

BOUNDED_BIN = 0.1
"""Width of a histogram's bars for graders between 0 and 1."""
INNER_ADAPTERS = "adapters"
"""The kind of stored bytes that is deleted once a shard has ended, unless the run keeps it."""


def rollout_report(files: RunFiles, stage: Stage, estimator: Estimator) -> RolloutReport:
    """Rewards, gains and decisions of one round's candidates."""
    selection, improve = files.selections.get(stage.round), files.stage("improve", stage.round)
    fates = decisions(files, stage)
    rewards = {record.context_id: _rewards(record) for record in stage.records}
    baseline = by_passage(stage.records, lambda record: evaluation_score(record.baseline, "score"))
    means = by_passage(
        stage.records,
        lambda record: mean(_rewards(shared_repeats(record)).values()),
    )
    by_part = stage.records if files.spec.improve.credit == "part" else ()
    best, worst = extreme_parts(by_part, selection, get_domain(files.spec.domain))
    gains = _gains(stage.records, rewards, baseline, fates)
    counts = pass_counts(gain for gain, _ in gains)
    return RolloutReport(
        round=stage.round,
        policy_round=stage.policy_round,
        passages=len(stage.records),
        candidates=sum(len(record.edits) for record in stage.records),
        decisions=dict(
            sorted(Counter(fate for passage in fates.values() for fate in passage.values()).items())
        ),
        outcomes=dict(
            sorted(
                Counter(
                    str(loop.outcome) for record in stage.records for loop in record.inner_loops
                ).items()
            )
        ),
        label=files.label(stage.round),
        kept=len(selection.kept) if selection else 0,
        kept_parts=sum(len(edit.rows) for edit in selection.kept) if selection else 0,
        abstaining=len(selection.abstaining) if selection else 0,
        dropped_parts=dict(selection.dropped_parts) if selection else {},
        best_parts=best,
        worst_parts=worst,
        trained=improve.summaries[0].policy is not None if improve else None,
        selection_sha256=selection.sha256 if selection else "",
        baseline=estimator.mean(baseline, "score"),
        reward=estimator.mean(means, "score"),
        best=estimator.mean(by_passage(stage.records, _best), "score"),
        gain=estimator.difference(paired_differences(means, baseline)),
        better=counts.improved,
        equal=counts.unchanged,
        worse=counts.worsened,
        rewards=_reward_bins(files, rewards, fates, before=mean(baseline.values())),
        gains=histogram(
            gains,
            width=None if files.spec.evaluation.grader == "logprob" else BOUNDED_BIN,
            centred=True,
            beside=(0.0,),
        ),
        reliability=_reliability(files, stage),
    )


def _rewards(record: ContextRecord) -> dict[int, float]:
    """Reward by candidate as the selection has it; candidates without one are absent."""
    return {
        candidate.candidate: candidate.reward
        for candidate in candidates_of(record)
        if candidate.reward is not None
    }


def _best(record: ContextRecord) -> float | None:
    """Reward of the best candidate; in a race, of those that ended it."""
    return max(
        present(
            candidate.reward for candidate in candidates_of(record) if not candidate.eliminated
        ),
        default=None,
    )


def _gains(
    records: Iterable[ContextRecord],
    rewards: Mapping[str, Mapping[int, float]],
    baseline: Mapping[str, float],
    fates: Mapping[str, Mapping[int, Decision]],
) -> list[tuple[float, bool]]:
    """(gain, kept) of the candidates that have one."""
    return [
        (reward - baseline[record.context_id], fates[record.context_id].get(candidate) == "kept")
        for record in records
        if record.context_id in baseline
        for candidate, reward in rewards[record.context_id].items()
    ]


def _reward_bins(
    files: RunFiles,
    rewards: Mapping[str, Mapping[int, float]],
    fates: Mapping[str, Mapping[int, Decision]],
    *,
    before: float | None,
) -> tuple[Bin, ...]:
    values = [
        (reward, fates[context_id].get(candidate) == "kept")
        for context_id, candidates in rewards.items()
        for candidate, reward in candidates.items()
    ]
    return histogram(
        values,
        width=None if files.spec.evaluation.grader == "logprob" else BOUNDED_BIN,
        beside=present((before,)),
    )


def _reliability(files: RunFiles, stage: Stage) -> Reliability | None:
    """The reliability of the rewards of repeated trainings.

    None after a race, which repeats what was lucky the first time.
    """
    if files.spec.inner.racing:
        return None
    repeats = files.spec.inner.repeats
    rewards = [
        [candidate.rewards for candidate in candidates_of(record)] for record in stage.records
    ]
    found = reliability(rewards, repeats=repeats) if repeats > 1 else None
    if found is None:
        return None
    return Reliability(
        candidates=found.candidates, repeats=repeats, single=found.single, averaged=found.averaged
    )


def stage_report(stage: Stage, *, keeps_inner_adapters: bool) -> StageReport:
    """What a stage cost, summed over its finished shards."""
    written = add(*(summary.stored_bytes for summary in stage.summaries))
    return StageReport(
        stage=stage.name,
        round=stage.round,
        shards_done=len(stage.summaries),
        shards=stage.shards,
        seconds=max(summary.seconds for summary in stage.summaries),
        inner_loops_run=sum(summary.inner_loops_run for summary in stage.summaries),
        inner_loops_resumed=sum(summary.inner_loops_resumed for summary in stage.summaries),
        outcomes=add(*(summary.outcomes for summary in stage.summaries)),
        tokens=add(*(summary.tokens for summary in stage.summaries)),
        engine_seconds=add(*(summary.engine_seconds for summary in stage.summaries)),
        kept_bytes={
            kind: size
            for kind, size in written.items()
            if kind != INNER_ADAPTERS or keeps_inner_adapters
        },
    )
