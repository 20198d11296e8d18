"""The knowledge domain: what an edit, a passage and the gold answers become as training rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from seal.domains import get_domain
from seal.domains.base import Context, Example, Query
from seal.domains.filters import is_grounded
from seal.domains.pairs import Pair
from seal.errors import InvalidInput
from seal.settings import ExampleSettings, PromptFamily, PromptFormat, QuestionFormat

KNOWLEDGE = get_domain("knowledge")
FORMATS: tuple[QuestionFormat, ...] = ("few-shot", "plain", "chat")
FAMILIES: tuple[PromptFamily, ...] = (
    "implications",
    "implications-long",
    "implications-very-long",
    "rewrite",
    "self-qa",
    "self-qa-by-sentence",
    "none",
    "chain-of-thought",
)
DOCUMENT = ExampleSettings()
PROMPTED = ExampleSettings(question_answer="prompted")
MODEL_TEXT = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(
            [
                "Question: ",
                "A: ",
                "Who?",
                " x y",
                "\n",
                "---",
                "1. ",
                "**",
                "Implications:",
                "ö" * 30,
                "\u2028",
            ]
        ),
        max_size=40,
    ).map("".join),
)
BOUNDS = st.builds(
    ExampleSettings,
    passage_repeats=st.integers(0, 3),
    question_answer=st.sampled_from(["document", "prompted"]),
    grounded_answers=st.booleans(),
    max_examples=st.integers(1, 5),
    max_characters=st.integers(1, 200),
)


def passage(title: str = "Veldra", text: str = "Veldra is a river. It is long.") -> Context:
    return Context("c", title, text, ())


def parse_one(
    text: str,
    *,
    context: Context,
    family: PromptFamily,
    settings: ExampleSettings,
    question_format: QuestionFormat,
) -> tuple[Example, ...]:
    parts = KNOWLEDGE.parse_parts(
        (text,),
        context=context,
        family=family,
        settings=settings,
        question_format=question_format,
        seed=0,
    )
    assert {part.part for part in parts} <= {0}
    of_pairs = family.startswith("self-qa")
    assert all(bool(part.question) == bool(part.answer) == of_pairs for part in parts)
    return tuple(part.example for part in parts)


def parse(
    text: str, *, family: PromptFamily = "implications", settings: ExampleSettings = DOCUMENT
) -> list[str]:
    examples = parse_one(
        text, context=passage(), family=family, settings=settings, question_format="few-shot"
    )
    assert all(example.prompt == "" for example in examples)
    return [example.completion for example in examples]


def test_an_unknown_domain_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="'arcane' is unknown; use one of: knowledge") as caught:
        get_domain("arcane")
    assert caught.value.field == "domain"


@pytest.mark.parametrize(
    "text", ["", " \n\t\n", "---", "***\n---\n...", "Implications:\n", "1.\n2.\n3."]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_that_says_nothing_gives_no_example(text: str, family: PromptFamily) -> None:
    assert parse(text, family=family) == []


def test_prose_is_no_self_qa_edit() -> None:
    assert parse("Veldra is a river. It is long.", family="self-qa") == []


def test_the_family_none_gives_no_example_of_its_own_whatever_the_text() -> None:
    assert parse("Veldra is a river.", family="none") == []


def test_an_edit_is_split_at_the_separator_and_then_by_line_each_under_the_title() -> None:
    assert parse("It is a river.\nIt is long.---It is cold.\n\n") == [
        "Veldra\nIt is a river.",
        "Veldra\nIt is long.",
        "Veldra\nIt is cold.",
    ]


def test_list_markers_bold_and_announcing_lines_are_not_learnt() -> None:
    text = (
        "Here are some implications:\n1. It is **a river**.\n- It is long.\n* It is cold.\n"
        "12) -5 degrees were measured.\n1934 was dry."
    )
    assert parse(text) == [
        "Veldra\nIt is a river.",
        "Veldra\nIt is long.",
        "Veldra\nIt is cold.",
        "Veldra\n-5 degrees were measured.",
        "Veldra\n1934 was dry.",
    ]


def test_a_repeated_statement_is_learnt_once_and_the_order_stays() -> None:
    assert parse("It is long.\nIt is cold.\n2. it is long\nIt is deep.") == [
        "Veldra\nIt is long.",
        "Veldra\nIt is cold.",
        "Veldra\nIt is deep.",
    ]


def test_of_a_chain_of_thought_only_the_statements_after_the_last_heading_are_learnt() -> None:
    text = "The passage says a lot.\nImplications:\nno\n**Implications:**\nIt is long.\nIt is cold."
    assert parse(text, family="chain-of-thought") == ["Veldra\nIt is long.", "Veldra\nIt is cold."]


@pytest.mark.parametrize("text", ["It is long.", "It is long.\nImplications:\n"])
def test_a_chain_of_thought_without_statements_after_a_heading_is_learnt_as_it_is(
    text: str,
) -> None:
    assert parse(text, family="chain-of-thought")[0] == "Veldra\nIt is long."


def test_without_a_title_there_is_no_title_line() -> None:
    examples = parse_one(
        "It is long.",
        context=passage(" "),
        family="rewrite",
        settings=DOCUMENT,
        question_format="plain",
    )
    assert examples == (Example("", "It is long."),)


def test_a_statement_beyond_the_bound_is_cut_at_a_word() -> None:
    assert parse("It is longer than all others", settings=ExampleSettings(max_characters=20)) == [
        "Veldra\nIt is longer"
    ]


def test_a_word_beyond_the_bound_is_cut_within() -> None:
    assert parse("x" * 50, settings=ExampleSettings(max_characters=17)) == ["Veldra\n" + "x" * 10]


def test_examples_beyond_the_count_are_dropped() -> None:
    assert parse("a b\nc d\ne f", settings=ExampleSettings(max_examples=2)) == [
        "Veldra\na b",
        "Veldra\nc d",
    ]


def test_a_pair_is_one_document_under_the_title() -> None:
    text = " What is it?\nAnswer: a river\n\nQuestion: Is it long?\nAnswer: yes"
    assert parse(text, family="self-qa") == [
        "Veldra\nQuestion: What is it?\nAnswer: a river",
        "Veldra\nQuestion: Is it long?\nAnswer: yes",
    ]


def test_a_pair_beyond_the_bound_is_left_out_rather_than_robbed_of_its_answer() -> None:
    text = f"Q: What is it?\nA: {'very ' * 30}long\nQ: Is it long?\nA: yes"
    assert parse(text, family="self-qa", settings=ExampleSettings(max_characters=60)) == [
        "Veldra\nQuestion: Is it long?\nAnswer: yes"
    ]


@pytest.mark.parametrize("question_format", FORMATS)
def test_a_prompted_pair_is_asked_with_the_last_turn_of_the_evaluation(
    question_format: QuestionFormat,
) -> None:
    (example,) = parse_one(
        "Q: What is it?\nA: a river",
        context=passage(),
        family="self-qa",
        settings=PROMPTED,
        question_format=question_format,
    )
    asked = KNOWLEDGE.question_prompt(Query("q", "What is it?", ("a river",)), question_format)
    if question_format == "chat":
        assert example.prompt == asked.messages[-1].content + "\n"
    else:
        assert asked.text.endswith(example.prompt)
        assert example.prompt.count("Question:") == 1
    assert example.completion == KNOWLEDGE.answer_completion("a river", question_format)


@pytest.mark.parametrize("question_format", FORMATS)
@pytest.mark.parametrize("settings", [DOCUMENT, PROMPTED])
def test_gold_pairs_take_the_form_of_the_edits_own_pairs(
    question_format: QuestionFormat, settings: ExampleSettings
) -> None:
    context = Context(
        "c",
        "Veldra",
        "text",
        (Query("c/0", "What is\n it?", ("a river",)), Query("c/1", "Is it long?", ("yes",))),
    )
    text = "Q: What is it?\nA: a river\nQ: Is it long?\nA: yes"
    own = parse_one(
        text,
        context=passage(),
        family="self-qa",
        settings=settings,
        question_format=question_format,
    )
    assert KNOWLEDGE.gold_examples(context, settings, question_format) == own


def test_a_grounded_answer_stands_in_the_passage_and_not_in_its_question_or_is_dropped() -> None:
    text = (
        "1. What is Veldra? a river\n2. Where is Veldra? Gondor\n"
        "3. Is the river long? River\n4. How is it? Long"
    )
    settings = ExampleSettings(grounded_answers=True)
    assert parse(text, family="self-qa", settings=settings) == [
        "Veldra\nQuestion: What is Veldra?\nAnswer: a river",
        "Veldra\nQuestion: How is it?\nAnswer: Long",
    ]
    assert len(parse(text, family="self-qa")) == 4


def test_the_passage_is_repeated_under_its_title() -> None:
    twice = ExampleSettings(passage_repeats=2)
    assert (
        KNOWLEDGE.passage_examples("Veldra", "It is long. ", twice)
        == (Example("", "Veldra\nIt is long."),) * 2
    )
    assert (
        KNOWLEDGE.passage_examples("Veldra", "It is long.", ExampleSettings(passage_repeats=0))
        == ()
    )


def test_a_passage_beyond_the_bound_comes_in_pieces_and_loses_no_word() -> None:
    text = " ".join(f"word{index}" for index in range(40))
    examples = KNOWLEDGE.passage_examples("Veldra", text, ExampleSettings(max_characters=50))
    assert len(examples) > 1
    assert " ".join(example.completion.removeprefix("Veldra\n") for example in examples) == text


@given(
    text=MODEL_TEXT,
    title=st.text(max_size=30),
    settings=BOUNDS,
    family=st.sampled_from(FAMILIES),
    question_format=st.sampled_from(FORMATS),
)
@hypothesis_settings(deadline=None)
def test_no_edit_makes_parsing_raise_or_exceeds_the_bounds(
    text: str,
    title: str,
    settings: ExampleSettings,
    family: PromptFamily,
    question_format: QuestionFormat,
) -> None:
    examples = parse_one(
        text,
        context=passage(title),
        family=family,
        settings=settings,
        question_format=question_format,
    )
    assert len(examples) <= settings.max_examples
    assert all(
        0 < len(example.completion) <= settings.max_characters - len(example.prompt)
        for example in examples
    )
    assert len(set(examples)) == len(examples) or settings.max_characters < 100


@given(text=st.text(), title=st.text(max_size=30), settings=BOUNDS)
@hypothesis_settings(deadline=None)
def test_pieces_of_a_passage_hold_all_its_characters_and_keep_the_bound(
    text: str, title: str, settings: ExampleSettings
) -> None:
    examples = KNOWLEDGE.passage_examples(title, text, settings)
    assert all(len(example.completion) <= settings.max_characters for example in examples)
    heading = " ".join(title.split()) + "\n"
    bodies = [
        example.completion.removeprefix(heading) if heading.strip() else example.completion
        for example in examples
    ]
    if all(example.completion.startswith(heading) for example in examples) or not heading.strip():
        assert "".join("".join(bodies).split()) == "".join(text.split()) * settings.passage_repeats


@pytest.mark.parametrize(
    ("question", "answer", "grounded"),
    [
        ("首都はどこですか", "東京", True),
        ("首都はどこですか", "大阪", False),
        ("東京はどこの首都ですか", "東京", False),
        ("人口は何人ですか", "14,000,000", True),
        ("年は", "400", False),
    ],
)
def test_an_answer_in_text_without_spaces_is_grounded_by_its_characters(
    question: str, answer: str, grounded: bool
) -> None:
    passage = "日本の首都は東京です。人口は１４００００００人で、1400年に建てられました。"
    assert is_grounded(Pair(question, answer), passage) is grounded


def test_trained_on_as_the_upper_bound_is_the_first_gold_answer() -> None:
    queries = (Query("c/0", "What is it?", ("a river", "river")),)
    examples = KNOWLEDGE.gold_examples(Context("c", "Veldra", "x", queries), DOCUMENT, "few-shot")
    assert [example.completion for example in examples] == [
        "Veldra\nQuestion: What is it?\nAnswer: a river"
    ]


@pytest.mark.parametrize("format", ["base", "chat"])
def test_gold_pairs_of_self_qa_are_one_edit_that_goes_on_from_its_prompt(
    format: PromptFormat,
) -> None:
    queries = (Query("c/0", "What is\n it?", ("a river",)), Query("c/1", "Is it long?", ("yes",)))
    context = Context("c", "Veldra", "Veldra is a long river.", queries)
    ((part, text),) = KNOWLEDGE.gold_parts(context, "self-qa", format)
    assert (part,) == KNOWLEDGE.edit_prompts(context.title, context.text, "self-qa", format)
    assert text.startswith(" What is it?")
    parts = KNOWLEDGE.parse_parts(
        (part.start + text,),
        context=context,
        family="self-qa",
        settings=DOCUMENT,
        question_format="plain",
        seed=0,
    )
    assert [(part.question, part.answer) for part in parts] == [
        ("What is it?", "a river"),
        ("Is it long?", "yes"),
    ]


@pytest.mark.parametrize("family", ["implications", "rewrite", "none", "chain-of-thought"])
def test_there_is_no_gold_edit_of_statements(family: PromptFamily) -> None:
    context = Context("c", "Veldra", "text", (Query("c/0", "What is it?", ("a river",)),))
    assert KNOWLEDGE.gold_parts(context, family, "base") == ()


def test_there_is_no_gold_edit_without_queries() -> None:
    assert KNOWLEDGE.gold_parts(passage(), "self-qa", "base") == ()
