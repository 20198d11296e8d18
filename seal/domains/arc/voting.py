"""A query asked in several ways, whose answers are turned back and compared.

The demonstrations and the test input are changed alike, so that the rule stays one to be read from
them; the answer of a view, changed back, is one to the query itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from seal.domains.arc.augmentations import GEOMETRIES, Augmentation, chain, drawn_colours
from seal.domains.arc.grids import grid_of, grid_text
from seal.domains.arc.tasks import demonstrations_of, demonstrations_text
from seal.domains.arc.training_sets import changed_pair
from seal.domains.base import Query, View
from seal.errors import InvalidInput


def views(query: Query, votes: int, *, seed: int) -> tuple[View, ...]:
    """The query itself, then its turned and flipped views, then those in other colours too.

    The demonstrations of each view stand in an order of chance. Raises InvalidInput for a query
    that is none of this domain.
    """
    random = Random(seed)  # noqa: S311
    ways = random.sample(GEOMETRIES, len(GEOMETRIES))
    found = [View(query, str)]
    for number in range(votes - 1):
        way = ways[number % len(ways)]
        if number >= len(ways):
            way = chain(way, drawn_colours(random))
        found.append(View(_changed(query, way, random, number + 1), _undo(way)))
    return tuple(found)


def vote(answers: Sequence[str]) -> str:
    """The answer that most views agree on, of equals the first; empty if no view has one."""
    counts = Counter(answer for answer in answers if answer)
    return max(counts, key=lambda answer: counts[answer], default="")


def _changed(query: Query, way: Augmentation, random: Random, number: int) -> Query:
    pairs = [changed_pair(pair, way) for pair in demonstrations_of(query.context)]
    random.shuffle(pairs)
    return replace(
        query,
        query_id=f"{query.query_id}~{number}",
        question=_changed_text(query.question, way),
        answers=tuple(_changed_text(answer, way) for answer in query.answers),
        context=demonstrations_text(pairs),
    )


def _changed_text(text: str, way: Augmentation) -> str:
    grid = grid_of(text)
    if grid is None:
        raise InvalidInput(
            "a question or answer is no grid",
            field="queries",
            remedy="give grids as JSON, rows of whole numbers",
        )
    return grid_text(way.apply(grid))


def _undo(way: Augmentation) -> Callable[[str], str]:
    """From an answer to a view to one to the query; empty where there is none."""

    def undo(answer: str) -> str:
        grid = grid_of(answer)
        back = None if grid is None else way.undo(grid)
        return "" if back is None else grid_text(back)

    return undo
