"""From answers to a reward.

Every cheap grade beside the chosen score, and what could not be graded counted apart, never as 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seal.outcomes import Outcome
from seal.rpc.convert import OUTCOME_TO_WIRE
from seal.v1 import evaluator_pb2

if TYPE_CHECKING:
    from evaluator_svc.plan import EvaluationPlan
    from seal.domains.base import Domain, Query
    from seal.engine import EvaluationResult
    from seal.settings import GraderName


def grade_all(plan: EvaluationPlan, evaluated: EvaluationResult) -> evaluator_pb2.EvaluationResult:
    """Grade the answers of one evaluation; the reward is the mean over the graded ones."""
    answers = [
        _grade(plan.domain, plan.grader, query, text, logprob)
        for query, text, logprob in zip(
            plan.queries, evaluated.answers, evaluated.logprobs, strict=True
        )
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


def _grade(
    domain: Domain, grader: GraderName, query: Query, text: str, logprob: float
) -> evaluator_pb2.GradedAnswer:
    answer = domain.clean_answer(text)
    score = domain.grade(grader, answer, query.answers, logprob)
    return evaluator_pb2.GradedAnswer(
        query_id=query.query_id,
        answer=answer,
        outcome=OUTCOME_TO_WIRE[Outcome.UNGRADED if score is None else Outcome.OK],
        score=score or 0.0,
        exact=domain.grade("exact", answer, query.answers, logprob) or 0.0,
        contains=domain.grade("contains", answer, query.answers, logprob) or 0.0,
        f1=domain.grade("f1", answer, query.answers, logprob) or 0.0,
        logprob=logprob,
    )
