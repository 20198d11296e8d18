"""Augmentations and training sets: what is changed can be taken back, and no test gets in."""

from __future__ import annotations

from random import Random

import pytest
from arc_grids import GRIDS, PAIRS
from hypothesis import given, settings
from hypothesis import strategies as st

from seal.domains.arc.augmentations import (
    CHAINS,
    GEOMETRIES,
    REPEATS,
    SIZES,
    Augmentation,
    chain,
    drawn_colours,
)
from seal.domains.arc.edits import DataGeneration, Training, TrainSettings
from seal.domains.arc.grids import Grid
from seal.domains.arc.layouts import LAYOUTS, written
from seal.domains.arc.tasks import Pair
from seal.domains.arc.training_sets import (
    MAX_ROW_VISITS,
    MAX_ROWS,
    augmented,
    left_out,
    row_of,
    training_rows,
)

DIGITS = LAYOUTS["digits"]
ALL = [*GEOMETRIES, *SIZES, *REPEATS, *CHAINS]
PAIR = Pair(((1, 2, 0),), ((2, 1, 0),))
FOUR = tuple(Pair(((n, n + 1, 0),), ((n + 1, n, 0),)) for n in range(1, 5))


def edit(
    *switches: str, strategy: str = "train_using_output_tokens", epochs: int = 1
) -> TrainSettings:
    """An edit with these augmentations."""
    names = DataGeneration.model_fields
    return TrainSettings(
        data_generation=DataGeneration.model_validate(
            {
                name: any(name == f"use_{switch}_augmentations" for switch in switches)
                for name in names
            }
        ),
        training=Training.model_validate(
            {"strategy": strategy, "learning_rate": 1e-3, "num_train_epochs": epochs}
        ),
    )


def rows_of(pairs: tuple[Pair, ...], chosen: TrainSettings, **bounds: int) -> tuple[str, ...]:
    rows = training_rows(pairs, chosen, DIGITS, **{"seed": 1, "max_characters": 4000, **bounds})
    return tuple(row.prompt + row.completion for row in rows)


@pytest.mark.parametrize("way", ALL, ids=lambda way: way.name)
@given(grid=GRIDS)
def test_every_augmentation_has_its_inverse(way: Augmentation, grid: Grid) -> None:
    assert way.undo(way.apply(grid)) == grid


@given(grid=GRIDS, seed=st.integers(0, 2**63), keep=st.booleans())
def test_colours_come_back_and_the_background_stays(grid: Grid, seed: int, keep: bool) -> None:
    way = drawn_colours(Random(seed), keep_background=keep)
    assert way.undo(way.apply(grid)) == grid
    assert not keep or way.apply(((0,),)) == ((0,),)


@given(grid=GRIDS)
def test_a_chain_is_undone_from_its_end(grid: Grid) -> None:
    way = chain(chain(GEOMETRIES[0], SIZES[1]), REPEATS[2])
    assert way.undo(way.apply(grid)) == grid


@pytest.mark.parametrize("way", [*SIZES, *REPEATS, *CHAINS], ids=lambda way: way.name)
def test_what_an_augmentation_cannot_have_made_has_no_way_back(way: Augmentation) -> None:
    assert way.undo(((1, 2, 3), (4, 5, 6), (7, 8, 9))) is None
    assert way.undo(((1,),)) is None


def test_the_symmetries_of_the_square_are_all_there_and_differ() -> None:
    grid = ((1, 2), (3, 4))
    assert len({grid, *(way.apply(grid) for way in GEOMETRIES)}) == 8


def test_one_or_two_demonstrations_are_left_out() -> None:
    tasks = left_out(FOUR)
    assert [len(task.shown) for task in tasks] == [3] * 4 + [2] * 12
    assert all(task.asked not in task.shown for task in tasks)
    assert [len(task.shown) for task in left_out(FOUR[:2])] == [1, 1]
    assert [len(task.shown) for task in left_out(FOUR[:1])] == [0]


@settings(max_examples=30, deadline=None)
@given(
    pairs=PAIRS,
    seed=st.integers(0, 2**63),
    switches=st.sets(st.sampled_from(["basic", "size", "chain", "repeat"])),
)
def test_the_same_seed_gives_the_same_rows_and_the_cap_holds(
    pairs: list[Pair], seed: int, switches: set[str]
) -> None:
    chosen = edit(*switches)
    rows = rows_of(tuple(pairs), chosen, seed=seed)
    assert rows == rows_of(tuple(pairs), chosen, seed=seed)
    assert 0 < len(rows) <= MAX_ROWS
    assert len(set(rows)) == len(rows)
    assert len(rows_of(tuple(pairs), chosen, seed=seed, max_rows=5)) <= 5


def test_another_seed_draws_other_rows() -> None:
    assert rows_of(FOUR, edit("basic"), seed=1) != rows_of(FOUR, edit("basic"), seed=2)


def test_the_task_as_it_is_comes_first_and_the_rest_has_its_share() -> None:
    own = rows_of(FOUR, edit())[: len(FOUR)]
    changed = rows_of(FOUR, edit("basic"), max_rows=16)
    assert changed[: len(own)] == own
    assert set(changed) - set(rows_of(FOUR, edit()))


@pytest.mark.parametrize("switch", ["basic", "size", "chain", "repeat"])
def test_each_switch_adds_its_own_rows(switch: str) -> None:
    none = set(rows_of((PAIR, FOUR[2]), edit()))
    alone = set(rows_of((PAIR, FOUR[2]), edit(switch)))
    assert alone > none
    others = {"basic", "size", "chain", "repeat"} - {switch}
    for other in others:
        assert alone - none - set(rows_of((PAIR, FOUR[2]), edit(other)))


def test_a_grid_that_would_outgrow_its_bound_is_not_made() -> None:
    wide = Pair(((1,) * 16,), ((2,) * 16,))
    made = list(augmented(left_out((wide, PAIR)), edit("size").data_generation, Random(1)))
    assert made
    assert all(len(pair.input[0]) <= 30 for task in made for pair in (*task.shown, task.asked))


def test_loss_is_on_the_output_or_on_every_token() -> None:
    task = left_out((PAIR, FOUR[2]))[0]
    output = row_of(task, DIGITS, "train_using_output_tokens")
    every = row_of(task, DIGITS, "train_using_all_tokens")
    assert output.completion == written(PAIR.output, DIGITS) + "\n\n"
    assert every.prompt == ""
    assert every.completion == output.prompt + output.completion


def test_an_edit_beyond_the_budget_of_steps_has_no_rows() -> None:
    rows = len(rows_of(FOUR, edit("basic"), max_rows=75))
    assert rows * 10 == MAX_ROW_VISITS
    assert rows_of(FOUR, edit("basic", epochs=10), max_rows=75)
    assert not rows_of(FOUR, edit("basic", epochs=11), max_rows=75)


def test_a_row_too_long_is_left_out_and_never_cut() -> None:
    everything = rows_of(FOUR, edit())
    short = rows_of(FOUR, edit(), max_characters=max(map(len, everything)) - 1)
    assert short
    assert set(short) < set(everything)
