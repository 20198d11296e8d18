"""Question-answer pairs: read however a model marks them up, and never half."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal.domains.pairs import Pair, parse_pairs
from seal.domains.words import normalise

BOTH = (Pair("Who built it?", "Ruth Ansel"), Pair("When was it built?", "in 1812"))

MARKUP = st.lists(
    st.sampled_from(
        [
            "Question:",
            "Answer:",
            "Q:",
            "A:",
            "**Q1:**",
            "A1.",
            "1.",
            "2)",
            "- ",
            "---",
            "\n",
            "\n\n",
            "?",
            " ",
            "Who",
            "Paris",
            "**",
            "*",
            "#",
        ]
    ),
    max_size=60,
).map("".join)


@pytest.mark.parametrize(
    "text",
    [
        "Question: Who built it?\nAnswer: Ruth Ansel\n\nQuestion: When was it built?\nAnswer: in "
        "1812",
        " Who built it?\nAnswer: Ruth Ansel\n\nQuestion: When was it built?\nAnswer: in "
        "1812\n\nQuestion: Wh",
        "Q: Who built it?\nA: Ruth Ansel\nQ: When was it built?\nA: in 1812\n",
        "Q1: Who built it?\nA1: Ruth Ansel\nQ2. When was it built?\nA2. in 1812\n",
        "1. Question: Who built it?\n   Answer: Ruth Ansel\n2. Question: When was it built?\n   "
        "Answer: in 1812",
        "1. Question: Who built it? Answer: Ruth Ansel\n2. Question: When was it built? Answer: "
        "in 1812",
        "**Question 1:** Who built it?\n**Answer:** Ruth Ansel\n\n**Question 2:** When was it "
        "built?\n**Answer:** in 1812",
        "1. **Who built it?**\n   - Ruth Ansel\n2. **When was it built?**\n   - in 1812",
        "1. Who built it?\nAnswer: Ruth Ansel\n\n2. When was it built?\nAnswer: in 1812",
        "Here are some questions:\n\n- *Q:* Who built it? *A:* Ruth Ansel\n- *Q:* When was it "
        "built? *A:* in 1812",
        "Sure! Happy to help.\n\n1) Who built it?\nRuth Ansel\n\n2) When was it built?\nin 1812",
        "Question:\nWho built it?\nAnswer:\nRuth Ansel\nQuestion:\nWhen was it "
        "built?\nAnswer:\nin 1812",
        "### Question 1:\nWho built it?\n### Answer:\nRuth Ansel\n---\n### Question 2:\nWhen was "
        "it built?\n### Answer:\nin 1812",
        "QUESTION: Who built it?\nANSWER: Ruth Ansel\nquestion: When was it built?\nanswer: in "
        "1812",
        "Question: Who\nbuilt it?\nAnswer: Ruth Ansel\nQuestion: When was it built?\n(Think of "
        "the year.)\nAnswer: in 1812",
    ],
)
def test_pairs_are_read_whatever_the_markup(text: str) -> None:
    assert parse_pairs(text) == BOTH


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Question: Who built it?",
        "Question: Who built it?\nAnswer:",
        "Question: Who built it?\nAnswer: ...",
        "Answer: Ruth Ansel",
        "Question:\nAnswer: Ruth Ansel",
        "1. Who built it?\n2. When was it built?\n3. Where does it stand?",
        "The lighthouse stands on a cliff.\nIt was built in 1812.\nRuth Ansel was an engineer.",
        "Question: Who built it?\n---\nAnswer: Ruth Ansel",
        "1. Question: Who built it?\n2. Question: Where does it stand?",
    ],
)
def test_a_text_without_a_complete_pair_gives_none(text: str) -> None:
    assert parse_pairs(text) == ()


def test_an_incomplete_pair_is_dropped_and_its_neighbours_stay() -> None:
    text = (
        "Question: Who built it?\nAnswer: Ruth Ansel\nQuestion: Where is it?\n"
        "Question: When was it built?\nAnswer: in 1812\nQuestion: How"
    )
    assert parse_pairs(text) == BOTH


def test_a_question_that_came_before_is_dropped_even_with_another_answer() -> None:
    text = (
        "Q: Who built it?\nA: Ruth Ansel\nQ: who built  it\nA: a pirate\n"
        "Q: When was it built?\nA: in 1812"
    )
    assert parse_pairs(text) == BOTH


def test_what_follows_an_answer_is_not_part_of_it() -> None:
    text = (
        "Q: Who built it?\nA: Ruth Ansel\nExplanation: the text says so.\n\n"
        "Q: When was it built?\nA: in 1812\nA: in 1931"
    )
    assert parse_pairs(text) == BOTH


def test_a_time_of_day_is_no_label() -> None:
    assert parse_pairs("Q: When does it leave?\nA 12:30 train is the last") == (
        Pair("When does it leave?", "A 12:30 train is the last"),
    )


@given(st.one_of(st.text(), MARKUP))
@settings(deadline=None)
def test_no_text_makes_parsing_raise_and_every_pair_is_complete_and_asked_once(text: str) -> None:
    pairs = parse_pairs(text)
    assert all(
        any(map(str.isalnum, pair.question)) and any(map(str.isalnum, pair.answer))
        for pair in pairs
    )
    assert not any("\n" in pair.question + pair.answer for pair in pairs)
    assert len({normalise(pair.question) or pair.question for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(
    "unit", ["*", "Q:\n", "a\n", "- ", "1. ", "Question: ", "? A:", "-", "_ ", " "]
)
def test_parsing_an_absurd_edit_takes_time_in_proportion_to_its_length(unit: str) -> None:
    started = time.perf_counter()
    parse_pairs(unit * (100_000 // len(unit)))
    assert time.perf_counter() - started < 2.0


def test_a_question_and_its_answer_may_stand_on_one_line() -> None:
    text = (
        " Who cast the bell? Odo Marrin\n2. In which year? 1822\n3. Which metal?\n"
        "4. Where does it hang? in the harbour"
    )
    assert [(pair.question, pair.answer) for pair in parse_pairs(text)] == [
        ("Who cast the bell?", "Odo Marrin"),
        ("In which year?", "1822"),
        ("Where does it hang?", "in the harbour"),
    ]


def test_no_space_is_needed_after_a_full_width_question_mark() -> None:
    assert parse_pairs("1. 首都はどこですか？東京です\n2. いつ建てられましたか？\n1400年") == (
        Pair("首都はどこですか？", "東京です"),
        Pair("いつ建てられましたか？", "1400年"),
    )
