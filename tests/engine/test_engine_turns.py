"""A long training does not keep trainings of another policy waiting for its whole length."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from test_engine_training import difference, train
from test_engine_training import request as training_request
from tiny_model import tiny_model

from seal.engine import Engine
from seal.engine import trainings as trainings_module
from seal.outcomes import Outcome
from seal.settings import EngineSettings, LoraSettings

SETTINGS = EngineSettings(slots=2, dtype="float32", max_rank=8, max_row_tokens=256)
WIDE = LoraSettings(rank=8, alpha=8, target_modules=("q_proj", "up_proj"))


@pytest.fixture
def engine(monkeypatch) -> Iterator[Engine]:
    monkeypatch.setattr(trainings_module, "MAX_TRAINING_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(trainings_module, "TRAINING_TURN_SECONDS", 0.0)
    engine = Engine(tiny_model(), SETTINGS)
    yield engine
    engine.close()


def test_a_training_of_another_policy_takes_turns_with_a_long_one_and_both_end_as_alone(engine):
    (policy,) = train(tiny_model(), [training_request(seed=9, learning_rate=2e-2)])
    short_request = training_request(seed=2, policy=policy.adapter)
    steps: list[tuple[str, int]] = []
    begun, go_on = threading.Event(), threading.Event()

    def of_the_long(news) -> None:
        steps.append(("long", news.step))
        begun.set()
        go_on.wait(60)

    long = engine.train(training_request(seed=1, epochs=20, lora=WIDE), of_the_long)
    assert begun.wait(20)
    short = engine.train(short_request, lambda news: steps.append(("short", news.step)))
    go_on.set()
    trained, waited = long.future.result(60), short.future.result(60)
    order = [name for name, _ in steps]
    first, last = order.index("short"), len(order) - 1 - order[::-1].index("short")
    assert first <= 3  # it begins within a turn
    assert order[first : last + 1] == [("short", "long")[n % 2] for n in range(last + 1 - first)]
    assert order[last:].count("long") > 40
    (short_alone,) = train(tiny_model(), [short_request])
    assert difference(waited.adapter, short_alone.adapter) == 0.0
    assert engine.train(long.request).future.result(60).adapter is not None
    again = engine.train(long.request).future.result(60)
    assert difference(trained.adapter, again.adapter) == 0.0


def test_every_shape_gets_its_turn_and_a_shape_that_does_not_fit_beside_waits(monkeypatch, engine):
    monkeypatch.setattr(trainings_module, "MAX_BATCHES", 2)
    shapes = [LoraSettings(rank=rank, alpha=8, target_modules=("q_proj",)) for rank in (2, 4, 8)]
    together: set[int] = set()
    tasks = [
        engine.train(
            training_request(seed=seed, lora=lora, epochs=4),
            lambda _: together.add(len(engine._trainings.batches)),
        )
        for seed, lora in enumerate(shapes[::-1])
    ]
    tasks += [engine.train(training_request(seed=5, policy=None, lora=WIDE, epochs=4))]
    assert all(task.future.result(60).outcome is Outcome.OK for task in tasks)
    assert max(together) <= 2


def test_no_second_batch_is_opened_where_memory_does_not_allow_it(engine, monkeypatch):
    monkeypatch.setattr(
        engine._budget,
        "largest_slots",
        lambda lora, policy, held_bytes=0: 0 if held_bytes else 1,
    )
    together: set[int] = set()
    tasks = [
        engine.train(
            training_request(seed=seed, lora=lora),
            lambda _: together.add(len(engine._trainings.batches)),
        )
        for seed, lora in enumerate(
            (WIDE, LoraSettings(rank=4, alpha=8, target_modules=("v_proj",)))
        )
    ]
    assert all(task.future.result(60).outcome is Outcome.OK for task in tasks)
    assert together == {1}
