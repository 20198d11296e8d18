"""What the engine's metrics say of its work: tokens, times, waits, ends, memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from metric_growth import Growth
from test_engine_decoding import evaluation, generation
from test_engine_faults import with_nan
from test_engine_training import request as training_request
from tiny_model import tiny_model

from seal.engine import Engine
from seal.engine.training import TrainingBatch
from seal.errors import Transient, UnfitItem
from seal.metrics import metrics
from seal.settings import EngineSettings

OUTCOMES = ("ok", "diverged", "refused", "cancelled", "failed")
SETTINGS = EngineSettings(slots=2, dtype="float32", max_rank=8, max_row_tokens=256)
KINDS = ("train", "generate", "evaluate")


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(tiny_model(), SETTINGS)
    yield engine
    engine.close()


@pytest.fixture
def grown() -> Growth:
    return Growth()


def ended(engine: Engine, grown: Growth, requests: int) -> None:
    """The thread has told all of so many requests: a result is there a moment before its count."""
    deadline = time.monotonic() + 20
    kinds = [{"kind": kind, "outcome": outcome} for kind in KINDS for outcome in OUTCOMES]
    while sum(grown("seal_engine_requests_total", **labels) for labels in kinds) < requests:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    engine.close()


def test_tokens_steps_waits_and_ends_of_every_kind_of_work_are_counted(engine, grown):
    trained = engine.train(training_request(epochs=2)).future.result(60)
    written = engine.generate(generation()).future.result(60)
    answered = engine.evaluate(evaluation(trained.adapter)).future.result(60)
    ended(engine, grown, 3)
    assert grown("seal_trained_tokens_total") == trained.tokens > 0
    assert grown("seal_training_steps_total") == trained.steps
    samples = sum(sample.tokens for row in written.samples for sample in row)
    assert grown("seal_generated_tokens_total") == samples + answered.tokens
    for kind in KINDS:
        assert grown("seal_engine_requests_total", kind=kind, outcome="ok") == 1
        assert grown("seal_engine_queue_wait_seconds_count", kind=kind) == 1
        busy = grown("seal_engine_busy_seconds_total", kind=kind, device="cpu")
        assert grown("seal_engine_step_seconds_sum", kind=kind) == pytest.approx(busy)
    assert grown("seal_engine_step_seconds_count", kind="train") >= trained.steps


def test_a_request_waits_from_its_call_until_the_engine_begins_it(engine, grown):
    begun, go_on = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        begun.set()
        go_on.wait(60)

    first = engine.evaluate(evaluation(), hold)
    assert begun.wait(20)
    second = engine.evaluate(evaluation())
    time.sleep(0.3)
    go_on.set()
    for task in (first, second):
        task.future.result(60)
    assert grown("seal_engine_queue_wait_seconds_count", kind="evaluate") == 2
    assert grown("seal_engine_queue_wait_seconds_sum", kind="evaluate") >= 0.3


def test_requests_that_are_at_fault_end_with_their_outcome(engine, grown, monkeypatch):
    trained = engine.train(training_request()).future.result(60)
    nan = engine.evaluate(evaluation(with_nan(trained.adapter)))
    assert isinstance(nan.future.exception(60), UnfitItem)
    long = engine.train(training_request(epochs=500))
    long.cancel()
    long.future.exception(60)

    def no_memory(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr(TrainingBatch, "_form_gradients", no_memory)
    assert isinstance(engine.train(training_request()).future.exception(60), UnfitItem)
    ended(engine, grown, 4)
    counted = {
        (kind, outcome): grown("seal_engine_requests_total", kind=kind, outcome=outcome)
        for kind, outcome in (
            ("train", "ok"),
            ("evaluate", "diverged"),
            ("train", "cancelled"),
            ("train", "refused"),
        )
    }
    assert set(counted.values()) == {1}


def test_what_ends_with_its_engine_has_failed_and_was_not_at_fault(engine, grown):
    task = engine.train(training_request(epochs=500))
    engine.close()
    assert isinstance(task.future.exception(60), Transient)
    ended(engine, grown, 1)
    assert grown("seal_engine_requests_total", kind="train", outcome="failed") == 1


def test_a_request_that_its_caller_has_left_is_counted_as_cancelled(engine, grown):
    task = engine.train(training_request(epochs=500))
    task.future.cancel()  # as asyncio does with what it has wrapped
    ended(engine, grown, 1)
    assert grown("seal_engine_requests_total", kind="train", outcome="cancelled") == 1


def test_memory_in_use_stands_beside_what_was_foreseen_and_what_is_allowed(engine):
    value = metrics.registry.get_sample_value
    used, estimate, limit = (
        value(f"seal_engine_memory_{name}") or 0.0
        for name in ("bytes", "estimate_bytes", "limit_bytes")
    )
    beside = estimate - engine.memory.total
    assert 10_000_000 < beside < 2 * used, "a process with torch in it, and the model not twice"
    assert limit - beside >= engine.memory.total
