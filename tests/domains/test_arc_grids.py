"""Grids: what is one, how it is written and read back, and how two are compared."""

from __future__ import annotations

import pytest
from arc_grids import GRIDS
from hypothesis import given
from hypothesis import strategies as st

from seal.dataset_rows import Place
from seal.domains.arc.grading import grade, measure
from seal.domains.arc.grids import grid_of, grid_text, read_grid
from seal.domains.arc.layouts import LAYOUTS, grid_in, layout_of, written
from seal.errors import InvalidInput


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("12", ""),
        ([], ""),
        ([[1]] * 31, ""),
        ([[]], "[0]"),
        ([[1] * 31], "[0]"),
        ([[1], 2], "[1]"),
        ([[1, 2], [3]], "[1]"),
        ([[1, 2], [3, 10]], "[1][1]"),
        ([[1, -1]], "[0][1]"),
        ([[1.0]], "[0][0]"),
        ([[True]], "[0][0]"),
        ([["1"]], "[0][0]"),
    ],
)
def test_a_bad_grid_is_refused_by_its_cell(value: object, field: str) -> None:
    with pytest.raises(InvalidInput, match="file") as refused:
        read_grid(Place("file"), value)
    assert refused.value.field == field


@given(GRIDS)
def test_a_grid_comes_back_from_its_canonical_text(grid: tuple[tuple[int, ...], ...]) -> None:
    assert grid_of(grid_text(grid)) == grid


@given(st.text())
def test_text_that_is_no_grid_gives_none_and_never_raises(text: str) -> None:
    grid = grid_of(text)
    assert grid is None or grid_of(grid_text(grid)) == grid
    for layout in LAYOUTS.values():
        found = grid_in(text, layout)
        assert found is None or grid_in(written(found, layout), layout) == found


@pytest.mark.parametrize(
    "text", ["[]", "[[]]", "[[1],[2,3]]", "[[10]]", "[[true]]", "[1]", "[" * 9]
)
def test_canonical_text_of_what_is_no_grid_is_none(text: str) -> None:
    assert grid_of(text) is None


@pytest.mark.parametrize("name", LAYOUTS)
@given(grid=GRIDS)
def test_a_grid_comes_back_from_every_layout(name: str, grid: tuple[tuple[int, ...], ...]) -> None:
    assert grid_in(written(grid, layout_of(name)), layout_of(name)) == grid


@pytest.mark.parametrize(
    ("layout", "text", "grid"),
    [
        ("digits", "12\n34\n\ninput\n9", ((1, 2), (3, 4))),
        ("digits", " 12 \n", ((1, 2),)),
        ("digits", "1 2", None),
        ("digits", "12\n3", None),
        ("digits", "1x", None),
        ("digits", "", None),
        ("digits", "1²", None),
        ("spaced", "1 2\n3 4", ((1, 2), (3, 4))),
        ("spaced", "12", None),
        ("spaced", "1  2", None),
        ("letters", " a b\n c d", ((0, 1), (2, 3))),
        ("letters", "ab", None),
        ("letters", "k", None),
    ],
)
def test_an_answer_is_a_grid_or_none(
    layout: str, text: str, grid: tuple[tuple[int, ...], ...] | None
) -> None:
    assert grid_in(text, layout_of(layout)) == grid


def test_an_unknown_layout_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="digits, letters, spaced"):
        layout_of("few-shot")


def test_answers_are_measured_exactly_by_shape_and_by_cell() -> None:
    gold = ("[[1,2],[3,4]]",)
    assert measure("[[1,2],[3,4]]", gold) == {"grid": 1.0, "shape": 1.0, "cells": 1.0}
    assert measure("[[1,2],[4,3]]", gold) == {"grid": 0.0, "shape": 1.0, "cells": 0.5}
    assert measure("[[1,2,3,4]]", gold) == {"grid": 0.0, "shape": 0.0, "cells": 0.0}
    assert measure("", gold) == {"grid": 0.0, "shape": 0.0, "cells": 0.0}


def test_the_gold_answer_that_fits_best_counts() -> None:
    assert measure("[[1,2]]", ("[[2,1]]", "[[1,2]]"))["grid"] == 1.0


def test_no_grade_is_given_without_a_gold_grid_or_a_log_probability() -> None:
    assert grade("grid", "[[1]]", ("[[1]]",), None) == 1.0
    assert grade("grid", "", ("[[1]]",), None) == 0.0
    assert grade("grid", "[[1]]", ("one",), None) is None
    assert grade("exact", "[[1]]", ("[[1]]",), None) is None
    assert grade("logprob", "", (), -0.5) == -0.5
    assert grade("logprob", "", (), float("nan")) is None
