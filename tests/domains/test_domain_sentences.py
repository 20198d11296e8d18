"""Sentences: cut where a reader would, nothing lost, in linear time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal.domains.sentences import MAX_SENTENCE_CHARACTERS, sentences

WRAPPED = (
    "The bell hangs in a tower whose stones were\ncarried from the harbour. It was cast\n"
    "by Odo Marrin, who came from Calverow with\nNiles Tor. Nobody rings it."
)
PIECES = st.lists(
    st.sampled_from(
        [
            *("Mr. ", "J. R. Smith", "U.S.", "e.g. ", "No. ", "5", "3.5", "...", "?!", ". ", "."),
            *("The ", "he ", '"', "\u201d", ")", "(", "[3]", "[", "\n", "\n\n", "\r\n", "\u2028"),
            *("- ", "1. ", "# ", "。", "」", "।", "؟ ", "\u0301", "\x1c", "x" * 30, " "),
        ]
    ),
    max_size=60,
).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Ode met Dr. Marrin. They spoke.", ["Mr. Ode met Dr. Marrin.", "They spoke."]),
        ("J. R. Smith came. He left.", ["J. R. Smith came.", "He left."]),
        ("St. Mary is on Main St. The end came.", ["St. Mary is on Main St.", "The end came."]),
        ("The U.S. Army came to the U.S. It left.", ["The U.S. Army came to the U.S.", "It left."]),
        ("Many, e.g. Odo, i.e. a founder, left.", ["Many, e.g. Odo, i.e. a founder, left."]),
        (
            "It is No. 5 of all. She said No. He left.",
            ["It is No. 5 of all.", "She said No.", "He left."],
        ),
        (
            "On Jan. 5 it rang. It broke in Feb. The end.",
            ["On Jan. 5 it rang.", "It broke in Feb.", "The end."],
        ),
        ("Acme Inc. Ltd. grew. Born c. 1850.", ["Acme Inc. Ltd. grew.", "Born c. 1850."]),
        ("At 5 p.m. It rang.", ["At 5 p.m.", "It rang."]),
        ("А. С. Пушкин жил. Он поэт.", ["А. С. Пушкин жил.", "Он поэт."]),
    ],
)
def test_an_abbreviation_ends_no_sentence_unless_one_begins_behind_it(
    text: str, expected: list[str]
) -> None:
    assert list(sentences(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It weighs 3.5 kg. It costs 1.000.000.", ["It weighs 3.5 kg.", "It costs 1.000.000."]),
        (
            "It rang... and rang. And so... It fell.",
            ["It rang... and rang.", "And so...", "It fell."],
        ),
        ("Really?! Yes! Why? No one knows.", ["Really?!", "Yes!", "Why?", "No one knows."]),
        (
            '"Why?" she asked. He said "Go." Then they left.',
            ['"Why?" she asked.', 'He said "Go."', "Then they left."],
        ),
        (
            "“He left.” Then (it rang. It fell.) Odo came.",
            ["“He left.”", "Then (it rang. It fell.)", "Odo came."],
        ),
        ("It fell (in 1822.) It rose.", ["It fell (in 1822.)", "It rose."]),
        (
            "It fell.[3] It rose.[citation needed] It stood.",
            ["It fell.[3]", "It rose.[citation needed]", "It stood."],
        ),
        (
            "See https://x.org/a?b=1.2&c!d. Then www.x.org/a.b now.",
            ["See https://x.org/a?b=1.2&c!d.", "Then www.x.org/a.b now."],
        ),
    ],
)
def test_a_mark_takes_what_closes_behind_it_and_counts_only_before_a_new_beginning(
    text: str, expected: list[str]
) -> None:
    assert list(sentences(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "首都は東京です。人口は１４．５百万人です！本当？",
            ["首都は東京です。", "人口は１４．５百万人です！", "本当？"],
        ),
        ("「行く。」と言った。", ["「行く。」と言った。"]),
        ("هل هذا صحيح؟ نعم. ثم ذهب۔ انتهى", ["هل هذا صحيح؟", "نعم.", "ثم ذهب۔", "انتهى"]),
        ("यह एक नदी है। यह लंबी है।ठंडी॥", ["यह एक नदी है।", "यह लंबी है।", "ठंडी॥"]),
        ("Սա գետ է։ Այն երկար է։", ["Սա գետ է։", "Այն երկար է։"]),
    ],
)
def test_other_scripts_have_their_own_marks(text: str, expected: list[str]) -> None:
    assert list(sentences(text)) == expected


def test_headings_paragraphs_and_list_items_begin_anew() -> None:
    text = (
        "History\nThe bell fell\n\nParts:\n- a beam\n- a rope\n1. First\n2. Second. More\n# Use\nIt"
    )
    assert list(sentences(text)) == [
        *("History", "The bell fell", "Parts:", "- a beam", "- a rope"),
        *("1. First", "2. Second.", "More", "# Use", "It"),
    ]


def test_a_wrapped_line_and_one_that_begins_in_lower_case_go_on() -> None:
    assert list(sentences(WRAPPED)) == [
        "The bell hangs in a tower whose stones were carried from the harbour.",
        "It was cast by Odo Marrin, who came from Calverow with Niles Tor.",
        "Nobody rings it.",
    ]
    text = "It makes O\n2 gas, O\n3) and\nwater, and H\n2. Odo knew."
    assert list(sentences(text)) == ["It makes O 2 gas, O 3) and water, and H 2.", "Odo knew."]


def test_a_very_long_sentence_is_cut_at_a_word() -> None:
    text = " ".join(f"word{index}" for index in range(400))
    found = sentences(text)
    assert max(map(len, found)) <= MAX_SENTENCE_CHARACTERS
    assert " ".join(found) == text
    assert sentences("one two three", max_characters=8) == ("one two", "three")
    assert sentences("x" * 9, max_characters=4) == ("xxxx", "xxxx", "x")


@pytest.mark.parametrize("text", ["", " \n\t\u2028"])
def test_white_space_has_no_sentences(text: str) -> None:
    assert sentences(text) == ()


@given(text=st.one_of(st.text(), PIECES), room=st.integers(1, 50))
@settings(deadline=None)
def test_no_text_makes_it_raise_and_the_sentences_hold_all_of_it(text: str, room: int) -> None:
    found = sentences(text, max_characters=room)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(0 < len(sentence) <= room and sentence == sentence.strip() for sentence in found)


@pytest.mark.parametrize(
    "unit", ["a. ", "Mr. S (x. Y. ", "([（", ".[", "! ", "A\n", "x", "。", ".[aaaaaaaaaaaaaaaaaa"]
)
def test_the_work_is_linear_in_the_text(unit: str) -> None:
    start = time.process_time()
    sentences((unit * 200_000)[:200_000])
    assert time.process_time() - start < 3.0  # measured: 0.25 s; quadratic work takes minutes
