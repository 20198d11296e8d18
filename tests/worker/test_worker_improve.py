"""The M-step: from a rollout's records to a selection, and from that to a policy, or none."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import AsyncMock

import grpc
import pytest
from controller_harness import IMPATIENT, POLICY, RUN, Workplace, small_spec, workplace
from fake_services import MODEL, Fakes

from seal.errors import Conflict, Internal, InvalidInput, Transient
from seal.records import LearntRow, SelectionRecord, Stage
from seal.runs.epochs import claim_stage
from seal.runs.store import read_selection
from seal.settings import ImproveSettings
from seal.v1 import common_pb2, trainer_pb2
from trainer_svc.examples import with_examples


def m_step(place: Workplace) -> trainer_pb2.TrainAdapterRequest:
    """The request of the one M-step."""
    (name,) = [name for name in place.asked("train") if "/improve/" in name]
    request = place.fakes.requests[f"train {name}"]
    assert isinstance(request, trainer_pb2.TrainAdapterRequest)
    return request


async def selection_of(place: Workplace, round: int) -> SelectionRecord:
    selection = await read_selection(place.store, RUN, round)
    assert selection is not None
    return selection


async def test_records_that_are_not_those_of_their_summary_are_never_learnt(tmp_path: Path) -> None:
    async with workplace(tmp_path) as place:
        await place.run(Stage.ROLLOUT, round=1)
        path = f"{place.files(Stage.ROLLOUT, round=1).path}/records.jsonl"
        place.store.write_bytes(
            path, place.store.read_bytes(path).replace(b'"reward":0', b'"reward":1')
        )
        with pytest.raises(Internal, match="is not the file of its summary"):
            await place.run(Stage.IMPROVE, round=1)


async def test_a_rollout_without_its_summary_is_not_taken_for_finished(tmp_path: Path) -> None:
    async with workplace(tmp_path) as place:
        with pytest.raises(Internal, match="has no summary"):
            await place.run(Stage.IMPROVE, round=1)


async def test_nothing_kept_trains_nothing_and_makes_no_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fake_services.SHARE_INVALID", 1.0)
    async with workplace(tmp_path) as place:
        await place.run(Stage.ROLLOUT, round=1)
        summary = await place.run(Stage.IMPROVE, round=1)
        assert [name for name in place.asked("train") if "/improve/" in name] == []
        selection = await selection_of(place, 1)
    assert (summary.kept, summary.policy, summary.outcomes) == (0, None, {})
    assert selection.kept == () and sum(selection.dropped.values()) == 9


async def test_an_m_step_that_diverges_makes_no_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fake_services

    honest = fake_services._training

    def diverging(
        request: trainer_pb2.TrainAdapterRequest, steps: int
    ) -> trainer_pb2.TrainingResult:
        bad = trainer_pb2.TrainingResult(outcome=common_pb2.OUTCOME_DIVERGED, steps=1)
        return bad if "/improve/" in request.request_id else honest(request, steps)

    monkeypatch.setattr(fake_services, "_training", diverging)
    async with workplace(tmp_path) as place:
        await place.run(Stage.ROLLOUT, round=1)
        summary = await place.run(Stage.IMPROVE, round=1)
    assert summary.policy is None
    assert summary.outcomes == {"diverged": 1}
    assert summary.kept > 0


async def test_the_policy_learns_the_kept_prompts_and_edits_and_is_one_adapter_on_the_base(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path) as place:
        await place.run(Stage.ROLLOUT, round=1, policy=POLICY)
        summary = await place.run(Stage.IMPROVE, round=1, policy=POLICY)
        request, selection = m_step(place), await selection_of(place, 1)
    assert [(row.prompt, row.completion) for row in request.examples] == [
        (row.prompt, row.completion) for edit in selection.kept for row in edit.rows
    ]
    assert request.policy.adapter.sha256 == POLICY.sha256
    assert request.export_mode == trainer_pb2.EXPORT_MODE_WITH_POLICY
    assert request.checkpoint_every_seconds == place.spec.improve.checkpoint_every_seconds > 0
    assert not any(
        place.fakes.requests[f"train {name}"].checkpoint_every_seconds
        for name in place.asked("train")
        if name != request.request_id
    )
    assert (request.lora.rank, request.optimizer.epochs) == (
        place.spec.improve.lora.rank,
        place.spec.improve.optimizer.epochs,
    )
    assert summary.policy is not None
    assert summary.result_sha256 == selection.sha256


async def test_an_m_step_from_the_base_leaves_the_policy_beneath_out(tmp_path: Path) -> None:
    async with workplace(
        tmp_path, spec=small_spec(tmp_path, improve=ImproveSettings(start="base"))
    ) as place:
        await place.run(Stage.ROLLOUT, round=1, policy=POLICY)
        await place.run(Stage.IMPROVE, round=1, policy=POLICY)
        request = m_step(place)
    assert not request.policy.HasField("adapter")
    assert request.policy.base_model == place.spec.model


async def test_what_is_kept_is_decided_once_before_anything_is_trained(tmp_path: Path) -> None:
    fakes = Fakes(
        fail=lambda kind, name, call: grpc.StatusCode.UNAVAILABLE if "/improve/" in name else None
    )
    settings = IMPATIENT.model_copy(update={"patience_seconds": 0.05})
    async with workplace(tmp_path, fakes=fakes, settings=settings) as place:
        await place.run(Stage.ROLLOUT, round=1)
        with pytest.raises(Transient):
            await place.run(Stage.IMPROVE, round=1)
        decided = await selection_of(place, 1)
        place.store.write_bytes(f"{place.files(Stage.ROLLOUT, round=1).path}/records.jsonl", b"")
        fakes.fail = lambda kind, name, call: None
        await place.run(Stage.IMPROVE, round=1)
        assert len(m_step(place).examples) == len(decided.kept)


async def test_the_number_of_shards_changes_nothing_that_is_kept(tmp_path: Path) -> None:
    digests = set()
    for shards in (1, 3):
        directory = tmp_path / str(shards)
        directory.mkdir()
        async with workplace(
            directory, spec=small_spec(directory, passages=(5, 2, 2), shards=shards)
        ) as place:
            for shard in range(shards):
                await place.run(Stage.ROLLOUT, round=1, shard=shard)
            digests.add((await place.run(Stage.IMPROVE, round=1)).result_sha256)
    assert len(digests) == 1


def words(row: LearntRow) -> int:
    """Tokens of the fake trainer but for the last one."""
    return len(f"{row.prompt} {row.completion}".split())


async def test_an_edit_too_long_to_be_learnt_leaves_its_place_to_the_next_best_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fakes' prompts are shorter than the domain's, which these rows have no room for.
    monkeypatch.setattr("controller_svc.worker.prepare.check_learnable", AsyncMock())
    # Several of each, so that the longest kept row is longer than a passage, which must fit.
    improve = ImproveSettings(keep_per_context=3)
    spec = small_spec(tmp_path, passages=(8, 2, 2), improve=improve)
    async with workplace(tmp_path, spec=spec) as place:
        await place.run(Stage.ROLLOUT, round=1)
        await place.run(Stage.IMPROVE, round=1)
        calm = await selection_of(place, 1)
    limit = max(words(row) for edit in calm.kept for row in edit.rows)
    (tmp_path / "again").mkdir()
    short = Fakes(model=MODEL.model_copy(update={"max_row_tokens": limit}))
    async with workplace(tmp_path / "again", spec=spec, fakes=short) as place:
        await place.run(Stage.ROLLOUT, round=1)
        summary = await place.run(Stage.IMPROVE, round=1)
        selection = await selection_of(place, 1)
    assert selection.dropped["too_long"] >= 1
    assert summary.kept == len(selection.kept)
    assert all(words(row) < limit for edit in selection.kept for row in edit.rows)
    assert summary.policy is not None


async def test_an_m_step_too_large_for_a_message_goes_by_a_file_and_is_the_same_training(
    tmp_path: Path,
) -> None:
    spec = small_spec(tmp_path, passages=(8, 2, 2))
    async with workplace(tmp_path, spec=spec) as place:
        await place.run(Stage.ROLLOUT, round=1)
        place.clients._calls.settings = IMPATIENT.model_copy(update={"max_request_bytes": 500})
        summary = await place.run(Stage.IMPROVE, round=1)
        request, selection = m_step(place), await selection_of(place, 1)
        whole = with_examples(request, place.store)
    assert len(request.examples) == 0 and request.ByteSize() < 500
    assert [(row.prompt, row.completion) for row in whole.examples] == [
        (row.prompt, row.completion) for edit in selection.kept for row in edit.rows
    ]
    assert summary.policy is not None
    damaged = trainer_pb2.TrainAdapterRequest()
    damaged.CopyFrom(request)
    damaged.examples_file.sha256 = "0" * 64
    with pytest.raises(InvalidInput, match="examples_file: has another content"):
        with_examples(damaged, place.store)


async def test_a_selection_of_an_older_controller_is_refused_and_changes_nothing(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path) as place:
        await place.run(Stage.ROLLOUT, round=1)
        await claim_stage(place.store, RUN, 1, Stage.IMPROVE, 2)
        with pytest.raises(Conflict, match="epoch 1, its stage was started anew in epoch 2"):
            await place.run(Stage.IMPROVE, round=1)
        assert await read_selection(place.store, RUN, 1) is None
        assert (await place.run(Stage.IMPROVE, round=1, epoch=2)).kept > 0
