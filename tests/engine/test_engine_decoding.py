"""Generation, answers and scores equal transformers' and PEFT's, whatever else is in the batch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest
import torch
from engine_alone import evaluate, generate
from test_engine_training import request as training_request
from test_engine_training import train
from tiny_model import ARCHITECTURES, tiny_model, tiny_transformer
from torch.overrides import TorchFunctionMode

from seal.bases import BaseReference
from seal.engine.peft_format import Adapter, LoraPair, concatenate, load_adapter, save_adapter
from seal.engine.requests import EvaluationRequest, GenerationRequest
from seal.engine.sampling import DRAWN_AT_ONCE, Draw, Uniforms, choose_tokens
from seal.engine.text import cut_at_stop
from seal.errors import InvalidInput, NotFound

PROMPTS = (
    "Question: what is it?\nAnswer:",
    "Question: who?\nAnswer:",
    "Once upon a time there was",
)
GOLDS = (" a loom", " the king of the hill", " x")


def generation(**changes: object) -> GenerationRequest:
    base = {
        "prompts": PROMPTS,
        "seeds": ((1,), (2,), (3,)),
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 12,
    }
    return GenerationRequest(run="r", policy=None, **(base | changes))


def evaluated(model, requests, max_rows: int = 64):
    return evaluate(model, requests, max_rows=max_rows)


def evaluation(
    adapter: Adapter | None = None, policy: Adapter | None = None, **changes: object
) -> EvaluationRequest:
    base = {"prompts": PROMPTS, "golds": GOLDS, "max_tokens": 8}
    return EvaluationRequest(run="r", policy=policy, adapter=adapter, **(base | changes))


def trained(model, seed: int, policy: Adapter | None = None) -> Adapter:
    (result,) = train(
        model, [training_request(seed=seed, learning_rate=3e-2, epochs=4, policy=policy)]
    )
    assert result.adapter is not None
    return result.adapter


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_decoding_equals_transformers_generate(architecture):
    model, reference = tiny_model(architecture), tiny_transformer(architecture)
    samples = generate(model, generation(), max_rows=8).samples
    for prompt, (sample,) in zip(PROMPTS, samples, strict=True):
        tokens = torch.tensor([model.text.prompt(prompt)])
        wanted = reference.generate(tokens, do_sample=False, max_new_tokens=12)[
            0, tokens.shape[1] :
        ]
        assert sample.text == model.tokenizer.decode(wanted, skip_special_tokens=True)


def test_a_sliding_window_shorter_than_the_prompt_is_kept_in_the_cache_too():
    model, reference = (
        tiny_model("mistral", sliding_window=8),
        tiny_transformer("mistral", sliding_window=8),
    )
    ((sample,), *_) = generate(model, generation(), max_rows=8).samples
    tokens = torch.tensor([model.text.prompt(PROMPTS[0])])
    wanted = reference.generate(tokens, do_sample=False, max_new_tokens=12)[0, tokens.shape[1] :]
    assert sample.text == model.tokenizer.decode(wanted, skip_special_tokens=True)


def test_a_sample_depends_on_its_seed_alone_not_on_its_neighbours():
    model = tiny_model()
    hot = {"temperature": 0.9, "top_p": 0.9, "max_tokens": 16}
    together = generate(model, generation(seeds=((1, 2, 3), (4,), (5, 6)), **hot), max_rows=64)
    in_parts = generate(model, generation(seeds=((1, 2, 3), (4,), (5, 6)), **hot), max_rows=2)
    alone = generate(model, generation(prompts=PROMPTS[:1], seeds=((2,),), **hot), max_rows=1)
    assert [[s.text for s in group] for group in together.samples] == [
        [s.text for s in group] for group in in_parts.samples
    ]
    assert together.samples[0][1].text == alone.samples[0][0].text
    assert len({sample.text for sample in together.samples[0]}) == 3


def test_random_numbers_drawn_while_writing_are_those_of_one_draw_ahead():
    count = 3 * DRAWN_AT_ONCE + 5
    ahead = torch.rand(
        count, generator=torch.Generator().manual_seed(2**63 + 7 - 2**63), dtype=torch.float64
    )
    uniforms = Uniforms(2**63 + 7)
    assert [uniforms.next() for _ in range(count)] == ahead.tolist()


def test_nucleus_sampling_draws_each_token_with_its_renormalised_probability():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    draws = 4000
    rows = [
        Draw(temperature=1.0, top_p=0.8, uniform=(index + 0.5) / draws) for index in range(draws)
    ]
    counts = Counter(choose_tokens(probabilities.log().expand(draws, 4), rows))
    assert set(counts) == {0, 1}
    assert counts[0] / draws == pytest.approx(0.5 / 0.8, abs=1e-3)


class Readings(TorchFunctionMode):
    """Counts what would let the host wait for a device."""

    READ = (
        torch.Tensor.tolist,
        torch.Tensor.item,
        torch.Tensor.__bool__,
        torch.Tensor.__float__,
        torch.Tensor.__int__,
        torch.Tensor.__index__,
        torch.Tensor.nonzero,
        torch.Tensor.cpu,
    )

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func in self.READ
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("draw", "vocabulary", "waits"),
    [
        (Draw(0.0, 1.0, 0.0), 1000, 1),
        (Draw(1.0, 0.95, 0.5), 200, 1),
        (Draw(1.0, 0.95, 0.5), 1000, 2),
    ],
)
def test_the_tokens_of_all_rows_are_read_at_once(draw, vocabulary, waits):
    logits = torch.randn(8, vocabulary, generator=torch.Generator().manual_seed(0))
    with Readings() as readings:
        tokens = choose_tokens(logits, [draw] * 8)
    assert len(tokens) == 8
    assert readings.count == waits


def test_a_nucleus_larger_than_the_first_look_is_sorted_whole():
    logits = torch.zeros(1, 1000)
    drawn = {
        choose_tokens(logits, [Draw(1.0, 0.95, uniform)])[0]
        for uniform in torch.linspace(0, 0.999, 400).tolist()
    }
    assert len(drawn) > 300


def test_many_adapters_in_one_batch_answer_and_score_as_each_alone_and_as_peft(tmp_path):
    peft = pytest.importorskip("peft")
    model = tiny_model()
    adapters = [None, trained(model, 1), trained(model, 2)]
    together = evaluated(model, [evaluation(adapter) for adapter in adapters])
    for adapter, result in zip(adapters, together, strict=True):
        (alone,) = evaluated(model, [evaluation(adapter)])
        assert result.answers == alone.answers
        assert result.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        if adapter is None:
            assert result.max_logit_difference == 0.0
            continue
        assert result.max_logit_difference == pytest.approx(alone.max_logit_difference, rel=1e-3)
        save_adapter(adapter, tmp_path / str(id(adapter)))
        reference = peft.PeftModel.from_pretrained(
            tiny_transformer(), str(tmp_path / str(id(adapter)))
        )
        for prompt, gold, logprob in zip(PROMPTS, GOLDS, result.logprobs, strict=True):
            before, wanted = (
                model.text.prompt(prompt),
                model.tokenizer.encode(gold, add_special_tokens=False),
            )
            logits = reference(input_ids=torch.tensor([before + wanted])).logits[0].log_softmax(-1)
            scores = [
                float(logits[len(before) - 1 + place, token]) for place, token in enumerate(wanted)
            ]
            assert logprob == pytest.approx(sum(scores) / len(scores), abs=1e-4)


def test_an_adapter_on_a_policy_equals_their_concatenation_on_the_base():
    model = tiny_model()
    policy = trained(model, 4)
    upper = trained(model, 5, policy=policy)
    (stacked,) = evaluated(model, [evaluation(upper, policy)])
    (merged,) = evaluated(model, [evaluation(concatenate(policy, upper))])
    assert stacked.answers == merged.answers
    assert stacked.logprobs == pytest.approx(merged.logprobs, abs=1e-4)


@pytest.mark.parametrize("below", [torch.float16, torch.bfloat16])
def test_an_adapter_keeps_its_precision_beside_a_policy_of_another_type(below):
    def pair(scale: float, dtype: torch.dtype) -> LoraPair:
        draw = torch.Generator().manual_seed(1)
        a, b = torch.randn(2, 8, generator=draw), torch.randn(8, 2, generator=draw) * scale
        return LoraPair(a.to(dtype), b.to(dtype))

    base = BaseReference("tiny")
    above = torch.bfloat16 if below == torch.float16 else torch.float32
    policy = Adapter(base, 2, 2.0, {"q": pair(1.0, below), "k": pair(1.0, below)})
    upper = Adapter(base, 2, 2.0, {"q": pair(1e-9, above), "v": pair(1.0, above)})
    both = concatenate(policy, upper)
    for adapter, part in ((policy, slice(0, 2)), (upper, slice(2, 4))):
        for name, own in adapter.pairs.items():
            assert torch.equal(both.pairs[name].a[part].double(), own.a.double())
            assert torch.equal(both.pairs[name].b[:, part].double(), own.b.double())


def with_factors(adapter: Adapter, change: Callable[[LoraPair], LoraPair]) -> Adapter:
    return replace(adapter, pairs={name: change(pair) for name, pair in adapter.pairs.items()})


@pytest.mark.parametrize("silence", ["b", "a", "scale"])
def test_an_adapter_that_changes_nothing_shows_a_logit_difference_of_zero_however_passes_round(
    monkeypatch, silence
):
    model = tiny_model()
    adapter = trained(model, 1)
    silent = {
        "scale": replace(adapter, alpha=0.0),
        "a": with_factors(adapter, lambda pair: LoraPair(0 * pair.a, pair.b)),
        "b": with_factors(adapter, lambda pair: LoraPair(pair.a, 0 * pair.b)),
    }[silence]
    monkeypatch.setattr("seal.engine.sharing.PASS_TOKENS", 1)
    passes = count(1)
    hidden = model.hidden
    monkeypatch.setattr(
        model, "hidden", lambda *items, **more: hidden(*items, **more) * (1 + 1e-6 * next(passes))
    )
    nothing, something = evaluated(model, [evaluation(silent), evaluation(adapter)])
    assert nothing.max_logit_difference == 0.0
    assert something.max_logit_difference > 1e-3


def test_an_exported_adapter_comes_back_bit_for_bit(tmp_path):
    adapter = trained(tiny_model(), 1)
    save_adapter(adapter, tmp_path)
    again = load_adapter(tmp_path)
    assert (again.base, again.rank, again.alpha) == (
        adapter.base,
        adapter.rank,
        adapter.alpha,
    )
    assert again.pairs.keys() == adapter.pairs.keys()
    assert all(
        torch.equal(again.pairs[name].b, pair.b) and torch.equal(again.pairs[name].a, pair.a)
        for name, pair in adapter.pairs.items()
    )


def test_an_adapter_directory_without_weights_or_with_garbage_is_refused_by_name(tmp_path):
    save_adapter(trained(tiny_model(), 1), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"garbage")
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(NotFound, match=r"adapter_model\.safetensors"):
        load_adapter(tmp_path)


def test_a_text_ends_before_its_first_stop_string():
    assert cut_at_stop("one\ntwo Title: x", ("Title:", "\n")) == ("one", True)
    assert cut_at_stop("one", ("\n",)) == ("one", False)


def test_log_probabilities_are_at_most_zero_and_finite():
    (result,) = evaluated(tiny_model(), [evaluation()])
    assert all(math.isfinite(value) and value <= 0 for value in result.logprobs)
