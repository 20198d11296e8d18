"""What one Evaluate request asks for, checked.

Every bound is refused by the name of its field before the engine sees anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from seal.bases import BaseReference
from seal.domains import get_domain
from seal.domains.base import Domain, Query
from seal.limits import (
    MAX_ANSWER_CHARACTERS,
    MAX_ANSWER_TOKENS,
    MAX_ANSWERS,
    MAX_ASKS,
    MAX_PASSAGE_CHARACTERS,
    MAX_QUESTION_CHARACTERS,
    MAX_QUESTIONS,
    MAX_VOTES,
)
from seal.records import AdapterReference
from seal.rpc import validation
from seal.rpc.convert import GRADER_FROM_WIRE, adapter_reference, base_reference
from seal.settings import GraderName, QuestionFormat, check_votes
from seal.v1 import evaluator_pb2


@dataclass(frozen=True)
class EvaluationPlan:
    """One checked request."""

    run: str
    base: BaseReference
    policy: AdapterReference | None
    adapter: AdapterReference | None
    domain: Domain
    question_format: QuestionFormat
    queries: tuple[Query, ...]
    grader: GraderName
    max_tokens: int
    votes: int
    """Ways in which each query is asked; 0 and 1 ask once."""
    view_seed: int
    judge: str
    """Name of the model that has to judge; empty for any."""


def parse_evaluation(request: evaluator_pb2.EvaluateRequest) -> EvaluationPlan:
    """Check a request. Raises InvalidInput naming the field."""
    validation.request_id(request.request_id)
    domain = get_domain(request.domain)
    if request.grader not in GRADER_FROM_WIRE:
        graders = (f"GRADER_{grader.upper()}" for grader in domain.options.graders)
        raise validation.refuse("grader", "is not set", f"use one of: {', '.join(graders)}")
    grader = GRADER_FROM_WIRE[request.grader]
    validation.one_of(grader, domain.options.graders, field="grader")
    question_format = validation.one_of(
        request.question_format, domain.options.question_formats, field="question_format"
    )
    return EvaluationPlan(
        run=validation.run_name(request.run),
        base=base_reference(request.policy),
        policy=adapter_reference(request.policy.adapter, field="policy.adapter")
        if request.policy.HasField("adapter")
        else None,
        adapter=adapter_reference(request.adapter, field="adapter")
        if request.HasField("adapter")
        else None,
        domain=domain,
        question_format=cast(QuestionFormat, question_format),
        queries=_queries(request),
        grader=grader,
        max_tokens=validation.whole_number(
            request.max_tokens, field="max_tokens", minimum=1, maximum=MAX_ANSWER_TOKENS
        ),
        votes=_votes(request, domain, grader),
        view_seed=validation.seed(request.view_seed, field="view_seed"),
        judge=request.judge,
    )


def _votes(
    request: evaluator_pb2.EvaluateRequest,
    domain: Domain,
    grader: GraderName,
) -> int:
    votes = validation.whole_number(request.votes, field="votes", minimum=0, maximum=MAX_VOTES)
    check_votes(domain.name, votes, grader, field="votes")
    if len(request.queries) * votes > MAX_ASKS:
        raise validation.refuse(
            "votes",
            f"asks {len(request.queries)} queries {votes} times each, the limit is "
            f"{MAX_ASKS} prompts",
            "give fewer votes, or fewer queries at once",
        )
    return votes


def _queries(request: evaluator_pb2.EvaluateRequest) -> tuple[Query, ...]:
    validation.count(request.queries, field="queries", maximum=MAX_QUESTIONS, what="query")
    validation.unique(
        (query.query_id for query in request.queries), field="queries[{index}].query_id"
    )
    return tuple(_query(query, f"queries[{index}]") for index, query in enumerate(request.queries))


def _query(message: evaluator_pb2.Query, field: str) -> Query:
    return Query(
        query_id=validation.identifier(
            message.query_id, field=f"{field}.query_id", remedy="give each query its own id"
        ),
        question=validation.text(
            message.question,
            field=f"{field}.question",
            max_characters=MAX_QUESTION_CHARACTERS,
            remedy="give the question",
        ),
        answers=_answers(message.answers, f"{field}.answers"),
        context=validation.optional_text(
            message.context, field=f"{field}.context", max_characters=MAX_PASSAGE_CHARACTERS
        ),
    )


def _answers(golds: Sequence[str], field: str) -> tuple[str, ...]:
    remedy = "give a gold answer, or drop the query: without one nothing can be graded"
    if not golds:
        raise validation.refuse(field, "is empty", remedy)
    if len(golds) > MAX_ANSWERS:
        problem = f"holds {len(golds)}, the limit is {MAX_ANSWERS}"
        raise validation.refuse(field, problem, "give the most usual answers only")
    return tuple(
        validation.text(
            gold,
            field=f"{field}[{index}]",
            max_characters=MAX_ANSWER_CHARACTERS,
            remedy=remedy,
        )
        for index, gold in enumerate(golds)
    )
