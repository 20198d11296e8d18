"""The retained set of an adaptation: passages that are asked about, and others that are replayed.

No passage is both: what was learnt cannot show what was forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from seal.domains.base import Context, Query
from seal.restem.seeds import derive_seed


@dataclass(frozen=True)
class Retained:
    """A retained set, parted."""

    queries: tuple[Query, ...]
    """Open-book questions that the models are asked."""
    replayed: tuple[Context, ...]
    """Passages whose questions are learnt beside the documents."""

    @property
    def replay_room(self) -> int:
        """Rows that there are to replay."""
        return sum(len(context.queries) for context in self.replayed)


def part_retained(
    contexts: Sequence[Context], *, questions: int, replay: int, seed: int
) -> Retained:
    """At most `questions` questions, one of each passage before the second of any.

    `replay` rows are of as few passages as give so many, and of all but one at most. Which these
    are follows from the seed and the passages alone.
    """
    drawn = sorted(contexts, key=lambda context: derive_seed(seed, "retained", context.context_id))
    taken, rows = 0, 0
    while rows < replay and taken < len(drawn) - 1:
        rows += len(drawn[taken].queries)
        taken += 1
    return Retained(_round_robin(drawn[taken:], questions), tuple(drawn[:taken]))


def _round_robin(contexts: Sequence[Context], limit: int) -> tuple[Query, ...]:
    most = max((len(context.queries) for context in contexts), default=0)
    return tuple(
        replace(
            context.queries[place],
            query_id=f"{context.context_id}/{place}",
            context=context.text,
        )
        for place in range(most)
        for context in contexts
        if place < len(context.queries)
    )[:limit]
