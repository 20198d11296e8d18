"""From demonstrations to training rows: each row is a few-shot task with a known answer.

Of n demonstrations one or two are left out; one that was left out is asked for, those that stay are
shown. The augmentations of an edit change such tasks whole. Nothing here sees a test: there is no
way for its output into a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from random import Random

from seal.domains.arc.augmentations import (
    CHAINS,
    GEOMETRIES,
    REPEATS,
    SIZES,
    Augmentation,
    drawn_colours,
    fits,
)
from seal.domains.arc.edits import DataGeneration, Strategy, TrainSettings
from seal.domains.arc.layouts import Layout
from seal.domains.arc.prompts import answer_text, question_text
from seal.domains.arc.tasks import Pair
from seal.domains.base import Example

MAX_ROWS = 250
"""Rows of one training set, as published."""
MAX_ROW_VISITS = 750
"""Rows times epochs of one edit, as published: 375 steps of two rows. Beyond it an edit is invalid:
adapting has to stay cheap, or reward would only ever ask for more epochs."""
COLOUR_DRAWS = 3
"""Permutations of the colours of each task among the basic augmentations."""


@dataclass(frozen=True)
class FewShot:
    """Demonstrations, and one pair to be asked for."""

    shown: tuple[Pair, ...]
    asked: Pair


def training_rows(
    pairs: Sequence[Pair],
    edit: TrainSettings,
    layout: Layout,
    *,
    seed: int,
    max_rows: int = MAX_ROWS,
    max_characters: int,
) -> tuple[Example, ...]:
    """The training set of an edit, each row once; empty beyond the budget of `MAX_ROW_VISITS`.

    The task as it is comes first, each demonstration asked for with all others shown; then all the
    rest in an order of chance, so that what the edit chose has its share of a small set. A row that
    is longer than `max_characters` is left out: it would lose its answer.
    """
    random = Random(seed)  # noqa: S311
    plain = left_out(pairs)
    first, others = plain[: len(pairs)], plain[len(pairs) :]
    changed = augmented(plain, edit.data_generation, random)
    rest = [*others, *(reordered(task, random) for task in [*plain, *changed])]
    random.shuffle(rest)
    tasks = [*first, *rest]
    rows = dict.fromkeys(row_of(task, layout, edit.training.strategy) for task in tasks)
    short = [row for row in rows if len(row.prompt) + len(row.completion) <= max_characters]
    kept = tuple(short[: min(max_rows, MAX_ROWS)])
    return kept if len(kept) * edit.training.num_train_epochs <= MAX_ROW_VISITS else ()


def left_out(pairs: Sequence[Pair]) -> tuple[FewShot, ...]:
    """Every pair asked for with all others shown, then with all others but one.

    Two are left out only where one stays to be shown.
    """
    places = range(len(pairs))
    tasks = [
        FewShot(tuple(pairs[other] for other in places if other != asked), pairs[asked])
        for asked in places
    ]
    if len(pairs) > 2:
        tasks += [
            FewShot(
                tuple(pairs[other] for other in places if other not in (asked, hidden)),
                pairs[asked],
            )
            for asked, hidden in permutations(places, 2)
        ]
    return tuple(tasks)


def augmented(
    tasks: Sequence[FewShot], chosen: DataGeneration, random: Random
) -> Iterator[FewShot]:
    """Each task in each way that the edit chose, where its grids stay small enough."""
    ways: list[Augmentation] = []
    ways += GEOMETRIES if chosen.use_basic_augmentations else ()
    ways += SIZES if chosen.use_size_augmentations else ()
    ways += CHAINS if chosen.use_chain_augmentations else ()
    ways += REPEATS if chosen.use_repeat_augmentations else ()
    for task in tasks:
        drawn = COLOUR_DRAWS if chosen.use_basic_augmentations else 0
        for way in [*ways, *(drawn_colours(random) for _ in range(drawn))]:
            changed = changed_by(task, way)
            if fits([grid for pair in (*changed.shown, changed.asked) for grid in _grids(pair)]):
                yield changed


def changed_by(task: FewShot, way: Augmentation) -> FewShot:
    """Every grid of a task changed alike."""
    return FewShot(
        tuple(changed_pair(pair, way) for pair in task.shown), changed_pair(task.asked, way)
    )


def changed_pair(pair: Pair, way: Augmentation) -> Pair:
    """Both grids of a pair changed alike."""
    return Pair(way.apply(pair.input), way.apply(pair.output))


def reordered(task: FewShot, random: Random) -> FewShot:
    """The same task, its demonstrations in an order of chance."""
    return FewShot(tuple(random.sample(task.shown, len(task.shown))), task.asked)


def row_of(task: FewShot, layout: Layout, strategy: Strategy) -> Example:
    """A task as a training row: loss on the output alone, or on every token."""
    question = question_text(task.shown, task.asked.input, layout)
    answer = answer_text(task.asked.output, layout)
    if strategy == "train_using_all_tokens":
        return Example(prompt="", completion=question + answer)
    return Example(prompt=question, completion=answer)


def _grids(pair: Pair) -> tuple[tuple[tuple[int, ...], ...], ...]:
    return pair.input, pair.output
