"""Which of a model's own questions are kept, and which are the test."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seal.adaptations.self_made import MadeQuestion, keep_questions, why_dropped, with_a_test
from seal.records import KeptQuestion, QuestionRole, QuestionsRecord


def made(
    number: int = 0,
    *,
    answer: str = "Odo Pell",
    again: str | None = "Odo Pell",
    closed: str | None = "a king",
) -> MadeQuestion:
    return MadeQuestion(f"Who built tower {number}?", answer, again, closed)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (made(), None),
        (made(again="It was Odo Pell."), None),
        (made(again="It was built in the year 1412 by Odo Pell for a king."), None),
        (made(answer="the mason Odo Pell, called the elder", again="Pell"), None),
        (made(closed="The tower was built by Odo Pell."), "known"),
        (made(again="Runa Vahl"), "unsure"),
        (made(again=""), "unsure"),
        (made(closed="odo pell"), "known"),
        (made(again=None), "ungraded"),
        (made(closed=None), "ungraded"),
    ],
)
def test_kept_is_what_is_answered_again_with_the_passage_and_not_without_it(
    question: MadeQuestion, reason: str | None
) -> None:
    assert why_dropped(question) == reason


def numbered(number: int) -> MadeQuestion:
    """One with an answer of its own."""
    return MadeQuestion(f"How high is tower {number}?", f"{number} ells", f"{number} ells", "low")


@given(st.integers(1, 30), st.integers(1, 12), st.floats(0.05, 0.95), st.integers(0, 5))
def test_both_sides_have_a_question_and_none_is_on_both(
    number: int, most: int, share: float, seed: int
) -> None:
    questions = [numbered(n) for n in range(number)] + [numbered(0)]
    found = keep_questions(questions, most=most, held_out_share=share, seed=seed)
    roles = [role for _, role in found.kept]
    assert len(found.kept) == min(number, most) == len({one.question for one, _ in found.kept})
    assert found.dropped.get("repeated") == 1
    assert found.dropped.get("spare", 0) == max(0, number - most)
    if len(roles) > 1:
        assert {"reward", "held-out"} == set(roles)
        assert abs(roles.count("held-out") - share * len(roles)) <= 1
    assert found == keep_questions(questions, most=most, held_out_share=share, seed=seed)


def test_what_is_kept_is_spread_over_the_passage() -> None:
    questions = [numbered(n) for n in range(30)]
    found = keep_questions(questions, most=3, held_out_share=0.5, seed=0)
    assert [one for one, _ in found.kept] == [questions[n] for n in (5, 15, 25)]


def test_of_questions_with_the_same_answer_one_is_kept_the_first_that_is_good() -> None:
    questions = [
        MadeQuestion("Who built it?", "Odo Pell", "a king", "a king"),
        MadeQuestion("Who has built the tower?", "Odo Pell", "Odo Pell", "a king"),
        MadeQuestion("Who was the builder of the tower?", "odo  pell.", "Odo Pell", "a king"),
        numbered(1),
    ]
    found = keep_questions(questions, most=8, held_out_share=0.5, seed=0)
    assert [one for one, _ in found.kept] == [questions[1], questions[3]]
    assert found.dropped == {"unsure": 1, "repeated": 1}


def test_of_passages_with_one_question_each_about_the_share_is_the_test() -> None:
    roles = [
        keep_questions([made()], most=8, held_out_share=0.25, seed=seed).kept[0][1]
        for seed in range(200)
    ]
    assert 30 < roles.count("held-out") < 70


def record(place: int, *roles: QuestionRole) -> QuestionsRecord:
    """A passage with so many questions."""
    kept = tuple(
        KeptQuestion(query_id=f"p{place}/{n}", question=f"{n}?", answers=("x",), role=role)
        for n, role in enumerate(roles)
    )
    return QuestionsRecord(context_id=f"p{place}", kept=kept, written=len(roles), dropped={})


@pytest.mark.parametrize(
    ("drawn", "parted"),
    [
        ([["reward"], ["held-out"]], [["reward"], ["held-out"]]),
        ([[], ["reward"], ["reward"]], [[], ["held-out"], ["reward"]]),
        ([["reward"]], [["held-out"]]),
        ([[], []], [[], []]),
        ([], []),
    ],
)
def test_where_no_question_was_drawn_for_the_test_the_first_one_is_it(
    drawn: list[list[QuestionRole]], parted: list[list[QuestionRole]]
) -> None:
    records = [record(place, *roles) for place, roles in enumerate(drawn)]
    found = with_a_test(records)
    assert [[one.role for one in each.kept] for each in found] == parted
    assert [each.context_id for each in found] == [each.context_id for each in records]
