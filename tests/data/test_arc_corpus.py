"""The embedded few-shot tasks: made by rules, apart by rules, and as the script writes them."""

from __future__ import annotations

import json
from collections import Counter
from importlib import resources

import pytest

from benchmarks.arc.corpus import likeness, lines
from benchmarks.arc.rules import TRAIN, VALIDATION, Rule
from seal.datasets import load_dataset
from seal.domains import get_domain
from seal.domains.arc.grids import Grid, grid_of
from seal.domains.arc.tasks import Pair
from seal.restem.leakage import check_leakage

FILES = {"arc-train": TRAIN, "arc-validation": VALIDATION}


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_what_the_script_writes(name: str) -> None:
    text = resources.files("seal").joinpath("corpus", f"{name}.jsonl").read_text(encoding="utf-8")
    assert text == lines(FILES[name])


def test_there_are_enough_tasks_and_no_rule_is_on_both_sides() -> None:
    loaded = {
        name: load_dataset(f"corpus://{name}", domain=get_domain("arc")).contexts for name in FILES
    }
    assert sum(map(len, loaded.values())) >= 40
    titles = [context.title for contexts in loaded.values() for context in contexts]
    assert len(set(titles)) == len(titles)
    check_leakage(loaded["arc-train"], loaded["arc-validation"], domain=get_domain("arc"))


def test_of_each_kind_as_many_rules_are_on_one_side_as_on_the_other() -> None:
    assert Counter(rule.kind for rule in TRAIN) == Counter(rule.kind for rule in VALIDATION)


@pytest.mark.parametrize("validation", VALIDATION, ids=lambda rule: rule.name)
def test_no_training_rule_solves_a_validation_task(validation: Rule) -> None:
    contexts = load_dataset("corpus://arc-validation", domain=get_domain("arc")).contexts
    (context,) = [each for each in contexts if each.title == validation.name]
    for rule in TRAIN:
        assert not all(
            solves(rule, query.question, query.answers[0]) for query in context.queries
        ), rule.name


def solves(rule: Rule, question: str, answer: str) -> bool:
    asked = grid_of(question)
    assert asked is not None
    try:
        return rule.apply(asked) == grid_of(answer)
    except ValueError:  # a rule about a colour that the input does not have
        return False


def test_every_pair_of_a_task_follows_its_rule() -> None:
    for rule in (*TRAIN, *VALIDATION):
        (row,) = [json.loads(line) for line in lines([rule]).splitlines()]
        for pair in (*row["train"], *row["test"]):
            asked = tuple(tuple(cells) for cells in pair["input"])
            assert [list(cells) for cells in rule.apply(asked)] == pair["output"]
            assert pair["input"] != pair["output"]


@pytest.mark.parametrize("name", FILES)
def test_no_augmentation_makes_a_test_of_a_demonstration(name: str) -> None:
    for rule in FILES[name]:
        row = json.loads(lines([rule]))
        likenesses = [
            {likeness(Pair(as_grid(pair["input"]), as_grid(pair["output"]))) for pair in row[side]}
            for side in ("train", "test")
        ]
        assert likenesses[0].isdisjoint(likenesses[1]), rule.name


def test_turned_flipped_and_recoloured_pairs_are_alike_and_others_are_not() -> None:
    pair = Pair(((1, 2, 0, 2),), ((2, 2, 0, 2),))
    assert likeness(Pair(((5, 0, 5, 3),), ((5, 0, 5, 5),))) == likeness(pair)
    assert likeness(Pair(((1,), (2,), (0,), (2,)), ((2,), (2,), (0,), (2,)))) == likeness(pair)
    assert likeness(Pair(((1, 2, 0, 2),), ((1, 2, 0, 1),))) != likeness(pair)
    assert likeness(Pair(((1, 2, 0, 1),), ((2, 2, 0, 2),))) != likeness(pair)


def as_grid(rows: list[list[int]]) -> Grid:
    return tuple(tuple(row) for row in rows)
