"""Edits in parts through a worker: what is asked, recorded and learnt, and not asked twice."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from controller_harness import IMPATIENT, POLICY, small_spec, workplace
from fake_services import Fakes

from seal.domains.by_sentence import STARTS
from seal.errors import Transient
from seal.outcomes import Outcome
from seal.records import SelectionRecord, Stage, part_texts
from seal.runs.store import read_selection
from seal.settings import EditSettings, RunSpec

WORKED = "Brennick Bell"
"""A name in the worked examples of a part prompt."""
PARTS = 2 * len(STARTS)
"""Of a passage of two sentences."""


def parts_spec(directory: Path, **changes: object) -> RunSpec:
    """Passages of two sentences, and edits by sentence."""
    edit = EditSettings(family="self-qa-by-sentence", k=3, max_tokens=24)
    return small_spec(directory, **{"edit": edit, **changes})


async def test_an_edit_is_recorded_part_by_part_with_what_each_was_asked(tmp_path: Path) -> None:
    async with workplace(tmp_path, spec=parts_spec(tmp_path)) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
        records = await place.records(Stage.ROLLOUT, round=1)
    for record in records:
        assert [part.start for part in record.parts] == [*STARTS, *STARTS]
        assert all(WORKED in part.prompt for part in record.parts)
        for edit in record.edits:
            assert len(edit.parts) == PARTS and edit.tokens == sum(p.tokens for p in edit.parts)
            assert all(part.logprob is not None and part.logprob <= 0 for part in edit.parts)
            texts = part_texts(record.parts, edit)
            for example in edit.examples:
                assert texts[example.part] == f"{example.question} {example.answer}"
    edits = [edit for record in records for edit in record.edits]
    assert {example.part for edit in edits for example in edit.examples} == set(range(PARTS))
    assert summary.tokens["generate"] == sum(edit.tokens for edit in edits)


async def test_an_edit_of_which_all_parts_abstain_is_invalid(tmp_path: Path) -> None:
    async with workplace(tmp_path, spec=parts_spec(tmp_path, passages=(8, 2, 2))) as place:
        summary = await place.run(Stage.ROLLOUT, round=1)
        records = await place.records(Stage.ROLLOUT, round=1)
    silent = [edit for record in records for edit in record.edits if not edit.examples]
    assert silent and all(part.text == " -" for edit in silent for part in edit.parts)
    assert summary.outcomes["invalid"] == 2 * len(silent)


async def test_parts_count_against_what_is_asked_for_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller_svc.worker.edits.MAX_EDITS", 6 * PARTS + 1)
    async with workplace(tmp_path, spec=parts_spec(tmp_path, passages=(4, 2, 2))) as place:
        await place.run(Stage.ROLLOUT, round=1)
        asked = [
            len(place.fakes.requests[f"generate {name}"].contexts)
            for name in place.asked("generate")
        ]
    assert sorted(asked) == [2, 2]  # each with 3 x PARTS rows


async def test_a_group_that_was_interrupted_is_asked_again_identically(tmp_path: Path) -> None:
    fakes = Fakes(
        fail=lambda kind, name, call: (
            grpc.StatusCode.UNAVAILABLE if kind == "train" and "/edit/" in name else None
        )
    )
    settings = IMPATIENT.model_copy(update={"patience_seconds": 0.05})
    async with workplace(
        tmp_path, spec=parts_spec(tmp_path), fakes=fakes, settings=settings
    ) as place:
        with pytest.raises(Transient):
            await place.run(Stage.ROLLOUT, round=1)
        (name,) = place.asked("generate")
        first = place.fakes.requests[f"generate {name}"]
        written = await place.files(Stage.ROLLOUT, round=1).edits()
        folder = tmp_path / "artifacts" / place.files(Stage.ROLLOUT, round=1).path / "edits"
        (folder / f"{sorted(written)[0]}.json").unlink()
        fakes.fail = lambda kind, name, call: None
        await place.run(Stage.ROLLOUT, round=1)
        assert place.asked("generate") == [name]
        assert place.fakes.requests[f"generate {name}"] == first
        records = await place.records(Stage.ROLLOUT, round=1)
    assert {record.context_id: record.edits for record in records} == {
        each.context_id: each.edits for each in written.values()
    }


async def test_a_context_at_fault_has_no_parts_and_its_outcome(tmp_path: Path) -> None:
    fakes = Fakes(
        outcome=lambda kind, name: (
            Outcome.TOO_LONG if kind == "generate" and name == "Tower 1" else None
        )
    )
    async with workplace(tmp_path, spec=parts_spec(tmp_path), fakes=fakes) as place:
        await place.run(Stage.ROLLOUT, round=1)
        records = {record.title: record for record in await place.records(Stage.ROLLOUT, round=1)}
    faulty = records.pop("Tower 1")
    assert faulty.parts == () and [edit.parts for edit in faulty.edits] == [()] * 3
    assert {loop.outcome for loop in faulty.inner_loops} == {Outcome.TOO_LONG}
    assert all(len(record.parts) == PARTS for record in records.values())


async def selection_of(place: object) -> SelectionRecord:
    selection = await read_selection(place.store, "demo", 1)  # type: ignore[attr-defined]
    assert selection is not None
    return selection


async def test_a_whole_edit_is_learnt_by_all_its_parts_that_gave_an_example(
    tmp_path: Path,
) -> None:
    async with workplace(tmp_path, spec=parts_spec(tmp_path, passages=(8, 2, 2))) as place:
        await place.run(Stage.ROLLOUT, round=1)
        await place.run(Stage.IMPROVE, round=1)
        selection = await selection_of(place)
        records = {each.context_id: each for each in await place.records(Stage.ROLLOUT, round=1)}
        (name,) = [name for name in place.asked("train") if "/improve/" in name]
        request = place.fakes.requests[f"train {name}"]
    assert all(1 < len(edit.rows) < PARTS for edit in selection.kept) and selection.kept
    for edit in selection.kept:
        record = records[edit.context_id]
        written = record.edits[edit.candidate]
        assert [row.part for row in edit.rows] == [each.part for each in written.examples]
        for row in edit.rows:
            asked = record.parts[row.part]
            assert row.prompt == asked.prompt + asked.start
            assert row.completion == written.parts[row.part].text
    assert [(row.prompt, row.completion) for row in request.examples] == [
        (row.prompt, row.completion) for edit in selection.kept for row in edit.rows
    ]


@pytest.mark.parametrize("form", ["worked", "short"])
async def test_only_a_policy_that_has_learnt_is_asked_by_the_short_prompt(
    tmp_path: Path, form: str
) -> None:
    edit = EditSettings(family="self-qa-by-sentence", k=2, trained_prompt=form)
    async with workplace(tmp_path, spec=parts_spec(tmp_path, edit=edit)) as place:
        await place.run(Stage.ROLLOUT, round=1)
        await place.run(Stage.ROLLOUT, round=2, policy=POLICY)
        untrained, trained = (
            place.fakes.requests[f"generate {name}"].prompt.trained
            for name in place.asked("generate")
        )
        records = await place.records(Stage.ROLLOUT, round=2)
    assert (untrained, trained) == (False, form == "short")
    assert {WORKED in part.prompt for each in records for part in each.parts} == {form == "worked"}


@pytest.mark.parametrize("form", ["worked", "short"])
async def test_the_policy_learns_to_follow_the_prompt_by_which_it_will_be_asked(
    tmp_path: Path, form: str
) -> None:
    edit = EditSettings(family="self-qa-by-sentence", k=3, trained_prompt=form)
    spec = parts_spec(tmp_path, edit=edit, passages=(8, 2, 2))
    async with workplace(tmp_path, spec=spec) as place:
        await place.run(Stage.ROLLOUT, round=1)
        await place.run(Stage.IMPROVE, round=1)
        selection = await selection_of(place)
        records = {each.context_id: each for each in await place.records(Stage.ROLLOUT, round=1)}
    rows = [(edit.context_id, row) for edit in selection.kept for row in edit.rows]
    assert rows
    for context_id, row in rows:
        asked = records[context_id].parts[row.part]
        assert WORKED in asked.prompt and asked.prompt.endswith(row.prompt[-60 : -len(asked.start)])
        assert (WORKED in row.prompt, row.prompt.endswith(asked.start)) == (form == "worked", True)
