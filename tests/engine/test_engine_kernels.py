"""The packed path trains what the padded path trains.

Its kernels get only what they take on CUDA. `grouped_mm` runs here on the CPU as it is.
`varlen_attn` has no CPU form: a loop over rows stands in for it and checks its arguments.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_engine_training import TEXTS, TOLERANCE, difference, request, train
from tiny_model import ARCHITECTURES, byte_tokenizer, tiny_model, tiny_transformer
from torch.nn import functional as F

import seal.engine.attention
from seal.engine.kernels import PackedKernels, PaddedKernels, choose_kernels
from seal.engine.linear import Route
from seal.engine.model import FrozenModel
from seal.settings import ALL_PROJECTIONS, LoraSettings

ROWS = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4), min_size=1, max_size=6)
CPU = torch.device("cpu")


def aligned(tensor: torch.Tensor) -> bool:
    """What grouped_mm asks of an operand on CUDA.

    It, its rows and its matrices begin at multiples of 16 bytes, one dimension is dense.
    """
    size = tensor.element_size()
    dense, steps = (-1, -2) if tensor.stride(-1) == 1 else (-2, -1)
    matrix_bytes = tensor.stride(0) * size if tensor.dim() == 3 else 0
    return tensor.stride(dense) == 1 and all(
        n % 16 == 0 for n in (tensor.data_ptr(), tensor.stride(steps) * size, matrix_bytes)
    )


def rows_one_by_one(q, k, v, cu_q, cu_k, max_q, max_k, *, scale, window_size, **told):
    """varlen_attn, row by row with SDPA, from its documentation."""
    assert cu_q.dtype == cu_k.dtype == torch.int32
    borders = cu_q.tolist()
    assert borders == cu_k.tolist()
    assert (borders[0], borders[-1]) == (0, len(q))
    assert max_q == max_k == max(stop - start for start, stop in itertools.pairwise(borders))
    grouped = q.shape[1] != k.shape[1]
    assert told == ({"enable_gqa": grouped} if seal.engine.attention._ASKS_FOR_GROUPS else {})
    assert q.stride(2) == k.stride(2) == v.stride(2) == 1
    left, right = window_size
    assert right == 0
    out = []
    for start, stop in itertools.pairwise(borders):
        back = torch.arange(stop - start)[:, None] - torch.arange(stop - start)
        seen = (back >= 0) & ((back <= left) if left >= 0 else True)
        row = (tensor[start:stop].transpose(0, 1)[None] for tensor in (q, k, v))
        out.append(
            F.scaled_dot_product_attention(*row, attn_mask=seen, scale=scale, enable_gqa=True)[
                0
            ].transpose(0, 1)
        )
    return torch.cat(out)


@pytest.fixture
def packed_on_cpu(monkeypatch):
    monkeypatch.setattr(seal.engine.attention, "varlen_attn", rows_one_by_one)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_training_equals_padded_training_on_every_architecture(architecture, packed_on_cpu):
    overrides = {"sliding_window": 16} if architecture in ("gemma3", "mistral") else {}
    padded, packed = tiny_model(architecture, **overrides), tiny_model(architecture, **overrides)
    packed.kernels = PackedKernels()
    small = LoraSettings(rank=3, alpha=6, target_modules=("q_proj", "v_proj"))
    requests = [
        request(seed=1),
        request(seed=2, examples=TEXTS[:2], lora=small),
        request(seed=3, examples=TEXTS[1:] * 2, batch_size=3),
    ]
    for max_pass_tokens in (2048, 60):
        expected = train(padded, requests, slots=3, max_pass_tokens=max_pass_tokens)
        results = train(packed, requests, slots=3, max_pass_tokens=max_pass_tokens)
        for result, other in zip(results, expected, strict=True):
            assert difference(result.adapter, other.adapter) <= TOLERANCE
            assert result.final_loss == pytest.approx(other.final_loss, rel=1e-4)


def test_an_attention_that_cannot_be_told_of_groups_is_not_told(packed_on_cpu, monkeypatch):
    monkeypatch.setattr(seal.engine.attention, "_ASKS_FOR_GROUPS", False)  # as with torch 2.11
    model = tiny_model("llama")
    expected = train(model, [request(seed=1)], slots=1)
    model.kernels = PackedKernels()
    results = train(model, [request(seed=1)], slots=1)
    assert difference(results[0].adapter, expected[0].adapter) <= TOLERANCE


def test_packed_training_gives_grouped_mm_only_aligned_bfloat16(packed_on_cpu, monkeypatch):
    calls = []
    real = F.grouped_mm

    def checked(left, right, *, offs):
        assert left.dtype == right.dtype == torch.bfloat16
        assert offs.dtype == torch.int32
        assert aligned(left), (left.shape, left.stride())
        assert aligned(right), (right.shape, right.stride())
        grouped = left.shape[1] if right.dim() == 2 else left.shape[0]
        assert offs.tolist() == sorted(offs.tolist())
        assert offs[-1] == grouped
        out = real(left, right, offs=offs)
        calls.append(right.dim())
        return out

    monkeypatch.setattr(F, "grouped_mm", checked)
    model = FrozenModel(tiny_transformer().to(torch.bfloat16), byte_tokenizer(), name="tiny-llama")
    model.kernels = PackedKernels()
    lora = LoraSettings(rank=3, alpha=6, target_modules=ALL_PROJECTIONS)
    results = train(
        model,
        [request(seed=1, lora=lora), request(seed=2, lora=lora, examples=TEXTS[1:4])],
        slots=2,
        rank=3,
    )
    assert calls.count(3) == 2 * calls.count(2) > 0  # forward 2, backward 2, gradients of A and B
    assert all(result.adapter.rank == 3 for result in results)


@given(ROWS)
def test_packed_rows_follow_one_another_slot_by_slot(rows):
    layout = PackedKernels().lay_out(rows, CPU)
    assert layout.tokens == sum(map(sum, rows))
    stops = layout.products.stops_G.tolist() if len(rows) > 1 else [layout.tokens]
    expected, starts = 0, []
    for lengths, slot_starts, stop in zip(rows, layout.row_starts_G, stops, strict=True):
        for length, start in zip(lengths, slot_starts, strict=True):
            assert start == expected
            starts.append(start)
            expected += length
        assert stop == expected
    assert layout.attention.borders.tolist() == [*starts, layout.tokens]
    assert layout.attention.longest == max(map(max, rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_and_padded_products_agree_slot_by_slot(dtype):
    rows, generator = [[7, 3], [6], [1]], torch.Generator().manual_seed(0)
    weights = torch.randn(3, 16, 8, generator=generator).to(dtype)
    tokens = [torch.randn(sum(lengths), 16, generator=generator).to(dtype) for lengths in rows]
    for kernels in (PackedKernels(), PaddedKernels()):
        layout = kernels.lay_out(rows, CPU)
        x = torch.zeros(layout.tokens, 16, dtype=dtype)
        places = [
            [
                start + offset
                for start, length in zip(starts, lengths, strict=True)
                for offset in range(length)
            ]
            for starts, lengths in zip(layout.row_starts_G, rows, strict=True)
        ]
        for place, slot_tokens in zip(places, tokens, strict=True):
            x[place] = slot_tokens
        y = layout.products.multiply(x, weights)
        layout.products.add(y, x, weights)
        written = torch.full((3, 16, 8), float("nan"))
        layout.products.reduce(x, y, written)
        for slot, (place, slot_tokens) in enumerate(zip(places, tokens, strict=True)):
            twice = slot_tokens.float() @ weights[slot].float() * 2
            near = (
                {"rtol": 2e-2, "atol": 1e-1}
                if dtype == torch.bfloat16
                else {"rtol": 1e-5, "atol": 1e-4}
            )
            torch.testing.assert_close(y[place].float(), twice, **near)
            gradient = slot_tokens.float().t() @ y[place].float()
            near = {"rtol": 2e-2, "atol": 5e-1} if dtype == torch.bfloat16 else near
            torch.testing.assert_close(written[slot], gradient, **near)


def test_packed_kernels_are_chosen_for_aligned_bfloat16_on_cuda_only(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert isinstance(
        choose_kernels(cuda, torch.bfloat16, head_dim=64, layers=[(64, 192)]), PackedKernels
    )
    assert isinstance(
        choose_kernels(CPU, torch.bfloat16, head_dim=64, layers=[(64, 64)]), PaddedKernels
    )
    assert isinstance(
        choose_kernels(cuda, torch.float32, head_dim=64, layers=[(64, 64)]), PaddedKernels
    )
    assert isinstance(
        choose_kernels(cuda, torch.bfloat16, head_dim=64, layers=[(64, 100)]), PaddedKernels
    )
    assert isinstance(
        choose_kernels(cuda, torch.bfloat16, head_dim=320, layers=[(64, 64)]), PaddedKernels
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert isinstance(
        choose_kernels(cuda, torch.bfloat16, head_dim=64, layers=[(64, 64)]), PaddedKernels
    )


@pytest.mark.parametrize(("dtype", "chunks"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_slower_arithmetic_buys_less_padding_with_more_chunks(dtype, chunks):
    layers = [
        (576, 576),
        (576, 192),
        (576, 192),
        (576, 576),
        (576, 1536),
        (576, 1536),
        (1536, 576),
    ] * 30
    kernels = choose_kernels(CPU, dtype, head_dim=64, layers=layers)
    layout = kernels.lay_out([[60], [56], [40], [37]], CPU, adapted_layers=60)
    assert len(layout.products.chunks) == chunks
    assert len(kernels.lay_out([[60], [56], [40], [37]], CPU).products.chunks) == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_hidden_states_and_gradients_on_cuda_agree_with_the_padded_path():
    model = FrozenModel(
        tiny_transformer(hidden_size=64, head_dim=16).to("cuda", torch.bfloat16),
        byte_tokenizer(),
        name="tiny-llama",
    )
    assert isinstance(model.kernels, PackedKernels)
    rows = [[12, 5], [9]]
    ids = [[torch.randint(0, 259, (length,)) for length in lengths] for lengths in rows]
    weights = torch.randn(26, 64, device="cuda")  # a sum of squares is constant after the last norm
    outcomes = []
    for kernels in (PackedKernels(), PaddedKernels()):
        layout = kernels.lay_out(rows, model.device)
        tokens, positions = torch.zeros(2, layout.tokens, dtype=torch.long)
        real = []
        for slot_ids, starts in zip(ids, layout.row_starts_G, strict=True):
            for row, start in zip(slot_ids, starts, strict=True):
                tokens[start : start + len(row)], positions[start : start + len(row)] = (
                    row,
                    torch.arange(len(row)),
                )
                real += range(start, start + len(row))
        embeddings = model.embed(tokens.cuda()).requires_grad_(True)
        route = Route(layout.products, {}, {})
        hidden = model.hidden(embeddings, positions.cuda(), route=route, plan=layout.attention)[
            real
        ]
        (hidden.float() * weights).sum().backward()
        outcomes.append((hidden.detach().float(), embeddings.grad[0, real].float()))
    for mine, other in zip(*outcomes, strict=True):
        assert float((mine - other).norm() / other.norm()) <= 3e-2
