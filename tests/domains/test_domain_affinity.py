"""Affinity: which query a pair can serve, by what the two questions ask and never by the gold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal.domains import get_domain
from seal.domains.affinity import content_words
from seal.domains.base import Query

KNOWLEDGE = get_domain("knowledge")
TITLE = "The Brennick Bell"


def affinity(question: str, answer: str, asked: str, *, title: str = TITLE) -> float:
    return KNOWLEDGE.affinity(question, answer, Query("q", asked, ("gold",)), title=title)


@pytest.mark.parametrize(
    ("question", "answer", "asked", "expected"),
    [
        ("Who cast the Brennick Bell?", "Odo Marrin", "Who cast the Brennick Bell?", 1.0),
        ("Who cast it?", "Odo Marrin", "By whom was the Brennick Bell cast?", 1.0),
        ("In which year was the bell cast?", "1822", "When was the Brennick Bell cast?", 2 / 3),
        ("Who rings the Brennick Bell?", "sailors", "Who cast the Brennick Bell?", 0.0),
        ("Which guild ordered it?", "fishing", "Which metal is it made of?", 0.0),
    ],
)
def test_affinity_is_the_f1_of_the_questions_content_words(
    question: str, answer: str, asked: str, expected: float
) -> None:
    assert affinity(question, answer, asked) == pytest.approx(expected)


def test_title_words_count_for_nothing_also_as_possessives() -> None:
    assert affinity("What is Veldra's length?", "9 km", "Who saw Veldra?", title="Veldra") == 0.0
    assert affinity("What is Veldra's length?", "9 km", "Who saw Veldra?", title="") > 0.0


def test_a_pair_whose_answer_the_query_gives_away_serves_it_not() -> None:
    asked = "What did Odo Marrin cast?"
    assert affinity("Who cast the bronze thing?", "Odo Marrin", asked) == 0.0
    assert affinity("Who cast the bronze thing?", "Ilse", asked) > 0.0
    assert affinity("What did Odo cast?", "the Brennick Bell", "Who cast the Brennick Bell?") == 0.0


def test_questions_without_content_words_agree_by_their_question_word() -> None:
    assert affinity("Who was Ilse Tamsford?", "a potter", "Who is she?", title="Ilse Tamsford") == 1
    assert affinity("When was Ilse Tamsford?", "1904", "Who is she?", title="Ilse Tamsford") == 0
    assert affinity("Who was she?", "a potter", "Who taught her?", title="Ilse Tamsford") == 0


@pytest.mark.parametrize("question", ["", "?", "the"])
def test_a_statement_or_an_empty_question_serves_no_query(question: str) -> None:
    assert affinity(question, "", "Who is she?") == 0.0


def test_gold_answers_are_not_looked_at() -> None:
    golds = [("Odo Marrin",), ("someone else",)]
    found = {
        KNOWLEDGE.affinity(
            "Who cast it?", "Odo Marrin", Query("q", "Who cast it in 1822?", gold), title=TITLE
        )
        for gold in golds
    }
    assert found == {2 / 3}


def test_in_scripts_without_spaces_the_characters_are_compared() -> None:
    same = affinity("首都はどこですか", "東京", "首都はどこですか", title="日本")
    other = affinity("首都はどこですか", "東京", "人口は何人ですか", title="日本")
    assert (same, other < 0.7) == (1.0, True)


def test_content_words_are_without_stop_words_and_keep_their_order() -> None:
    assert content_words("In which year was Odo's Bell cast by the guild?") == (
        "year",
        "odo",
        "bell",
        "cast",
        "guild",
    )


@given(question=st.text(), answer=st.text(), asked=st.text(), title=st.text())
@settings(deadline=None)
def test_affinity_never_raises_and_lies_between_0_and_1(
    question: str, answer: str, asked: str, title: str
) -> None:
    assert 0.0 <= affinity(question, answer, asked, title=title) <= 1.0
