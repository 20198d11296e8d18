"""From answers to a reward.

Every cheap grade beside the chosen score, and what could not be graded counted apart, never as 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from seal.outcomes import Outcome
from seal.rpc.convert import OUTCOME_TO_WIRE, finite_or_zero
from seal.v1 import evaluator_pb2

if TYPE_CHECKING:
    from evaluator_svc.plan import EvaluationPlan
    from seal.domains.base import Query
    from seal.engine import EvaluationResult


def grade_all(
    plan: EvaluationPlan,
    asked: Sequence[int],
    evaluated: EvaluationResult,
    unfit: Mapping[int, Outcome],
    verdicts: Sequence[float | None] = (),
) -> evaluator_pb2.EvaluationResult:
    """Grade the answers of one evaluation; the reward is the mean over the graded ones.

    `asked`: places of the queries that were asked; `unfit`: outcomes of the others by place;
    `verdicts`: the judge's scores of those that were asked, if it grades.
    """
    graded = {
        place: _grade(plan, plan.queries[place], text, logprob, verdict)
        for place, text, logprob, verdict in zip(
            asked,
            evaluated.answers,
            evaluated.logprobs,
            verdicts or [None] * len(asked),
            strict=True,
        )
    }
    answers = [
        graded.get(place) or _ungraded(query, unfit[place])
        for place, query in enumerate(plan.queries)
    ]
    scores = [answer.score for answer in answers if answer.outcome == OUTCOME_TO_WIRE[Outcome.OK]]
    return evaluator_pb2.EvaluationResult(
        outcome=OUTCOME_TO_WIRE[Outcome.OK if scores else Outcome.UNGRADED],
        reward=sum(scores) / len(scores) if scores else 0.0,
        answers=answers,
        ungraded=len(answers) - len(scores),
        max_logit_difference=evaluated.max_logit_difference,
        tokens=evaluated.tokens,
        engine_seconds=evaluated.engine_seconds,
    )


def without_grades(
    plan: EvaluationPlan,
    outcome: Outcome,
    unfit: Mapping[int, Outcome],
    evaluated: EvaluationResult | None = None,
) -> evaluator_pb2.EvaluationResult:
    """An evaluation that has no scores; `evaluated` tells what it cost, if it was done at all.

    `unfit`: outcomes by place of the queries that have one of their own.
    """
    return evaluator_pb2.EvaluationResult(
        outcome=OUTCOME_TO_WIRE[outcome],
        answers=[
            _ungraded(query, unfit.get(place, outcome)) for place, query in enumerate(plan.queries)
        ],
        ungraded=len(plan.queries),
        max_logit_difference=0.0
        if evaluated is None
        else finite_or_zero(evaluated.max_logit_difference),
        tokens=0 if evaluated is None else evaluated.tokens,
        engine_seconds=0.0 if evaluated is None else evaluated.engine_seconds,
    )


def adapter_outcome(evaluated: EvaluationResult, *, adapted: bool) -> Outcome:
    """Whether an evaluation says something about the model that was asked.

    `diverged`: the logits are NaN or infinite. `inert`: an adapter leaves the logits exactly as
    they are without it, so that a score would be the policy's.
    """
    if not all(map(math.isfinite, (evaluated.max_logit_difference, *evaluated.logprobs))):
        return Outcome.DIVERGED
    if adapted and evaluated.max_logit_difference == 0:
        return Outcome.INERT
    return Outcome.OK


def _ungraded(query: Query, outcome: Outcome) -> evaluator_pb2.GradedAnswer:
    return evaluator_pb2.GradedAnswer(query_id=query.query_id, outcome=OUTCOME_TO_WIRE[outcome])


def _grade(
    plan: EvaluationPlan, query: Query, text: str, logprob: float, verdict: float | None
) -> evaluator_pb2.GradedAnswer:
    domain = plan.domain
    answer = domain.clean_answer(text, plan.question_format)
    score = (
        verdict
        if plan.grader == "judge"
        else domain.grade(plan.grader, answer, query.answers, logprob)
    )
    return evaluator_pb2.GradedAnswer(
        query_id=query.query_id,
        answer=answer,
        outcome=OUTCOME_TO_WIRE[Outcome.UNGRADED if score is None else Outcome.OK],
        score=score or 0.0,
        measures=domain.measure(answer, query.answers),
        logprob=logprob,
    )
