"""What an adapter learns of a rollout: pure functions on records."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import pytest

from seal.adaptations import lesson as lesson_module
from seal.adaptations.lesson import Lesson, LessonRow, chosen_edit, make_lesson, replay_rows
from seal.domains import get_domain
from seal.domains.base import Context, Query
from seal.outcomes import Outcome
from seal.records import (
    AnswerRecord,
    ContextRecord,
    EditRecord,
    EvaluationRecord,
    ExampleRecord,
    InnerLoopRecord,
    PartRecord,
)
from seal.settings import EvaluationSettings, ExampleSettings

DOMAIN = get_domain("knowledge")
EXAMPLES = ExampleSettings(question_answer="prompted")


def evaluation(score: float | None) -> EvaluationRecord:
    outcome = Outcome.UNGRADED if score is None else Outcome.OK
    value = score or 0.0
    answer = AnswerRecord(
        query_id="q/0",
        question="?",
        golds=("x",),
        answer="x",
        outcome=outcome,
        score=score,
        measures=dict.fromkeys(("contains", "exact", "f1"), value),
        logprob=-1.0,
    )
    return EvaluationRecord(
        outcome=outcome,
        reward=score,
        answers=(answer,),
        ungraded=0,
        max_logit_difference=1.0,
        tokens=1,
        engine_seconds=0.1,
    )


def record(
    rewards: Sequence[float | None], questions: Sequence[Sequence[str]], *, name: str = "p"
) -> ContextRecord:
    """A passage whose edits ask these questions and got these rewards."""
    edits = tuple(
        EditRecord(
            context_id=name,
            candidate=candidate,
            seed=candidate,
            parts=(PartRecord(text="text", tokens=1, truncated=False),),
            examples=tuple(
                ExampleRecord(prompt=f"Q {question}", completion="a", question=question, answer="a")
                for question in own
            ),
        )
        for candidate, own in enumerate(questions)
    )
    loops = tuple(
        InnerLoopRecord(
            kind="edit",
            context_id=name,
            candidate=candidate,
            repeat=0,
            outcome=Outcome.OK if reward is not None else Outcome.UNGRADED,
            training=None,
            evaluation=evaluation(reward),
            retained=None,
        )
        for candidate, reward in enumerate(rewards)
    )
    return ContextRecord(
        context_id=name,
        title="",
        parts=(),
        baseline=evaluation(0.0),
        edits=edits,
        inner_loops=loops,
        engine_seconds_generate=0.0,
    )


@pytest.mark.parametrize(
    ("rewards", "questions", "expected"),
    [
        ([0.2, 0.8, 0.5], [["a?"], ["b?"], ["c?"]], 1),
        ([None, 0.0, None], [["a?"], ["b?"], ["c?"]], 1),
        ([None, None], [["a?"], ["b?"]], 0),
        ([None, None], [[], ["b?"]], 1),
        ([], [["a?"]], 0),
        ([], [[]], None),
        ([0.3, 0.1 + 0.2], [["a?"], ["b?"]], 0),
    ],
    ids=[
        "best",
        "scored before unscored",
        "no score",
        "says something",
        "unasked",
        "nothing",
        "apart in the last bits alone",
    ],
)
def test_the_best_edit_is_learnt_or_without_a_reward_the_first_that_says_something(
    rewards: list[float | None], questions: list[list[str]], expected: int | None
) -> None:
    edit = chosen_edit(record(rewards, questions))
    assert (edit and edit.candidate) == expected


def test_an_edit_that_left_a_race_is_not_learnt_however_it_stood() -> None:
    raced = record([0.9, 0.5], [["a?"], ["b?"]])
    second = raced.inner_loops[1].model_copy(update={"repeat": 1})
    found = chosen_edit(raced.model_copy(update={"inner_loops": (*raced.inner_loops, second)}))
    assert found is not None and found.candidate == 1


def lesson(*, held_out: Sequence[str] = (), examples: ExampleSettings = EXAMPLES) -> Lesson:
    contexts = [Context(name, "Tower", f"The {name} tower is old.", ()) for name in "ab"]
    records = {
        "a": record([0.1, 0.9], [["Who?"], ["How high is it?", "Who built it?"]], name="a"),
        "b": record([], [["Where is b?"]], name="b"),
    }
    return make_lesson(contexts, records, domain=DOMAIN, examples=examples, held_out=held_out)


def test_a_lesson_holds_each_passage_with_its_edit_and_no_question_of_the_test() -> None:
    whole = lesson()
    assert whole.counts == {"edit": 3, "passage": 2} and whole.candidates == {"a": 1, "b": 0}
    assert [row.completion for row in whole.rows if row.kind == "passage"] == [
        "Tower\nThe a tower is old.",
        "Tower\nThe b tower is old.",
    ]
    without = lesson(held_out=["How HIGH is it"])
    assert without.left_out == 1 and without.counts["edit"] == 2
    assert "How high is it?" not in "".join(row.prompt for row in without.rows)


def test_a_passage_is_learnt_even_where_the_settings_repeat_none() -> None:
    none = EXAMPLES.model_copy(update={"passage_repeats": 0})
    assert lesson(examples=none).counts == {"edit": 3, "passage": 2}


def test_edits_give_up_rows_evenly_where_a_training_takes_no_more() -> None:
    with mock.patch.object(lesson_module, "MAX_ROWS", 4):
        cut = lesson()
    assert cut.counts == {"edit": 2, "passage": 2} and cut.dropped == 1
    edits = [row for row in cut.rows if row.kind == "edit"]
    assert [row.context_id for row in edits] == ["a", "b"]
    assert "How high is it?" in edits[0].prompt, "its last rows are given up"


def test_edits_give_up_all_rows_where_passages_leave_no_room() -> None:
    with mock.patch.object(lesson_module, "MAX_ROWS", 2):
        cut = lesson()
    assert cut.counts == {"passage": 2} and cut.dropped == 3


def test_a_row_that_no_training_takes_is_counted_as_dropped() -> None:
    short = lesson().only(lambda row: row.kind != "edit")
    assert short.counts == {"passage": 2} and short.dropped == 3


def test_replayed_rows_read_other_passages_one_question_of_each_first() -> None:
    contexts = [
        Context(name, name, f"About {name}.", tuple(_query(name, n) for n in range(2)))
        for name in ("x", "y")
    ]
    settings = EvaluationSettings(question_format="few-shot")
    rows: tuple[LessonRow, ...] = replay_rows(contexts, 3, domain=DOMAIN, evaluation=settings)
    assert [row.context_id for row in rows] == ["x", "y", "x"]
    assert "About x." in rows[0].prompt and "What of x 0?" in rows[0].prompt
    assert rows[0].completion.strip() == "x 0"


def _query(name: str, number: int) -> Query:
    return Query(f"{name}/{number}", f"What of {name} {number}?", (f"{name} {number}",))
