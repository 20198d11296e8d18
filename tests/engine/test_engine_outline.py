"""A model's outline, read without its weights, is what the loaded model says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_model import ARCHITECTURES, save_tiny_model

from seal.engine import Engine, GenerationRequest, read_outline
from seal.engine.model import FrozenModel
from seal.errors import InvalidInput
from seal.prompts import Message, Prompt
from seal.settings import EngineSettings

CHAT = Prompt(messages=(Message("user", "Spell </s> for me."),), text="It is")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_positions_and_tokens_are_those_of_the_loaded_model(
    architecture: str, tmp_path: Path
) -> None:
    directory = save_tiny_model(tmp_path, architecture)
    outline = read_outline(directory, name="tiny")
    model = FrozenModel.load(directory, name="tiny", dtype=torch.float32)
    assert outline.layers == model.layers
    assert (outline.base, outline.positions) == (model.base, model.positions)
    assert outline.text.end_tokens == model.text.end_tokens
    for prompt in ("What?", "a </s> b", CHAT):
        assert outline.text.prompt(prompt) == model.text.prompt(prompt)


def test_the_neutral_adapter_fits_and_changes_nothing(tmp_path: Path) -> None:
    outline = read_outline(save_tiny_model(tmp_path), name="tiny")
    neutral = outline.neutral_adapter()
    outline.check_adapter(neutral, field="adapter")
    assert not any(bool((pair.b @ pair.a).any()) for pair in neutral.pairs.values())


def test_the_engine_refuses_a_schema_and_says_who_takes_one(tmp_path: Path) -> None:
    engine = Engine.load(
        save_tiny_model(tmp_path), name="tiny", settings=EngineSettings(slots=0, dtype="float32")
    )
    request = GenerationRequest(
        run="run", policy=None, prompts=("What?",), seeds=((1,),), temperature=0.0, top_p=1.0,
        max_tokens=4, json_schema='{"type": "object"}',
    )  # fmt: skip
    with pytest.raises(InvalidInput) as refused:
        engine.generate(request)
    engine.close()
    assert refused.value.field == "json_schema" and "vllm" in refused.value.remedy
