"""Rows of a running batch join, leave and are replaced.

None of it shows in any row's text or score (float32).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from engine_alone import evaluate, generate
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine_decoding import PROMPTS, evaluation, generation, trained
from tiny_model import byte_tokenizer, tiny_model, tiny_transformer

from seal.engine.decoding import RunningBatch
from seal.engine.linear import Factors
from seal.engine.peft_format import Adapter, LoraPair
from seal.engine.routes import AdapterGroups
from seal.engine.rows import Row
from seal.engine.sampling import DecodeSettings
from seal.engine.text import ModelText, cut_at_stop
from seal.outcomes import Outcome

LENGTHS = (3, 40, 11, 25, 4, 60, 18, 9, 33, 7)


def plain(model) -> AdapterGroups:
    return AdapterGroups(1, {}, model.policy_factors(None))


def mixed_rows(model) -> list[Row]:
    """Prompts of many lengths, greedy and sampled, with limits and seeds of their own."""
    text = "It was the best of times, it was the worst of times, it was the age of wisdom."
    return [
        Row(
            model.text.prompt(text[index : index + length]),
            0,
            DecodeSettings(
                temperature=(0.0, 0.7, 1.2)[index % 3],
                top_p=(1.0, 0.9)[index % 2],
                max_tokens=1 + 5 * (index % 4),
                stop=(),
            ),
            seed=index,
        )
        for index, length in enumerate(LENGTHS)
    ]


def write(model, rows: list[Row], max_rows: int) -> list[list[int]]:
    batch = RunningBatch(model, plain(model), max_rows=max_rows)
    batch.add(rows)
    while len(batch):
        batch.step()
        assert len(batch.running) <= max_rows
    return [row.tokens for row in rows]


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma3"])
def test_rows_of_any_length_and_setting_are_written_as_alone_however_few_places_there_are(
    architecture,
):
    model = tiny_model(architecture, **({} if architecture == "llama" else {"sliding_window": 8}))
    alone = [write(model, [row], 1)[0] for row in mixed_rows(model)]
    assert [len(tokens) for tokens in alone] == [
        1 + 5 * (index % 4) for index in range(len(LENGTHS))
    ]
    for max_rows in (1, 3, 4, 64):
        assert write(model, mixed_rows(model), max_rows) == alone


def test_a_sliding_window_holds_across_refilled_places():
    options = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    model, reference = tiny_model("gemma3", **options), tiny_transformer("gemma3", **options)
    samples = generate(model, generation(), max_rows=1).samples
    for prompt, (sample,) in zip(PROMPTS, samples, strict=True):
        tokens = torch.tensor([model.text.prompt(prompt)])
        wanted = reference.generate(tokens, do_sample=False, max_new_tokens=12)[
            0, tokens.shape[1] :
        ]
        assert sample.text == model.tokenizer.decode(wanted, skip_special_tokens=True)


def test_a_place_is_refilled_while_other_rows_go_on():
    model = tiny_model()
    limits = (30, 2, 2, 2)
    rows = [
        Row([5 + index], 0, DecodeSettings(0.0, 1.0, limit, ()))
        for index, limit in enumerate(limits)
    ]
    batch = RunningBatch(model, plain(model), max_rows=2)
    batch.add(rows)
    finished: list[Row] = []
    while len(batch) > 1:
        finished += batch.step()
    assert finished == rows[1:]
    assert batch.running == rows[:1]
    assert len(rows[0].tokens) < 10


def test_waiting_rows_of_several_runs_get_places_in_turn():
    model = tiny_model()
    batch = RunningBatch(model, plain(model), max_rows=2)
    one_token = DecodeSettings(0.0, 1.0, 1, ())
    rows = {run: [Row([7], 0, one_token) for _ in range(4)] for run in ("large", "small")}
    batch.add(rows["large"], run="large")
    batch.add(rows["small"], run="small")
    assert batch.step() == [rows["large"][0], rows["small"][0]]


def test_dropping_rows_leaves_the_others_texts_as_they_are():
    model = tiny_model()
    alone = write(model, mixed_rows(model), 1)
    rows = mixed_rows(model)
    gone = {rows[1], rows[3], rows[9]}
    batch = RunningBatch(model, plain(model), max_rows=5)
    batch.add(rows)
    for _ in range(3):
        batch.step()
    batch.drop(gone.__contains__)
    while len(batch):
        batch.step()
    assert all(
        row.tokens == tokens for row, tokens in zip(rows, alone, strict=True) if row not in gone
    )
    assert not rows[9].tokens


def test_seeds_give_the_same_samples_again_and_other_seeds_others():
    model = tiny_model()
    hot = generation(temperature=1.0, max_tokens=20, seeds=((1, 2), (1, 3), (4, 5)))
    first, again = (generate(model, hot, max_rows=4) for _ in range(2))
    assert first.samples == again.samples
    assert len({sample.text for samples in first.samples for sample in samples}) == 6


@pytest.mark.parametrize("max_rows", [2, 4])
def test_answers_and_scores_of_many_adapters_do_not_depend_on_the_number_of_places(max_rows):
    model = tiny_model()
    requests = [
        evaluation(adapter, max_tokens=4 + 3 * index)
        for index, adapter in enumerate((None, trained(model, 1), trained(model, 2)))
    ]
    together = evaluate(model, requests, max_rows=64)
    refilled = evaluate(model, requests, max_rows=max_rows)
    for one, other in zip(together, refilled, strict=True):
        assert one.answers == other.answers
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert one.max_logit_difference == pytest.approx(
            other.max_logit_difference, rel=1e-3, abs=1e-6
        )
        assert one.tokens == other.tokens


def test_a_cancelled_evaluation_is_dropped_and_its_mates_finish():
    model = tiny_model()
    requests = [evaluation(trained(model, seed), max_tokens=12) for seed in (1, 2)]
    (alone,) = evaluate(model, requests[1:], max_rows=64)
    dropped, kept = evaluate(model, requests, max_rows=64, cancelled=lambda index: index == 0)
    assert dropped.tokens < kept.tokens
    assert kept.answers == alone.answers


def test_an_evaluation_cancelled_while_only_its_witness_has_a_place_ends_without_an_answer():
    model = tiny_model()
    request = evaluation(trained(model, 1))
    (dropped,) = evaluate(model, [request], max_rows=1, cancelled=lambda _: True)
    assert (dropped.tokens, dropped.engine_seconds) == (0, 0.0)


def test_an_adapter_of_nan_spoils_no_row_that_takes_its_place():
    model = tiny_model()
    good = trained(model, 1)
    broken = Adapter(
        good.base,
        good.rank,
        good.alpha,
        {name: LoraPair(pair.a, pair.b * float("nan")) for name, pair in good.pairs.items()},
    )
    (alone,) = evaluate(model, [evaluation(good)], max_rows=64)
    for max_rows in (1, 2, 64):
        unfit, after = evaluate(
            model, [evaluation(broken, max_tokens=20), evaluation(good)], max_rows=max_rows
        )
        assert unfit.outcome is Outcome.DIVERGED
        assert after.answers == alone.answers
        assert after.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_a_stop_string_that_spans_tokens_ends_a_sample_with_its_last_token():
    model = tiny_model()
    free = generation(prompts=PROMPTS[:1], seeds=(tuple(range(8)),), temperature=1.0, max_tokens=60)
    (samples,) = generate(model, free, max_rows=8).samples
    sample = max(samples, key=lambda sample: sample.tokens)
    stop = next(
        sample.text[place : place + 2]
        for place in range(8, 50)
        if sample.text[place : place + 2].isascii()
    )
    ((cut,),) = generate(
        model, replace(free, seeds=((sample.seed,),), stop=("never", stop)), max_rows=1
    ).samples
    assert cut.text == cut_at_stop(sample.text, (stop,))[0]
    assert not cut.truncated
    assert len(cut.text) + 2 <= cut.tokens < sample.tokens


@settings(deadline=None)
@given(
    st.text(alphabet="ab€é日\n ", max_size=12),
    st.text(alphabet="ab€é日\n ", min_size=1, max_size=4),
)
def test_a_stop_string_is_seen_at_the_token_that_completes_it_even_between_characters_cut_in_bytes(
    text, stop
):
    tokenizer = byte_tokenizer()
    model_text = ModelText(tokenizer, name="tiny")
    tokens = tokenizer.encode(text + stop + "é", add_special_tokens=False)
    contains = [
        stop in tokenizer.decode(tokens[:count], skip_special_tokens=True)
        for count in range(1, len(tokens) + 1)
    ]
    first = contains.index(True)
    assert model_text.reached_stop(tokens[: first + 1], (stop, "zz"))
    assert not any(
        model_text.reached_stop(tokens[:count], (stop, "zz")) for count in range(1, first + 1)
    )


def test_a_character_cut_between_tokens_is_whole_in_the_text():
    model = tiny_model()
    row = Row([5], 0, DecodeSettings(0.0, 1.0, 6, ()))
    letters = model.text.prompt("né€")
    write_these(model, row, letters)
    assert row.text == "né€"


def write_these(model, row: Row, tokens: list[int]) -> None:
    """Run a row whose model is made to write the given tokens."""
    batch = RunningBatch(model, plain(model), max_rows=1)
    batch.add([row])
    head = model.model.get_output_embeddings()
    original = head.weight
    try:
        while len(batch):
            weight = torch.zeros_like(original)
            hidden = model.model.base_model.norm.register_forward_hook(
                lambda _m, _i, out: torch.ones_like(out)
            )
            weight[tokens[len(row.tokens)]] = 1.0
            # a step of a new row only chooses its first token
            head.weight = torch.nn.Parameter(weight, requires_grad=False)
            batch.step()
            hidden.remove()
    finally:
        head.weight = original


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 12)), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_every_token_goes_through_its_own_adapter_in_whatever_order_rows_lie(rows, random):
    generator = torch.Generator().manual_seed(random.randint(0, 2**30))
    a, b = torch.randn(5, 2, 6, generator=generator), torch.randn(5, 7, 2, generator=generator)
    b[0] = 0.0  # a group without an adapter
    policy = (torch.randn(3, 6, generator=generator), torch.randn(7, 3, generator=generator))
    groups = AdapterGroups(5, {"layer": Factors(a, b)}, {"layer": policy})
    x = torch.randn(1, sum(count for _, count in rows), 6, generator=generator)
    group_T = torch.tensor([group for group, count in rows for _ in range(count)])
    update = torch.einsum("tor,tri,ti->to", b[group_T], a[group_T], x[0])
    wanted = update + x[0] @ policy[0].t() @ policy[1].t()
    got = groups.route([group for group, _ in rows], [count for _, count in rows]).add(
        "layer", x, torch.zeros(1, x.shape[1], 7)
    )
    assert torch.allclose(got[0], wanted, atol=1e-4)
