"""The edit: JSON that says how a training set is made and how it is trained on.

Either one object, or its seven values in order as one list: a small model slips in long keys.
Parsing is strict, because what is guessed at is not learnt: the text is the JSON and nothing but
white space around it, with exactly these keys, each once, or as many values, and every value within
its bounds. All else makes no edit. No value is ever moved into its bounds.
"""

from __future__ import annotations

import json
from typing import Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MIN_RATE, MAX_RATE = 1e-6, 2e-2
MAX_EDIT_EPOCHS = 20

Strategy = Literal["train_using_all_tokens", "train_using_output_tokens"]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class DataGeneration(_Strict):
    """Which augmentations make the training set."""

    use_basic_augmentations: bool
    """Turns, flips, transposes and permutations of colours."""
    use_size_augmentations: bool
    """Grids of twice the size."""
    use_chain_augmentations: bool
    """A turn or flip, then twice the size."""
    use_repeat_augmentations: bool
    """Grids beside copies of themselves."""


class Training(_Strict):
    """How it is trained on."""

    strategy: Strategy
    """Which tokens of a row have a loss."""
    learning_rate: float = Field(ge=MIN_RATE, le=MAX_RATE)
    """Peak learning rate."""
    num_train_epochs: int = Field(ge=1, le=MAX_EDIT_EPOCHS)
    """Passes over the training set."""


class TrainSettings(_Strict):
    """One edit."""

    data_generation: DataGeneration
    training: Training


def parse_edit(text: str) -> TrainSettings | None:
    """The edit that a text is, None if it is none. Never raises, whatever the text."""
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
        return TrainSettings.model_validate(_named(value) if isinstance(value, list) else value)
    except (ValueError, RecursionError, ValidationError):
        return None


def written_edit(edit: TrainSettings) -> str:
    """An edit as one object on one line."""
    return json.dumps(edit.model_dump())


def short_edit(edit: TrainSettings) -> str:
    """An edit as the list of its values."""
    switches, training = edit.data_generation.model_dump(), edit.training.model_dump()
    return json.dumps([*switches.values(), *training.values()])


def _named(values: list[object]) -> dict[str, object]:
    """The object of a list of values; one too many or too few fits no key."""
    switches, training = list(DataGeneration.model_fields), list(Training.model_fields)
    if len(values) != len(switches) + len(training):
        raise ValueError("a value is missing, or there is one too many")
    return {
        "data_generation": dict(zip(switches, values[: len(switches)], strict=True)),
        "training": dict(zip(training, values[len(switches) :], strict=True)),
    }


def edit_json_schema() -> str:
    """The JSON schema of an edit as an object, bounds included."""
    return json.dumps(TrainSettings.model_json_schema(), sort_keys=True)


def short_edit_json_schema() -> str:
    """The JSON schema of an edit as the list of its values, bounds included."""
    values = [
        value
        for part in (DataGeneration, Training)
        for value in part.model_json_schema()["properties"].values()
    ]
    schema = {
        "type": "array",
        "prefixItems": values,
        "items": False,
        "minItems": len(values),
        "maxItems": len(values),
    }
    return json.dumps(schema, sort_keys=True)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose keys differ."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice")
    return values


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
