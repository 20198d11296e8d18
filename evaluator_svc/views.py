"""Queries asked in several ways, and their answers brought together before they are graded.

What the ways are and what they agree on is the domain's; here they only become prompts of one batch
and, answered, one answer a query again. Every way costs as much as a query of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from seal.engine import EvaluationResult
from seal.outcomes import Outcome
from seal.restem.seeds import derive_seed

if TYPE_CHECKING:
    from evaluator_svc.plan import EvaluationPlan
    from seal.domains.base import View


@dataclass(frozen=True)
class Ask:
    """One way to ask one query."""

    place: int
    """Of the query in the request."""
    view: View


@dataclass(frozen=True)
class Answered:
    """One evaluation as if every query had been asked once."""

    places: tuple[int, ...]
    """Of the queries that have an answer, in order."""
    evaluated: EvaluationResult
    """The answers to them, and what all ways cost."""
    unfit: Mapping[int, Outcome]
    """Outcomes of the other queries by place."""


def asks_of(plan: EvaluationPlan) -> tuple[Ask, ...]:
    """All that is asked, query by query, each as it stands first."""
    return tuple(
        Ask(place, view)
        for place, query in enumerate(plan.queries)
        for view in plan.domain.views(
            query, max(1, plan.votes), seed=derive_seed(plan.view_seed, query.query_id)
        )
    )


def unfit_queries(asks: Sequence[Ask], unfit: Mapping[int, Outcome]) -> dict[int, Outcome]:
    """Outcomes of what could not be asked, by the place of its query.

    `unfit`: by place among `asks`. The last way that was left out is why a query was.
    """
    return {asks[ask].place: outcome for ask, outcome in unfit.items()}


def joined(
    plan: EvaluationPlan,
    asks: Sequence[Ask],
    asked: Sequence[int],
    evaluated: EvaluationResult,
    unfit: Mapping[int, Outcome],
) -> Answered:
    """The answers by query. `asked`: places among `asks` of what was; `unfit`: of the others.

    A query that was asked in any way has an answer; the log-probability is that of its first way.
    """
    by_query: dict[int, list[int]] = {}
    for place, ask in enumerate(asked):
        by_query.setdefault(asks[ask].place, []).append(place)
    places = tuple(sorted(by_query))
    return Answered(
        places=places,
        evaluated=replace(
            evaluated,
            answers=tuple(
                _agreed(plan, asks, asked, evaluated, by_query[place]) for place in places
            ),
            logprobs=tuple(evaluated.logprobs[by_query[place][0]] for place in places),
        ),
        unfit={
            place: outcome
            for place, outcome in unfit_queries(asks, unfit).items()
            if place not in by_query
        },
    )


def _agreed(
    plan: EvaluationPlan,
    asks: Sequence[Ask],
    asked: Sequence[int],
    evaluated: EvaluationResult,
    ways: Sequence[int],
) -> str:
    """The answer to one query; as the model wrote it where all are asked in one way."""
    if len(asks) == len(plan.queries):
        return evaluated.answers[ways[0]]
    return plan.domain.vote(
        [
            asks[asked[way]].view.undo(
                plan.domain.clean_answer(evaluated.answers[way], plan.question_format)
            )
            for way in ways
        ]
    )
