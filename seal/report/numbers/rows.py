"""The result table.

What each kind of training makes of the answers to questions on passages that no policy has seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from seal.domains import get_domain
from seal.records import (
    AnswerRecord,
    ContextRecord,
    EvaluationRecord,
    InnerLoopKind,
)
from seal.report.numbers.estimates import Estimator
from seal.report.numbers.model import (
    CEILING_KINDS,
    PASSAGE_KINDS,
    Difference,
    Metric,
    RetainedRow,
    RowKind,
    ScoreRow,
    metrics_of,
)
from seal.report.numbers.scores import (
    ByPassage,
    ByQuestion,
    adapted_scores,
    answer_score,
    baseline_scores,
    by_passage,
    loops_of,
    question_scores,
)
from seal.report.numbers.source import RunFiles, Stage
from seal.restem.reward import mean
from seal.restem.statistics import paired_by_context, paired_differences


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """One row before its statistics."""

    kind: RowKind
    name: str
    """What the domain calls it."""
    short: str
    """The same in few words."""
    remark: str = ""
    round: int
    scores: dict[Metric, ByPassage]
    questions: dict[Metric, ByQuestion]
    """What rows are compared by: over the questions that both have a grade of."""
    passages: int
    evaluations: tuple[EvaluationRecord, ...]
    outcomes: dict[str, int]

    @property
    def key(self) -> str:
        return f"edit-{self.round}" if self.kind == "edit" else self.kind

    @property
    def label(self) -> str:
        label = self.name.format(round=self.round)
        return f"{label} ({self.remark})" if self.remark else label


def score_rows(files: RunFiles, estimator: Estimator) -> tuple[ScoreRow, ...]:
    """Base, passage, self-edits of every validated round, gold, open book, as far as measured."""
    measured = {entry.key: entry for entry in _measured(files)}
    edits = [entry for entry in measured.values() if entry.kind == "edit"]
    before = {later.key: earlier for earlier, later in pairwise(edits)}
    best = _best_passage(measured.values())

    def row(entry: _Measured) -> ScoreRow:
        return _score_row(
            entry,
            passage=best,
            base=measured.get("base"),
            first=measured.get("edit-0") if entry.key in before else None,
            previous=before.get(entry.key),
            estimator=estimator,
        )

    return tuple(row(entry) for entry in measured.values())


def _best_passage(measured: Iterable[_Measured]) -> _Measured | None:
    """What is learnt without the policy, of the highest first measure; the plain one if equal."""
    passages = [entry for entry in measured if entry.kind in PASSAGE_KINDS]
    return max(
        passages,
        key=lambda entry: mean(next(iter(entry.scores.values())).values()) or 0.0,
        default=None,
    )


def _score_row(
    entry: _Measured,
    *,
    passage: _Measured | None,
    base: _Measured | None,
    first: _Measured | None,
    previous: _Measured | None,
    estimator: Estimator,
) -> ScoreRow:
    def over(reference: _Measured | None) -> dict[Metric, Difference]:
        """Empty to itself and to a row that was not measured."""
        if reference is None or reference is entry:
            return {}
        return {
            metric: estimator.difference(
                paired_by_context(entry.questions[metric], reference.questions[metric])
            )
            for metric in entry.scores
        }

    return ScoreRow(
        key=entry.key,
        label=entry.label,
        short=entry.short,
        kind=entry.kind,
        remark=entry.remark,
        round=entry.round,
        metrics={metric: estimator.mean(scores, metric) for metric, scores in entry.scores.items()},
        over_passage=over(passage),
        over_base=over(base),
        over_first=over(first),
        over_previous=over(previous),
        passages_missing=entry.passages - len(entry.scores["score"]),
        outcomes=entry.outcomes,
        answers=sum(len(evaluation.answers) for evaluation in entry.evaluations),
        answers_ungraded=sum(evaluation.ungraded for evaluation in entry.evaluations),
    )


def _measured(files: RunFiles) -> list[_Measured]:
    stages = list(files.named("validate"))
    first = next((stage for stage in stages if stage.round == 0), None)
    if first is None:
        return []
    words, metrics = get_domain(files.spec.domain).words, metrics_of(files.spec)
    base = _Measured(
        kind="base",
        name=words.rows["base"],
        short=words.short_rows["base"],
        round=0,
        scores=baseline_scores(first.records, metrics),
        questions=question_scores(first.records, None, metrics),
        passages=len(first.records),
        evaluations=tuple(record.baseline for record in first.records),
        outcomes={},
    )
    adapted = [
        *(_adapted(files, first, kind) for kind in PASSAGE_KINDS),
        *(_adapted(files, stage, "edit", files.label(stage.round)) for stage in stages),
        *(_adapted(files, first, kind) for kind in CEILING_KINDS),
    ]
    return [base, *(entry for entry in adapted if entry)]


def _adapted(
    files: RunFiles, stage: Stage, kind: InnerLoopKind, remark: str = ""
) -> _Measured | None:
    """The models that one kind of inner loop made; None if the stage ran none.

    Open-book answers have no inner loop and so no outcomes.
    """
    loops = [loop for record in stage.records for loop in loops_of(record, kind)]
    if not loops:
        return None
    words, metrics = get_domain(files.spec.domain).words, metrics_of(files.spec)
    return _Measured(
        kind=kind,
        name=words.rows.get(f"{kind}-{stage.round}", words.rows[kind]),
        short=f"round {stage.round}" if kind == "edit" else words.short_rows[kind],
        remark=remark,
        round=stage.round,
        scores=adapted_scores(stage.records, kind, metrics),
        questions=question_scores(stage.records, kind, metrics),
        passages=len(stage.records),
        evaluations=tuple(loop.evaluation for loop in loops if loop.evaluation),
        outcomes={}
        if kind == "open-book"
        else dict(sorted(Counter(str(loop.outcome) for loop in loops).items())),
    )


def retained_rows(files: RunFiles, estimator: Estimator) -> tuple[RetainedRow, ...]:
    """Per policy: alone, adapted by its self-edits and, in round 0, by the bounds.

    What was not asked is absent.
    """
    rows = []
    first = files.stage("validate", 0)
    of_base = (first.retained_base or first.retained) if first else None
    for stage in files.named("validate"):
        if stage.retained is not None:
            rows.append(_policy_alone(files, stage, stage.retained, estimator))
        kinds: tuple[InnerLoopKind, ...] = (
            ("passage", "passage-equal-steps", "edit", "gold") if stage.round == 0 else ("edit",)
        )
        on_policy = files.spec.inner.student == "policy"
        remark = files.label(stage.round)
        for kind in kinds:  # bounds are trained on the base model, whatever the policy is
            before = stage.retained if on_policy and kind == "edit" else of_base
            if row := _adapted_retained(stage, kind, before, estimator, remark):
                rows.append(row)
    return tuple(rows)


def _policy_alone(
    files: RunFiles, stage: Stage, retained: EvaluationRecord, estimator: Estimator
) -> RetainedRow:
    remark = files.label(stage.round)
    base = stage.round == 0 and not remark
    label = "base model alone" if base else f"policy of round {stage.round} alone"
    return RetainedRow(
        key=f"policy-{stage.round}",
        label=f"{label} ({remark})" if remark else label,
        round=stage.round,
        policy_alone=True,
        models=1,
        answers=sum(answer_score(answer, "contains") is not None for answer in retained.answers),
        score=estimator.mean(_by_retained_passage(retained, "score"), "score"),
        accuracy=estimator.mean(_by_retained_passage(retained, "contains"), "contains"),
        accuracy_change=None,
    )


def _by_retained_passage(evaluation: EvaluationRecord, metric: Metric) -> ByPassage:
    """Mean score by retained passage.

    The passage is the part of a query's id before the last slash.
    """
    answers: dict[str, list[float | None]] = {}
    for answer in evaluation.answers:
        answers.setdefault(answer.query_id.rpartition("/")[0] or answer.query_id, []).append(
            answer_score(answer, metric)
        )
    means = {passage: mean(scores) for passage, scores in answers.items()}
    return {passage: value for passage, value in means.items() if value is not None}


def _adapted_retained(
    stage: Stage,
    kind: InnerLoopKind,
    before: EvaluationRecord | None,
    estimator: Estimator,
    remark: str,
) -> RetainedRow | None:
    """`before`: what the adapters are trained on, alone."""
    asked = [
        loop.retained
        for record in stage.records
        for loop in loops_of(record, kind)
        if loop.retained
    ]
    if not asked:
        return None
    round = stage.round
    rows = get_domain("knowledge").words.rows
    label = "gold questions" if kind == "gold" else rows[kind].format(round=round)
    remarked = f" ({remark})" if remark and kind == "edit" else ""
    alone = {answer.query_id: answer_score(answer, "contains") for answer in _answers(before)}
    change = by_passage(stage.records, lambda record: mean(_changes(record, kind, alone)))
    return RetainedRow(
        key=f"{kind}-{round}",
        label=f"after {label}{remarked}",
        round=round,
        policy_alone=False,
        models=len(asked),
        answers=sum(
            answer_score(answer, "contains") is not None
            for evaluation in asked
            for answer in evaluation.answers
        ),
        score=estimator.mean(_by_adapted_passage(stage.records, kind, "score"), "score"),
        accuracy=estimator.mean(_by_adapted_passage(stage.records, kind, "contains"), "contains"),
        accuracy_change=estimator.mean(change, "contains") if alone else None,
    )


def _answers(evaluation: EvaluationRecord | None) -> Sequence[AnswerRecord]:
    return evaluation.answers if evaluation else ()


def _by_adapted_passage(
    records: Sequence[ContextRecord], kind: InnerLoopKind, metric: Metric
) -> ByPassage:
    """Mean score by the passage that the models were adapted to."""
    return by_passage(
        records,
        lambda record: mean(
            answer_score(answer, metric)
            for loop in loops_of(record, kind)
            if loop.retained
            for answer in loop.retained.answers
        ),
    )


def _changes(
    record: ContextRecord, kind: InnerLoopKind, alone: Mapping[str, float | None]
) -> Iterable[float]:
    """Adapted minus not adapted, question by question."""
    for loop in loops_of(record, kind):
        scores = {
            answer.query_id: answer_score(answer, "contains") for answer in _answers(loop.retained)
        }
        yield from paired_differences(scores, alone).values()
