"""The edit of the few-shot domain: strict JSON, within its bounds or none."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seal.domains import get_domain
from seal.domains.arc.edits import (
    edit_json_schema,
    parse_edit,
    short_edit,
    short_edit_json_schema,
    written_edit,
)
from seal.domains.arc.prompts import WORKED, edit_prompt
from seal.domains.arc.tasks import Pair
from seal.settings import PromptFormat

PAIR = '[{"input":[[1,2]],"output":[[2,1]]}]'
GOOD = (
    '{"data_generation": {"use_basic_augmentations": true, "use_size_augmentations": false, '
    '"use_chain_augmentations": false, "use_repeat_augmentations": true}, "training": '
    '{"strategy": "train_using_output_tokens", "learning_rate": 0.0001, "num_train_epochs": 2}}'
)


def test_an_edit_is_read_as_it_is_written() -> None:
    edit = parse_edit(f" {GOOD}\n")
    assert edit is not None
    assert edit.data_generation.use_repeat_augmentations
    assert not edit.data_generation.use_size_augmentations
    assert edit.training.learning_rate == 0.0001
    assert edit.training.num_train_epochs == 2
    assert parse_edit(written_edit(edit)) == edit


def test_the_values_in_order_are_the_same_edit() -> None:
    edit = parse_edit(GOOD)
    assert edit is not None
    short = '[true, false, false, true, "train_using_output_tokens", 0.0001, 2]'
    assert short_edit(edit) == short
    assert parse_edit(f" {short} ") == edit


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '[true, false, false, true, "train_using_output_tokens", 0.0001]',
        '[true, false, false, true, "train_using_output_tokens", 0.0001, 2, 2]',
        '[true, false, false, true, "train_using_output_tokens", 2, 0.0001]',
        '[true, false, false, 1, "train_using_output_tokens", 0.0001, 2]',
        '[true, false, false, true, "output", 0.0001, 2]',
        '[true, false, false, true, "train_using_output_tokens", 0.07, 2]',
        '[true, false, false, true, "train_using_output_tokens", 0.0001, 2] and so on',
    ],
)
def test_a_list_that_is_not_exactly_an_edit_is_none(text: str) -> None:
    assert parse_edit(text) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.0001", "0"),
        ("0.0001", "-0.0001"),
        ("0.0001", "0.5"),
        ("0.0001", "1e999"),
        ("0.0001", "NaN"),
        ("0.0001", "Infinity"),
        ("0.0001", '"0.0001"'),
        ("0.0001", "true"),
        ('epochs": 2', 'epochs": 0'),
        ('epochs": 2', 'epochs": 21'),
        ('epochs": 2', 'epochs": 2.5'),
        ('epochs": 2', 'epochs": 2.0'),
        ('epochs": 2', 'epochs": true'),
        ('epochs": 2', 'epochs": ' + "9" * 5000),
        (": true", ": 1"),
        (": true", ': "true"'),
        (": true", ": True"),
        ("output_tokens", "no_tokens"),
        ('"training"', '"extra": 1, "training"'),
        ('"strategy"', '"optimizer": "adam", "strategy"'),
        ('"strategy"', '"learning_rate": 0.1, "strategy"'),
        (', "num_train_epochs": 2', ""),
        (
            "{",
            "[",
        ),
        (GOOD, ""),
        (GOOD, "null"),
        (GOOD, f"Here it is: {GOOD}"),
        (GOOD, f"{GOOD} I hope it helps."),
        (GOOD, f"```json\n{GOOD}\n```"),
        (GOOD, f"{GOOD}{GOOD}"),
        (GOOD, "[" * 100_000),
    ],
)
def test_what_is_not_exactly_an_edit_is_none(old: str, new: str) -> None:
    changed = GOOD.replace(old, new)
    assert changed != GOOD
    assert parse_edit(changed) is None


@given(st.text())
def test_whatever_the_policy_writes_parsing_never_raises(text: str) -> None:
    assert parse_edit(text) is None


def test_the_schema_holds_every_key_and_its_bounds() -> None:
    schema = json.loads(edit_json_schema())
    training = schema["$defs"]["Training"]
    assert schema["required"] == ["data_generation", "training"]
    assert schema["additionalProperties"] is False
    rate = training["properties"]["learning_rate"]
    assert (rate["minimum"], rate["maximum"]) == (1e-6, 0.02)
    assert training["properties"]["num_train_epochs"]["maximum"] == 20
    assert len(schema["$defs"]["DataGeneration"]["required"]) == 4


def test_the_schema_of_the_list_has_the_values_in_order_with_their_bounds_and_no_more() -> None:
    schema = json.loads(short_edit_json_schema())
    assert schema["items"] is False and schema["minItems"] == schema["maxItems"] == 7
    *switches, strategy, rate, epochs = schema["prefixItems"]
    assert [switch["type"] for switch in switches] == ["boolean"] * 4
    assert set(strategy["enum"]) == {settings.training.strategy for _, settings in WORKED}
    assert (rate["type"], rate["minimum"], rate["maximum"]) == ("number", 1e-6, 0.02)
    assert (epochs["type"], epochs["minimum"], epochs["maximum"]) == ("integer", 1, 20)
    values = json.loads(short_edit(WORKED[0][1]))
    assert [type(value) for value in values] == [bool] * 4 + [str, float, int]


@pytest.mark.parametrize(("format", "form"), [("base", "array"), ("chat", "object")])
def test_a_decoder_is_held_to_the_form_that_the_prompt_asks_for(
    format: PromptFormat, form: str
) -> None:
    (part,) = get_domain("arc").edit_prompts("t", PAIR, "train-settings", format)
    asked = part.prompt.text + "".join(turn.content for turn in part.prompt.messages)
    assert ("with exactly these keys" in asked) == (form == "object")
    schema = get_domain("arc").edit_schema("train-settings", format)
    assert schema is not None and json.loads(schema)["type"] == form


def test_worked_examples_say_nothing_of_what_is_best() -> None:
    switches = [settings.data_generation.model_dump() for _, settings in WORKED]
    for name in switches[0]:
        assert sum(switch[name] for switch in switches) * 2 == len(WORKED)
    strategies = [settings.training.strategy for _, settings in WORKED]
    assert strategies.count("train_using_all_tokens") * 2 == len(WORKED)
    ordered = sorted(
        (settings.training for _, settings in WORKED), key=lambda one: one.learning_rate
    )
    steps = [later.learning_rate / one.learning_rate for one, later in pairwise(ordered)]
    assert max(steps) <= 1.25 * min(steps)  # even on a scale of factors
    epochs = [one.num_train_epochs for one in ordered]
    assert sorted(epochs) == [1, 2, 3, 4]
    assert sum((place - 1.5) * passes for place, passes in enumerate(epochs)) == 0


def test_worked_examples_stand_in_another_order_for_another_task() -> None:
    asked = [edit_prompt((Pair(((cell,),), ((cell,),)),), "base").text for cell in range(10)]
    last = {text.split("Settings: ")[-1].splitlines()[0] for text in asked}
    assert last == {short_edit(settings) for _, settings in WORKED}
    assert asked[0] == edit_prompt((Pair(((0,),), ((0,),)),), "base").text


def test_the_policy_sees_the_demonstrations_in_either_format() -> None:
    pair = Pair(((1, 2),), ((3,), (4,)))
    base = edit_prompt((pair,), "base")
    assert base.text.endswith("Puzzle:\ninput 12\noutput\n3\n4\nSettings:")
    assert base.stop == ("\n",)
    chat = edit_prompt((pair,), "chat")
    assert chat.messages[0].content.startswith("input 12\noutput\n3\n4\n")
    assert not chat.text
