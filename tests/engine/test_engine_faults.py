"""Nobody pays for another's failure: work that fails in company is done again, suspects apart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from test_engine_decoding import evaluation, generation
from test_engine_training import TEXTS, difference, train
from test_engine_training import request as training_request
from tiny_model import tiny_model

from seal.engine import Engine, EngineTask
from seal.engine import faults as faults_module
from seal.engine.decoding import RunningBatch
from seal.engine.peft_format import Adapter, LoraPair
from seal.engine.training import TrainingBatch
from seal.errors import Transient, UnfitItem
from seal.outcomes import Outcome
from seal.settings import EngineSettings

NO_MEMORY = "DefaultCPUAllocator: not enough memory: you tried to allocate 17179869184 bytes."
SETTINGS = EngineSettings(slots=4, dtype="float32", max_rank=8, max_row_tokens=256)
TOGETHER = 3
"""Requests in a batch."""


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(tiny_model(), SETTINGS)
    yield engine
    engine.close()


@pytest.fixture
def held(engine: Engine) -> Iterator[Callable[[], None]]:
    """The engine's thread stands still until the call, so that what is queued runs together."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        begun.set()
        go_on.wait(60)

    engine.evaluate(evaluation(), hold)
    assert begun.wait(20)
    yield go_on.set
    go_on.set()


def unfit(task: EngineTask) -> Outcome:
    error = task.future.exception(60)
    assert isinstance(error, UnfitItem), error
    return error.outcome


def fail_passes(monkeypatch, failing: Callable[[TrainingBatch, set[int]], bool]) -> None:
    """Training passes fail in which slots of certain jobs take part."""
    form = TrainingBatch._form_gradients

    def formed(self, rows_by_slot):
        if failing(self, {self.jobs[slot].request.init_seed for slot in rows_by_slot}):
            raise RuntimeError(NO_MEMORY)
        return form(self, rows_by_slot)

    monkeypatch.setattr(TrainingBatch, "_form_gradients", formed)


def check_as_alone(task: EngineTask, tolerance: float = 1e-4) -> None:
    result = task.future.result(60)
    (alone,) = train(tiny_model(), [task.request])
    assert result.outcome is Outcome.OK
    assert (result.steps, result.tokens) == (alone.steps, alone.tokens)
    assert difference(result.adapter, alone.adapter) <= tolerance


@pytest.mark.parametrize("failing_from", [0, 2])
def test_a_training_that_fails_even_alone_is_refused_and_the_others_are_trained_as_alone(
    engine, held, monkeypatch, failing_from
):
    def failing(batch: TrainingBatch, seeds: set[int]) -> bool:
        steps = {job.request.init_seed: job.step for job in batch.jobs.values()}
        return 7 in seeds and steps[7] >= failing_from

    fail_passes(monkeypatch, failing)
    bad, *good = [engine.train(training_request(seed=seed, epochs=3)) for seed in (7, 1, 2)]
    held()
    assert unfit(bad) is Outcome.REFUSED
    for task in good:
        check_as_alone(task)
    assert engine.train(training_request(seed=5)).future.result(60).outcome is Outcome.OK


def test_one_failure_in_company_ends_nobody(engine, held, monkeypatch):
    failed: list[set[int]] = []

    def once(_: TrainingBatch, seeds: set[int]) -> bool:
        if not failed and len(seeds) == TOGETHER:
            failed.append(seeds)
            return True
        return False

    fail_passes(monkeypatch, once)
    tasks = [engine.train(training_request(seed=seed)) for seed in range(TOGETHER)]
    held()
    for task in tasks:
        check_as_alone(task)
    assert failed


def test_a_step_that_failed_alone_is_done_again_and_changes_no_bit(engine, monkeypatch):
    failed: list[set[int]] = []

    def once(batch: TrainingBatch, seeds: set[int]) -> bool:
        if not failed and next(iter(batch.jobs.values())).step == 1:
            failed.append(seeds)
            return True
        return False

    fail_passes(monkeypatch, once)
    check_as_alone(engine.train(training_request(seed=3)), tolerance=0.0)
    assert failed


def test_a_failure_between_two_updates_repeats_no_update(engine, held, monkeypatch):
    update, failed = TrainingBatch._update, []

    def updated(self, slot, gradient, divisor):
        if self.jobs[slot].request.init_seed == 1 and not failed:
            failed.append(slot)
            raise RuntimeError(NO_MEMORY)
        update(self, slot, gradient, divisor)

    monkeypatch.setattr(TrainingBatch, "_update", updated)
    tasks = [engine.train(training_request(seed=seed)) for seed in range(TOGETHER)]
    held()
    for task in tasks:
        check_as_alone(task)
    assert failed


def test_a_token_without_an_embedding_ends_its_own_training_alone(engine, held):
    tasks = [engine.train(training_request(seed=seed)) for seed in range(TOGETHER)]
    bad = tasks[1]
    row = bad.job.rows[0]
    bad.job.rows = (replace(row, real=(*row.real[:-1], 10**6)), *bad.job.rows[1:])
    held()
    assert unfit(bad) is Outcome.REFUSED
    check_as_alone(tasks[0])
    check_as_alone(tasks[2])


def test_a_rank_0_adapter_is_refused_at_the_door(engine):
    empty = Adapter(
        tiny_model().base,
        0,
        8.0,
        {
            name: LoraPair(torch.zeros(0, size.in_features), torch.zeros(size.out_features, 0))
            for name, size in tiny_model().layers.items()
        },
    )
    for call, field in (
        (lambda: engine.evaluate(evaluation(empty)), "adapter"),
        (lambda: engine.evaluate(evaluation(None, empty)), "policy"),
        (lambda: engine.generate(replace(generation(), policy=empty)), "policy"),
        (lambda: engine.train(training_request(policy=empty)), "policy"),
    ):
        with pytest.raises(UnfitItem, match="rank 0") as caught:
            call()
        assert (caught.value.field, caught.value.outcome) == (field, Outcome.REFUSED)


def fail_decoding(monkeypatch, failing: Callable[[list], bool]) -> None:
    """Steps of a decode fail while certain rows run."""
    forward = RunningBatch._forward

    def forwarded(self, *arguments, **options):
        if failing(self.running):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 17.00 GiB")
        return forward(self, *arguments, **options)

    monkeypatch.setattr(RunningBatch, "_forward", forwarded)


def poisoned(rows: list) -> bool:
    return any(row.settings.max_tokens == 9 for row in rows)


def test_an_evaluation_that_fails_even_alone_is_refused_and_the_others_are_answered_as_alone(
    engine, held, monkeypatch
):
    wanted = engine.evaluate(evaluation())
    fail_decoding(monkeypatch, poisoned)
    tasks = [engine.evaluate(evaluation(max_tokens=9 if n == 2 else 8)) for n in range(5)]
    held()
    expected = wanted.future.result(60)
    assert unfit(tasks.pop(2)) is Outcome.REFUSED
    for task in tasks:
        result = task.future.result(60)
        assert result.answers == expected.answers
        assert result.logprobs == pytest.approx(expected.logprobs, abs=1e-5)


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_generation_that_fails_even_alone_is_refused_and_the_others_are_written_as_alone(
    engine, held, monkeypatch, place
):
    hot = generation(temperature=1.0, max_tokens=12)
    fail_decoding(monkeypatch, poisoned)
    bad = replace(hot, max_tokens=9)
    tasks = [engine.generate(bad if n == place else hot) for n in range(4)]
    held()
    assert unfit(tasks.pop(place)) is Outcome.REFUSED
    results = [task.future.result(60).samples for task in tasks]
    monkeypatch.undo()
    assert {engine.generate(hot).future.result(60).samples} == set(results)


def test_a_generation_that_nobody_joined_and_that_fails_is_refused_at_its_second_try(
    engine, monkeypatch
):
    fail_decoding(monkeypatch, poisoned)
    assert unfit(engine.generate(generation(max_tokens=9))) is Outcome.REFUSED
    assert engine.generate(generation()).future.result(60).samples


def test_work_that_fails_once_in_company_ends_nobody(engine, held, monkeypatch):
    failures = iter([False, True, False, True])

    def once(rows: list) -> bool:
        return len(rows) >= 6 and next(failures, False)

    fail_decoding(monkeypatch, once)
    written = [engine.generate(generation()) for _ in range(3)]
    answered = [engine.evaluate(evaluation()) for _ in range(3)]
    held()
    assert len({task.future.result(60).samples for task in written}) == 1
    assert len({task.future.result(60).answers for task in answered}) == 1


def with_nan(adapter: Adapter) -> Adapter:
    pairs = {name: LoraPair(pair.a, pair.b * float("nan")) for name, pair in adapter.pairs.items()}
    return replace(adapter, pairs=pairs)


def test_logits_that_are_not_numbers_are_the_outcome_of_their_own_request(engine, held):
    (result,) = train(tiny_model(), [training_request(learning_rate=3e-2, examples=TEXTS)])
    good, bad = result.adapter, with_nan(result.adapter)
    tasks = [engine.evaluate(evaluation(adapter)) for adapter in (good, bad, good)]
    written = [engine.generate(replace(generation(), policy=policy)) for policy in (None, bad)]
    held()
    assert unfit(tasks.pop(1)) is Outcome.DIVERGED
    first, second = (task.future.result(60) for task in tasks)
    assert first.answers == second.answers
    assert first.max_logit_difference > 0
    assert unfit(written.pop()) is Outcome.DIVERGED
    assert written[0].future.result(60).samples


def test_a_cuda_error_that_stays_breaks_the_engine_and_one_that_passes_does_not(
    engine, monkeypatch
):
    def lost(*_: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(TrainingBatch, "_form_gradients", lost)
    assert unfit(engine.train(training_request())) is Outcome.REFUSED
    assert engine.broken is None
    monkeypatch.setattr(faults_module, "answers", lambda _: False)
    assert isinstance(engine.train(training_request()).future.exception(60), Transient)
    assert "device-side assert" in engine.broken
    with pytest.raises(Transient, match="broken"):
        engine.evaluate(evaluation())
