"""The M-step on parts with credit, and on as many drawn by chance."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from controller_harness import RUN, Workplace, workplace
from fake_services import MODEL, Fakes
from parts_by_chance import parts_spec, use_chance_affinity

from seal.domains.base import ABSTAIN
from seal.records import LearntRow, SelectionRecord, ShardSummary, Stage
from seal.runs.store import read_selection
from seal.settings import EditSettings, ImproveSettings, RunSpec
from seal.v1 import trainer_pb2


@pytest.fixture(autouse=True)
def chance_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    use_chance_affinity(monkeypatch)


async def m_step(place: Workplace) -> tuple[ShardSummary, SelectionRecord]:
    """A rollout and its M-step."""
    for shard in range(place.spec.shards):
        await place.run(Stage.ROLLOUT, round=1, shard=shard)
    summary = await place.run(Stage.IMPROVE, round=1)
    selection = await read_selection(place.store, RUN, 1)
    assert selection is not None
    return summary, selection


def learnt(place: Workplace) -> list[tuple[str, str]]:
    """Rows of the M-step that the trainer was asked for."""
    request = place.fakes.requests[f"train {RUN}/r1/improve/policy"]
    assert isinstance(request, trainer_pb2.TrainAdapterRequest)
    return [(row.prompt, row.completion) for row in request.examples]


def folder(parent: Path, name: str) -> Path:
    path = parent / name
    path.mkdir()
    return path


async def run(directory: Path, spec: RunSpec | None = None) -> SelectionRecord:
    async with workplace(directory, spec=spec or parts_spec(directory)) as place:
        return (await m_step(place))[1]


async def test_the_policy_learns_the_credited_parts_by_the_prompt_of_a_trained_policy(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path, spec=parts_spec(tmp_path)) as place:
        summary, selection = await m_step(place)
        records = await place.records(Stage.ROLLOUT, round=1)
        rows = learnt(place)
    assert rows == [(row.prompt, row.completion) for row in selection.rows]
    by_context = {record.context_id: record for record in records}
    for kept in selection.kept:
        edit = by_context[kept.context_id].edits[kept.candidate]
        asked = by_context[kept.context_id].parts
        for row in kept.rows:
            assert row.completion == edit.parts[row.part].text
            assert row.prompt.endswith(asked[row.part].start)
            assert len(row.prompt) < len(asked[row.part].prompt), "no worked examples"
            assert (row.credit or 0) > 0.01
    texts = sum(len(record.parts) * len(record.edits) for record in records)
    assert summary.kept_parts == sum(len(kept.rows) for kept in selection.kept) > 5
    assert summary.kept_parts + sum(selection.dropped_parts.values()) == texts
    assert summary.kept + sum(selection.dropped.values()) == 3 * 2
    assert summary.label == "" and summary.policy is not None


async def test_prompts_without_a_useful_text_are_learnt_with_an_abstention(tmp_path: Path) -> None:
    async with workplace(tmp_path, spec=parts_spec(tmp_path)) as place:
        summary, selection = await m_step(place)
        records = {r.context_id: r for r in await place.records(Stage.ROLLOUT, round=1)}
    kept = {(edit.context_id, row.part) for edit in selection.kept for row in edit.rows}
    assert 0 < len(selection.abstaining) <= summary.kept_parts // 2
    for row in selection.abstaining:
        assert row.completion == ABSTAIN
        assert (row.context_id, row.part) not in kept
        assert row.prompt.endswith(records[row.context_id].parts[row.part].start)


async def test_the_control_learns_as_many_parts_of_each_context_and_says_what_it_is(
    tmp_path: Path,
) -> None:
    by_reward = await run(folder(tmp_path, "reward"))
    improve = ImproveSettings(credit="part", min_credit=0.01, selection="random")
    directory = folder(tmp_path, "chance")
    async with workplace(directory, spec=parts_spec(directory, improve=improve)) as place:
        summary, by_chance = await m_step(place)
    counts = [
        Counter(edit.context_id for edit in selection.kept for _ in edit.rows)
        for selection in (by_reward, by_chance)
    ]
    assert counts[0] == counts[1]
    assert by_chance.label == summary.label == "control without reward"
    assert by_chance.dropped_parts.keys() <= {"filtered", "untried", "not-chosen"}
    assert by_chance.sha256 != by_reward.sha256


@pytest.mark.parametrize("selection", ["reward", "random"])
async def test_the_number_of_shards_changes_no_part_that_is_kept(
    tmp_path: Path, selection: str
) -> None:
    improve = ImproveSettings.model_validate(
        {"credit": "part", "min_credit": 0.01, "abstain_share": 0.5, "selection": selection}
    )
    found = []
    for shards in (1, 3):
        directory = folder(tmp_path, str(shards))
        spec = parts_spec(directory, passages=(4, 1, 1), improve=improve, shards=shards)
        async with workplace(directory, spec=spec) as place:
            found.append((await m_step(place))[1].model_dump_json())
    assert found[0] == found[1]


async def test_a_part_too_long_to_be_learnt_leaves_its_place_and_is_counted(
    tmp_path: Path,
) -> None:
    # With its worked examples a row is longer than a passage, which must fit.
    worked = EditSettings(family="self-qa-by-sentence", k=2)
    directory = folder(tmp_path, "data")
    spec = parts_spec(directory, edit=worked)
    calm = await run(folder(tmp_path, "calm"), spec)
    limit = max(words(row) for row in calm.rows)
    short = Fakes(model=MODEL.model_copy(update={"max_row_tokens": limit}))
    async with workplace(directory, spec=spec, fakes=short) as place:
        summary, selection = await m_step(place)
    assert selection.dropped_parts["too_long"] >= 1
    assert all(words(row) < limit for row in selection.rows)
    assert summary.policy is not None


def words(row: LearntRow) -> int:
    """Tokens of the fake trainer but for the last one."""
    return len(f"{row.prompt} {row.completion}".split())
