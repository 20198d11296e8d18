"""Graders: what counts as right, and what cannot be graded."""

from __future__ import annotations

import math
import re
import string
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seal.domains import get_domain
from seal.domains.graders import clean_answer, grade
from seal.domains.words import normalise
from seal.settings import TextGrader

TEXT_GRADERS: tuple[TextGrader, ...] = ("exact", "contains", "f1")
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
def test_without_a_gold_answer_nothing_can_be_graded(grader: TextGrader) -> None:
    assert grade(grader, "anything", (" \n",), -1.0) is None


@pytest.mark.parametrize("grader", TEXT_GRADERS)
def test_an_empty_answer_is_wrong(grader: TextGrader) -> None:
    assert grade(grader, "", ("Mirrowdelk",), -1.0) == 0.0


@pytest.mark.parametrize("grader", TEXT_GRADERS)
def test_a_gold_answer_of_articles_or_punctuation_only_is_not_right_for_every_answer(
    grader: TextGrader,
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
        ("“its loud–noise”", "its loudnoise"),
        ("Ilse—the potter", "ilse potter"),
        ("1990–95, don’t", "199095 dont"),
        ("A.B.C., Inc.", "abc inc"),
        ("ﬁve\u00a0days", "five days"),
        ("e\u0301tude", "étude"),
    ],
)
def test_normalisation_is_that_of_squad_for_punctuation_of_all_scripts(
    text: str, expected: str
) -> None:
    assert normalise(text) == expected


def squad_normalisation(text: str) -> str:
    """`normalize_answer` of SQuAD's own evaluation script."""
    bare = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


@pytest.mark.parametrize(
    "text",
    [
        "The Denver Broncos",
        "Levi's Stadium in the San Francisco Bay Area at Santa Clara, California.",
        "$5 billion, 27%",
        "March 18, 1990 – 10:30 a.m.",
        "a high-pressure (steam) engine; an A/C",
        "66,700 to 1,149,000 people",
        "Beyoncé Giselle Knowles-Carter",
    ],
)
def test_english_text_is_normalised_as_squads_own_script_does_it(text: str) -> None:
    assert normalise(text) == squad_normalisation(text.replace("–", ""))


@given(st.text(alphabet=st.sampled_from("aAnthe THEloom 46'-$%?!/\t\n"), max_size=40))
@settings(deadline=None)
def test_ascii_text_without_decimals_is_normalised_as_squads_own_script_does_it(text: str) -> None:
    assert normalise(text) == squad_normalisation(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,000", "1000"),
        ("1,234,567", "1234567"),
        ("1.234.567", "1234567"),
        ("1\u202f000\u00a0000", "1000000"),
        ("1'000", "1000"),
        ("12,34,567", "1234567"),
        ("１，０００", "1000"),
        ("٣٬٠٠٠", "3000"),
        ("๑๒", "12"),
        ("1.000,5", "1,000.5"),
        ("1,5", "1.5"),
        ("٣٫٥", "3.5"),
        ("$5", "5"),
        ("5 €", "5"),
        ("¥1,000", "1000"),
        ("£1.5 million", "1.5 million"),
    ],
)
def test_a_number_is_the_same_with_separators_currency_and_digits_of_other_scripts(
    one: str, other: str
) -> None:
    assert grade("exact", one, (other,), None) == 1.0
    assert grade("contains", f"It was {one}, they say.", (other,), None) == 1.0


@pytest.mark.parametrize(
    ("one", "other"),
    [("1.5", "15"), ("1,5", "15"), ("0.001", "0001"), ("1.500", "1500"), ("1000.5", "10005")],
)
def test_a_decimal_point_stays(one: str, other: str) -> None:
    assert grade("exact", one, (other,), None) == 0.0
    assert grade("contains", f"It was {one}.", (one,), None) == 1.0
    assert grade("contains", one, ("5",), None) == 0.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("首都は東京です。", "東京"),
        ("北京是中国的首都。", "北京"),
        ("ที่ตั้งคือกรุงเทพมหานครครับ", "กรุงเทพมหานคร"),
        ("ແມ່ນວຽງຈັນ", "ວຽງຈັນ"),
        ("គឺភ្នំពេញ", "ភ្នំពេញ"),
        ("ရန်ကုန်မြို့", "ရန်ကုန်"),
        ("共有１，０４６个踏板", "1046"),
        ("ｶﾞﾗｽでできている", "ガラス"),
        ("Python、Java、Goを使う", "Java"),
        ("语言：Ｊａｖａ，Ｃ", "java"),
        ("「ジョン・スミス」", "ジョンスミス"),
    ],
)
def test_text_without_spaces_contains_an_answer_of_the_same_characters_in_a_row(
    answer: str, gold: str
) -> None:
    assert grade("contains", answer, (gold,), None) == 1.0
    assert grade("exact", answer, (gold,), None) == float(answer == "「ジョン・スミス」")
    assert 0.0 < (grade("f1", answer, (gold,), None) or 0.0) <= 1.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [("共有146个踏板", "46"), ("東の京", "東京"), ("ก่า", "กา"), ("JavaScriptを使う", "Java")],
)
def test_text_without_spaces_does_not_contain_a_part_of_a_number_word_or_character(
    answer: str, gold: str
) -> None:
    assert grade("contains", answer, (gold,), None) == 0.0


def test_f1_of_text_without_spaces_counts_characters() -> None:
    assert grade("f1", "東京都", ("東京",), None) == pytest.approx(2 * 2 / (3 + 2))


def test_articles_are_dropped_in_english_only() -> None:
    assert grade("exact", "The wall of a town", ("wall of town",), None) == 1.0
    assert grade("exact", "ビタミン", ("ビタミン A",), None) == 0.0
    assert grade("exact", "ビタミンA", ("ビタミン A",), None) == 1.0
    assert grade("contains", "the Great Wall of the North (长城)", ("Wall of North",), None) == 1.0


@pytest.mark.parametrize("grader", TEXT_GRADERS)
def test_of_several_gold_answers_the_one_that_fits_best_counts(grader: TextGrader) -> None:
    golds = ("the town of Mirrowdelk", "Mirrowdelk", "?!")
    assert grade(grader, "Mirrowdelk", golds, None) == 1.0
    assert grade(grader, "Ostrabel", golds, None) == 0.0
    assert grade(grader, "Mirrowdelk", (), None) is None
    assert grade(grader, "Mirrowdelk", (" ", "Mirrowdelk"), None) == 1.0


@pytest.mark.parametrize("text", ["7" * 200_000 + "x", "1." * 100_000, "0,1," * 50_000])
def test_a_long_number_takes_no_longer_than_its_length(text: str) -> None:
    started = time.process_time()
    assert normalise(text)
    assert time.process_time() - started < 10  # quadratic work takes minutes


def test_a_long_answer_is_compared_with_many_gold_answers_in_no_time() -> None:
    answer, golds = "loom 1,000 " * 4000, tuple(f"frame {index}" for index in range(256))
    started = time.perf_counter()
    assert grade("contains", answer, golds, None) == 0.0
    assert time.perf_counter() - started < 5.0


@given(st.text())
@settings(deadline=None)
def test_normalisation_applied_twice_changes_nothing_more(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(alphabet=st.sampled_from("1250.,'、，．東ーกำ่ aの-€")))
@example("\u0e48a")  # a tone mark without its letter, and an article
@settings(deadline=None)
def test_normalisation_of_numbers_and_spaceless_scripts_applied_twice_changes_nothing_more(
    text: str,
) -> None:
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
    assert get_domain("knowledge").clean_answer(text, "plain") == expected


@given(st.text(alphabet=st.sampled_from("answerANSWER: \n\tQquestio?x")))
@settings(deadline=None)
def test_cleaning_an_answer_twice_changes_nothing_more(text: str) -> None:
    assert clean_answer(clean_answer(text)) == clean_answer(text)
