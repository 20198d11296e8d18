"""Two trainers on one artifact store: a request that reaches both is trained once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from eventually import until
from fake_engine import FakeEngine, save_fake_adapter
from service_harness import (
    DEADLINE_SECONDS,
    FAST,
    fake_cache,
    read_all,
    refusal,
    serving,
    training_request,
)

from seal.artifacts import ArtifactStore
from seal.errors import Conflict, Transient
from seal.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc
from trainer_svc import claims as claims_module
from trainer_svc.claims import Claims
from trainer_svc.service import register
from trainer_svc.training import Training
from trainer_svc.trainings import Trainings

LEASE_SECONDS = 30.0
"""Longer than a busy machine holds a process up: none takes over from one that lives."""
NEVER_SECONDS = 86_400.0


class MortalStore(ArtifactStore):
    """A store whose process can be killed: it writes nothing any more."""

    dead = False

    def create_bytes(self, path: str, content: bytes) -> bytes:
        self._live()
        return super().create_bytes(path, content)

    def write_bytes(self, path: str, content: bytes) -> None:
        self._live()
        super().write_bytes(path, content)

    def remove(self, path: str) -> None:
        self._live()
        super().remove(path)

    def _live(self) -> None:
        if self.dead:
            raise Transient("the process is dead")


@dataclass
class Replica:
    """One trainer with an engine of its own."""

    stub: trainer_pb2_grpc.TrainerServiceAsyncStub
    engine: FakeEngine
    store: MortalStore
    trainings: Trainings

    async def messages(
        self, request: trainer_pb2.TrainAdapterRequest
    ) -> list[trainer_pb2.TrainAdapterResponse]:
        return await read_all(self.stub.TrainAdapter(request, timeout=DEADLINE_SECONDS))

    async def get(self) -> trainer_pb2.GetTrainingResponse:
        request = trainer_pb2.GetTrainingRequest(request_id="training-1", run="run")
        return await self.stub.GetTraining(request, timeout=DEADLINE_SECONDS)

    async def cancel(self) -> int:
        request = trainer_pb2.CancelTrainingRequest(request_id="training-1", run="run")
        return (await self.stub.CancelTraining(request, timeout=DEADLINE_SECONDS)).state

    def begin(
        self, request: trainer_pb2.TrainAdapterRequest | None = None
    ) -> asyncio.Task[list[trainer_pb2.TrainAdapterResponse]]:
        return asyncio.create_task(self.messages(request or training_request()))


@asynccontextmanager
async def replica(root: Path) -> AsyncIterator[Replica]:
    engine, store = FakeEngine(), MortalStore(str(root))
    cache = fake_cache(store, engine)
    trainings = Trainings(
        engine=engine,  # type: ignore[arg-type]
        store=store,
        adapters=cache,
        save_adapter=save_fake_adapter,  # type: ignore[arg-type]
        claims=Claims(store, lease_seconds=LEASE_SECONDS),
    )
    registration = functools.partial(register, trainings=trainings, adapters=cache, pace=FAST)
    try:
        async with serving(registration) as channel:
            yield Replica(trainer_pb2_grpc.TrainerServiceStub(channel), engine, store, trainings)
            await trainings.close(grace_seconds=0.0)
    finally:
        engine.close()


@pytest.fixture
async def pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Replica, Replica]]:
    monkeypatch.setattr(claims_module, "RENEWALS_PER_LEASE", 300)
    monkeypatch.setattr(claims_module, "LONGEST_LOOK_SECONDS", 0.05)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(replica(tmp_path))
        yield first, await stack.enter_async_context(replica(tmp_path))


async def _held_up(
    pair: tuple[Replica, Replica],
) -> tuple[
    asyncio.Task[list[trainer_pb2.TrainAdapterResponse]],
    asyncio.Task[list[trainer_pb2.TrainAdapterResponse]],
]:
    """The first trains, the second follows; the first's engine waits at its gate."""
    owner, other = pair
    owner.engine.gate.clear()
    first = owner.begin()
    await until(lambda: owner.engine.waiting == 1)
    second = other.begin()
    await until(lambda: any(one.following for one in other.trainings._live.values()))
    return first, second


def _set_lease(replica: Replica, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on it takes an owner for dead, and renews its own claims, by this lease."""
    assert replica.trainings._claims is not None
    monkeypatch.setattr(replica.trainings._claims, "_lease_seconds", seconds)


async def test_the_same_request_through_two_trainers_trains_once_and_both_answer(
    pair: tuple[Replica, Replica],
) -> None:
    owner, other = pair
    first, second = await _held_up(pair)
    owner.engine.gate.set()
    assert (await first)[-1].result == (await second)[-1].result
    assert (await first)[-1].result.outcome == common_pb2.OUTCOME_OK
    assert (len(owner.engine.trained), len(other.engine.trained)) == (1, 0)
    assert owner.store.list("run/claims") == ()


async def test_many_requests_sent_to_both_at_once_are_trained_once_each(
    pair: tuple[Replica, Replica],
) -> None:
    requests = [training_request(request_id=f"t{index}", init_seed=index) for index in range(12)]
    both = await asyncio.gather(*(one.messages(request) for request in requests for one in pair))
    results = [messages[-1].result for messages in both]
    assert results[::2] == results[1::2]
    seeds = [request.init_seed for one in pair for request in one.engine.trained]
    assert sorted(seeds) == list(range(12))


async def test_progress_and_state_are_the_same_through_either(
    pair: tuple[Replica, Replica],
) -> None:
    owner, other = pair
    owner.engine.gate.clear()
    first = owner.begin()
    await until(lambda: owner.engine.waiting == 1)
    (training,) = owner.trainings._live.values()
    training.progress.set(
        trainer_pb2.TrainingProgress(
            state=common_pb2.TASK_STATE_RUNNING, step=7, total_steps=9, loss=0.5
        )
    )
    second = other.begin()
    await until(lambda: any(one.progress.value.step == 7 for one in other.trainings._live.values()))
    assert (await other.get()).progress == (await owner.get()).progress
    owner.engine.gate.set()
    await first
    assert any(message.progress.step == 7 for message in await second)
    assert (await other.get()).result == (await owner.get()).result


async def test_a_training_that_only_the_other_knows_is_found_and_cancelled_through_this_one(
    pair: tuple[Replica, Replica],
) -> None:
    owner, other = pair
    owner.engine.gate.clear()
    first = owner.begin()
    await until(lambda: owner.engine.waiting == 1)
    assert (await other.get()).progress.state == common_pb2.TASK_STATE_QUEUED
    assert await other.cancel() == common_pb2.TASK_STATE_DONE
    assert (await first)[-1].result.outcome == common_pb2.OUTCOME_CANCELLED
    assert (await other.get()).result.outcome == common_pb2.OUTCOME_CANCELLED
    assert owner.store.list("run/claims") == ()


async def test_a_follower_passes_a_cancel_on(pair: tuple[Replica, Replica]) -> None:
    first, second = await _held_up(pair)
    assert await pair[1].cancel() == common_pb2.TASK_STATE_DONE
    for ended in (await first, await second):
        assert ended[-1].result.outcome == common_pb2.OUTCOME_CANCELLED


async def test_a_cancel_that_comes_before_a_trainer_knows_that_it_follows_is_passed_on(
    pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = pair
    owner.engine.gate.clear()
    first = owner.begin()
    await until(lambda: owner.engine.waiting == 1)
    claims, looking = other.trainings._claims, asyncio.Event()
    assert claims is not None
    take = claims.take

    async def slow(training: Training, number: int) -> bool:
        await looking.wait()
        return await take(training, number)

    monkeypatch.setattr(claims, "take", slow)
    second = other.begin()
    await until(lambda: bool(other.trainings._live))
    cancelling = asyncio.create_task(other.cancel())
    await until(lambda: any(one.cancel_requested for one in other.trainings._live.values()))
    looking.set()
    assert (await second)[-1].result.outcome == common_pb2.OUTCOME_CANCELLED
    assert (await first)[-1].result.outcome == common_pb2.OUTCOME_CANCELLED
    assert await cancelling == common_pb2.TASK_STATE_DONE


async def test_a_cancel_through_the_other_trainer_outlives_a_failure_of_the_one_that_trains(
    pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(request: object) -> None:
        raise Transient("the step failed in company")

    owner, other = pair
    _set_lease(owner, NEVER_SECONDS, monkeypatch)  # it does not look
    owner.engine.gate.clear()
    first = owner.begin()
    await until(lambda: owner.engine.waiting == 1)
    cancelling = asyncio.create_task(other.cancel())
    await until(lambda: any(name.endswith(".cancel") for name in owner.store.list("run/claims")))
    owner.engine.fault = fails
    owner.engine.gate.set()
    with pytest.raises(Transient):
        await first
    owner.engine.fault = lambda request: None
    again = (await owner.begin())[-1].result
    assert again.outcome == common_pb2.OUTCOME_CANCELLED and owner.engine.trained == []
    assert await cancelling == common_pb2.TASK_STATE_DONE
    await until(lambda: owner.store.list("run/claims") == ())


async def test_another_body_under_the_same_id_is_refused_by_the_other_trainer_too(
    pair: tuple[Replica, Replica],
) -> None:
    owner, other = pair
    owner.engine.gate.clear()
    first = owner.begin()
    await until(lambda: owner.engine.waiting == 1)
    changed = training_request(init_seed=99)
    error = await refusal(other.stub.TrainAdapter(changed, timeout=DEADLINE_SECONDS))
    assert isinstance(error, Conflict)
    owner.engine.gate.set()
    await first


async def test_a_training_whose_owner_is_killed_is_taken_over_and_has_one_result(
    pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = pair
    first, second = await _held_up(pair)
    owner.store.dead = True
    _set_lease(other, 1.0, monkeypatch)
    result = (await second)[-1].result
    assert result.outcome == common_pb2.OUTCOME_OK
    assert len(other.engine.trained) == 1
    owner.store.dead = False  # it was only paused, and ends too
    owner.engine.gate.set()
    assert (await first)[-1].result == result
    assert len(owner.store.list("run/trainings")) == 1


async def test_a_training_whose_owner_shuts_down_is_taken_over_without_waiting_for_the_lease(
    pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = pair
    first, second = await _held_up(pair)
    _set_lease(other, NEVER_SECONDS, monkeypatch)
    await owner.trainings.close(grace_seconds=0.0)
    with pytest.raises(Transient):
        await first
    assert (await second)[-1].result.outcome == common_pb2.OUTCOME_OK
    assert len(other.engine.trained) == 1


async def test_a_trainer_that_ends_does_not_spend_its_grace_on_what_another_does(
    pair: tuple[Replica, Replica],
) -> None:
    owner, other = pair
    first, second = await _held_up(pair)
    async with asyncio.timeout(15):
        await other.trainings.close(grace_seconds=60.0)
    with pytest.raises(Transient):
        await second
    owner.engine.gate.set()
    assert (await first)[-1].result.outcome == common_pb2.OUTCOME_OK


async def test_a_paused_owner_that_fails_late_leaves_the_claim_of_who_took_over_to_be_found(
    pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = pair
    claims = other.trainings._claims
    assert claims is not None
    first, second = await _held_up(pair)
    other.engine.gate.clear()
    owner.store.dead = True
    _set_lease(other, 1.0, monkeypatch)
    await until(lambda: other.engine.waiting == 1)
    owner.store.dead = False
    await owner.trainings.close(grace_seconds=0.0)
    with pytest.raises(Transient):
        await first
    assert claims.find("run", "training-1") is not None
    other.engine.gate.set()
    assert (await second)[-1].result.outcome == common_pb2.OUTCOME_OK
    assert other.store.list("run/claims") == ()
