"""Which parts of a round's edits are learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations

import pytest
from pydantic import ValidationError

from seal.domains import get_domain
from seal.domains.base import ABSTAIN
from seal.errors import InvalidInput
from seal.outcomes import Outcome
from seal.part_prompts import PartPromptRecord
from seal.records import (
    AnswerRecord,
    ContextRecord,
    EditRecord,
    EvaluationRecord,
    ExampleRecord,
    InnerLoopRecord,
    PartRecord,
    SelectionRecord,
)
from seal.restem.part_selection import Place, places_of, select_parts
from seal.restem.parts import credited_parts, credits_of
from seal.settings import (
    EditSettings,
    EvaluationSettings,
    ExampleSettings,
    ImproveSettings,
    InnerLoopSettings,
    PromptFamily,
    RunSpec,
)

KNOWLEDGE = get_domain("knowledge")
QUESTIONS = ("Who built the stone bridge?", "When did the market burn?", "Where sleep the monks?")
GOLDS = ("Anna Veldra", "1832", "in the crypt")
PAIRS = {
    "right": ("Who built the old stone bridge?", "Anna Veldra"),
    "wrong": ("Who built a stone bridge?", "Karl Orm"),
    "burnt": ("When did the market burn down?", "1832"),
    "aside": ("What do goats eat?", "thistles"),
}
"""What a text is parsed to, by the text; any other text is filtered out."""


def evaluation(*answers: str | None) -> EvaluationRecord:
    """One answer per question; None: no grade."""
    rows = tuple(
        AnswerRecord(
            query_id=f"q{number}",
            question=QUESTIONS[number],
            golds=(GOLDS[number],),
            answer=answer or "",
            outcome=Outcome.UNGRADED if answer is None else Outcome.OK,
            score=None if answer is None else float(answer == GOLDS[number]),
            measures={},
            logprob=-1,
        )
        for number, answer in enumerate(answers)
    )
    scores = [row.score for row in rows if row.score is not None]
    return EvaluationRecord(
        outcome=Outcome.OK if scores else Outcome.UNGRADED,
        reward=sum(scores) / len(scores) if scores else None,
        answers=rows,
        ungraded=len(rows) - len(scores),
        max_logit_difference=1,
        tokens=1,
        engine_seconds=0,
    )


def edit(candidate: int, *texts: str, truncated: Sequence[int] = ()) -> EditRecord:
    return EditRecord(
        context_id="",
        candidate=candidate,
        seed=candidate,
        parts=tuple(
            PartRecord(text=text, tokens=2, truncated=part in truncated, logprob=-0.5)
            for part, text in enumerate(texts)
        ),
        examples=tuple(
            ExampleRecord(
                prompt=PAIRS[text][0],
                completion=PAIRS[text][1],
                part=part,
                question=PAIRS[text][0],
                answer=PAIRS[text][1],
            )
            for part, text in enumerate(texts)
            if text in PAIRS
        ),
    )


def loop(
    candidate: int, *answers: str | None, repeat: int = 0, outcome: Outcome = Outcome.OK
) -> InnerLoopRecord:
    evaluated = evaluation(*answers) if answers else None
    return InnerLoopRecord(
        kind="edit",
        context_id="",
        candidate=candidate,
        repeat=repeat,
        outcome=evaluated.outcome if evaluated and outcome is Outcome.OK else outcome,
        training=None,
        evaluation=evaluated,
        retained=None,
    )


def record(
    edits: Sequence[EditRecord],
    loops: Sequence[InnerLoopRecord],
    *,
    context_id: str = "c",
    baseline: Sequence[str | None] = ("no", "no", "no"),
) -> ContextRecord:
    return ContextRecord(
        context_id=context_id,
        title="Veldra",
        parts=tuple(
            PartPromptRecord(prompt=f"{context_id} part {part}:\n", start="Question:")
            for part in range(max(len(each.parts) for each in edits))
        ),
        baseline=evaluation(*baseline),
        edits=tuple(edits),
        inner_loops=tuple(loops),
        engine_seconds_generate=0,
    )


def chosen(
    *records: ContextRecord,
    too_long: Sequence[Place] = (),
    seed: int = 0,
    max_examples: int = 40,
    **settings: object,
) -> SelectionRecord:
    spec = RunSpec(
        seed=seed,
        edit=EditSettings(family="self-qa-by-sentence"),
        inner=InnerLoopSettings(examples=ExampleSettings(max_examples=max_examples)),
        improve=ImproveSettings.model_validate({"credit": "part"} | settings),
    )
    credits = credits_of(records, KNOWLEDGE)
    return select_parts(records, round=1, spec=spec, credits=credits, too_long=too_long)


def learnt(selection: SelectionRecord) -> list[tuple[int, int, str]]:
    """(candidate, part, text) of all that is kept."""
    return [
        (kept.candidate, row.part, row.completion) for kept in selection.kept for row in kept.rows
    ]


HELPED = record(
    [edit(0, "right", "aside", "junk"), edit(1, "wrong", "burnt", "right")],
    [loop(0, "Anna Veldra", "no", "no"), loop(1, "Anna Veldra", "1832", "no")],
)


def test_a_part_is_kept_for_the_answer_that_it_taught() -> None:
    selection = chosen(HELPED)
    assert learnt(selection) == [(0, 0, "right"), (1, 1, "burnt"), (1, 2, "right")]
    assert all((row.credit or 0) > 0.05 for row in selection.rows)
    assert selection.dropped == {}
    assert selection.dropped_parts == {"filtered": 1, "no-credit": 2}
    assert selection.label == ""


def test_a_row_asks_with_the_parts_own_prompt_and_start_and_learns_the_text_alone() -> None:
    row = chosen(HELPED).rows[1]
    assert (row.prompt, row.completion) == ("c part 1:\nQuestion:", "burnt")


def test_a_wrong_pair_that_takes_the_place_of_a_right_answer_has_negative_credit() -> None:
    harmed = record(
        [edit(0, "wrong", "burnt")],
        [loop(0, "Karl Orm", "1832", "no")],
        baseline=("Anna Veldra", "no", "no"),
    )
    selection = chosen(harmed)
    assert learnt(selection) == [(0, 1, "burnt")]
    assert selection.dropped_parts == {"negative": 1}


def test_the_same_text_for_the_same_prompt_is_kept_once_and_learns_from_all_its_loops() -> None:
    twice = record(
        [edit(0, "right"), edit(1, "right")],
        [loop(0, "Anna Veldra", "no", "no"), loop(1, "Anna Veldra", "no", "no")],
    )
    once = record([edit(0, "right")], [loop(0, "Anna Veldra", "no", "no")])
    both, alone = chosen(twice), chosen(once)
    assert learnt(both) == [(0, 0, "right")]
    assert both.dropped_parts == {"repeated": 1}
    assert both.dropped == {"no-credit": 1}
    assert (both.rows[0].credit or 0) > (alone.rows[0].credit or 0)


def test_a_text_is_kept_with_the_first_candidate_that_was_scored_and_wrote_it_whole() -> None:
    one = record(
        [edit(0, "right"), edit(1, "right", truncated=[0]), edit(2, "right")],
        [
            loop(0, outcome=Outcome.DIVERGED),
            loop(1, "Anna Veldra", "no", "no"),
            loop(2, "Anna Veldra", "no", "no"),
        ],
    )
    selection = chosen(one)
    assert learnt(selection) == [(2, 0, "right")]
    assert selection.dropped_parts == {"truncated": 1, "untried": 1}
    assert selection.dropped == {"diverged": 1, "no-credit": 1}


def test_what_ran_in_a_race_counts_and_nothing_is_said_of_what_did_not() -> None:
    raced = record(
        [edit(0, "right"), edit(1, "burnt")],
        [
            loop(0, "Anna Veldra", "no", "no"),
            loop(1, "no", "1832", "no"),
            loop(0, "Anna Veldra", "no", "no", repeat=1),
        ],
    )
    unraced = record(raced.edits, raced.inner_loops[:2])
    credit = {text.text: text.credit or 0 for text in credited_parts(raced, KNOWLEDGE)}
    before = {text.text: text.credit or 0 for text in credited_parts(unraced, KNOWLEDGE)}
    assert credit["right"] > before["right"]
    assert credit["burnt"] > 0.05
    assert [row.completion for row in chosen(raced).rows] == ["right", "burnt"]


def test_a_context_without_a_baseline_keeps_nothing() -> None:
    blind = record(HELPED.edits, HELPED.inner_loops, baseline=(None, None, None))
    selection = chosen(blind)
    assert selection.kept == ()
    assert selection.dropped == {"ungraded": 2}


def test_a_missing_grade_is_left_out_and_the_others_count() -> None:
    partly = record(
        [edit(0, "right", "burnt")], [loop(0, None, "1832", "no")], baseline=("no", "no", None)
    )
    credit = {text.text: text.credit for text in credited_parts(partly, KNOWLEDGE)}
    assert credit["right"] is None
    assert (credit["burnt"] or 0) > 0.05


def test_the_best_parts_of_a_context_are_kept_where_they_are_bounded() -> None:
    selection = chosen(HELPED, max_parts_per_context=1)
    best = max(chosen(HELPED).rows, key=lambda row: row.credit or 0)
    assert [row.completion for row in selection.rows] == [best.completion]
    assert selection.dropped_parts["not-chosen"] == 2


def test_a_higher_threshold_keeps_less() -> None:
    assert chosen(HELPED, min_credit=3.0).kept == ()
    assert chosen(HELPED, min_credit=3.0).dropped == {"no-credit": 2}


def test_a_part_too_long_to_be_learnt_is_left_out_wherever_it_stands() -> None:
    selection = chosen(HELPED, too_long=[("c", 1, 1)])
    assert learnt(selection) == [(0, 0, "right"), (1, 2, "right")]
    assert selection.dropped_parts["too_long"] == 1


def contexts(number: int) -> list[ContextRecord]:
    return [
        record(HELPED.edits, HELPED.inner_loops, context_id=f"c{index}") for index in range(number)
    ]


def test_the_control_draws_as_many_usable_parts_of_each_context_without_looking_at_credit() -> None:
    records = [
        *contexts(30),
        record([edit(0, "aside")], [loop(0, "no", "no", "no")], context_id="none"),
    ]
    by_reward, by_chance = chosen(*records), chosen(*records, selection="random")
    assert by_chance.label == "control without reward"
    for each in records:
        counts = [
            sum(len(kept.rows) for kept in selection.kept if kept.context_id == each.context_id)
            for selection in (by_reward, by_chance)
        ]
        assert counts[0] == counts[1]
    drawn = [text for *_, text in learnt(by_chance)]
    assert len(drawn) == 90
    # Five texts can be drawn, two of them "right", and three are.
    assert 10 < drawn.count("aside") < 26 and 10 < drawn.count("wrong") < 26
    assert "junk" not in drawn
    other = chosen(*records, selection="random", seed=1)
    assert other.sha256 != by_chance.sha256 != by_reward.sha256


def test_a_share_of_rows_teaches_to_write_nothing_where_nothing_of_use_was_written() -> None:
    harmed = record(
        [edit(0, "wrong", "burnt", "junk", "junk"), edit(1, "wrong", "junk", "junk", "aside")],
        [loop(0, "Karl Orm", "1832", "no"), loop(1, "Karl Orm", "no", "no")],
        baseline=("Anna Veldra", "no", "no"),
    )
    selection = chosen(harmed, abstain_share=10)
    assert [(row.part, row.completion) for row in selection.abstaining] == [
        (0, ABSTAIN),
        (2, ABSTAIN),
    ]
    assert selection.rows[-1].prompt == "c part 2:\nQuestion:"
    by_chance = chosen(harmed, abstain_share=10, selection="random")
    assert [row.part for row in by_chance.abstaining] == [2]
    assert len(chosen(harmed, abstain_share=1).abstaining) == 1
    assert chosen(harmed, abstain_share=0.5).abstaining == ()
    assert places_of(selection) == [("c", 0, 1), ("c", -1, 0), ("c", -1, 2)]
    left = chosen(harmed, abstain_share=10, too_long=[("c", -1, 0)])
    assert [row.part for row in left.abstaining] == [2]


def test_what_a_full_edit_left_out_is_no_reason_to_abstain() -> None:
    """Its pair may be as good as the others: there was no room for it."""
    full = record(
        [edit(0, "right", "burnt", "junk", "junk"), edit(1, "right", "junk", "junk", "junk")],
        [loop(0, "Anna Veldra", "1832", "no"), loop(1, "Anna Veldra", "no", "no")],
    )
    assert [row.part for row in chosen(full, abstain_share=10).abstaining] == [2, 3]
    assert chosen(full, abstain_share=10, max_examples=2).abstaining == ()


@pytest.mark.parametrize("settings", [{}, {"selection": "random"}, {"max_parts_per_context": 1}])
def test_the_order_of_the_records_and_of_their_loops_does_not_show(
    settings: dict[str, object],
) -> None:
    records = contexts(3)
    turned = [
        each.model_copy(update={"inner_loops": each.inner_loops[::-1], "edits": each.edits[::-1]})
        for each in records
    ]
    found = {
        chosen(*order, abstain_share=1, **settings).model_dump_json()
        for order in (*permutations(records), turned)
    }
    assert len(found) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (
            lambda: RunSpec(improve=ImproveSettings(credit="part")),
            "improve.credit",
        ),
        (
            lambda: RunSpec(
                edit=EditSettings(family="self-qa"),
                evaluation=EvaluationSettings(grader="logprob"),
                improve=ImproveSettings(credit="part"),
            ),
            "evaluation.grader",
        ),
        (lambda: RunSpec(improve=ImproveSettings(abstain_share=1)), "improve.abstainShare"),
        (
            lambda: RunSpec(
                edit=EditSettings(family="self-qa"),
                improve=ImproveSettings(credit="part", abstain_share=1),
            ),
            "improve.abstainShare",
        ),
        (  # gold answers would say what the control draws from
            lambda: RunSpec(
                edit=EditSettings(family="self-qa"),
                inner=InnerLoopSettings(preselect=1),
                improve=ImproveSettings(credit="part", selection="random"),
            ),
            "inner.preselect",
        ),
    ],
)
def test_settings_that_have_no_meaning_together_are_refused(
    change: Callable[[], RunSpec], field: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        change()
    (error,) = refused.value.errors()
    cause = error["ctx"]["error"]
    assert isinstance(cause, InvalidInput) and cause.field == field and cause.remedy


def test_an_m_step_is_bounded_by_the_parts_that_can_be_kept() -> None:
    def rows(improve: ImproveSettings, family: PromptFamily = "self-qa-by-sentence") -> int:
        inner = InnerLoopSettings(examples=ExampleSettings(max_examples=40))
        spec = RunSpec(edit=EditSettings(family=family, k=3), inner=inner, improve=improve)
        return spec.learnt_rows_at_most(10)

    assert rows(ImproveSettings(), "self-qa") == 10
    assert rows(ImproveSettings(keep_per_context=2)) == 800
    assert rows(ImproveSettings(credit="part")) == 1200
    assert rows(ImproveSettings(credit="part", max_parts_per_context=7, abstain_share=0.5)) == 105
