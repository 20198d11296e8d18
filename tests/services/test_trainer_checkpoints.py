"""The M-step survives its trainer.

What was trained is resumed from its last checkpoint, to the same adapter, and no checkpoint is ever
a reason to fail.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
from pathlib import Path

import pytest
import structlog
from eventually import until
from service_harness import DEADLINE_SECONDS, policy, read_all
from trainer_harness import (
    MODEL,
    NEVER_SECONDS,
    OFTEN_SECONDS,
    LiveTrainer,
    live_trainer,
    m_step,
    optimizer,
)

from seal.artifacts import ArtifactStore
from seal.engine import SlotCheckpoint
from seal.errors import SealError, Transient
from seal.records import AdapterReference
from seal.v1 import common_pb2, trainer_pb2
from trainer_svc.checkpoints import CheckpointFile
from trainer_svc.plan import parse_training

LONG = optimizer(epochs=100)
"""300 steps."""


async def suspend_in_the_middle(
    trainer: LiveTrainer, request: trainer_pb2.TrainAdapterRequest, *, after_step: int = 5
) -> SealError:
    """End a trainer as SIGTERM does while it trains; the error that its client gets."""
    call = trainer.stub.TrainAdapter(request, timeout=DEADLINE_SECONDS)
    async for message in call:
        assert not message.HasField("result"), "the training ended before it could be suspended"
        if message.progress.step >= after_step:
            break
    trainer.trainings.suspend()
    with pytest.raises(SealError) as caught:
        await read_all(call)
    await trainer.trainings.close(grace_seconds=0.0)
    return caught.value


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> trainer_pb2.TrainingResult:
    """The long M-step where nothing disturbs it."""

    async def train() -> trainer_pb2.TrainingResult:
        async with live_trainer(tmp_path_factory.mktemp("calm")) as trainer:
            return await trainer.result(m_step(optimizer=LONG))

    return asyncio.run(train())


async def test_a_suspended_m_step_is_resumed_by_the_next_trainer_and_ends_with_the_same_adapter(
    tmp_path: Path, calm: trainer_pb2.TrainingResult
) -> None:
    async with live_trainer(tmp_path) as trainer:
        assert isinstance(await suspend_in_the_middle(trainer, m_step(optimizer=LONG)), Transient)
        (path,) = trainer.checkpoints()
        saved = SlotCheckpoint.from_bytes(trainer.store.read_bytes(path))
    async with live_trainer(tmp_path) as trainer:
        messages = await trainer.messages(m_step(optimizer=LONG))
        assert trainer.checkpoints() == ()
    resumed = {message.progress.resumed_step for message in messages[1:-1]}
    assert resumed == {saved.step}
    assert 5 <= saved.step < calm.steps
    result = messages[-1].result
    assert result.adapter.sha256 == calm.adapter.sha256
    assert (result.steps, result.tokens, result.final_loss) == (
        calm.steps,
        calm.tokens,
        calm.final_loss,
    )


async def test_on_a_policy_it_is_resumed_too_and_on_another_policy_it_is_not(
    tmp_path: Path,
) -> None:
    async with live_trainer(tmp_path) as trainer:
        made = [
            await trainer.result(m_step(request_id=f"policy-{seed}", init_seed=seed))
            for seed in (1, 2)
        ]
        policies = [
            AdapterReference(path=item.adapter.path, sha256=item.adapter.sha256) for item in made
        ]
        on_first, on_second = (
            m_step(optimizer=LONG, policy=policy(item, base_model=MODEL)) for item in policies
        )
        await suspend_in_the_middle(trainer, on_first)
    async with live_trainer(tmp_path) as trainer:
        content = trainer.store.read_bytes(trainer.checkpoints()[0])
        messages = await trainer.messages(on_first)
        assert messages[-2].progress.resumed_step >= 5
    async with live_trainer(
        tmp_path / "other", store=ArtifactStore(str(tmp_path / "artifacts"))
    ) as trainer:
        on_second.request_id = "second"
        trainer.store.write_bytes(f"run/checkpoints/{_name('second')}", content)
        messages = await trainer.messages(on_second)
        assert messages[-1].result.outcome == common_pb2.OUTCOME_OK
        assert {message.progress.resumed_step for message in messages[:-1]} == {0}


def _name(request_id: str) -> str:
    """Name of a training's checkpoint."""
    return f"{hashlib.sha256(request_id.encode()).hexdigest()}.safetensors"


async def test_suspended_again_and_again_it_gets_on_and_ends_with_the_same_adapter(
    tmp_path: Path, calm: trainer_pb2.TrainingResult
) -> None:
    steps = []
    for _ in range(3):
        async with live_trainer(tmp_path) as trainer:
            await suspend_in_the_middle(
                trainer, m_step(optimizer=LONG), after_step=(steps[-1] if steps else 0) + 3
            )
            steps.append(
                SlotCheckpoint.from_bytes(trainer.store.read_bytes(trainer.checkpoints()[0])).step
            )
    assert steps == sorted(set(steps))
    async with live_trainer(tmp_path) as trainer:
        assert (await trainer.result(m_step(optimizer=LONG))).adapter.sha256 == calm.adapter.sha256


async def test_only_one_file_is_kept_it_moves_on_and_it_goes_when_the_training_is_done(
    tmp_path: Path,
) -> None:
    steps: set[int] = set()
    async with live_trainer(tmp_path) as trainer:
        running = asyncio.create_task(
            trainer.result(m_step(optimizer=LONG, checkpoint_every_seconds=OFTEN_SECONDS))
        )
        while not running.done():
            if paths := trainer.checkpoints():
                (path,) = paths
                try:
                    steps.add(SlotCheckpoint.from_bytes(trainer.store.read_bytes(path)).step)
                except LookupError:
                    break  # removed between the two calls
            await asyncio.sleep(0.01)
        assert (await running).outcome == common_pb2.OUTCOME_OK
        assert len(steps) >= 2
        assert trainer.checkpoints() == ()
        assert sorted(path.name for path in (tmp_path / "artifacts" / "run").iterdir()) == [
            "adapters",
            "checkpoints",
            "trainings",
        ]
        assert list((tmp_path / "artifacts" / "run" / "checkpoints").iterdir()) == []


async def test_an_inner_loop_keeps_no_checkpoint_and_is_dropped_by_a_shutdown_without_grace(
    tmp_path: Path,
) -> None:
    request = m_step(optimizer=optimizer(epochs=1000), checkpoint_every_seconds=0.0)
    async with live_trainer(tmp_path) as trainer:
        call = trainer.stub.TrainAdapter(request, timeout=DEADLINE_SECONDS)
        async for message in call:
            if message.progress.step:
                break
        trainer.trainings.suspend()
        await asyncio.sleep(0.1)
        assert (
            await trainer.stub.GetTraining(
                trainer_pb2.GetTrainingRequest(request_id="m-step", run="run")
            )
        ).progress.step > 0
        await trainer.trainings.close(grace_seconds=0.0)
        with pytest.raises(Transient):
            await read_all(call)
        assert trainer.checkpoints() == ()


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty", "of another training"])
async def test_a_damaged_or_foreign_checkpoint_is_logged_and_the_training_starts_anew(
    tmp_path: Path, calm: trainer_pb2.TrainingResult, damage: str
) -> None:
    async with live_trainer(tmp_path) as trainer:
        await suspend_in_the_middle(
            trainer, m_step(optimizer=LONG, init_seed=99 if damage == "of another training" else 7)
        )
        (path,) = trainer.checkpoints()
        content = trainer.store.read_bytes(path)
        if damage == "truncated":
            trainer.store.write_bytes(path, content[:-100])
        if damage == "altered":
            trainer.store.write_bytes(path, content[:-100] + bytes(100))
        if damage == "empty":
            trainer.store.write_bytes(path, b"")
    with structlog.testing.capture_logs() as logs:
        async with live_trainer(tmp_path) as trainer:
            messages = await trainer.messages(m_step(optimizer=LONG))
            assert trainer.checkpoints() == ()
    assert {message.progress.resumed_step for message in messages[:-1]} == {0}
    assert messages[-1].result.adapter.sha256 == calm.adapter.sha256
    assert [line["event"] for line in logs if "anew" in line["event"]]


class FullForCheckpoints(ArtifactStore):
    """A store that has no room for checkpoints."""

    def write_bytes(self, path: str, content: bytes) -> None:
        if "/checkpoints/" in path:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        super().write_bytes(path, content)


async def test_a_checkpoint_that_cannot_be_written_does_not_stop_the_training(
    tmp_path: Path,
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with live_trainer(
            tmp_path, store=FullForCheckpoints(str(tmp_path / "artifacts"))
        ) as trainer:
            result = await trainer.result(
                m_step(optimizer=LONG, checkpoint_every_seconds=OFTEN_SECONDS)
            )
            assert trainer.checkpoints() == ()
    assert result.outcome == common_pb2.OUTCOME_OK
    assert any("checkpoint not written" in line["event"] for line in logs)


def test_a_defect_in_one_checkpoint_is_logged_and_the_next_is_written(tmp_path: Path) -> None:
    class Checkpoint:
        step = 1

        def __init__(self, content: bytes | None) -> None:
            self.content = content

        def to_bytes(self) -> bytes:
            if self.content is None:
                raise RuntimeError("a defect")
            return self.content

    store = ArtifactStore(str(tmp_path / "artifacts"))
    file = CheckpointFile(store, parse_training(m_step()))
    with structlog.testing.capture_logs() as logs:
        for content in (None, b"the next"):
            file.put(Checkpoint(content))  # type: ignore[arg-type]
            file.wait()
    said = [line["event"] for line in logs]
    assert said == ["checkpoint not written, training goes on", "checkpoint written"]
    (path,) = store.list("run/checkpoints")
    assert store.read_bytes(path) == b"the next"


async def test_a_cancelled_training_leaves_no_checkpoint(tmp_path: Path) -> None:
    request = m_step(optimizer=optimizer(epochs=1000), checkpoint_every_seconds=OFTEN_SECONDS)
    async with live_trainer(tmp_path) as trainer:
        running = asyncio.create_task(trainer.result(request))
        await until(lambda: bool(trainer.checkpoints()))
        await trainer.stub.CancelTraining(
            trainer_pb2.CancelTrainingRequest(request_id="m-step", run="run")
        )
        assert (await running).outcome == common_pb2.OUTCOME_CANCELLED
        assert trainer.checkpoints() == ()


async def test_a_checkpoint_left_beside_a_stored_result_goes_with_the_next_retry(
    tmp_path: Path,
) -> None:
    async with live_trainer(tmp_path) as trainer:
        before = await trainer.result(m_step())
        trainer.store.write_bytes(
            f"run/checkpoints/{_name('m-step')}",
            b"left by a process that was killed after it had stored the result",
        )
        assert await trainer.result(m_step()) == before
        assert trainer.checkpoints() == ()


async def test_once_suspended_long_trainings_are_sent_elsewhere_and_short_ones_still_served(
    tmp_path: Path,
) -> None:
    async with live_trainer(tmp_path) as trainer:
        trainer.trainings.suspend()
        with pytest.raises(Transient):
            await trainer.result(m_step())
        assert (
            await trainer.result(m_step(checkpoint_every_seconds=0.0))
        ).outcome == common_pb2.OUTCOME_OK


async def test_how_often_checkpoints_are_kept_is_no_part_of_the_body(tmp_path: Path) -> None:
    async with live_trainer(tmp_path) as trainer:
        first = await trainer.result(m_step())
        for seconds in (0.0, 1.0, NEVER_SECONDS):
            assert await trainer.result(m_step(checkpoint_every_seconds=seconds)) == first
