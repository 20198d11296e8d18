"""TrainerService: what it refuses, and that no accepted training is lost or done twice.

One training never disturbs another.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import structlog
from eventually import until
from fake_engine import FakeAdapter, FakeEngine, save_fake_adapter
from safetensors import SafetensorError
from service_harness import (
    DEADLINE_SECONDS,
    FAST,
    each_is_refused_by_its_field,
    fake_cache,
    policy,
    publish,
    read_all,
    refusal,
    serving,
    training_request,
)

from seal.artifacts import ArtifactStore
from seal.errors import Conflict, Exhausted, InvalidInput, NotFound, SealError, Transient, UnfitItem
from seal.outcomes import Outcome
from seal.records import AdapterReference
from seal.rpc.convert import OUTCOME_TO_WIRE
from seal.rpc.errors import from_rpc_error
from seal.runs.cancelled import mark_cancelled
from seal.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc
from trainer_svc.plan import TrainingPlan, parse_training
from trainer_svc.service import register
from trainer_svc.trainings import Trainings


@dataclass
class Trainer:
    """A running trainer and what it stands on."""

    stub: trainer_pb2_grpc.TrainerServiceAsyncStub
    engine: FakeEngine
    store: ArtifactStore
    trainings: Trainings

    def train(self, request: trainer_pb2.TrainAdapterRequest) -> grpc.aio.UnaryStreamCall:  # type: ignore[type-arg]
        return self.stub.TrainAdapter(request, timeout=DEADLINE_SECONDS)

    async def result(self, request: trainer_pb2.TrainAdapterRequest) -> trainer_pb2.TrainingResult:
        return (await read_all(self.train(request)))[-1].result

    async def get(
        self, request_id: str = "training-1", run: str = "run"
    ) -> trainer_pb2.GetTrainingResponse:
        request = trainer_pb2.GetTrainingRequest(request_id=request_id, run=run)
        return await self.stub.GetTraining(request, timeout=DEADLINE_SECONDS)


Start = Callable[..., AbstractAsyncContextManager[Trainer]]


@pytest.fixture
def start(tmp_path: Path, engine: FakeEngine) -> Start:
    """Starts a trainer on the test's store; a second start is a restart."""

    @asynccontextmanager
    async def start_trainer(
        *,
        store: ArtifactStore | None = None,
        grace_seconds: float = 5.0,
        save: Callable[[FakeAdapter, Path], None] = save_fake_adapter,
    ) -> AsyncIterator[Trainer]:
        store = store or ArtifactStore(f"file://{tmp_path}/artifacts")
        cache = fake_cache(store, engine)
        trainings = Trainings(
            engine=engine,  # type: ignore[arg-type]
            store=store,
            adapters=cache,
            save_adapter=save,  # type: ignore[arg-type]
            look_seconds=0.02,
        )
        registration = functools.partial(register, trainings=trainings, adapters=cache, pace=FAST)
        async with serving(registration) as channel:
            yield Trainer(trainer_pb2_grpc.TrainerServiceStub(channel), engine, store, trainings)
            await trainings.close(grace_seconds=grace_seconds)

    return start_trainer


def _lora(**changes: object) -> trainer_pb2.LoraConfig:
    return trainer_pb2.LoraConfig(
        **{"rank": 4, "alpha": 8.0, "target_modules": ["q_proj"], **changes}
    )  # type: ignore[arg-type]


def _optimizer(**changes: object) -> trainer_pb2.OptimizerConfig:
    fields = {
        "learning_rate": 1e-3,
        "epochs": 1,
        "batch_size": 1,
        "schedule": "linear",
        "max_grad_norm": 1.0,
    }
    return trainer_pb2.OptimizerConfig(**{**fields, **changes})  # type: ignore[arg-type]


def _example(completion: str = "x", prompt: str = "") -> trainer_pb2.TrainingExample:
    return trainer_pb2.TrainingExample(prompt=prompt, completion=completion)


def _chat(*, turns: int) -> trainer_pb2.TrainingExample:
    """A row of empty turns."""
    return trainer_pb2.TrainingExample(
        completion="an answer", messages=[common_pb2.ChatMessage(role="user")] * turns
    )


def _adapter(path: str = "x", sha256: str = "a" * 64) -> common_pb2.PolicyRef:
    return common_pb2.PolicyRef(
        base_model="tiny", adapter=common_pb2.AdapterRef(path=path, sha256=sha256)
    )


BAD_REQUESTS: list[tuple[str, dict[str, object]]] = [
    ("request_id", {"request_id": ""}),
    ("request_id", {"request_id": "x" * 257}),
    ("run", {"run": ""}),
    ("run", {"run": "../other"}),
    ("policy.base_model", {"policy": common_pb2.PolicyRef()}),
    ("policy.adapter.sha256", {"policy": _adapter(sha256="abc")}),
    ("policy.adapter.path", {"policy": _adapter(path="")}),
    ("examples", {"examples": []}),
    ("examples", {"examples": [_example()] * 20_001}),
    ("examples[1].completion", {"examples": [_example(), _example(" \n")]}),
    ("examples[0]", {"examples": [_example("x" * 40_000, "y" * 40_000)]}),
    ("examples[0].messages", {"examples": [_chat(turns=65)]}),
    ("lora.rank", {"lora": _lora(rank=0)}),
    ("lora.rank", {"lora": _lora(rank=100_000)}),
    ("lora.alpha", {"lora": _lora(alpha=0.0)}),
    ("lora.alpha", {"lora": _lora(alpha=float("inf"))}),
    ("lora.target_modules", {"lora": _lora(target_modules=[])}),
    ("lora.target_modules[1]", {"lora": _lora(target_modules=["q_proj", "q_proj"])}),
    ("optimizer.learning_rate", {"optimizer": _optimizer(learning_rate=0.0)}),
    ("optimizer.learning_rate", {"optimizer": _optimizer(learning_rate=float("nan"))}),
    ("optimizer.learning_rate", {"optimizer": _optimizer(learning_rate=1e9)}),
    ("optimizer.epochs", {"optimizer": _optimizer(epochs=0)}),
    ("optimizer.epochs", {"optimizer": _optimizer(epochs=1000), "examples": [_example()] * 1000}),
    ("optimizer.batch_size", {"optimizer": _optimizer(batch_size=0)}),
    ("optimizer.schedule", {"optimizer": _optimizer(schedule="stairs")}),
    ("optimizer.warmup_ratio", {"optimizer": _optimizer(warmup_ratio=1.0)}),
    ("optimizer.weight_decay", {"optimizer": _optimizer(weight_decay=-1.0)}),
    ("optimizer.max_grad_norm", {"optimizer": _optimizer(max_grad_norm=float("nan"))}),
    ("init_seed", {"init_seed": 2**63}),
    ("order_seed", {"order_seed": 2**64 - 1}),
    ("checkpoint_every_seconds", {"checkpoint_every_seconds": -1.0}),
    ("checkpoint_every_seconds", {"checkpoint_every_seconds": float("nan")}),
    ("checkpoint_every_seconds", {"checkpoint_every_seconds": 1e6}),
    ("export_mode", {"export_mode": trainer_pb2.EXPORT_MODE_UNSPECIFIED}),
]


async def test_every_bound_is_refused_by_its_field_with_a_remedy_before_the_engine_sees_it(
    start: Start,
) -> None:
    async with start() as trainer:
        await each_is_refused_by_its_field(trainer.train, training_request, BAD_REQUESTS)
    assert trainer.engine.trained == []


async def test_another_base_model_is_refused_naming_both(start: Start) -> None:
    async with start() as trainer:
        error = await refusal(trainer.train(training_request(policy=policy(base_model="llama-7b"))))
    assert isinstance(error, InvalidInput)
    assert error.field == "policy.base_model"
    assert "llama-7b" in error.message
    assert "tiny" in error.message


async def test_a_policy_adapter_for_another_base_is_refused_naming_both(start: Start) -> None:
    async with start() as trainer:
        foreign = publish(trainer.store, base_model="llama-7b")
        error = await refusal(trainer.train(training_request(policy=policy(foreign))))
        assert (await _missing(trainer)).field == "request_id"
    assert isinstance(error, InvalidInput)
    assert error.field == "policy.adapter"
    assert "llama-7b" in error.message
    assert "tiny" in error.message


async def _fill_queue(trainer: Trainer) -> list[grpc.aio.UnaryStreamCall]:  # type: ignore[type-arg]
    """Four requests that wait in the engine, whose queue is full with them."""
    trainer.engine.gate.clear()
    calls = [trainer.train(training_request(request_id=f"waiting-{index}")) for index in range(4)]
    await until(lambda: trainer.engine.waiting == 4)
    return calls


async def test_a_full_queue_makes_the_caller_wait_in_line_and_speaks_while_it_waits(
    start: Start,
) -> None:
    async with start() as trainer:
        waiting = await _fill_queue(trainer)
        late = asyncio.create_task(read_all(trainer.train(training_request(request_id="late"))))
        await asyncio.sleep(0.7)
        assert not late.done()
        trainer.engine.gate.set()
        for call in waiting:
            await read_all(call)
        messages = await late
    assert messages[-1].result.outcome == common_pb2.OUTCOME_OK
    states = [message.progress.state for message in messages[:-1]]
    assert states.count(common_pb2.TASK_STATE_QUEUED) >= 3


async def test_who_waits_for_a_full_queue_is_served_in_the_order_of_coming(start: Start) -> None:
    async with start() as trainer:
        calls = await _fill_queue(trainer)
        for index in range(6):
            calls.append(
                trainer.train(training_request(request_id=f"late-{index}", init_seed=index))
            )
            await until(lambda count=index + 1: len(trainer.trainings._line) == count)
        trainer.engine.gate.set()
        for call in calls:
            await read_all(call)
    assert [request.init_seed for request in trainer.engine.trained][4:] == list(range(6))


async def test_only_a_caller_without_time_left_hears_of_a_full_queue_and_when_to_come_back(
    start: Start,
) -> None:
    async with start() as trainer:
        waiting = await _fill_queue(trainer)
        late = training_request(request_id="late")
        error = await refusal(trainer.stub.TrainAdapter(late, timeout=1.0))
        assert isinstance(error, Exhausted)
        assert error.retry_after_seconds == 2.0
        trainer.engine.gate.set()
        for call in waiting:
            await read_all(call)
        assert (await trainer.result(late)).outcome == common_pb2.OUTCOME_OK
    assert len(trainer.engine.trained) == 5


async def test_a_training_in_line_can_be_cancelled(start: Start) -> None:
    async with start() as trainer:
        await _fill_queue(trainer)
        late = trainer.train(training_request(request_id="late"))
        await until(lambda: len(trainer.trainings._line) == 1)
        cancel = trainer_pb2.CancelTrainingRequest(request_id="late", run="run")
        state = (await trainer.stub.CancelTraining(cancel, timeout=DEADLINE_SECONDS)).state
        assert state == common_pb2.TASK_STATE_DONE
        assert (await read_all(late))[-1].result.outcome == common_pb2.OUTCOME_CANCELLED
        trainer.engine.gate.set()


@pytest.mark.parametrize("outcome", [Outcome.TOO_LONG, Outcome.REFUSED, Outcome.INERT])
@pytest.mark.parametrize("place", ["check", "fault"])
async def test_a_training_whose_own_content_is_at_fault_has_that_outcome_which_is_final(
    start: Start, outcome: Outcome, place: str
) -> None:
    def unfit(request: object) -> None:
        raise UnfitItem("examples[1] does not fit", outcome=outcome, field="examples[1]")

    async with start() as trainer:
        setattr(trainer.engine, place, unfit)
        first = await trainer.result(training_request())
        setattr(trainer.engine, place, lambda request: None)
        assert await trainer.result(training_request()) == first
    async with start() as trainer:
        assert (await trainer.get()).result == first
    assert first.outcome == OUTCOME_TO_WIRE[outcome]
    assert not first.HasField("adapter")
    assert trainer.engine.trained == []


async def test_a_stream_falls_silent_when_the_engine_shows_no_life(start: Start) -> None:
    async with start() as trainer:
        trainer.engine.gate.clear()
        call = trainer.train(training_request())
        messages = aiter(call)
        await anext(messages)
        trainer.engine.heartbeat_seconds = trainer.engine.settings.stall_seconds
        async with asyncio.timeout(15):
            with pytest.raises(TimeoutError):
                await _read_while_they_come(messages)  # one may be on its way
        trainer.engine.gate.set()


async def _read_while_they_come(
    messages: AsyncIterator[trainer_pb2.TrainAdapterResponse],
) -> None:
    """Read on; raises TimeoutError once three heartbeats have brought nothing."""
    while True:
        async with asyncio.timeout(3 * FAST.heartbeat_seconds):
            await anext(messages)


async def test_a_request_id_with_another_body_is_refused_running_ended_and_after_a_restart(
    start: Start,
) -> None:
    other = training_request(init_seed=99)
    async with start() as trainer:
        trainer.engine.gate.clear()
        first = trainer.train(training_request())
        await until(lambda: trainer.engine.waiting == 1)
        errors = [await refusal(trainer.train(other))]
        trainer.engine.gate.set()
        await read_all(first)
        errors.append(await refusal(trainer.train(other)))
    async with start() as trainer:
        errors.append(await refusal(trainer.train(other)))
    assert [(type(error), error.field) for error in errors] == [(Conflict, "request_id")] * 3
    assert len(trainer.engine.trained) == 1


async def test_a_diverged_training_has_an_outcome_and_no_adapter_and_is_not_repeated(
    start: Start,
) -> None:
    async with start() as trainer:
        trainer.engine.outcome, trainer.engine.final_loss = Outcome.DIVERGED, float("nan")
        first = await trainer.result(training_request())
        second = await trainer.result(training_request())
    assert first == second
    assert first.outcome == common_pb2.OUTCOME_DIVERGED
    assert not first.HasField("adapter")
    assert first.final_loss == 0.0
    assert len(trainer.engine.trained) == 1


class FullStore(ArtifactStore):
    """A store whose disk is full until somebody frees space."""

    full = True

    def publish_directory(self, local_dir: Path, prefix: str) -> AdapterReference:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device", str(local_dir))
        return super().publish_directory(local_dir, prefix)


async def test_disk_full_is_said_and_the_retry_stores_the_trained_adapter_without_training_again(
    start: Start, tmp_path: Path
) -> None:
    store = FullStore(f"file://{tmp_path}/artifacts")
    async with start(store=store) as trainer:
        error = await refusal(trainer.train(training_request()))
        assert isinstance(error, Exhausted)
        assert "space" in error.message
        assert error.remedy
        assert error.retry_after_seconds
        assert isinstance(await _missing(trainer), NotFound)
        store.full = False
        result = await trainer.result(training_request())
    assert result.outcome == common_pb2.OUTCOME_OK
    with store.fetch_directory(
        AdapterReference(path=result.adapter.path, sha256=result.adapter.sha256)
    ) as directory:
        assert directory.is_dir()
    assert len(trainer.engine.trained) == 1


async def test_a_full_temporary_directory_is_said_and_loses_nothing(start: Start) -> None:
    answers = [
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        None,
    ]

    def save(adapter: FakeAdapter, directory: Path) -> None:
        if (error := answers.pop(0)) is not None:
            raise error
        save_fake_adapter(adapter, directory)

    async with start(save=save) as trainer:
        error = await refusal(trainer.train(training_request()))
        assert isinstance(error, Exhausted)
        assert tempfile.gettempdir() in error.message
        assert (await trainer.result(training_request())).outcome == common_pb2.OUTCOME_OK
    assert len(trainer.engine.trained) == 1


async def test_a_trained_adapter_that_could_not_be_stored_is_not_given_to_another_body(
    start: Start, tmp_path: Path
) -> None:
    store = FullStore(f"file://{tmp_path}/artifacts")
    async with start(store=store) as trainer:
        await refusal(trainer.train(training_request()))
        store.full = False
        await trainer.result(training_request(init_seed=99))
    assert [request.init_seed for request in trainer.engine.trained] == [7, 99]


async def test_an_unknown_training_is_not_found_and_a_run_name_is_needed_to_ask(
    start: Start,
) -> None:
    async with start() as trainer:
        assert isinstance(await _missing(trainer), NotFound)
        request = trainer_pb2.CancelTrainingRequest(request_id="training-1", run="run")
        with pytest.raises(grpc.aio.AioRpcError) as cancel:
            await trainer.stub.CancelTraining(request, timeout=DEADLINE_SECONDS)
        with pytest.raises(grpc.aio.AioRpcError) as get:
            await trainer.get(run="../run")
    assert cancel.value.code() is grpc.StatusCode.NOT_FOUND
    assert get.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_client_that_leaves_does_not_stop_the_training_and_may_join_it_again(
    start: Start,
) -> None:
    async with start() as trainer:
        trainer.engine.gate.clear()
        leaving = trainer.train(training_request())
        await anext(aiter(leaving))
        leaving.cancel()
        await asyncio.sleep(0.05)
        assert (await trainer.get()).progress.state == common_pb2.TASK_STATE_QUEUED
        joined = trainer.train(training_request())
        await anext(aiter(joined))
        trainer.engine.gate.set()
        result = (await read_all(joined))[-1].result
        assert (await trainer.get()).result == result
    assert result.outcome == common_pb2.OUTCOME_OK
    assert len(trainer.engine.trained) == 1


async def test_two_clients_of_one_request_share_one_training(start: Start) -> None:
    async with start() as trainer:
        first, second = await asyncio.gather(
            trainer.result(training_request()), trainer.result(training_request())
        )
    assert first == second
    assert len(trainer.engine.trained) == 1


async def test_an_ended_training_is_answered_from_the_store_after_a_restart(start: Start) -> None:
    async with start() as trainer:
        before = await trainer.result(training_request())
    async with start() as trainer:
        got = await trainer.get()
        after = await trainer.result(training_request())
    assert before == after == got.result
    assert got.progress.state == common_pb2.TASK_STATE_DONE
    assert len(trainer.engine.trained) == 1


async def test_the_same_policy_under_a_moved_root_is_the_same_body(start: Start) -> None:
    async with start() as trainer:
        reference = publish(trainer.store)
        first = await trainer.result(training_request(policy=policy(reference)))
        moved = AdapterReference(path="elsewhere/" + reference.sha256, sha256=reference.sha256)
        assert await trainer.result(training_request(policy=policy(moved))) == first
    assert len(trainer.engine.trained) == 1


def _cut_weights(adapters: Path) -> None:
    (weights,) = adapters.glob("*/*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])


def _remove_manifest(adapters: Path) -> None:
    (manifest,) = adapters.glob("*/manifest.json")
    manifest.unlink()


async def test_rows_that_are_only_counted_are_bounded_too(start: Start) -> None:
    counted = {"examples[0].messages": _chat(turns=65), "examples[0]": _example("x" * 131_073)}
    async with start() as trainer:
        for field, row in counted.items():
            asked = trainer_pb2.CountTokensRequest(examples=[row])
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await trainer.stub.CountTokens(asked, timeout=DEADLINE_SECONDS)
            error = from_rpc_error(caught.value)
            assert (type(error), error.field) == (InvalidInput, field)


async def test_while_a_large_request_is_checked_others_are_answered(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    checking, checked = threading.Event(), threading.Event()

    def slowly(*arguments: object, **limits: object) -> TrainingPlan:
        checking.set()
        assert checked.wait(DEADLINE_SECONDS)
        return parse_training(*arguments, **limits)  # type: ignore[arg-type]

    monkeypatch.setattr("trainer_svc.service.parse_training", slowly)
    async with start() as trainer:
        result = asyncio.create_task(trainer.result(training_request()))
        assert await asyncio.to_thread(checking.wait, DEADLINE_SECONDS)
        lookup = trainer_pb2.GetTrainingRequest(request_id="nobody", run="run")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await trainer.stub.GetTraining(lookup, timeout=2.0)
        assert isinstance(from_rpc_error(caught.value), NotFound)
        checked.set()
        assert (await result).adapter.sha256


@pytest.mark.parametrize("harm", [shutil.rmtree, _cut_weights, _remove_manifest])
async def test_a_stored_result_whose_adapter_is_gone_or_damaged_is_trained_again_to_the_same_digest(
    start: Start, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    async with start() as trainer:
        before = await trainer.result(training_request())
        harm(tmp_path / "artifacts" / "run" / "adapters")
        after = await trainer.result(training_request())
        reference = AdapterReference(path=after.adapter.path, sha256=after.adapter.sha256)
        with trainer.store.fetch_directory(reference):
            pass  # it is intact
    assert before.adapter.sha256 == after.adapter.sha256
    assert len(trainer.engine.trained) == 2


async def test_cancel_stops_one_training_for_good_and_leaves_the_others(start: Start) -> None:
    async with start() as trainer:
        trainer.engine.gate.clear()
        stopped = trainer.train(training_request())
        await until(lambda: trainer.engine.waiting == 1)
        other = trainer.train(training_request(request_id="other"))
        await until(lambda: trainer.engine.waiting == 2)
        cancel = trainer_pb2.CancelTrainingRequest(request_id="training-1", run="run")
        state = (await trainer.stub.CancelTraining(cancel, timeout=DEADLINE_SECONDS)).state
        trainer.engine.gate.set()
        ended, finished = (await read_all(stopped))[-1].result, (await read_all(other))[-1].result
        assert (
            await trainer.stub.CancelTraining(cancel, timeout=DEADLINE_SECONDS)
        ).state == common_pb2.TASK_STATE_DONE
        again = await trainer.result(training_request())
    assert state == common_pb2.TASK_STATE_DONE
    assert ended.outcome == again.outcome == common_pb2.OUTCOME_CANCELLED
    assert finished.outcome == common_pb2.OUTCOME_OK
    assert [request.run for request in trainer.engine.trained] == ["run"]


async def test_what_nobody_waits_for_goes_on_until_its_run_is_cancelled(start: Start) -> None:
    async with start() as trainer:
        trainer.engine.gate.clear()
        calls = [trainer.train(training_request(run="run"))]
        await until(lambda: trainer.engine.waiting == 1)  # this engine ends one after the other
        calls += [trainer.train(training_request(run="another"))]
        await until(lambda: trainer.engine.waiting == 2)
        for call in calls:
            call.cancel()  # the workers have gone
        await asyncio.sleep(0.1)
        assert trainer.engine.waiting == 2
        await mark_cancelled(trainer.store, "run")
        cancelled = await trainer.result(training_request(run="run"))
        assert cancelled.outcome == common_pb2.OUTCOME_CANCELLED
        trainer.engine.gate.set()
        other = await trainer.result(training_request(run="another"))
        assert other.outcome == common_pb2.OUTCOME_OK
        trainer.engine.gate.clear()
        late = await trainer.result(training_request(request_id="late"))
    assert late.outcome == common_pb2.OUTCOME_CANCELLED, "a worker may still be on its way"
    assert [request.run for request in trainer.engine.trained] == ["another"]


async def test_a_training_cut_by_shutdown_is_retryable_and_nothing_is_stored_for_it(
    start: Start,
) -> None:
    async with start(grace_seconds=0.05) as trainer:
        trainer.engine.gate.clear()
        call = trainer.train(training_request())
        await until(lambda: trainer.engine.waiting == 1)
        closing = asyncio.create_task(trainer.trainings.close(grace_seconds=0.05))
        error = await refusal(call)
        await closing
        late = await refusal(trainer.train(training_request(request_id="late")))
    assert isinstance(error, Transient)
    assert isinstance(late, Transient)
    trainer.engine.gate.set()
    async with start() as trainer:
        assert (await trainer.result(training_request())).outcome == common_pb2.OUTCOME_OK


async def test_shutdown_lets_a_running_training_end_and_keeps_its_result(start: Start) -> None:
    async with start(grace_seconds=10.0) as trainer:
        trainer.engine.gate.clear()
        call = trainer.train(training_request())
        await until(lambda: trainer.engine.waiting == 1)
        call.cancel()
        asyncio.get_running_loop().call_later(0.1, trainer.engine.gate.set)
    async with start() as trainer:
        assert (await trainer.get()).result.outcome == common_pb2.OUTCOME_OK


async def test_a_waiting_call_shows_that_it_lives(start: Start) -> None:
    async with start() as trainer:
        trainer.engine.gate.clear()
        asyncio.get_running_loop().call_later(0.7, trainer.engine.gate.set)
        messages = await read_all(trainer.train(training_request()))
    states = [message.progress.state for message in messages[:-1]]
    assert states.count(common_pb2.TASK_STATE_QUEUED) >= 3
    assert messages[-2].progress.step == messages[-2].progress.total_steps == 3
    assert messages[-1].HasField("result")


async def test_trainings_on_one_policy_get_one_adapter_object_so_that_the_engine_can_batch_them(
    start: Start,
) -> None:
    async with start() as trainer:
        reference = publish(trainer.store)
        requests = [
            training_request(request_id=f"t{index}", policy=policy(reference)) for index in range(3)
        ]
        await asyncio.gather(*(trainer.result(request) for request in requests))
    adapters = {id(request.policy) for request in trainer.engine.trained}
    assert len(trainer.engine.trained) == 3
    assert len(adapters) == 1


async def test_the_engine_gets_what_the_request_says(start: Start) -> None:
    async with start() as trainer:
        reference = publish(trainer.store, weights=(3.0,))
        await trainer.result(
            training_request(
                policy=policy(reference), export_mode=trainer_pb2.EXPORT_MODE_WITH_POLICY
            )
        )
    request = trainer.engine.trained[0]
    assert request.examples == (("", "Veldra is a river."), ("Q:", "A"))
    assert (request.init_seed, request.order_seed, request.with_policy) == (7, 8, True)
    assert (request.lora.rank, request.lora.target_modules) == (4, ("q_proj", "v_proj"))
    assert (request.optimizer.epochs, request.optimizer.schedule) == (2, "linear")
    assert request.policy is not None
    assert request.policy.weights == (3.0,)


async def test_logs_name_the_request_and_hold_no_document_text(start: Start) -> None:
    with structlog.testing.capture_logs() as logs:
        async with start() as trainer:
            await trainer.result(
                training_request(examples=[_example("the secret passage", "the secret prompt")])
            )
            await refusal(
                trainer.train(
                    training_request(request_id="bad", examples=[_example("secret " * 20_000)])
                )
            )
    assert any(
        line.get("request_id") == "training-1" and line.get("outcome") == "ok" for line in logs
    )
    assert "secret" not in str(logs)


async def _missing(trainer: Trainer) -> SealError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await trainer.get()
    return from_rpc_error(caught.value)
