"""The engine's thread.

Queues, fairness, cancellation, refusal, and models that it does not support.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from test_engine_decoding import evaluation, generation
from test_engine_training import difference, train
from test_engine_training import request as training_request
from tiny_model import save_tiny_model, tiny_model, tiny_transformer

from seal.engine import Engine, EngineTask
from seal.engine import trainings as trainings_module
from seal.engine.budget import MemoryBudget
from seal.engine.job import make_job
from seal.engine.model import FrozenModel
from seal.engine.queues import FairQueue
from seal.engine.training import TrainingBatch
from seal.engine.trainings import Trainings, TrainingTask
from seal.errors import Exhausted, Internal, InvalidInput, Transient, UnfitItem
from seal.outcomes import Outcome
from seal.settings import EngineSettings, LoraSettings

SETTINGS = EngineSettings(slots=2, dtype="float32", max_queue=8, max_rank=8, max_row_tokens=256)


@pytest.fixture
def engine():
    engine = Engine(tiny_model(), SETTINGS)
    yield engine
    engine.close()


def test_all_kinds_of_work_from_many_threads_end_with_the_right_results(engine):
    results: dict[int, object] = {}

    def caller(seed: int) -> None:
        trained = engine.train(training_request(seed=seed)).future.result(60)
        evaluated = engine.evaluate(evaluation(trained.adapter)).future.result(60)
        results[seed] = (trained, evaluated)

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    samples = engine.generate(generation()).future.result(60)
    for thread in threads:
        thread.join()
    assert len(samples.samples) == 3
    assert results.keys() == set(range(5)), "a caller that fails dies with its thread"
    for seed, (trained, evaluated) in results.items():
        (alone,) = train(tiny_model(), [training_request(seed=seed)])
        assert difference(trained.adapter, alone.adapter) <= 1e-4
        assert evaluated.max_logit_difference > 0


def test_progress_comes_after_every_step_with_the_time_to_go(engine):
    news = []
    result = engine.train(training_request(epochs=3), news.append).future.result(60)
    assert [item.step for item in news] == list(range(1, result.steps + 1))
    assert news[-1].eta_seconds == 0.0
    assert news[0].eta_seconds > 0.0


def test_cancelling_one_training_leaves_the_others_alone(engine):
    long = engine.train(training_request(seed=1, epochs=500))
    other = engine.train(training_request(seed=2))
    waiting = engine.train(training_request(seed=3, epochs=500))
    waiting.cancel()
    result = other.future.result(60)
    long.cancel()
    assert long.future.result(60).outcome is Outcome.CANCELLED
    assert waiting.future.result(60).outcome is Outcome.CANCELLED
    (alone,) = train(tiny_model(), [training_request(seed=2)])
    assert difference(result.adapter, alone.adapter) <= 1e-4


def test_a_full_queue_is_refused_with_the_time_to_retry(engine):
    running = [engine.train(training_request(seed=seed, epochs=500)) for seed in range(2)]
    deadline = time.monotonic() + 30

    def fill() -> None:
        while time.monotonic() < deadline:
            running.append(engine.train(training_request(seed=9, epochs=500)))

    with pytest.raises(Exhausted) as caught:
        fill()
    assert caught.value.retry_after_seconds is not None
    for task in running:
        task.cancel()


def test_a_rank_beyond_the_engine_is_refused_with_the_field(engine):
    with pytest.raises(InvalidInput) as caught:
        engine.train(
            replace(
                training_request(), lora=LoraSettings(rank=16, alpha=8, target_modules=("q_proj",))
            )
        )
    assert caught.value.field == "lora.rank"


def test_an_adapter_for_another_base_is_refused_before_it_is_queued(engine):
    (foreign,) = train(tiny_model("qwen2"), [training_request()])
    with pytest.raises(InvalidInput, match="tiny-qwen2"):
        engine.evaluate(evaluation(foreign.adapter))


def test_a_progress_callback_that_breaks_ends_its_own_request_alone(engine):
    def broken(*_: object) -> None:
        raise RuntimeError("nobody listens")

    assert isinstance(engine.evaluate(evaluation(), broken).future.exception(60), Internal)
    assert isinstance(engine.generate(generation(), broken).future.exception(60), Internal)
    other = engine.train(training_request(seed=1))
    assert isinstance(engine.train(training_request(), broken).future.exception(60), Internal)
    assert other.future.result(60).outcome is Outcome.OK
    assert engine.train(training_request()).future.result(60).outcome is Outcome.OK


@pytest.mark.parametrize("failing", ["__init__", "admit"])
def test_a_training_that_cannot_be_given_a_slot_ends_with_the_error_and_the_next_one_is_served(
    engine, monkeypatch, failing
):
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError("no room for the slots")

    with monkeypatch.context() as broken:
        broken.setattr(TrainingBatch, failing, no_memory)
        tasks = [engine.train(training_request(seed=seed)) for seed in range(2)]
        errors = [task.future.exception(20) for task in tasks]
        assert all(isinstance(error, UnfitItem) for error in errors)
        assert {error.outcome for error in errors} == {Outcome.REFUSED}
    assert engine.train(training_request()).future.result(60).outcome is Outcome.OK


def test_a_completion_without_tokens_is_refused_by_its_place(engine):
    with pytest.raises(InvalidInput) as caught:
        engine.evaluate(evaluation(prompts=("a", "b", "c"), golds=("x", "", "y")))
    assert caught.value.field == "golds[1]"


def test_closing_ends_what_waits_with_a_transient_error():
    engine = Engine(tiny_model(), SETTINGS)
    tasks = [engine.train(training_request(seed=seed, epochs=500)) for seed in range(4)]
    engine.close()
    assert all(isinstance(task.future.exception(1), Transient) for task in tasks)
    with pytest.raises(Transient):
        engine.train(training_request())


def test_the_queue_takes_turns_between_runs_and_keeps_the_order_within_a_run():
    queue = FairQueue()
    for run, number in (("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1), ("b", 2)):
        queue.put(EngineTask(run, (run, number), None))
    planned = [task.request for task in queue]
    taken = []
    while (task := queue.take()) is not None:
        taken.append(task.request)
    assert taken == [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2), ("a", 3)]
    assert planned == taken


def test_adapters_of_another_shape_wait_for_the_batch_and_are_trained_then(engine):
    other = LoraSettings(rank=8, alpha=8, target_modules=("q_proj",))
    first = engine.train(training_request(seed=1, epochs=5))
    second = engine.train(training_request(seed=2, lora=other))
    assert first.future.result(60).adapter.rank == 4
    assert second.future.result(60).adapter.rank == 8


def test_adapters_of_another_shape_do_not_wait_without_end_for_a_batch_that_is_refilled(
    monkeypatch,
):
    monkeypatch.setattr(trainings_module, "MAX_TRAINING_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(trainings_module, "TRAINING_TURN_SECONDS", 0.0)
    model = tiny_model()
    budget = MemoryBudget(model.size, SETTINGS, SETTINGS.memory_bytes or 2**30)
    trainings = Trainings(model, SETTINGS, budget, alive=lambda: None)
    waiting: FairQueue[TrainingTask] = FairQueue()
    ended: list[str] = []

    def queue(name: str, rank: int, count: int) -> None:
        lora = LoraSettings(rank=rank, alpha=8, target_modules=("q_proj",))
        for seed in range(count):
            # of different lengths: the batch of the small ones is never empty between two
            request = replace(training_request(seed=seed, lora=lora, epochs=2 + seed), run=name)
            job = make_job(model, request, max_row_tokens=SETTINGS.max_row_tokens)
            task = TrainingTask(name, request, None, job)
            task.future.add_done_callback(
                lambda done: ended.append(f"{name} {done.result().outcome}")
            )
            waiting.put(task)

    queue("small", 2, 6)
    queue("large", 8, 1)
    while waiting or trainings:
        trainings.admit(waiting)
        trainings.step()
    assert len(ended) == 7
    assert "large ok" in ended[:-1]


def test_a_model_is_loaded_from_its_directory(tmp_path):
    engine = Engine.load(save_tiny_model(tmp_path), name="tiny-llama", settings=SETTINGS)
    assert engine.generate(generation(max_tokens=2)).future.result(60).samples
    engine.close()


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_refused_by_name(tmp_path, device):
    with pytest.raises(InvalidInput, match=device) as caught:
        Engine.load(tmp_path, name="tiny", settings=SETTINGS.model_copy(update={"device": device}))
    assert caught.value.field == "engine.device"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_local_experts": 8}, "mixture of experts"),
        ({"vision_config": {}}, "multimodal"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
    ],
)
def test_what_the_engine_does_not_support_is_refused_by_name(change, reason):
    transformer = tiny_transformer()
    for key, value in change.items():
        setattr(transformer.config, key, value)
    with pytest.raises(InvalidInput, match=rf"odd.*{reason}"):
        FrozenModel(transformer, None, name="odd")


def test_a_model_that_computes_its_logits_in_its_own_way_is_refused_by_the_self_check():
    transformer = tiny_transformer()
    original = transformer.forward

    def scaled(*arguments, **options):
        output = original(*arguments, **options)
        output.logits = output.logits * 0.5
        return output

    transformer.forward = scaled
    with pytest.raises(InvalidInput, match="other logits"):
        FrozenModel(transformer, None, name="scaled")


def test_generations_of_two_runs_share_a_batch_and_cancelling_one_leaves_the_other_as_alone(engine):
    wanted = engine.generate(generation()).future.result(60)
    begun = threading.Event()
    long = engine.generate(generation(max_tokens=3000), lambda *_: begun.set())
    assert begun.wait(60)
    joined = engine.generate(replace(generation(), run="other")).future.result(60)
    assert not long.future.done()
    long.cancel()
    assert isinstance(long.future.exception(60), Transient)
    assert joined.samples == wanted.samples


def test_a_long_generation_lets_other_work_pass(engine, monkeypatch):
    monkeypatch.setattr("seal.engine.engine.GENERATION_TURN_SECONDS", 0.0)
    begun = threading.Event()
    long = engine.generate(generation(max_tokens=3000), lambda *_: begun.set())
    assert begun.wait(60)
    trained = engine.train(training_request()).future.result(60)
    evaluated = engine.evaluate(evaluation(trained.adapter)).future.result(60)
    assert evaluated.max_logit_difference > 0
    assert not long.future.done()
    long.cancel()
    assert isinstance(long.future.exception(60), Transient)
