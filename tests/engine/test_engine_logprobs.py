"""The log-probability of a sample is the model's own, whatever it was sampled with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from engine_alone import generate
from test_engine_decoding import generation, trained
from tiny_model import tiny_model, tiny_transformer

from seal.engine.generation import Generation, GenerationBatch
from seal.engine.peft_format import save_adapter
from seal.engine.requests import Sample

SEEDS = ((1, 2, 3), (4, 13, 6), (7, 8, 9))
HOT = {"seeds": SEEDS, "temperature": 0.8, "top_p": 0.95, "max_tokens": 40}
GREEDY = {"temperature": 0.0, "max_tokens": 12}


def written(model, request) -> list[tuple[list[int], list[int], Sample]]:
    """Prompt, sampled tokens with the ending one, and sample, one after another."""
    batch, mine = GenerationBatch(model, request.policy, max_rows=5), Generation(model, request)
    batch.add(mine)
    while len(batch):
        batch.step()
    (end,) = model.text.end_tokens
    return [
        (row.prompt, [*row.tokens, end] if row.ended else row.tokens, sample)
        for rows, samples in zip(mine.rows, mine.result().samples, strict=True)
        for row, sample in zip(rows, samples, strict=True)
    ]


def teacher_forced(reference, prompt: list[int], tokens: list[int]) -> float:
    """By one pass of transformers over prompt and tokens."""
    with torch.no_grad():
        logits = reference(input_ids=torch.tensor([prompt + tokens])).logits[0]
    before = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return float(before.gather(1, torch.tensor(tokens)[:, None]).mean())


@pytest.mark.parametrize("settings", [GREEDY, HOT], ids=["greedy", "sampled"])
def test_the_logprob_of_a_sample_is_that_of_its_tokens_teacher_forced_at_temperature_1(settings):
    rows = written(tiny_model(), generation(**settings))
    reference = tiny_transformer()
    for prompt, tokens, sample in rows:
        wanted = teacher_forced(reference, prompt, tokens)
        assert sample.logprob == pytest.approx(wanted, abs=1e-5)
        assert sample.logprob < 0


def test_the_token_that_ends_a_sample_counts_in_its_logprob():
    reference = tiny_transformer()
    ended = [row for row in written(tiny_model(), generation(**HOT)) if not row[2].truncated]
    assert ended
    for prompt, tokens, sample in ended:
        assert sample.tokens == len(tokens) - 1
        assert sample.logprob == pytest.approx(teacher_forced(reference, prompt, tokens), abs=1e-5)
        without = teacher_forced(reference, prompt, tokens[:-1])
        assert sample.logprob != pytest.approx(without, abs=1e-5)


@pytest.mark.parametrize("settings", [GREEDY, HOT], ids=["greedy", "sampled"])
def test_the_logprob_of_a_sample_does_not_depend_on_its_neighbours(settings):
    model = tiny_model()
    request = generation(**settings)
    together = generate(model, request, max_rows=64)
    alone = generate(model, request, max_rows=1)
    for one, other in zip(together.samples, alone.samples, strict=True):
        assert [sample.text for sample in one] == [sample.text for sample in other]
        assert [sample.logprob for sample in one] == pytest.approx(
            [sample.logprob for sample in other], abs=1e-5
        )


def test_the_logprob_is_that_of_the_policy_that_wrote_the_sample(tmp_path):
    peft = pytest.importorskip("peft")
    model = tiny_model()
    policy = trained(model, 1)
    save_adapter(policy, tmp_path)
    reference = peft.PeftModel.from_pretrained(tiny_transformer(), str(tmp_path))
    for prompt, tokens, sample in written(model, replace(generation(**HOT), policy=policy)):
        assert sample.logprob == pytest.approx(teacher_forced(reference, prompt, tokens), abs=1e-4)


def test_a_sample_without_tokens_has_a_logprob_of_zero():
    ((sample,), *_) = generate(tiny_model(), generation(max_tokens=0), max_rows=4).samples
    assert (sample.tokens, sample.logprob) == (0, 0.0)
