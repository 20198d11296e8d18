"""Which candidates get an inner loop, by what is known of them without training.

`inner.preselect`. The proxy is the credit that a perfect training would give: for each query of the
context the pair that serves it best,

    proxy(candidate) = sum over queries q of max over pairs p of affinity(p, q) * F1(answer of p, q)

with the word F1 of the pair's answer and the gold answer that fits best. Where that leaves a tie
(edits without pairs have 0) the candidate with more usable examples goes first, then the one whose
parts have the higher mean log-probability, then the lower index.

It looks at gold answers, as the reward does, and like the reward only in a rollout, on training
contexts: a validation trains on every edit.
"""

from __future__ import annotations

from collections.abc import Sequence

from seal.domains.base import Context, Domain
from seal.records import EditRecord
from seal.restem.reward import mean

_SAME_DIGITS = 9
"""Proxies that are equal in so many decimals are equal."""


def preselect(
    edits: Sequence[EditRecord], *, context: Context, domain: Domain, count: int
) -> tuple[int, ...]:
    """The `count` best candidates of a training context, by index.

    The order of the edits does not show.
    """
    ranks = {edit.candidate: _rank(edit, context, domain) for edit in edits}
    return tuple(sorted(sorted(ranks, key=ranks.__getitem__)[:count]))


def proxy(edit: EditRecord, *, context: Context, domain: Domain) -> float:
    """What the edit's pairs could do for the queries of their context at best, in queries."""
    total = 0.0
    for query in context.queries:
        total += max(
            (
                affinity * (domain.grade("f1", example.answer, query.answers, None) or 0.0)
                for example in edit.examples
                if example.question
                and (
                    affinity := domain.affinity(
                        example.question, example.answer, query, title=context.title
                    )
                )
            ),
            default=0.0,
        )
    return total


def _rank(edit: EditRecord, context: Context, domain: Domain) -> tuple[float, int, float, int]:
    """Sorts the best first."""
    logprob = mean(part.logprob for part in edit.parts)
    return (
        -round(proxy(edit, context=context, domain=domain), _SAME_DIGITS),
        -len(edit.examples),
        float("inf") if logprob is None else -logprob,
        edit.candidate,
    )
