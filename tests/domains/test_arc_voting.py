"""A query in several views: each can be taken back, and most of them decide."""

from __future__ import annotations

import pytest
from arc_grids import GRIDS, PAIRS
from hypothesis import given, settings
from hypothesis import strategies as st

from seal.domains.arc.grids import Grid, grid_text
from seal.domains.arc.tasks import Pair, demonstrations_of, demonstrations_text
from seal.domains.arc.voting import views, vote
from seal.domains.base import Query
from seal.errors import InvalidInput


@settings(max_examples=25, deadline=None)
@given(pairs=PAIRS, asked=GRIDS, answer=GRIDS, seed=st.integers(0, 2**63))
def test_the_answer_of_every_view_turned_back_is_that_of_the_query(
    pairs: list[Pair], asked: Grid, answer: Grid, seed: int
) -> None:
    query = Query("q", grid_text(asked), (grid_text(answer),), demonstrations_text(pairs))
    found = views(query, 10, seed=seed)
    assert len(found) == 10
    assert found[0].query == query
    assert len({view.query.query_id for view in found}) == 10
    for view in found:
        assert view.undo(view.query.answers[0]) == query.answers[0]
        assert view.undo("") == ""
        assert len(demonstrations_of(view.query.context)) == len(pairs)
    assert [view.query for view in found] == [view.query for view in views(query, 10, seed=seed)]


def test_demonstrations_and_test_are_changed_alike() -> None:
    pair = Pair(((1, 2), (3, 4)), ((4, 3), (2, 1)))
    query = Query(
        "q", grid_text(pair.input), (grid_text(pair.output),), demonstrations_text([pair])
    )
    for view in views(query, 12, seed=3):
        (shown,) = demonstrations_of(view.query.context)
        assert grid_text(shown.input) == view.query.question
        assert grid_text(shown.output) == view.query.answers[0]


@pytest.mark.parametrize(
    ("answers", "agreed"),
    [
        (["a", "b", "b"], "b"),
        (["a", "b"], "a"),
        (["", "b", ""], "b"),
        (["", ""], ""),
        (["a", "b", "b", "a"], "a"),
    ],
)
def test_most_views_decide_and_the_first_of_equals(answers: list[str], agreed: str) -> None:
    assert vote(answers) == agreed


def test_a_query_that_is_no_grid_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no grid"):
        views(Query("q", "what?", ("that",)), 2, seed=0)
