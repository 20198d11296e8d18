"""Edits in parts: one prompt a sentence and question word, and what is made of their texts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from seal.datasets import load_contexts
from seal.domains import get_domain
from seal.domains.base import ABSTAIN, Context, Example, PartExample, Query
from seal.domains.by_sentence import STARTS, opened_by_its_word, part_texts
from seal.domains.filters import is_grounded, shares_a_word, spread
from seal.domains.pairs import Pair, inline_pair
from seal.domains.prompts import WORKED_SENTENCES
from seal.limits import MAX_PART_TEXTS, MAX_PASSAGE_CHARACTERS
from seal.prompts import Prompt
from seal.settings import ExampleSettings, PromptFamily, PromptFormat

KNOWLEDGE = get_domain("knowledge")
FAMILY: PromptFamily = "self-qa-by-sentence"
TEXT = "Odo Marrin cast the Brennick Bell in 1822. The bell weighs 340 kilograms."
BELL = Context("c", "The Brennick Bell", TEXT, ())
ALL = ExampleSettings()


def parse(
    texts: Sequence[str], *, settings: ExampleSettings = ALL, context: Context = BELL
) -> list[tuple[int, str, str]]:
    parts = KNOWLEDGE.parse_parts(
        texts, context=context, family=FAMILY, settings=settings, question_format="plain", seed=0
    )
    return [(part.part, part.question, part.answer) for part in parts]


def edit(*written: tuple[int, str], number: int = 2 * len(STARTS)) -> list[str]:
    """The texts of all parts: some as given, the others abstain."""
    texts = [STARTS[part % len(STARTS)] + ABSTAIN for part in range(number)]
    for part, text in written:
        texts[part] = text
    return texts


def whole(prompt: Prompt) -> str:
    return "\n".join([*(message.content for message in prompt.messages), prompt.text])


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("format", ["base", "chat"])
def test_there_is_a_part_for_each_sentence_and_question_word(
    format: PromptFormat, trained: bool
) -> None:
    parts = KNOWLEDGE.edit_prompts(BELL.title, TEXT, FAMILY, format, trained=trained)
    assert [part.start for part in parts] == [*STARTS, *STARTS]
    assert STARTS == ("Who", "When", "Where", "How", "What", "Which", "Why")
    for part, text in zip(parts[:: len(STARTS)], TEXT.split(". "), strict=True):
        assert whole(part.prompt).rstrip().endswith(f"Text: {text.rstrip('.')}.")
        assert part.prompt.stop == ("\n",)
    assert all(bool(part.prompt.messages) == (format == "chat") for part in parts)


def test_all_prompts_share_what_stands_before_the_title_and_those_of_a_sentence_all() -> None:
    parts = KNOWLEDGE.edit_prompts(BELL.title, TEXT, FAMILY, "base")
    others = KNOWLEDGE.edit_prompts("Veldra", "It is a long river.", FAMILY, "base")
    last = f"Title: {BELL.title}\nText: Odo Marrin cast the Brennick Bell in 1822.\n"
    shared = parts[0].prompt.text.removesuffix(last)
    assert len(shared) + len(last) == len(parts[0].prompt.text)
    assert all(part.prompt.text.startswith(shared) for part in (*parts, *others))
    assert len({part.prompt for part in parts}) == 2


def test_a_trained_policy_gets_the_title_and_the_sentence_alone() -> None:
    trained = KNOWLEDGE.edit_prompts("Veldra", "It is a long river.", FAMILY, "base", trained=True)
    assert trained[0].prompt.text == "Title: Veldra\nText: It is a long river.\n"
    (message,) = KNOWLEDGE.edit_prompts("", "It is a long river.", FAMILY, "chat", trained=True)[
        0
    ].prompt.messages
    assert (message.role, message.content) == ("user", "Text: It is a long river.")


def test_the_chat_shows_its_worked_examples_as_turns() -> None:
    prompt = KNOWLEDGE.edit_prompts("Veldra", "It is long.", FAMILY, "chat")[0].prompt
    assert [message.role for message in prompt.messages] == [
        *["user", "assistant"] * len(WORKED_SENTENCES),
        "user",
    ]
    assert [message.content for message in prompt.messages[1::2]] == [
        pair for *_, pair in WORKED_SENTENCES
    ]
    assert prompt.text == ""


@pytest.mark.parametrize(("title", "text", "line"), WORKED_SENTENCES)
def test_a_worked_example_is_what_the_filters_let_through(title: str, text: str, line: str) -> None:
    settings = ExampleSettings(grounded_answers=True, shared_word=True)
    place = next(place for place, start in enumerate(STARTS) if line.startswith(f"{start} "))
    found = parse(
        edit((place, line), number=7), settings=settings, context=Context("c", title, text, ())
    )
    assert [f"{question} {answer}" for _, question, answer in found] == [line]
    assert part_texts(text) == (text,)


def test_no_gold_answer_of_the_embedded_corpus_stands_in_the_worked_examples() -> None:
    golds = {
        query.answers[0]
        for name in ("train", "validation", "retained")
        for context in load_contexts(f"corpus://{name}")
        for query in context.queries
    }
    shown = [pair for *_, line in WORKED_SENTENCES if (pair := inline_pair(line))]
    assert len(shown) == len(WORKED_SENTENCES)
    assert [
        pair for pair in shown if any(is_grounded(Pair("", gold), pair.answer) for gold in golds)
    ] == []


def test_short_sentences_go_to_the_next_one_and_the_last_to_the_one_before() -> None:
    text = "Early life\nOdo cast the bell. Why? He was asked to do it. Yes."
    assert part_texts(text) == ("Early life Odo cast the bell.", "Why? He was asked to do it. Yes.")


@pytest.mark.parametrize("text", ["", "...", "bell", "Odo"])
def test_a_passage_without_sentences_is_one_text(text: str) -> None:
    assert part_texts(text) == (text,)
    assert len(KNOWLEDGE.edit_prompts("", text, FAMILY, "base")) == len(STARTS)


def test_of_a_long_document_neighbours_share_a_text_and_nothing_is_left_out() -> None:
    found = [f"Bell number {number} was cast." for number in range(10_000)]
    texts = part_texts(" ".join(found))
    assert len(texts) == MAX_PART_TEXTS
    assert " ".join(texts) == " ".join(found)
    assert max(map(len, texts)) < 1.1 * min(map(len, texts))
    longest = part_texts(("word " * 20_000)[:MAX_PASSAGE_CHARACTERS])
    assert len(longest) <= MAX_PART_TEXTS
    assert max(map(len, longest)) < 2000


def test_the_union_of_the_parts_tells_where_each_pair_comes_from() -> None:
    texts = edit((0, "Who cast the bell? Odo Marrin"), (8, "When was it weighed?  Answer: 340 "))
    assert parse(texts) == [
        (0, "Who cast the bell?", "Odo Marrin"),
        (8, "When was it weighed?", "340"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Who -",
        "Who" + ABSTAIN,
        "Who",
        "",
        "Who cast it?",
        "Who cast it? -",
        "Who cast it\nfor? Odo",
        "Who cast it? Odo? Marrin",
        "Who cast the bell in 1822",
        "Who cast it?Odo",
    ],
)
def test_an_abstention_and_what_is_no_pair_parse_to_nothing(text: str) -> None:
    assert parse(edit((0, text))) == []


def test_an_answer_stands_in_its_own_sentence_where_it_has_to_be_grounded() -> None:
    texts = edit(
        (0, "Who cast the bell? Odo Marrin"),
        (7, "Who was weighed? Odo Marrin"),
        (4, "What did Odo Marrin cast? Marrin"),
        (11, "What is its weight? 340 kilograms"),
    )
    settings = ExampleSettings(grounded_answers=True)
    assert [part for part, *_ in parse(texts, settings=settings)] == [0, 11]
    assert [part for part, *_ in parse(texts)] == [0, 4, 7, 11]


def test_the_question_shares_a_word_with_the_sentence_beyond_title_and_answer() -> None:
    texts = edit(
        (0, "Who cast the bell? Odo Marrin"),
        (1, "When was the Brennick Bell lost? 1822"),
        (3, "How old was the 1822 bell? 1822"),
    )
    assert [part for part, *_ in parse(texts, settings=ExampleSettings(shared_word=True))] == [0]
    assert shares_a_word(Pair("鐘は誰が作った", "織田"), "織田が鐘を作った。", title="")


def test_each_question_is_taken_once_and_so_many_pairs_of_an_answer_in_a_sentence() -> None:
    texts = edit(
        (0, "Who cast the bell? Odo Marrin"),
        (4, "What founder cast it? Odo Marrin"),
        (5, "Which man cast it? odo marrin"),
        (6, "who cast the Bell? Odo"),
        (7, "Who weighed it? Odo Marrin"),
    )
    assert [part for part, *_ in parse(texts)] == [0, 4, 5, 7]
    assert [part for part, *_ in parse(texts, settings=ExampleSettings(max_per_answer=2))] == [
        0,
        4,
        7,
    ]
    assert [part for part, *_ in parse(texts, settings=ExampleSettings(max_per_answer=1))] == [0, 7]


def test_the_filters_hold_for_the_pairs_of_an_edit_of_one_part_too() -> None:
    settings = ExampleSettings(shared_word=True, max_per_answer=1)
    text = (
        "Who cast it? Odo\n2. Who cast the bell? Odo\n"
        "3. Who lost it? Odo\n4. When was it cast? 1822"
    )
    parts = KNOWLEDGE.parse_parts(
        (text,), context=BELL, family="self-qa", settings=settings, question_format="plain", seed=0
    )
    assert [part.question for part in parts] == ["Who cast it?", "When was it cast?"]


def test_what_is_beyond_the_count_is_left_out_evenly_over_the_passage() -> None:
    def kept(numbers: Sequence[int], limit: int) -> list[int]:
        """Parts that are kept of texts with so many examples each."""
        examples = [
            PartExample(text * 7 + place, Example("", "x"))
            for text, number in enumerate(numbers)
            for place in range(number)
        ]
        return [example.part for example in spread(examples, limit, parts_per_text=7)]

    assert kept([7, 7, 7], 3) == [0, 8, 16]
    assert kept([7, 7, 7], 6) == [0, 1, 8, 9, 16, 17]
    assert kept([1, 7, 2], 6) == [0, 8, 9, 10, 14, 15]
    assert [part // 7 for part in kept([1] * 10, 2)] == [2, 7]
    assert kept([2, 2], 9) == [0, 1, 7, 8]


def test_an_edit_of_one_part_keeps_its_first_examples() -> None:
    examples = [PartExample(0, Example("", str(number))) for number in range(9)]
    assert spread(examples, 4, parts_per_text=1) == tuple(examples[:4])


@pytest.mark.parametrize(
    ("question", "start", "rest"),
    [
        ("Who cast the bell?", "Who", " cast the bell?"),
        ("in  which year was it cast?", "Which", " year was it cast in?"),
        ("By whom was it cast?", "Who", " was it cast by?"),
        ("Whom did he meet", "Who", " did he meet?"),
        ("After the fire in Quenby, who came?", "Who", " came after the fire in Quenby?"),
        ("In 1932 what was the bell called?", "What", " was the bell called in 1932?"),
        ("Odo being ill, who came?", "Who", " came Odo being ill?"),
        ("Approximately how many bells hang?", "How", " many bells hang?"),
        ("What's its weight?", "What", "'s its weight?"),
    ],
)
def test_a_question_is_opened_by_its_own_word(question: str, start: str, rest: str) -> None:
    assert opened_by_its_word(question) == (start, rest)


@pytest.mark.parametrize(
    "question", ["", "Is it long?", "Whose bell is it?", "The bell was cast by what?", "However?"]
)
def test_a_question_that_no_start_opens_has_no_part(question: str) -> None:
    assert opened_by_its_word(question) is None


@pytest.mark.parametrize("format", ["base", "chat"])
def test_a_gold_pair_goes_to_the_sentence_and_word_that_it_fits(format: PromptFormat) -> None:
    queries = (
        Query("c/0", "How many kilograms does the Brennick Bell weigh?", ("340",)),
        Query("c/1", "In which year was the Brennick Bell cast?", ("the year 1822", "1822")),
        Query("c/2", "Who cast it?", ("Ilse",)),
        Query("c/3", "Is it heavy?", ("340",)),
    )
    context = Context("c", "The Brennick Bell", TEXT, queries)
    prompts = KNOWLEDGE.edit_prompts(context.title, TEXT, FAMILY, format, trained=True)
    gold = KNOWLEDGE.gold_parts(context, FAMILY, format)
    assert gold == (
        (prompts[7 + 3], " many kilograms does the Brennick Bell weigh? 340"),
        (prompts[5], " year was the Brennick Bell cast in? 1822"),
    )
    texts = edit(*((prompts.index(part), part.start + text) for part, text in gold))
    assert [(question, answer) for _, question, answer in parse(texts)] == [
        ("Which year was the Brennick Bell cast in?", "1822"),
        ("How many kilograms does the Brennick Bell weigh?", "340"),
    ]


def test_of_the_sentences_with_the_answer_the_one_that_the_question_is_about_counts() -> None:
    text = "The bell has 40 parts. The tower has 40 steps. The beam has 40 holes."
    query = Query("q", "How many steps does the tower have?", ("40",))
    ((part, _),) = KNOWLEDGE.gold_parts(Context("c", "T", text, (query,)), FAMILY, "base")
    assert "The tower has 40 steps." in part.prompt.text


@pytest.mark.parametrize("name", ["train", "validation"])
def test_every_gold_pair_of_the_embedded_corpus_has_a_part(name: str) -> None:
    for context in load_contexts(f"corpus://{name}"):
        assert len(KNOWLEDGE.gold_parts(context, FAMILY, "base")) == len(context.queries)


@given(
    passage=st.text(max_size=200),
    title=st.text(max_size=20),
    written=st.lists(
        st.one_of(
            st.text(max_size=40),
            st.lists(
                st.sampled_from(["Who ", "cast it", "? ", "？", "Odo", " -", "\n", "1. "])
            ).map("".join),
        ),
        max_size=30,
    ),
    settings=st.builds(
        ExampleSettings,
        grounded_answers=st.booleans(),
        shared_word=st.booleans(),
        max_per_answer=st.integers(0, 2),
        max_examples=st.integers(1, 4),
        max_characters=st.integers(1, 200),
    ),
)
@hypothesis_settings(deadline=None)
def test_no_texts_make_parsing_raise_or_exceed_the_bounds(
    passage: str, title: str, written: list[str], settings: ExampleSettings
) -> None:
    context = Context("c", title, passage, (Query("q", "Who?", (passage[:9] or "x",)),))
    found = parse(written, settings=settings, context=context)
    number = len(KNOWLEDGE.edit_prompts(title, passage, FAMILY, "base"))
    assert len(found) <= settings.max_examples
    assert all(0 <= part < min(number, len(written)) for part, *_ in found)
    assert [part for part, *_ in found] == sorted({part for part, *_ in found})
    KNOWLEDGE.gold_parts(context, FAMILY, "chat")
