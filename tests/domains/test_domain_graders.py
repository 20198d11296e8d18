"""Graders: what counts as right, and what cannot be graded."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal.domains import get_domain
from seal.domains.graders import clean_answer, grade, normalise
from seal.settings import GraderName

TEXT_GRADERS: tuple[GraderName, ...] = ("exact", "contains", "f1")
WORDS = st.lists(
    st.sampled_from(["the", "Mirrowdelk", "a", "46", "pedals", "loom,", "Änderung", "of"]),
    max_size=8,
).map(" ".join)


@pytest.mark.parametrize("logprob", [None, math.nan, math.inf, -math.inf])
def test_a_log_probability_that_is_missing_or_not_finite_is_ungraded_and_not_zero(
    logprob: float | None,
) -> None:
    assert grade("logprob", "Mirrowdelk", ("Mirrowdelk",), logprob) is None


def test_a_missing_log_probability_does_not_hinder_the_other_graders() -> None:
    assert [grade(grader, "Mirrowdelk", ("Mirrowdelk",), math.nan) for grader in TEXT_GRADERS] == [
        1.0,
        1.0,
        1.0,
    ]


@pytest.mark.parametrize("grader", TEXT_GRADERS)
def test_without_a_gold_answer_nothing_can_be_graded(grader: GraderName) -> None:
    assert grade(grader, "anything", (" \n",), -1.0) is None


@pytest.mark.parametrize("grader", TEXT_GRADERS)
def test_an_empty_answer_is_wrong(grader: GraderName) -> None:
    assert grade(grader, "", ("Mirrowdelk",), -1.0) == 0.0


@pytest.mark.parametrize("grader", TEXT_GRADERS)
def test_a_gold_answer_of_articles_or_punctuation_only_is_not_right_for_every_answer(
    grader: GraderName,
) -> None:
    assert grade(grader, "Mirrowdelk", ("A",), -1.0) == 0.0
    assert grade(grader, "a", ("A",), -1.0) == 1.0
    assert grade(grader, "Mirrowdelk", ("?!",), -1.0) == 0.0


def test_contains_asks_for_whole_words() -> None:
    assert grade("contains", "It had 146 pedals.", ("46",), None) == 0.0
    assert grade("contains", "It had 46 pedals.", ("46",), None) == 1.0
    assert grade("contains", "46, it had pedals", ("46 pedals",), None) == 0.0


def test_exact_ignores_case_articles_punctuation_and_spacing_only() -> None:
    assert grade("exact", "the  Ostrabel museum.", ("Ostrabel Museum",), None) == 1.0
    assert grade("exact", "Ostrabel Museum in Mirrowdelk", ("Ostrabel Museum",), None) == 0.0


def test_f1_is_the_harmonic_mean_of_precision_and_recall_over_repeated_words_too() -> None:
    assert grade(
        "f1", "Bertane Holvusk of Mirrowdelk", ("Bertane Holvusk",), None
    ) == pytest.approx(2 * (2 / 4) * 1 / (2 / 4 + 1))
    assert grade("f1", "loom loom loom", ("loom frame",), None) == pytest.approx(
        2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)
    )


def test_the_log_probability_is_passed_through() -> None:
    assert grade("logprob", "wrong", ("right",), -0.25) == -0.25


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Tessaquill Loom", "tessaquill loom"),
        ("“its loud—noise”", "its loudnoise"),
        ("A.B.C., Inc.", "abc inc"),
        ("ﬁve\u00a0days", "five days"),
        ("e\u0301tude", "étude"),
    ],
)
def test_normalisation_is_that_of_squad_for_punctuation_of_all_scripts(
    text: str, expected: str
) -> None:
    assert normalise(text) == expected


@given(st.text())
@settings(deadline=None)
def test_normalisation_applied_twice_changes_nothing_more(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(max_size=40), st.text(max_size=40))
@settings(deadline=None)
def test_every_score_of_text_is_between_0_and_1_and_exact_implies_the_others(
    answer: str, gold: str
) -> None:
    scores = {grader: grade(grader, answer, (gold,), None) for grader in TEXT_GRADERS}
    if scores["exact"] is None:
        assert set(scores.values()) == {None}
        return
    assert all(score is not None and 0.0 <= score <= 1.0 for score in scores.values())
    if scores["exact"] == 1.0:
        assert scores["contains"] == scores["f1"] == 1.0


@given(WORDS, WORDS)
@settings(deadline=None)
def test_f1_is_symmetric(answer: str, gold: str) -> None:
    if normalise(answer) and normalise(gold):
        assert grade("f1", answer, (gold,), None) == grade("f1", gold, (answer,), None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Mirrowdelk\n", "Mirrowdelk"),
        ("Answer: Mirrowdelk", "Mirrowdelk"),
        ("Mirrowdelk\nQuestion: What next?\nAnswer: no", "Mirrowdelk"),
        ("It was\n  Mirrowdelk", "It was Mirrowdelk"),
        ("\n\n", ""),
    ],
)
def test_a_clean_answer_is_one_line_without_label_and_without_the_next_question(
    text: str, expected: str
) -> None:
    assert get_domain("knowledge").clean_answer(text) == expected


@given(st.text(alphabet=st.sampled_from("answerANSWER: \n\tQquestio?x")))
@settings(deadline=None)
def test_cleaning_an_answer_twice_changes_nothing_more(text: str) -> None:
    assert clean_answer(clean_answer(text)) == clean_answer(text)
