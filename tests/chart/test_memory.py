"""The services of each CPU profile have the memory that their engine wants with the embedded model.

With less an engine starts all the same, and trains or writes fewer at once.
"""

from __future__ import annotations

import pytest
import torch
from chart import CHART, container, environment, pods, render
from test_chart_options import OPTIONS
from transformers import LlamaConfig

from seal.engine.architecture import empty_model
from seal.engine.available import USABLE_SHARE
from seal.engine.budget import MemoryBudget
from seal.engine.sizes import ModelSize, size_of
from seal.options import EngineOptions
from seal.settings import EngineSettings

GIB = 2**30
LIBRARIES_BYTES = 0.43 * GIB
"""What Python and its libraries hold: the benchmark `memory`, less the model."""
PLENTY_BYTES = 2**50
PROFILES = {"default": (), "kind": ("-f", str(CHART / "values-kind.yaml"))}


@pytest.fixture(scope="module")
def smollm2() -> ModelSize:
    """The widths of the embedded model, which is not read for it."""
    config = LlamaConfig(
        hidden_size=576,
        num_hidden_layers=30,
        intermediate_size=1536,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        tie_word_embeddings=True,
    )
    return size_of(empty_model(config, name="smollm2-135m", dtype=torch.bfloat16))


@pytest.mark.parametrize("component", ["generator", "trainer", "evaluator"])
@pytest.mark.parametrize("profile", PROFILES)
def test_all_slots_and_rows_of_a_service_fit(
    profile: str, component: str, smollm2: ModelSize, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = pods(render(*PROFILES[profile]))[f"seal-{component}"]
    for name, value in environment(pod).items():
        monkeypatch.setenv(name, "2" if value == "limits.cpu" else value)
    options = OPTIONS[component].parse([])
    assert isinstance(options, EngineOptions)
    settings = options.part(EngineSettings)
    if component == "generator":  # it asks no questions
        settings = settings.model_copy(update={"evaluation_rows": settings.generation_rows})
    resources = container(pod)["resources"]
    memory = resources["limits"]["memory"]
    assert memory.endswith("Gi"), "the only unit that this test reads"
    limit = USABLE_SHARE * (int(memory.removesuffix("Gi")) * GIB - LIBRARIES_BYTES)
    granted, wanted = (MemoryBudget(smollm2, settings, int(most)) for most in (limit, PLENTY_BYTES))
    assert granted.slots == settings.slots
    held = (granted.at_start.cache, granted.at_start.decode)
    assert held == (wanted.at_start.cache, wanted.at_start.decode), "rows of answers"
