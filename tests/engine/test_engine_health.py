"""An engine that no longer works says so, to those who wait and to those who ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from test_engine_decoding import evaluation, generation
from test_engine_training import request as training_request
from tiny_model import tiny_model

from seal.engine import Engine
from seal.engine.health import Health
from seal.engine.model import FrozenModel
from seal.errors import Exhausted, Transient
from seal.metrics import metrics
from seal.settings import EngineSettings

SETTINGS = EngineSettings(
    slots=1, dtype="float32", max_rank=8, max_row_tokens=256, max_queue=3, stall_seconds=0.4
)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(tiny_model(), SETTINGS)
    yield engine
    engine.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_engine_whose_step_never_ends_is_broken_and_nobody_waits_for_it(engine, monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr("seal.engine.trainings.TrainingBatch.advance", lambda *_: go_on.wait(60))
    running, waiting = engine.train(training_request()), engine.evaluate(evaluation())
    for task in (running, waiting):
        assert isinstance(task.future.exception(20), Transient)
    assert "no pass" in (engine.broken or "")
    assert engine.heartbeat_seconds > SETTINGS.stall_seconds
    for call in (
        lambda: engine.train(training_request()),
        lambda: engine.generate(generation()),
        lambda: engine.evaluate(evaluation()),
    ):
        with pytest.raises(Transient, match="broken"):
            call()
    engine.close()  # does not wait for the thread
    go_on.set()


@pytest.mark.parametrize("kind", ["train", "generate", "evaluate"])
def test_a_step_of_many_passes_gives_a_sign_of_life_after_each(monkeypatch, kind):
    seen: list[str] = []
    hidden, alive = FrozenModel.hidden, Health.alive

    def passed(*arguments: object, **options: object) -> object:
        seen.append("pass")
        return hidden(*arguments, **options)

    def signed(self: Health) -> None:
        seen.append("sign")
        alive(self)

    monkeypatch.setattr(FrozenModel, "hidden", passed)
    monkeypatch.setattr(Health, "alive", signed)
    monkeypatch.setattr("seal.engine.sharing.PASS_TOKENS", 1)
    patient = SETTINGS.model_copy(update={"max_pass_tokens": 1, "stall_seconds": 600})
    engine = Engine(tiny_model(), patient)
    work = {
        "train": lambda: engine.train(training_request(batch_size=4, epochs=1)),
        "generate": lambda: engine.generate(generation(max_tokens=1)),
        "evaluate": lambda: engine.evaluate(evaluation(max_tokens=1)),
    }
    work[kind]().future.result(60)
    engine.close()
    assert seen.count("pass") >= 3
    assert ("pass", "pass") not in pairwise(seen)


def test_an_engine_whose_thread_has_ended_is_broken(engine, monkeypatch):
    def end(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr("seal.engine.trainings.TrainingBatch.advance", end)
    assert isinstance(engine.train(training_request()).future.exception(20), Transient)
    until(lambda: not engine._thread.is_alive())
    assert "ended" in (engine.broken or "")


def test_an_engine_without_work_is_silent_and_not_broken(engine):
    engine.train(training_request()).future.result(60)
    time.sleep(2 * SETTINGS.stall_seconds)
    assert engine.broken is None
    assert engine.heartbeat_seconds == 0.0
    assert engine.train(training_request()).future.result(60).adapter is not None


def test_a_closed_engine_is_not_a_broken_one(engine):
    engine.close()
    assert engine.broken is None


def test_waiting_requests_are_counted_by_kind_and_a_full_queue_names_the_time_to_ask_again(engine):
    begun, go_on = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        begun.set()
        go_on.wait(60)

    running = engine.train(training_request(), hold)
    assert begun.wait(20)
    tasks = [engine.evaluate(evaluation()) for _ in range(SETTINGS.max_queue)]
    assert engine.queued("evaluate") == SETTINGS.max_queue
    assert engine.queued("train") == engine.queued("generate") == 0
    with pytest.raises(Exhausted) as caught:
        engine.evaluate(evaluation(golds=("", "", "")))  # before it is looked at
    assert caught.value.retry_after_seconds
    go_on.set()
    for task in (running, *tasks):
        assert task.future.result(60)
    until(lambda: metrics.engine_slots_in_use._value.get() == 0)
    lengths = [
        metrics.engine_queue_length.labels(kind)._value.get() for kind in ("train", "evaluate")
    ]
    assert lengths == [0, 0]
