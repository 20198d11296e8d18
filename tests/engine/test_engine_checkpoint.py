"""A training suspended at any step and resumed elsewhere ends bit for bit as if it never was.

A damaged or foreign checkpoint is never used.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path

import pytest
import safetensors.torch
import structlog
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine_training import TEXTS, request, train
from tiny_model import byte_tokenizer, tiny_model, tiny_transformer

from seal.engine import (
    Checkpoints,
    Engine,
    SlotCheckpoint,
    Suspended,
    TrainingProgress,
    TrainingRequest,
    TrainingResult,
    checkpointing,
    save_adapter,
)
from seal.engine.checkpoint import fingerprint_of
from seal.engine.checkpointing import JobCheckpoints, job_checkpoints
from seal.engine.job import TrainingJob, make_job
from seal.engine.model import FrozenModel
from seal.engine.peft_format import LoraPair
from seal.engine.training import TrainingBatch
from seal.errors import InvalidInput
from seal.outcomes import Outcome
from seal.settings import ALL_PROJECTIONS, EngineSettings, LoraSettings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
M_STEP_LORA = LoraSettings(rank=64, alpha=128, target_modules=ALL_PROJECTIONS)
OFTEN, NEVER = 1e-9, 1e9
"""Seconds between checkpoints: after every step, and only on suspension."""


def m_step(**changes: object) -> TrainingRequest:
    """The M-step in small.

    R = 64 on all seven projections, 12 rows in batches of 5, three epochs, 9 steps of several
    passes each.
    """
    rows = tuple((prompt, f"{text} {n}") for n in range(3) for prompt, text in TEXTS[:4])
    return request(
        **(
            {
                "seed": 4,
                "examples": rows,
                "lora": M_STEP_LORA,
                "batch_size": 5,
                "epochs": 3,
                "warmup_ratio": 0.2,
            }
            | changes
        )
    )


def make_engine(dtype: str = "float32", *, slots: int = 2) -> Engine:
    """An engine as a fresh process would load it."""
    model = FrozenModel(tiny_transformer().to(DTYPES[dtype]), byte_tokenizer(), name="tiny-llama")
    return Engine(
        model, EngineSettings(slots=slots, dtype=dtype, max_rank=64, max_pass_tokens=100, threads=1)
    )


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = make_engine()
    yield engine
    engine.close()


def adapter_digest(result: TrainingResult, directory: Path) -> str:
    """sha256 of the exported weights."""
    assert result.adapter is not None
    save_adapter(result.adapter, directory)
    return hashlib.sha256((directory / "adapter_model.safetensors").read_bytes()).hexdigest()


def suspended_at(
    engine: Engine, step: int, item: TrainingRequest, resume: SlotCheckpoint | None = None
) -> SlotCheckpoint:
    """Train up to a step, suspend there, and give what is left as another process reads it."""
    taken: list[SlotCheckpoint] = []
    checkpoints = Checkpoints(every_seconds=NEVER, on_checkpoint=taken.append, resume=resume)

    def stop(progress: TrainingProgress) -> None:
        if progress.step == step:
            checkpoints.suspend()

    with pytest.raises(Suspended, match=f"after step {step}"):
        engine.train(item, stop, checkpoints).future.result(60)
    (last,) = taken
    assert last.step == step
    return SlotCheckpoint.from_bytes(last.to_bytes())


@pytest.mark.parametrize("dtype", DTYPES)
def test_interrupted_at_any_step_and_resumed_in_another_engine_it_ends_with_the_same_bits(
    dtype: str, tmp_path: Path
) -> None:
    first, second = make_engine(dtype), make_engine(dtype)
    try:
        calm = first.train(m_step()).future.result(60)
        assert calm.steps == 9
        for step in range(1, calm.steps):
            news: list[TrainingProgress] = []
            saved = suspended_at(first, step, m_step())
            checkpoints = Checkpoints(
                every_seconds=NEVER, on_checkpoint=lambda _: None, resume=saved
            )
            resumed = second.train(m_step(), news.append, checkpoints).future.result(60)
            assert adapter_digest(resumed, tmp_path / "resumed") == adapter_digest(
                calm, tmp_path / "calm"
            )
            assert (resumed.final_loss, resumed.steps, resumed.tokens) == (
                calm.final_loss,
                calm.steps,
                calm.tokens,
            )
            assert [item.step for item in news] == list(range(step, calm.steps + 1))
            assert {item.resumed_step for item in news} == {step}
            assert resumed.seconds >= saved.seconds
            assert resumed.engine_seconds > saved.engine_seconds > 0
    finally:
        first.close()
        second.close()


def test_interrupted_again_and_again_it_ends_with_the_same_bits(
    engine: Engine, tmp_path: Path
) -> None:
    calm = engine.train(m_step()).future.result(60)
    saved = None
    for step in (2, 3, 7):
        saved = suspended_at(engine, step, m_step(), saved)
    resumed = engine.train(
        m_step(), None, Checkpoints(every_seconds=NEVER, on_checkpoint=lambda _: None, resume=saved)
    ).future.result(60)
    assert adapter_digest(resumed, tmp_path / "resumed") == adapter_digest(calm, tmp_path / "calm")


def test_where_memory_is_short_for_a_moment_it_goes_on_from_its_checkpoint_all_the_same(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = suspended_at(engine, 4, m_step())
    copy, calls = checkpointing._copy_row, count()

    def short(*rows: object) -> None:
        if next(calls) == 1:
            raise RuntimeError("out of memory")
        copy(*rows)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpointing, "_copy_row", short)
    news: list[TrainingProgress] = []
    checkpoints = Checkpoints(every_seconds=NEVER, on_checkpoint=print, resume=saved)
    again = engine.train(m_step(), news.append, checkpoints).future.result(60)
    assert [one.step for one in news] == [4, 5, 6, 7, 8, 9]
    assert again.outcome is Outcome.OK


def test_checkpoints_come_between_steps_as_often_as_is_asked_and_do_not_change_the_training(
    engine: Engine, tmp_path: Path
) -> None:
    calm = engine.train(m_step()).future.result(60)
    for seconds, steps in ((OFTEN, list(range(1, calm.steps))), (NEVER, [])):
        taken: list[SlotCheckpoint] = []
        result = engine.train(
            m_step(), None, Checkpoints(every_seconds=seconds, on_checkpoint=taken.append)
        ).future.result(60)
        assert [checkpoint.step for checkpoint in taken] == steps
        assert adapter_digest(result, tmp_path / "watched") == adapter_digest(
            calm, tmp_path / "calm"
        )


def test_a_checkpoint_is_a_copy_that_later_steps_leave_alone(engine: Engine) -> None:
    taken: list[tuple[SlotCheckpoint, tuple[torch.Tensor, ...]]] = []

    def keep(checkpoint: SlotCheckpoint) -> None:
        taken.append(
            (
                checkpoint,
                tuple(
                    row_P.clone()
                    for row_P in (checkpoint.values_P, checkpoint.first_P, checkpoint.second_P)
                ),
            )
        )

    engine.train(
        m_step(), None, Checkpoints(every_seconds=OFTEN, on_checkpoint=keep)
    ).future.result(60)
    for (checkpoint, rows), (_, later) in pairwise(taken):
        assert all(
            map(torch.equal, (checkpoint.values_P, checkpoint.first_P, checkpoint.second_P), rows)
        )
        assert not any(map(torch.equal, rows, later))


def test_one_suspended_training_leaves_its_slot_and_its_neighbour_goes_on(engine: Engine) -> None:
    checkpoints = Checkpoints(every_seconds=NEVER, on_checkpoint=lambda _: None)
    stopped = engine.train(m_step(epochs=500), None, checkpoints)
    other = engine.train(m_step(seed=8, epochs=5))
    checkpoints.suspend()
    with pytest.raises(Suspended):
        stopped.future.result(60)
    assert other.future.result(60).outcome is Outcome.OK
    assert engine.train(m_step(seed=9, epochs=1)).future.result(60).outcome is Outcome.OK


def test_a_training_that_is_suspended_while_it_waits_ends_without_a_checkpoint() -> None:
    engine, stepped, go_on = make_engine(slots=1), threading.Event(), threading.Event()

    def hold(progress: TrainingProgress) -> None:
        stepped.set()
        go_on.wait(60)

    running = engine.train(m_step(), hold)
    assert stepped.wait(60)
    taken: list[SlotCheckpoint] = []
    checkpoints = Checkpoints(every_seconds=OFTEN, on_checkpoint=taken.append)
    waiting = engine.train(m_step(seed=8), None, checkpoints)
    checkpoints.suspend()
    go_on.set()
    assert isinstance(waiting.future.exception(60), Suspended)
    assert not running.future.done() or running.future.result().outcome is Outcome.OK
    assert running.future.result(60).outcome is Outcome.OK
    assert taken == []
    engine.close()


def test_in_a_batch_of_larger_rank_and_more_targets_a_checkpoint_holds_its_own_adapter_alone() -> (
    None
):
    model = tiny_model()
    small = request(
        lora=LoraSettings(rank=2, alpha=4, target_modules=("q_proj", "up_proj")), epochs=3
    )
    taken: list[SlotCheckpoint] = []
    wide = _batch(model, rank=8, targets=ALL_PROJECTIONS)
    first = make_job(model, small, max_row_tokens=512)
    keeping = _keeping(model, first, taken)
    slot = wide.admit(first)
    for _ in range(3):
        wide.step()
        keeping.after_step(first, wide.state(slot))
    narrow = _batch(model, rank=2, targets=small.lora.target_modules)
    second = make_job(model, small, max_row_tokens=512)
    there = narrow.state(narrow.admit(second))
    read = SlotCheckpoint.from_bytes(taken[-1].to_bytes())
    assert _keeping(model, second, taken, resume=read).restore(second, there)
    third = make_job(model, small, max_row_tokens=512)
    other = _batch(model, rank=8, targets=ALL_PROJECTIONS)
    back = other.state(other.admit(third))
    assert _keeping(model, third, taken, resume=taken[-1]).restore(third, back)
    here = wide.state(slot)
    for before, middle, after in (
        (here.values_P, there.values_P, back.values_P),
        (here.second_P, there.second_P, back.second_P),
    ):
        assert torch.equal(before, after)
        assert int(before.count_nonzero()) == int(middle.count_nonzero()) > 0
    assert (second.step, float(there.steps)) == (3, 3.0)


def _keeping(
    model: FrozenModel,
    job: TrainingJob,
    taken: list[SlotCheckpoint],
    resume: SlotCheckpoint | None = None,
) -> JobCheckpoints:
    checkpoints = Checkpoints(every_seconds=OFTEN, on_checkpoint=taken.append, resume=resume)
    return job_checkpoints(checkpoints, model, job)


def _batch(model: FrozenModel, *, rank: int, targets: tuple[str, ...]) -> TrainingBatch:
    return TrainingBatch(
        model, slots=2, rank=rank, targets=targets, policy=None, max_pass_tokens=2048
    )


@pytest.fixture(scope="module")
def saved() -> SlotCheckpoint:
    """A small checkpoint."""
    engine = make_engine()
    checkpoint = suspended_at(
        engine, 2, request(lora=LoraSettings(rank=1, alpha=1, target_modules=("v_proj",)))
    )
    engine.close()
    return checkpoint


def test_bytes_give_back_every_number(saved: SlotCheckpoint) -> None:
    again = SlotCheckpoint.from_bytes(saved.to_bytes())
    for name in ("values_P", "first_P", "second_P"):
        assert torch.equal(getattr(again, name), getattr(saved, name))
    for name in (
        "fingerprint",
        "optimizer_step",
        "step",
        "losses",
        "tokens",
        "engine_seconds",
        "seconds",
    ):
        assert getattr(again, name) == getattr(saved, name)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_truncated_or_altered_checkpoint_is_refused_wherever_the_damage_is(
    saved: SlotCheckpoint, place: float, bit: int, cut: bool
) -> None:
    content = bytearray(saved.to_bytes())
    index = int(place * len(content))
    if cut:
        del content[index:]
    else:
        content[index] ^= 1 << bit
    with pytest.raises(InvalidInput) as caught:
        SlotCheckpoint.from_bytes(bytes(content))
    assert caught.value.field == "checkpoint"
    assert caught.value.remedy


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}" * 40,
        (2**40).to_bytes(8, "little") + b"{}",
        safetensors.torch.save({"values": torch.zeros(3)}),
        safetensors.torch.save(
            {"values": torch.zeros(3)}, metadata={"state": "{}", "sha256": "0" * 64}
        ),
        (2).to_bytes(8, "little") + b"[]",
    ],
)
def test_what_is_no_checkpoint_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput):
        SlotCheckpoint.from_bytes(content)


def test_all_that_defines_a_training_is_in_the_fingerprint_and_nothing_else() -> None:
    model, half = (
        tiny_model(),
        FrozenModel(tiny_transformer().to(torch.bfloat16), byte_tokenizer(), name="tiny-llama"),
    )
    other = FrozenModel(tiny_transformer(), byte_tokenizer(), name="other")
    item = request()
    (policy,) = train(model, [request(seed=9)])
    assert policy.adapter is not None
    copied = replace(
        policy.adapter,
        pairs={
            name: LoraPair(pair.a.clone(), pair.b.clone())
            for name, pair in policy.adapter.pairs.items()
        },
    )
    altered = replace(policy.adapter, alpha=policy.adapter.alpha + 1)

    def of(changed: TrainingRequest, *, on: FrozenModel = model) -> str:
        return fingerprint_of(
            on, changed, make_job(on, replace(changed, policy=None), max_row_tokens=512).rows
        )

    plain = of(item)
    different = [
        of(item, on=half),
        of(item, on=other),
        of(replace(item, examples=(*TEXTS[:-1], ("", "other")))),
        of(replace(item, examples=TEXTS[::-1])),
        of(replace(item, init_seed=1)),
        of(replace(item, order_seed=1)),
        of(replace(item, lora=LoraSettings(rank=4, alpha=9, target_modules=ALL_PROJECTIONS))),
        of(replace(item, optimizer=item.optimizer.model_copy(update={"learning_rate": 1e-3}))),
        of(replace(item, policy=policy.adapter)),
        of(replace(item, policy=altered)),
    ]
    assert len({plain, *different}) == len(different) + 1
    assert of(replace(item, run="another", with_policy=True)) == plain
    assert of(replace(item, policy=copied)) == of(replace(item, policy=policy.adapter))


def test_a_foreign_checkpoint_is_logged_and_the_training_starts_anew(
    engine: Engine, tmp_path: Path
) -> None:
    calm = engine.train(m_step()).future.result(60)
    foreign = suspended_at(engine, 3, m_step(seed=77))
    news: list[TrainingProgress] = []
    with structlog.testing.capture_logs() as logs:
        checkpoints = Checkpoints(every_seconds=NEVER, on_checkpoint=lambda _: None, resume=foreign)
        result = engine.train(m_step(), news.append, checkpoints).future.result(60)
    assert adapter_digest(result, tmp_path / "anew") == adapter_digest(calm, tmp_path / "calm")
    assert (news[0].step, news[0].resumed_step) == (1, 0)
    assert any("another training" in line["event"] for line in logs)
