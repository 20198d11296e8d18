"""What prompts have in common is computed once, and no row's text or score shows it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from live_bytes import LiveBytes
from test_engine_decoding import trained
from tiny_model import byte_tokenizer, tiny_model, tiny_transformer

from seal.engine.bank import stack
from seal.engine.budget import MemoryBudget
from seal.engine.cache import KeyValueCache
from seal.engine.decoding import RunningBatch
from seal.engine.memory import CACHE_COPIES, position_bytes
from seal.engine.model import FrozenModel
from seal.engine.routes import AdapterGroups
from seal.engine.rows import Row
from seal.engine.sampling import DecodeSettings
from seal.engine.sharing import LEVEL_TOKENS, Prompted, common_prefix, plan_starts, shared_by_all
from seal.settings import EngineSettings

ARCHITECTURES: dict[str, dict[str, Any]] = {"llama": {}, "mistral": {"sliding_window": 8}}
WORDS = tuple(
    tuple(range(10 + 40 * word, 10 + 40 * word + length))
    for word, length in enumerate((1, LEVEL_TOKENS + 1, 30))
)
"""Prompts are made of these, so that many begin alike."""

prompts = st.lists(
    st.lists(st.sampled_from(range(len(WORDS))), min_size=1, max_size=4), min_size=1, max_size=8
)
members = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=8, max_size=8)
"""Adapter and length of the gold completion of each row."""


def spelt(words: Sequence[int]) -> list[int]:
    return [token for word in words for token in WORDS[word]]


def made(words: Sequence[int], group: int, gold: int) -> Row:
    sampled = DecodeSettings(temperature=0.9, top_p=0.9, max_tokens=4, stop=())
    return Row(spelt(words), group, sampled, seed=7, gold=(9, 99)[:gold], keep_logprobs=True)


@cache
def two_adapters(architecture: str) -> tuple[FrozenModel, AdapterGroups]:
    model = tiny_model(architecture, **ARCHITECTURES[architecture])
    factors = stack(
        [trained(model, 1), trained(model, 2)],
        model.layers,
        dtype=model.dtype,
        device=model.device,
    )
    return model, AdapterGroups(2, factors, model.policy_factors(trained(model, 3)))


def decode(architecture: str, rows: list[Row], max_rows: int) -> None:
    batch = RunningBatch(*two_adapters(architecture), max_rows=max_rows)
    batch.add(rows)
    while len(batch):
        batch.step()


@cache
def alone(architecture: str, words: tuple[int, ...], group: int, gold: int) -> Row:
    row = made(words, group, gold)
    decode(architecture, [row], 1)
    return row


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(deadline=None, max_examples=25)
@given(prompts, members, st.sampled_from([2, 5, 64]))
@example([[1, 2], [1, 2], [1, 2], [1, 2, 0], [1], [1, 1]], [(0, 0)] * 8, 64)
@example([[2, 1, 0], [2, 1, 1], [2, 1], [2, 1, 2, 2]], [(1, 0)] * 8, 64)
@example([[2, 1, 0], [2, 1, 0], [2, 1], [2, 1], [2]], [(0, 2), (1, 0), (0, 1), (1, 1)] * 2, 64)
def test_rows_that_share_what_their_prompts_begin_with_are_written_and_scored_as_alone(
    architecture, prompts, members, max_rows
):
    asked = [(tuple(words), *own) for words, own in zip(prompts, members, strict=False)]
    rows = [made(*one) for one in asked]
    decode(architecture, rows, max_rows)
    for row, one in zip(rows, asked, strict=True):
        wanted = alone(architecture, *one)
        assert row.tokens == wanted.tokens
        assert row.written_logprobs == pytest.approx(wanted.written_logprobs, abs=1e-4)
        assert row.logprob == pytest.approx(wanted.logprob, abs=1e-4)


def test_rows_in_bfloat16_are_scored_as_alone_within_rounding():
    model = FrozenModel(tiny_transformer().bfloat16(), byte_tokenizer(), name="tiny")
    plain = AdapterGroups(1, {}, model.policy_factors(None))

    def scores(max_rows: int) -> list[float]:
        rows = [
            Row(spelt([2, 1, tail]), 0, DecodeSettings(0.0, 1.0, 0, ()), gold=(9, 99))
            for tail in (0, 1, 2, 2)
        ]
        batch = RunningBatch(model, plain, max_rows=max_rows)
        batch.add(rows)
        while len(batch):
            batch.step()
        return [row.logprob for row in rows]

    assert scores(4) == pytest.approx(scores(1), abs=0.05)


def parts_of_sentences(sentences: int, words: int) -> list[Row]:
    """Prompts of 60 tokens of examples, 30 of a sentence, 5 of a word."""
    return [
        Row(
            [*range(60), *[60 + sentence] * 30, *[100 + word] * 5],
            0,
            DecodeSettings(0.0, 1.0, 3, ()),
        )
        for sentence in range(sentences)
        for word in range(words)
    ]


def computed(monkeypatch, rows: list[Row], **limits: int) -> list[int]:
    """Tokens of every pass."""
    model = tiny_model()
    passes: list[int] = []
    forward = RunningBatch._forward

    def counted(self, spans, tokens, *rest, **options):
        passes.append(len(tokens))
        return forward(self, spans, tokens, *rest, **options)

    monkeypatch.setattr(RunningBatch, "_forward", counted)
    batch = RunningBatch(model, AdapterGroups(1, {}, model.policy_factors(None)), **limits)
    batch.add(rows)
    while len(batch):
        batch.step()
    return passes


def test_what_prompts_of_many_sentences_share_is_computed_once_in_three_passes(monkeypatch):
    passes = computed(monkeypatch, parts_of_sentences(4, 7), max_rows=64)
    decoding = [28, 28]  # the second and third token of every row
    assert passes[3:] == decoding
    assert sum(passes[:3]) == 60 + 4 * 30 + 28 * 5


def test_rows_that_join_later_compute_what_no_running_row_has(monkeypatch):
    rows = parts_of_sentences(2, 3)
    for row in (rows[0], rows[3]):
        row.settings = DecodeSettings(0.0, 1.0, 30, ())
    passes = computed(monkeypatch, rows, max_rows=3)
    assert sum(passes) == 60 + 2 * 30 + 6 * 5 + 2 * 29 + 4 * 2


def test_a_few_tokens_more_are_computed_rather_than_waited_for():
    shots = list(range(100))
    few, many = [200] * (LEVEL_TOKENS - 1), [200] * (LEVEL_TOKENS + 2)
    for middle, wanted in ((few, (100, 1)), (many, (100 + len(many), 2))):
        (_, *levels) = plan_starts(
            [],
            [
                Prompted(0, 0, [*shots, 1]),
                Prompted(1, 0, [*shots, *middle, 2]),
                Prompted(2, 0, [*shots, *middle, 3]),
            ],
        )
        assert [
            (start.shared, level)
            for level, starts in enumerate(levels, 1)
            for start in starts
            if start.row == 2
        ] == [wanted]


def test_new_rows_copy_prefixes_of_their_own_adapter_only_and_after_they_are_there():
    shots, first, second = list(range(100)), [1] * 30, [2] * 30
    running = [Prompted(0, 0, shots + first)]
    new = [
        Prompted(1, 0, shots + second),
        Prompted(2, 0, shots + second),
        Prompted(3, 1, shots + first),
        Prompted(4, 1, shots + second),
        Prompted(5, 1, shots + second),
    ]
    levels = [
        [(start.row, start.source, start.shared) for start in level]
        for level in plan_starts(running, new)
    ]
    assert levels == [[(0, 0, 100), (2, 3, 0)], [(1, 1, 129), (3, 3, 100)], [(4, 4, 129)]]


letters = st.lists(st.integers(0, 1), min_size=1, max_size=40)


@settings(deadline=None)
@given(st.lists(prompts.map(tuple), max_size=1), prompts, st.lists(st.integers(0, 1), min_size=16))
def test_a_row_starts_with_tokens_that_its_source_has_before_it_runs(running, new, groups):
    old = (
        [
            Prompted(place, group, spelt(words))
            for place, (words, group) in enumerate(zip(*running, groups, strict=False))
        ]
        if running
        else []
    )
    coming = [
        Prompted(len(old) + index, group, spelt(words))
        for index, (words, group) in enumerate(zip(new, groups[8:], strict=False))
    ]
    levels = plan_starts(old, coming)
    assert sorted(start.row for level in levels for start in level) == list(range(len(coming)))
    there = {row.place: row for row in old}
    for level in levels:
        assert level
        for start in level:
            row = coming[start.row]
            best = max(
                (common_prefix(row.prompt, one.prompt) for one in old if one.group == row.group),
                default=0,
            )
            assert min(best, len(row.prompt) - 1) <= start.shared < len(row.prompt)
            if start.shared:
                source = there[start.source]
                assert source.group == row.group
                assert source.prompt[: start.shared] == row.prompt[: start.shared]
        there |= {coming[start.row].place: coming[start.row] for start in level}


@given(st.lists(letters, min_size=2, max_size=6))
def test_what_all_rows_share_is_what_each_two_of_them_share(prompts):
    rows = [Prompted(place, 0, prompt) for place, prompt in enumerate(prompts)]
    pairs = [common_prefix(one, other) for one in prompts for other in prompts]
    assert shared_by_all(rows) == min(pairs)
    assert shared_by_all([*rows, Prompted(9, 1, prompts[0])]) == 0


@given(letters, letters)
def test_the_common_prefix_is_what_both_begin_with(one, other):
    shared = common_prefix(one, other)
    assert one[:shared] == other[:shared]
    assert shared == min(len(one), len(other)) or one[shared] != other[shared]


def test_sharing_stays_within_the_memory_that_the_budget_gives(monkeypatch):
    for module in ("budget", "sharing"):
        monkeypatch.setattr(f"seal.engine.{module}.PASS_TOKENS", 192)
    model, rows = tiny_model(), parts_of_sentences(12, 7)
    size, positions = model.size, rows[0].positions
    settings = EngineSettings(slots=0, dtype="float32", generation_rows=64, evaluation_rows=64)
    budget = MemoryBudget(size, settings, 1 << 30)
    wanted = CACHE_COPIES * 20 * positions * position_bytes(size)
    held = budget.cache_bytes(0, positions) - wanted
    with LiveBytes(model.model.parameters()) as live:
        batch = RunningBatch(
            model,
            AdapterGroups(1, {}, model.policy_factors(None)),
            max_rows=64,
            cache_bytes=budget.cache_bytes(held, positions),
        )
        batch.add(rows)
        while len(batch):
            batch.step()
            assert len(batch.running) <= 20
    given = budget.limit_bytes - size.base_bytes - held
    assert live.peak <= given


@pytest.mark.parametrize("way", [KeyValueCache.copy, KeyValueCache.copy_together])
def test_copied_places_are_the_same(way):
    held = new_cache()
    sources, targets, lengths = [0, 0, 1], [3, 4, 5], [7, 3, 10]
    way(held, sources, targets, lengths)
    for keys, values in zip(held.keys, held.values, strict=True):
        for source, target, length in zip(sources, targets, lengths, strict=True):
            assert torch.equal(keys[target, :, :, :length], keys[source, :, :, :length])
            assert torch.equal(values[target, :, :length], values[source, :, :length])


def test_places_are_copied_on_a_cpu_without_memory_beside_the_cache():
    with LiveBytes() as live:
        held = new_cache()
        live.peak = before = live.current
        held.copy([0, 0, 1], [3, 4, 5], [7, 3, 10])
    assert live.peak == before


def new_cache() -> KeyValueCache:
    held = KeyValueCache(
        places=6,
        capacity=10,
        layers=2,
        kv_heads=2,
        head_dim=4,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    for tensor in (*held.keys, *held.values):
        tensor.copy_(torch.randn(tensor.shape))
    return held
