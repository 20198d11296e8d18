"""Edits in parts in the report: what was used and what was left out, text by text."""

from __future__ import annotations

import re

import pytest
from synthetic_run import make_run

from seal.artifacts import ArtifactStore
from seal.domains.by_sentence import STARTS, part_texts
from seal.records import EditRecord, PartRecord
from seal.report import Report, build_report, render_html
from seal.report.numbers.entries import EditEntry


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    store = ArtifactStore(str(tmp_path_factory.mktemp("run")))
    return build_report(
        store, make_run(store, by_sentence=True, passages=3, train_passages=3, rounds=1, k=2)
    )


def edits_of(report: Report) -> list[EditEntry]:
    return [edit for each in report.rollout_details[0].passages for edit in each.edits]


def test_parts_stand_under_the_sentence_that_they_were_asked_on(report: Report) -> None:
    for passage in report.rollout_details[0].passages:
        for edit in passage.edits:
            asked = [group.asked_on.removeprefix("Text: ") for group in edit.groups]
            assert asked == list(part_texts(passage.text))
            assert {len(group.parts) for group in edit.groups} == {len(STARTS)}


def test_every_part_is_used_filtered_or_abstained_and_learnt_ones_are_used(report: Report) -> None:
    edits = edits_of(report)
    parts = [part for edit in edits for group in edit.groups for part in group.parts]
    assert {part.fate for part in parts} == {"used", "filtered", "abstained"}
    assert [part.fate for part in parts[:3]] == ["used", "filtered", "abstained"]
    assert all(part.logprob is not None and part.logprob < 0 for part in parts)
    learnt = [part for part in parts if part.learnt]
    assert learnt and all(part.fate == "used" for part in learnt)
    kept = [edit for edit in edits if edit.decision == "kept"]
    assert len(learnt) == sum(len(edit.examples) for edit in kept)


def test_a_card_shows_the_parts_in_a_table_that_is_closed_until_it_is_wanted(
    report: Report,
) -> None:
    html = render_html(report)
    edits = edits_of(report)
    edit = edits[0]
    number = sum(len(group.parts) for group in edit.groups)
    used = sum(part.fate == "used" for group in edit.groups for part in group.parts)
    assert f"<details><summary>{used} of {number} parts used, " in html
    cards = html.split('class="card"')[1:]
    assert len(cards) == len(edits) and all("<pre" not in card for card in cards)
    rows = re.findall(r"<tr>", cards[0].split("</table>")[0])
    assert len(rows) == 1 + len(edit.groups), "one row for each sentence, not for each part"
    assert "&lt;b&gt;1&lt;/b&gt;" in cards[0] and "<b>1</b>" not in cards[0]
    assert "(log p −0.25)" in cards[0] and "2 abstained" in cards[0]


def test_an_edit_counts_as_cut_off_if_most_of_its_parts_are(report: Report) -> None:
    assert {shape.truncated for shape in report.shapes} == {0}
    cut, whole = (PartRecord(text="", tokens=1, truncated=truncated) for truncated in (True, False))

    def edit(*parts: PartRecord) -> EditRecord:
        return EditRecord(context_id="c", candidate=0, seed=0, parts=parts, examples=())

    assert [edit(*parts).truncated for parts in ((cut,), (cut, whole), (cut, cut, whole))] == [
        True,
        False,
        True,
    ]
