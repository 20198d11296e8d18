"""What a request may cost is bounded before anything is allocated; what does not fit now waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from engine_alone import evaluate, generate
from live_bytes import LiveBytes
from test_engine_decoding import GOLDS, PROMPTS, evaluation, generation, trained
from test_engine_training import request as training_request
from tiny_model import tiny_model
from transformers import AutoModelForCausalLM, LlamaConfig

from seal.engine import Engine, EngineTask, evaluations
from seal.engine.bank import stack
from seal.engine.budget import MIB, MemoryBudget
from seal.engine.decoding import RunningBatch
from seal.engine.generation import Generation
from seal.engine.job import make_job
from seal.engine.memory import CACHE_COPIES, position_bytes
from seal.engine.peft_format import Adapter, LoraPair
from seal.engine.queues import FairQueue
from seal.engine.sizes import ModelSize, size_of
from seal.errors import InvalidInput, UnfitItem
from seal.outcomes import Outcome
from seal.settings import EngineSettings

SETTINGS = EngineSettings(
    slots=1, dtype="float32", max_rank=8, max_row_tokens=64, max_pass_tokens=64
)
POSITIONS = 200
SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    head_dim=64,
    tie_word_embeddings=True,
)
QWEN2_7B = LlamaConfig(
    vocab_size=152064,
    hidden_size=3584,
    intermediate_size=18944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    head_dim=128,
)
LOADED_BYTES = 450 * MIB
"""What Python and torch take in a pod before a model is loaded."""


def size_of_config(config: LlamaConfig, dtype: torch.dtype) -> ModelSize:
    with torch.device("meta"):
        return size_of(AutoModelForCausalLM.from_config(config, dtype=dtype))


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(tiny_model(max_position_embeddings=POSITIONS), SETTINGS)
    yield engine
    engine.close()


def test_a_training_row_longer_than_the_engine_or_the_model_takes_is_too_long_by_its_place(engine):
    long = ("", "x" * SETTINGS.max_row_tokens)
    with pytest.raises(UnfitItem, match="example 1 has 65 tokens, the engine takes 64") as caught:
        engine.train(training_request(examples=(("", "short"), long)))
    assert (caught.value.outcome, caught.value.field) == (Outcome.TOO_LONG, "examples[1]")
    short_model = tiny_model(max_position_embeddings=32)
    with pytest.raises(UnfitItem, match="the engine takes 32"):
        make_job(short_model, training_request(examples=(("", "x" * 40),)), max_row_tokens=512)


@pytest.mark.parametrize("pad_to_tokens", [0, 8])
def test_a_row_with_nothing_to_learn_is_refused_by_its_place(engine, pad_to_tokens):
    examples = (("", "a river"), ("", ""))
    with pytest.raises(UnfitItem, match="example 1 has no token to learn") as caught:
        engine.train(training_request(examples=examples, pad_to_tokens=pad_to_tokens))
    assert (caught.value.outcome, caught.value.field) == (Outcome.INVALID, "examples[1]")
    assert "drop the example" in caught.value.remedy


def test_padding_no_row_may_have_is_refused_and_padding_that_is_allowed_takes_no_memory(engine):
    examples = tuple(("", str(number)) for number in range(3000))
    with pytest.raises(InvalidInput, match="padded to 32768") as caught:
        engine.train(training_request(examples=examples, pad_to_tokens=32_768))
    assert caught.value.field == "optimizer.pad_to_tokens"
    padded = training_request(examples=examples, pad_to_tokens=2048, epochs=1000)
    job = make_job(tiny_model(), padded, max_row_tokens=2048)
    assert all(row.length == 2048 for row in job.rows)
    assert sum(len(row.real) for row in job.rows) < 6 * len(examples)
    assert job.total_steps == 1000 * 1500
    assert len(job.order._epoch) == 0  # no step is drawn before it is needed


def test_rows_that_wait_hold_no_random_numbers():
    model = tiny_model()
    request = generation(
        prompts=("a",), seeds=(tuple(range(4000)),), temperature=1.0, max_tokens=4000
    )
    waiting = Generation(model, request)
    assert all(
        row.uniforms._generator is None and not row.uniforms._drawn for row in waiting.all_rows
    )


@pytest.mark.parametrize("kind", ["generate", "evaluate"])
def test_a_prompt_beyond_the_models_positions_is_too_long_by_its_place(engine, kind):
    prompts = (*PROMPTS[:2], "x" * (POSITIONS - 5))
    request = (generation if kind == "generate" else evaluation)(prompts=prompts, max_tokens=8)
    with pytest.raises(
        UnfitItem, match=rf"195 tokens and 8 more .* {POSITIONS} positions"
    ) as caught:
        getattr(engine, kind)(request)
    assert (caught.value.outcome, caught.value.field) == (Outcome.TOO_LONG, "prompts[2]")
    with pytest.raises(InvalidInput) as caught:
        getattr(engine, kind)(replace(request, max_tokens=POSITIONS))
    assert caught.value.field == "max_tokens"


def test_a_row_whose_keys_and_values_never_fit_is_too_long_by_its_place():
    model = tiny_model(max_position_embeddings=100_000)
    engine = Engine(
        model, SETTINGS.model_copy(update={"memory_bytes": model.size.base_bytes + 8 * MIB})
    )
    engine.evaluate(evaluation()).future.result(60)
    with pytest.raises(UnfitItem, match="tokens") as caught:
        engine.generate(generation(max_tokens=50_000))
    assert (caught.value.outcome, caught.value.field) == (Outcome.TOO_LONG, "prompts[0]")
    engine.close()


def cache_of(model, rows: int, positions: int) -> int:
    return CACHE_COPIES * rows * positions * position_bytes(model.size)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_rows_that_do_not_fit_into_the_cache_wait_and_change_no_text(monkeypatch, rows):
    model = tiny_model()
    request = generation(seeds=((1, 2, 3), (4,), (5, 6)), temperature=1.0, max_tokens=20)
    wanted = generate(model, request, max_rows=64)
    together: list[tuple[int, int]] = []
    step = RunningBatch.step

    def stepped(self):
        ended = step(self)
        together.append((len(self.running), self.held_bytes))
        return ended

    monkeypatch.setattr(RunningBatch, "step", stepped)
    longest = max(len(model.text.prompt(prompt)) for prompt in PROMPTS) + 20
    limit = cache_of(model, rows, longest)
    assert generate(model, request, max_rows=64, cache_bytes=limit).samples == wanted.samples
    assert max(running for running, _ in together) <= max(rows, 1) + 1
    assert CACHE_COPIES * max(held for _, held in together) <= limit


def test_an_evaluation_in_a_small_cache_answers_as_in_a_large_one():
    model = tiny_model()
    requests = [evaluation(None), evaluation(trained(model, 1))]
    together = evaluate(model, requests, max_rows=64)
    waiting = evaluate(model, requests, max_rows=64, cache_bytes=cache_of(model, 2, 60))
    for one, other in zip(together, waiting, strict=True):
        assert one.answers == other.answers
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def adapter_of(size: ModelSize, rank: int) -> Adapter:
    pairs = {
        name: LoraPair(
            torch.zeros(rank, layer.in_features, device="meta"),
            torch.zeros(layer.out_features, rank, device="meta"),
        )
        for name, layer in size.targets.items()
    }
    return Adapter("big", rank, 1.0, pairs)


def test_a_stack_is_counted_by_its_requests_their_largest_rank_and_all_their_layers():
    size = size_of_config(QWEN2_7B, torch.bfloat16)
    budget = MemoryBudget(size, EngineSettings(dtype="bfloat16"), 80 << 30)
    seven = adapter_of(size, 32)
    gib = budget.stack_bytes([seven] * 48) / 2**30
    assert 7.0 < gib < 16.0  # 0.3 GB is what 16 slots of the default shape take
    assert budget.stack_fits([seven] * 48, held_bytes=0)
    assert not budget.stack_fits([seven] * 48, held_bytes=50 << 30)


def test_the_estimate_of_a_stack_covers_its_tensors():
    model = tiny_model()
    adapters = [trained(model, seed) for seed in (1, 2, 3)]
    budget = MemoryBudget(model.size, SETTINGS, 1 << 40)
    with LiveBytes(model.model.parameters()) as live:
        before = live.current
        factors = stack([None, *adapters], model.layers, dtype=model.dtype, device=model.device)
        measured = live.current - before
    assert factors
    assert 0 < measured <= budget.stack_bytes(adapters) <= 2.1 * measured


def test_an_evaluation_batch_takes_no_more_adapters_than_their_stack_fits(monkeypatch):
    model = tiny_model()
    adapters = [trained(model, seed) for seed in range(6)]
    engine = Engine(model, SETTINGS)
    wanted = [engine.evaluate(evaluation(one)).future.result(60).answers for one in adapters]
    seen: list[int] = []
    run = evaluations.evaluate
    monkeypatch.setattr(
        evaluations,
        "evaluate",
        lambda model, jobs, **rest: seen.append(len(jobs)) or run(model, jobs, **rest),
    )
    monkeypatch.setattr(
        engine._budget, "stack_fits", lambda adapters, held_bytes: len(adapters) <= 2
    )
    with engine._wake:
        tasks = [engine.evaluate(evaluation(one)) for one in adapters]
    assert [task.future.result(60).answers for task in tasks] == wanted
    assert max(seen) <= 2
    assert sum(seen) == len(adapters)
    engine.close()


def test_the_adapter_that_joins_an_evaluation_batch_is_the_one_whose_stack_was_looked_at():
    small, large, policy, other = (
        Adapter(tiny_model().base, rank, 1.0, {}) for rank in (1, 64, 1, 1)
    )
    queue: FairQueue[EngineTask] = FairQueue()
    for run, adapter, on in (
        ("a", small, policy), ("b", small, other), ("b", large, policy), ("c", small, policy),
    ):  # fmt: skip
        queue.put(EngineTask(run, replace(evaluation(adapter, on), run=run), None))
    budget = SimpleNamespace(stack_fits=lambda adapters, held_bytes: large not in adapters)
    work = evaluations.Evaluations(
        tiny_model(), SETTINGS, budget, alive=lambda: None, stopped=lambda: False
    )
    batch = work.take(queue, training=False, held_bytes=0)
    assert [task.run for task in batch] == ["a", "c"]
    assert [(task.run, task.request.adapter) for task in queue] == [("b", small), ("b", large)]


def test_an_adapter_that_cannot_be_evaluated_even_alone_is_refused_by_name():
    size = size_of_config(QWEN2_7B, torch.bfloat16)
    settings = EngineSettings(dtype="bfloat16", slots=0)
    budget = MemoryBudget(size, settings, size.base_bytes + (2 << 30))
    budget.check_stacked(adapter_of(size, 8), field="adapter")
    with pytest.raises(InvalidInput, match="rank 512") as caught:
        budget.check_stacked(adapter_of(size, 512), field="adapter")
    assert caught.value.field == "adapter"


@pytest.mark.parametrize(
    ("dtype", "slots", "gib"),
    [
        (torch.float32, 0, 2),
        (torch.bfloat16, 0, 2),
        (torch.float32, 16, 3),  # a pass over rows of 2,048 tokens takes 1.6 GB in float32
        (torch.bfloat16, 16, 2),
    ],
)
def test_a_small_pod_of_each_service_starts_with_the_default_settings(dtype, slots, gib):
    size = size_of_config(SMOLLM2, dtype)
    limit = int(0.9 * ((gib << 30) - LOADED_BYTES))
    budget = MemoryBudget(size, EngineSettings(slots=slots), limit)
    assert budget.at_start.total <= limit
    assert budget.slots == slots or budget.slots >= 2
    room = budget.cache_bytes(budget.at_start.slots, 256)
    assert room // (CACHE_COPIES * position_bytes(size) * 256) >= 32  # rows at once


def test_an_engine_without_slots_plans_no_training_and_refuses_one():
    engine = Engine(tiny_model(), SETTINGS.model_copy(update={"slots": 0}))
    assert (engine.memory.slots, engine.memory.training.total) == (0, 0)
    with pytest.raises(InvalidInput, match="trains nothing") as caught:
        engine.train(training_request())
    assert caught.value.field == "engine.slots"
    assert engine.evaluate(evaluation(golds=GOLDS)).future.result(60).answers
    engine.close()
