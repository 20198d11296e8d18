"""Prompts: every family and format asks what it says and shows the passage as data.

None of them helps with any dataset.
"""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal.datasets import load_contexts
from seal.domains import get_domain
from seal.domains.base import Query
from seal.domains.examples import statements
from seal.domains.graders import grade
from seal.domains.pairs import parse_pairs
from seal.domains.prompts import (
    EDIT_WORDING,
    QUESTION_WORDING,
    READ_SHOTS,
    SHOTS,
    WORKED_FACTS,
    WORKED_QUESTIONS,
)
from seal.errors import InvalidInput
from seal.prompts import Prompt
from seal.settings import PromptFamily, PromptFormat, QuestionFormat

KNOWLEDGE = get_domain("knowledge")
FAMILIES: tuple[PromptFamily, ...] = tuple(
    family for family in KNOWLEDGE.options.families if family not in ("none", "self-qa-by-sentence")
)
"""Those of one part; edits in parts are in test_domain_by_sentence."""
FORMATS: tuple[PromptFormat, ...] = get_args(PromptFormat)
QUESTION_FORMATS: tuple[QuestionFormat, ...] = KNOWLEDGE.options.question_formats


def edit_prompt(title: str, text: str, family: PromptFamily, format: PromptFormat) -> Prompt:
    (part,) = KNOWLEDGE.edit_prompts(title, text, family, format)
    assert (part,) == KNOWLEDGE.edit_prompts(title, text, family, format, trained=True)
    assert part.start == ""
    return part.prompt


def whole(prompt: Prompt) -> str:
    return "".join(message.content for message in prompt.messages) + prompt.text


@pytest.mark.parametrize("format", FORMATS)
def test_the_family_none_has_nothing_to_ask_and_says_what_to_do(format: PromptFormat) -> None:
    assert not KNOWLEDGE.writes_edits("none")
    with pytest.raises(
        InvalidInput, match="'none' asks for no self-edit; train on the passage alone"
    ) as caught:
        KNOWLEDGE.edit_prompts("Veldra", "It is long.", "none", format)
    assert caught.value.field == "edit.family"


def test_there_is_wording_for_every_other_family_and_every_question_format() -> None:
    assert set(EDIT_WORDING) == set(FAMILIES)
    assert set(QUESTION_WORDING) == set(QUESTION_FORMATS)
    assert all(KNOWLEDGE.writes_edits(family) for family in FAMILIES)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_prompt_shows_title_and_passage_once_and_no_placeholder(
    family: PromptFamily, format: PromptFormat
) -> None:
    prompt = edit_prompt(" Veldra  River ", "It is long.\nIt is cold.\n", family, format)
    assert (
        whole(prompt).count("Veldra River\n"),
        whole(prompt).count("It is long.\nIt is cold."),
    ) == (1, 1)
    assert "{" not in whole(prompt)


@pytest.mark.parametrize("format", FORMATS)
def test_no_two_families_ask_alike(format: PromptFormat) -> None:
    assert len({whole(edit_prompt("T", "text", family, format)) for family in FAMILIES}) == len(
        FAMILIES
    )


def test_a_base_prompt_is_text_and_a_chat_prompt_one_message_of_the_user() -> None:
    base = edit_prompt("T", "text", "rewrite", "base")
    chat = edit_prompt("T", "text", "rewrite", "chat")
    assert (base.messages, bool(base.text)) == ((), True)
    assert [message.role for message in chat.messages] == ["user"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_passage_without_title_has_no_empty_line_for_it(format: PromptFormat) -> None:
    assert "\n\n\n" not in whole(edit_prompt("", "It is long.", "implications", format))


@given(
    passage=st.sampled_from(
        ["{passage}", "{question}", "{title}", "{0}", "%s", "$x", "\\1", "{{", "}"]
    ),
    format=st.sampled_from(FORMATS),
)
@settings(deadline=None)
def test_a_passage_is_data_and_never_a_placeholder(passage: str, format: PromptFormat) -> None:
    assert whole(edit_prompt("T", passage, "rewrite", format)).count(f"T\n{passage}") == 1


def test_the_self_qa_base_prompt_ends_at_the_first_question_and_stops_at_a_new_passage() -> None:
    prompt = edit_prompt("T", "text", "self-qa", "base")
    assert prompt.text.endswith("\nQuestions and answers:\n1.")
    assert "\nPassage:" in prompt.stop


def test_the_worked_questions_are_read_as_their_pairs_and_every_answer_stands_in_its_passage() -> (
    None
):
    for example in WORKED_QUESTIONS.split("\n\n")[:-1]:
        passage, pairs_text = example.split("Questions and answers:")
        title, pairs = passage.splitlines()[0].removeprefix("Title: "), parse_pairs(pairs_text)
        assert len(pairs) == pairs_text.count("?") >= 5
        assert all(
            pair.answer.casefold() in passage.casefold()
            and title.casefold() in pair.question.casefold()
            for pair in pairs
        )


def test_the_worked_facts_are_read_as_one_statement_a_line_and_each_names_its_subject() -> None:
    for example in WORKED_FACTS.split("\n\n")[:-1]:
        passage, facts = example.split("Facts:")
        title = passage.splitlines()[0].removeprefix("Title: ")
        assert len(statements(facts)) == len(facts.strip().splitlines()) >= 5
        assert all(title.casefold() in fact.casefold() for fact in statements(facts))


def test_few_shot_shows_three_pairs_worded_as_the_question_and_stops_at_the_line_break() -> None:
    prompt = KNOWLEDGE.question_prompt(Query("q", "What is Veldra?", ("a river",)), "few-shot")
    *shots, last = prompt.text.split("\n\n")
    assert shots == [f"Question: {question}\nAnswer: {answer}" for question, answer in SHOTS]
    assert (len(shots), last, prompt.stop) == (3, "Question: What is Veldra?\nAnswer:", ("\n",))


def test_reading_shows_pairs_with_passages_before_a_passage_and_else_those_of_few_shot() -> None:
    open_book = Query("q", "What is Veldra?", ("a river",), context="Veldra is a long river.")
    *shots, last = KNOWLEDGE.question_prompt(open_book, "reading").text.split("\n\n")
    assert len(shots) == len(READ_SHOTS)
    for shot, (passage, question, answer) in zip(shots, READ_SHOTS, strict=True):
        assert shot == f"Passage: {passage}\nQuestion: {question}\nAnswer: {answer}"
        assert answer in passage
    assert last == "Passage: Veldra is a long river.\nQuestion: What is Veldra?\nAnswer:"
    closed = Query("q", "What is Veldra?", ("a river",))
    prompts = [KNOWLEDGE.question_prompt(closed, one) for one in ("reading", "few-shot")]
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize("question_format", QUESTION_FORMATS)
def test_the_passage_is_shown_for_an_open_book_question_only(
    question_format: QuestionFormat,
) -> None:
    closed = whole(
        KNOWLEDGE.question_prompt(Query("q", "What is it?", ("a river",)), question_format)
    )
    opened = whole(
        KNOWLEDGE.question_prompt(
            Query("q", "What is it?", ("a river",), context="Veldra is a {river}."), question_format
        )
    )
    assert "Veldra is a {river}." in opened
    assert "assage" not in closed


@pytest.mark.parametrize("question_format", QUESTION_FORMATS)
def test_the_gold_answer_is_never_in_the_question_prompt(question_format: QuestionFormat) -> None:
    assert "Zanzibar" not in whole(
        KNOWLEDGE.question_prompt(Query("q", "Where?", ("Zanzibar",)), question_format)
    )


def test_the_scored_completion_begins_with_one_space_but_not_after_a_chat_template() -> None:
    completions = {
        format: KNOWLEDGE.answer_completion("a river", format) for format in QUESTION_FORMATS
    }
    assert completions.pop("chat") == "a river"
    assert set(completions.values()) == {" a river"}
    assert KNOWLEDGE.answer_completion("a river") == " a river"


@pytest.mark.parametrize("name", ["train", "validation", "retained"])
def test_no_gold_answer_of_the_embedded_corpus_stands_in_the_shots_or_the_worked_example(
    name: str,
) -> None:
    shown = [answer for *_, answer in (*SHOTS, *READ_SHOTS)] + [
        pair.answer for pair in parse_pairs(WORKED_QUESTIONS)
    ]
    golds = [
        query.answers[0]
        for context in load_contexts(f"corpus://{name}")
        for query in context.queries
    ]
    assert [
        gold for gold in golds if any(grade("contains", answer, (gold,), None) for answer in shown)
    ] == []
