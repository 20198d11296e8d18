"""The engine trains many adapters at once exactly as each alone, and as PEFT and torch would."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import ARCHITECTURES, tiny_model, tiny_transformer

from seal.engine.bank import SlotShape
from seal.engine.job import make_job
from seal.engine.kernels import PaddedKernels
from seal.engine.layout import make_chunks
from seal.engine.optimizer import SlotOptimizer, clip_divisor, gradient_norms, learning_rate
from seal.engine.order import StepOrder
from seal.engine.packed_attention import PackedAttention, pack_rows
from seal.engine.peft_format import Adapter
from seal.engine.requests import TrainingRequest, TrainingResult
from seal.engine.training import TrainingBatch
from seal.errors import InvalidInput
from seal.outcomes import Outcome
from seal.settings import ALL_PROJECTIONS, LoraSettings, OptimizerSettings

CPU = torch.device("cpu")

TOLERANCE = 1e-3
"""Largest difference of any factor's weights, relative to its largest weight. A tiny random model
has gradients as small as AdamW's epsilon (1e-8), and its first steps turn the last bits of those
into 1e-4 of a weight; a row in the wrong slot makes 1e-1 and more."""
TEXTS = (
    ("Question: who?\nAnswer:", " the cat"),
    ("", "The quick brown fox jumps over the lazy dog."),
    ("", "short"),
    ("Q: why\nA:", " because it rains"),
    ("", "A line of middling length here"),
)


def request(
    *,
    seed: int = 0,
    examples: tuple[tuple[str, str], ...] = TEXTS,
    lora: LoraSettings | None = None,
    policy: Adapter | None = None,
    with_policy: bool = False,
    **optimizer: object,
) -> TrainingRequest:
    return TrainingRequest(
        run="r",
        policy=policy,
        examples=examples,
        lora=lora or LoraSettings(rank=4, alpha=8, target_modules=ALL_PROJECTIONS),
        optimizer=OptimizerSettings(
            **({"learning_rate": 2e-3, "epochs": 2, "batch_size": 2} | optimizer)
        ),
        init_seed=seed,
        order_seed=seed + 100,
        with_policy=with_policy,
    )


def train(
    model, requests, *, slots: int = 1, max_pass_tokens: int = 2048, rank: int = 4
) -> list[TrainingResult]:
    batch = TrainingBatch(
        model,
        slots=slots,
        rank=rank,
        targets=ALL_PROJECTIONS,
        policy=requests[0].policy,
        max_pass_tokens=max_pass_tokens,
    )
    jobs = [make_job(model, item, max_row_tokens=512) for item in requests]
    waiting, results = list(jobs), {}
    while waiting or batch.jobs:
        while waiting and batch.free_slots:
            batch.admit(waiting.pop(0))
        for job, result in batch.step():
            results[id(job)] = result
    return [results[id(job)] for job in jobs]


def difference(left: Adapter | None, right: Adapter | None) -> float:
    """Largest difference of any factor, relative to that factor's largest value."""
    assert left is not None
    assert right is not None
    assert left.pairs.keys() == right.pairs.keys()
    worst = 0.0
    for name, pair in left.pairs.items():
        for mine, other in ((pair.a, right.pairs[name].a), (pair.b, right.pairs[name].b)):
            worst = max(
                worst, float((mine - other).abs().max() / other.abs().max().clamp_min(1e-12))
            )
    return worst


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batched_training_equals_training_alone_on_every_architecture(architecture):
    model = tiny_model(architecture)
    requests = [
        request(seed=1),
        request(seed=2, examples=TEXTS[:2]),
        request(seed=3, examples=TEXTS[1:] * 2, batch_size=1),
    ]
    together = train(model, requests, slots=3)
    for item, batched in zip(requests, together, strict=True):
        (alone,) = train(model, [item])
        assert difference(batched.adapter, alone.adapter) <= TOLERANCE
        assert batched.final_loss == pytest.approx(alone.final_loss, rel=1e-4)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_mix_of_rows_slots_passes_and_ranks_equals_training_alone(data):
    model = tiny_model()
    requests = [
        request(
            seed=seed,
            examples=tuple(data.draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4))),
            lora=data.draw(
                st.sampled_from(
                    [
                        LoraSettings(rank=4, alpha=8, target_modules=ALL_PROJECTIONS),
                        LoraSettings(rank=2, alpha=4, target_modules=("q_proj", "v_proj")),
                    ]
                )
            ),
            batch_size=data.draw(st.integers(1, 3)),
            epochs=data.draw(st.integers(1, 2)),
        )
        for seed in range(data.draw(st.integers(2, 5)))
    ]
    together = train(
        model,
        requests,
        slots=data.draw(st.integers(1, 4)),
        max_pass_tokens=data.draw(st.sampled_from([1, 40, 2048])),
    )
    for item, batched in zip(requests, together, strict=True):
        (alone,) = train(model, [item])
        assert difference(batched.adapter, alone.adapter) <= TOLERANCE


@pytest.mark.parametrize("pad_to_tokens", [0, 48], ids=["clean", "padded as the published system"])
def test_training_equals_peft_with_torch_adamw(pad_to_tokens):
    peft = pytest.importorskip("peft")
    model = tiny_model()
    item = request(seed=5, epochs=3, pad_to_tokens=pad_to_tokens)
    (result,) = train(model, [item])
    shape = SlotShape(4, model.layers)
    row = torch.zeros(shape.parameters)
    shape.initialise(row, rank=4, targets=ALL_PROJECTIONS, seed=5)
    initial = shape.read(
        row, base=model.base, rank=4, alpha=8.0, targets=ALL_PROJECTIONS, dtype=torch.float32
    )
    reference = peft.get_peft_model(
        tiny_transformer(), peft.LoraConfig(r=4, lora_alpha=8, target_modules=list(ALL_PROJECTIONS))
    )
    state = {
        f"base_model.model.{name}.lora_A.default.weight": pair.a
        for name, pair in initial.pairs.items()
    }
    state |= {
        f"base_model.model.{name}.lora_B.default.weight": pair.b
        for name, pair in initial.pairs.items()
    }
    assert not reference.load_state_dict(state, strict=False).unexpected_keys
    trained = [parameter for parameter in reference.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=0.0)
    job = make_job(model, item, max_row_tokens=512)
    for step in range(job.total_steps):
        job.step = step
        rows = job.next_rows()
        count = sum(row.targets for row in rows)
        loss = torch.zeros(())
        for row in rows:
            attended = torch.ones(1, len(row.tokens), dtype=torch.long)
            attended[:, len(row.tokens) - row.pads :] = 0
            logits = reference(
                input_ids=torch.tensor([row.tokens]), attention_mask=attended
            ).logits[0]
            start = len(row.tokens) - row.targets
            wanted = torch.tensor(row.tokens[start:])
            loss = (
                loss
                + torch.nn.functional.cross_entropy(logits[start - 1 : -1], wanted, reduction="sum")
                / count
            )
        optimizer.param_groups[0]["lr"] = learning_rate(item.optimizer, step, job.total_steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    assert result.adapter is not None
    final = reference.state_dict()
    for name, pair in result.adapter.pairs.items():
        torch.testing.assert_close(
            pair.a, final[f"base_model.model.{name}.lora_A.default.weight"], atol=2e-5, rtol=1e-3
        )
        torch.testing.assert_close(
            pair.b, final[f"base_model.model.{name}.lora_B.default.weight"], atol=2e-5, rtol=1e-3
        )


def test_a_diverging_slot_ends_alone_and_leaves_the_others_as_if_alone():
    model = tiny_model()
    poison = request(seed=1, learning_rate=1.0, max_grad_norm=0.0, epochs=40, batch_size=1)
    batch = TrainingBatch(
        model, slots=2, rank=4, targets=ALL_PROJECTIONS, policy=None, max_pass_tokens=2048
    )
    bad, good = (make_job(model, item, max_row_tokens=512) for item in (poison, request(seed=2)))
    bad_slot = batch.admit(bad)
    batch.admit(good)
    batch._values_N_P[bad_slot][0] = float("nan")  # what an overflow leaves behind
    ended = {}
    while batch.jobs:
        ended |= {id(job): result for job, result in batch.step()}
    assert ended[id(bad)].outcome is Outcome.DIVERGED
    assert ended[id(bad)].adapter is None
    (alone,) = train(model, [request(seed=2)])
    assert difference(ended[id(good)].adapter, alone.adapter) <= TOLERANCE


def test_a_gradient_of_infinite_norm_ends_its_own_training_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
):
    model = tiny_model()
    batch = TrainingBatch(
        model, slots=2, rank=4, targets=ALL_PROJECTIONS, policy=None, max_pass_tokens=2048
    )
    jobs = [
        make_job(model, request(seed=seed, max_grad_norm=1.0), max_row_tokens=512)
        for seed in (1, 2)
    ]
    for job in jobs:
        batch.admit(job)
    with monkeypatch.context() as patched:
        patched.setattr(
            "seal.engine.training.gradient_norms", lambda grads: torch.tensor([math.inf, 0.5])
        )
        ended = batch.step()
    assert [(job is jobs[0], result.outcome) for job, result in ended] == [(True, Outcome.DIVERGED)]
    assert (jobs[1].step, jobs[1].outcome) == (1, None)


def test_a_slot_that_is_used_again_keeps_nothing_of_its_former_adapter():
    model = tiny_model()
    first, second = request(seed=1, learning_rate=5e-2), request(seed=2)
    _, reused = train(model, [first, second], slots=1)
    (alone,) = train(model, [second])
    assert difference(reused.adapter, alone.adapter) == 0.0


def test_growing_a_running_batch_does_not_touch_its_adapters():
    model = tiny_model()
    batch = TrainingBatch(
        model, slots=1, rank=4, targets=ALL_PROJECTIONS, policy=None, max_pass_tokens=2048
    )
    first, second = (make_job(model, request(seed=seed), max_row_tokens=512) for seed in (1, 2))
    batch.admit(first)
    ended = {id(job): result for job, result in batch.step()}
    batch.grow(3)
    batch.admit(second)
    while batch.jobs:
        ended |= {id(job): result for job, result in batch.step()}
    for job, seed in ((first, 1), (second, 2)):
        (alone,) = train(model, [request(seed=seed)])
        assert difference(ended[id(job)].adapter, alone.adapter) <= TOLERANCE


def test_on_a_policy_the_exported_concatenation_gives_the_same_update_as_policy_plus_adapter():
    model = tiny_model()
    (policy,) = train(model, [request(seed=9, learning_rate=2e-2)])
    (upper,) = train(model, [request(seed=3, policy=policy.adapter)])
    (both,) = train(model, [request(seed=3, policy=policy.adapter, with_policy=True)])
    assert policy.adapter is not None
    assert upper.adapter is not None
    assert both.adapter is not None
    assert both.adapter.rank == policy.adapter.rank + upper.adapter.rank
    for name, pair in both.adapter.pairs.items():
        parts = [
            adapter.scale * adapter.pairs[name].b @ adapter.pairs[name].a
            for adapter in (policy.adapter, upper.adapter)
        ]
        torch.testing.assert_close(
            both.adapter.scale * pair.b @ pair.a, parts[0] + parts[1], atol=1e-6, rtol=1e-4
        )


def test_training_on_a_policy_learns_less_new_than_training_without_what_the_policy_knows():
    model = tiny_model()
    (policy,) = train(model, [request(seed=1, learning_rate=2e-2, epochs=30)])
    (on_top,) = train(model, [request(seed=2, policy=policy.adapter)])
    (anew,) = train(model, [request(seed=2)])
    assert on_top.final_loss < anew.final_loss - 0.1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"examples": ()}, "examples"),
        (
            {"lora": LoraSettings(rank=4, alpha=8, target_modules=("q_proj", "wq"))},
            "lora.target_modules",
        ),
        ({"examples": (("", "x" * 600),)}, "examples[0]"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_field_and_a_remedy(change, field):
    with pytest.raises(InvalidInput) as caught:
        make_job(tiny_model(), replace(request(), **change), max_row_tokens=512)
    assert caught.value.field == field
    assert caught.value.remedy


def test_a_policy_of_another_base_model_is_refused_by_both_names():
    model = tiny_model()
    (foreign,) = train(tiny_model("qwen2"), [request()])
    with pytest.raises(InvalidInput, match=r"tiny-qwen2.*tiny-llama"):
        make_job(model, request(policy=foreign.adapter), max_row_tokens=512)


def test_each_epoch_is_a_shuffle_of_all_rows_from_the_order_seed_alone():
    model = tiny_model()
    job = make_job(model, request(batch_size=2, epochs=3), max_row_tokens=512)
    epochs = []
    for epoch in range(3):
        rows = []
        for part in range(job.steps_per_epoch):
            job.step = epoch * job.steps_per_epoch + part
            rows += job.next_rows()
        assert sorted(row.tokens for row in rows) == sorted(row.tokens for row in job.rows)
        epochs.append([row.tokens for row in rows])
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]


def test_schedules_follow_transformers():
    from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

    for name, make in (
        ("linear", get_linear_schedule_with_warmup),
        ("cosine", get_cosine_schedule_with_warmup),
    ):
        ours = OptimizerSettings(learning_rate=0.1, schedule=name, warmup_ratio=0.2)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        schedule = make(optimizer, num_warmup_steps=math.ceil(0.2 * 13), num_training_steps=13)
        theirs = []
        for _ in range(13):
            theirs.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        warmup = math.ceil(0.2 * 13)
        for step in range(13):  # the warm-up is one step ahead of theirs
            expected = theirs[step + 1] if step < warmup else theirs[step]
            assert learning_rate(ours, step, 13) == pytest.approx(expected)


@given(
    total=st.integers(1, 60),
    ratio=st.floats(0, 1, exclude_max=True),
    schedule=st.sampled_from(["linear", "cosine", "constant"]),
)
def test_no_step_is_taken_at_rate_zero(total, ratio, schedule):
    chosen = OptimizerSettings(learning_rate=1e-3, schedule=schedule, warmup_ratio=ratio)
    rates = [learning_rate(chosen, step, total) for step in range(total)]
    assert all(0 < rate <= 1e-3 for rate in rates)


def test_a_training_of_one_step_with_a_warm_up_changes_the_adapter():
    (result,) = train(
        tiny_model(), [request(examples=TEXTS[:1], epochs=1, batch_size=1, warmup_ratio=0.03)]
    )
    assert result.steps == 1
    assert any(float(pair.b.abs().max()) > 0 for pair in result.adapter.pairs.values())


def test_clipping_and_update_equal_torch_and_every_gradient_row_is_contiguous():
    values, gradient = torch.randn(2, 50), 10 * torch.randn(2, 50)
    reference = values[1].clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([reference], lr=1e-2, weight_decay=0.1)
    slots = SlotOptimizer(2, 50, torch.device("cpu"))
    config = OptimizerSettings(learning_rate=1e-2, weight_decay=0.1)
    for _ in range(3):
        assert gradient[1].is_contiguous()
        divisor = torch.tensor(clip_divisor(config, float(gradient_norms([gradient[1]])[0])))
        slots.update(
            1, values[1], gradient[1].clone(), divisor=divisor, rate=1e-2, weight_decay=0.1
        )
        reference.grad = gradient[1].clone()
        torch.nn.utils.clip_grad_norm_([reference], 1.0)
        optimizer.step()
    torch.testing.assert_close(values[1], reference.detach(), atol=1e-6, rtol=1e-5)


def test_padded_rows_learn_every_padding_token_and_keep_what_is_longer():
    text = tiny_model().text
    clean, padded = (text.example("Q:", " a cat", pad_to_tokens=count) for count in (0, 20))
    assert len(padded.tokens) == 20
    assert padded.tokens[: len(clean.tokens)] == clean.tokens
    assert set(padded.tokens[20 - padded.pads :]) == {text.end_token}
    assert padded.targets == clean.targets + padded.pads - 1
    assert text.example("Q:", " a cat", pad_to_tokens=2) == clean


LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=12)


def plan_steps(lengths, **settings) -> tuple[tuple[int, ...], ...]:
    return tuple(StepOrder(lengths, **settings))


@given(
    lengths=LENGTHS,
    batch_size=st.integers(1, 5),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 2**40),
)
def test_every_epoch_takes_every_row_once_in_full_steps(lengths, batch_size, epochs, seed):
    steps = plan_steps(lengths, batch_size=batch_size, epochs=epochs, seed=seed)
    per_epoch = -(-len(lengths) // batch_size)
    assert len(steps) == epochs * per_epoch
    for epoch in range(epochs):
        part = steps[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(row for step in part for row in step) == list(range(len(lengths)))
        assert all(len(step) == batch_size for step in part[:-1])


def test_steps_are_the_same_in_whatever_order_they_are_asked_for():
    lengths = [5, 900, 5, 30, 7]
    settings = {"batch_size": 2, "epochs": 4, "seed": 11}
    wanted = plan_steps(lengths, **settings)
    order = StepOrder(lengths, **settings)
    for step in (11, 0, 7, 8, 3, 11):
        assert order[step] == wanted[step]


def test_every_order_of_an_epoch_is_equally_likely():
    counts = Counter(
        plan_steps([5, 900, 5, 30], batch_size=4, epochs=1, seed=seed)[0] for seed in range(4800)
    )
    assert len(counts) == 24
    assert (
        sum((count - 200) ** 2 / 200 for count in counts.values()) < 49.7
    )  # chi-square, 23 degrees of freedom, p = 0.001


def test_trainings_with_one_seed_meet_rows_of_like_length():
    lengths = list(range(100, 1100, 100))
    steps = [
        plan_steps([length + offset for length in lengths], batch_size=1, epochs=2, seed=3)
        for offset in (0, 7, 13)
    ]
    assert steps[0] == steps[1] == steps[2]
    assert steps[0] != plan_steps(lengths, batch_size=1, epochs=2, seed=4)


ROWS = st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=4), min_size=1, max_size=24)


@given(ROWS, st.integers(0, 128))
def test_chunks_hold_every_slot_once_and_cost_no_more_than_one_chunk_or_one_per_slot(
    rows, chunk_tokens
):
    tokens = sorted(map(sum, rows), reverse=True)
    chunks = make_chunks(tokens, chunk_tokens=chunk_tokens)
    assert [chunk.slot_start for chunk in chunks] == [
        0,
        *(chunk.slot_stop for chunk in chunks[:-1]),
    ]
    assert chunks[-1].slot_stop == len(rows)
    assert [chunk.token_start for chunk in chunks] == [
        0,
        *(chunk.token_stop for chunk in chunks[:-1]),
    ]
    assert all(
        count <= chunk.block
        for chunk in chunks
        for count in tokens[chunk.slot_start : chunk.slot_stop]
    )
    cost = chunks[-1].token_stop + chunk_tokens * len(chunks)
    assert cost <= min(tokens[0] * len(rows) + chunk_tokens, sum(tokens) + chunk_tokens * len(rows))


@given(ROWS)
def test_a_padded_pass_holds_every_row_once_and_attends_to_each_token_once(rows):
    rows = sorted(rows, key=sum, reverse=True)
    layout = PaddedKernels().lay_out(rows, torch.device("cpu"))
    starts = [start for row_starts in layout.row_starts_G for start in row_starts]
    lengths = [length for slot_rows in rows for length in slot_rows]
    expected = Counter(
        token
        for start, length in zip(starts, lengths, strict=True)
        for token in range(start, start + length)
    )
    assert max(expected) < layout.tokens
    attended = Counter()
    for bucket in layout.attention.buckets:
        attended.update(bucket.tokens_R_L[bucket.real_R_L].tolist())
        assert bool((bucket.real_R_L.sum(1) > 0).all())
    assert attended == expected
    assert set(expected.values()) == {1}


@pytest.mark.parametrize("window", [None, 3])
def test_packed_attention_is_attention_row_by_row_and_padding_neither_gives_nor_takes(window):
    """q, k, v of a few rows between tokens of no row.

    Compared with torch's own attention and its gradients.
    """
    generator = torch.Generator().manual_seed(0)
    starts, lengths, tokens = [0, 7, 40, 45], [7, 30, 5, 9], 60
    q, k, v = (
        torch.randn(tokens, heads, 8, generator=generator, dtype=torch.float64).requires_grad_()
        for heads in (4, 2, 2)
    )
    plan = pack_rows(starts, lengths, tokens=tokens, device=CPU)
    out = PackedAttention.apply(q, k, v, plan, 0.3, window)
    seed = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    real = [
        token
        for start, length in zip(starts, lengths, strict=True)
        for token in range(start, start + length)
    ]
    gradients = torch.autograd.grad(out, (q, k, v), seed)
    expected = torch.zeros_like(out)
    for start, length in zip(starts, lengths, strict=True):
        back = torch.arange(length)[:, None] - torch.arange(length)
        seen = (back >= 0) & (back < (window or length))
        row = (tensor[start : start + length].transpose(0, 1)[None] for tensor in (q, k, v))
        attended = torch.nn.functional.scaled_dot_product_attention(
            *row, attn_mask=seen, scale=0.3, enable_gqa=True
        )
        expected = expected.index_copy(
            0, torch.arange(start, start + length), attended[0].transpose(0, 1)
        )
    torch.testing.assert_close(out, expected)
    for mine, other in zip(gradients, torch.autograd.grad(expected, (q, k, v), seed), strict=True):
        torch.testing.assert_close(mine, other)
        assert float(mine.abs().sum()) == pytest.approx(float(mine[real].abs().sum()))


def test_rows_of_like_length_share_a_bucket_and_others_do_not():
    buckets = pack_rows([0, 100, 200, 300], [40, 42, 44, 500], tokens=800, device=CPU).buckets
    assert sorted((bucket.rows, bucket.length) for bucket in buckets) == [(1, 500), (3, 44)]
