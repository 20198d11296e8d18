"""Documents cut into passages: nothing is lost, and no passage is longer than its bound."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seal.documents import Document, Passage, cut, pack, pieces, read_document
from seal.documents.text import read_text
from seal.errors import InvalidInput
from seal.limits import MAX_PASSAGE_CHARACTERS

MAX_TOKENS = 48


def byte_tokens(texts: Sequence[str]) -> list[int]:
    """The dearest tokenizer that there is."""
    return [len(text.encode()) for text in texts]


def word_tokens(texts: Sequence[str]) -> list[int]:
    return [len(re.findall(r"\w+|[^\w\s]", text)) for text in texts]


def passages(document: Document, max_tokens: int = MAX_TOKENS) -> tuple[Passage, ...]:
    return cut(document, max_tokens=max_tokens, count=word_tokens)


def of_markdown(text: str, max_tokens: int = MAX_TOKENS) -> list[tuple[str, str]]:
    found = passages(read_document("guide.md", "", text.encode()), max_tokens)
    return [(passage.title, passage.text) for passage in found]


def prose(start: int, sentences: int, *, words: int = 6) -> str:
    """Sentences of distinct words."""
    return " ".join(
        " ".join(f"W{start + 100 * number + word}" for word in range(words)) + "."
        for number in range(sentences)
    )


def test_a_section_that_fits_is_one_passage_under_its_headings() -> None:
    text = f"# Guide\n{prose(0, 2)}\n## Fire\n{prose(1000, 2)}\n"
    assert of_markdown(text) == [("Guide", prose(0, 2)), ("Guide: Fire", prose(1000, 2))]


def test_a_long_section_is_cut_at_a_paragraph_then_at_a_line_then_at_a_sentence() -> None:
    three, four = prose(0, 3), prose(1000, 4)
    assert [text for _, text in of_markdown(f"{three}\n\n{four}")] == [three, four]
    lines = f"- {three}\n- {four}"
    assert [text for _, text in of_markdown(lines)] == [f"- {three}", f"- {four}"]
    assert [text for _, text in of_markdown(prose(0, 8))] == [
        prose(0, 4),
        prose(400, 4),
    ]


def test_a_cut_leaves_passages_of_like_size() -> None:
    sizes = [passage.tokens for passage in passages(read_text("a.txt", prose(0, 61)))]
    assert min(sizes) > max(sizes) // 2


def test_sections_of_a_few_words_share_a_passage_with_their_headings_in_it() -> None:
    text = "# Guide\n## Fire\nRun.\n## Water\nSwim.\n### Deep\nDive.\n"
    assert of_markdown(text) == [("Guide", "Fire\n\nRun.\n\nWater\n\nSwim.\n\nDeep\n\nDive.")]


def test_a_heading_without_text_stands_in_the_title_of_what_is_below_it() -> None:
    text = f"# Guide\n{prose(0, 2)}\n## Part\n### Fire\n{prose(1000, 4)}\n"
    assert of_markdown(text)[1:] == [("Guide: Part > Fire", prose(1000, 4))]


def test_headings_alone_are_a_passage_too() -> None:
    assert of_markdown("# Guide\n## Fire\n## Water\n") == [("Guide", "Fire\n\nWater")]
    assert of_markdown("# Guide\n## Fire drill\n") == [("Guide", "Fire drill")]
    assert of_markdown("# Fire drill\n") == [("guide", "Fire drill")]
    assert of_markdown("# Fire\n# Fire\n") == [("guide", "Fire\n\nFire")]
    assert of_markdown("# Guide\n## Fire\n# Guide\n## Fire\n") == [("Guide", "Fire\n\nFire")]


def test_a_passage_is_of_a_section_too_that_only_repeats_its_title() -> None:
    document = read_document("a.md", "", b"# Fire\n## Drill\nRun.\n## Drill\n")
    (found,) = passages(document)
    assert (found.title, found.text, found.sections) == ("Fire: Drill", "Run.", range(1, 3))


def test_rows_of_a_dataset_never_share_a_passage() -> None:
    rows = "\n".join(f'{{"title": "T{n}", "context": "Word {n}."}}' for n in range(3))
    document = read_document("a.jsonl", "", rows.encode())
    assert [passage.title for passage in passages(document)] == ["T0", "T1", "T2"]
    assert [passage.sections for passage in passages(document)] == [
        range(number, number + 1) for number in range(3)
    ]


def test_a_word_longer_than_a_passage_is_cut_and_nothing_else_within_a_word() -> None:
    long = "x" * 500
    found = cut(read_text("a.txt", f"one {long} two"), max_tokens=MAX_TOKENS, count=byte_tokens)
    assert "".join(passage.text for passage in found).replace(" ", "") == f"one{long}two"
    assert all(passage.tokens <= MAX_TOKENS for passage in found)


def test_code_keeps_its_indentation_where_it_is_cut_at_its_lines() -> None:
    code = "```\n" + "\n".join(f"    line_{number} = {number}" for number in range(40)) + "\n```"
    found = of_markdown(code)
    assert len(found) > 2
    assert "\n".join(text for _, text in found) == code


def test_a_tokenizer_that_cuts_a_word_finer_than_a_passage_is_refused() -> None:
    document = read_text("a.txt", "one two")
    found = pieces(document, max_tokens=MAX_TOKENS)
    with pytest.raises(InvalidInput) as caught:
        pack(document, found, [MAX_TOKENS + 1], max_tokens=MAX_TOKENS)
    assert caught.value.field == "passages.max_tokens"


def test_no_passage_is_longer_than_a_request_takes_however_few_tokens_it_has() -> None:
    document = read_text("a.txt", "=" * 300_000)
    found = cut(document, max_tokens=20_000, count=lambda texts: [1] * len(texts))
    assert max(len(passage.text) for passage in found) <= MAX_PASSAGE_CHARACTERS


WORDS = st.text(st.characters(exclude_categories=("Cs", "Z", "C")), min_size=1, max_size=90)
LINES = st.lists(WORDS, min_size=1, max_size=40).map(" ".join)
STARTS = st.sampled_from(
    ("", "# ", "## ", "### ", "- ", "1. ", "> ", "    ", "| ", "```\n", "~~~\n", "---\n", "\t")
)
ENDS = st.sampled_from(("\n", "\n\n", "\r\n", "\r\n\r\n", ".\n", "。", "\n---\n", "\n===\n", " \n"))
DOCUMENTS = st.lists(st.tuples(STARTS, LINES, ENDS), min_size=1, max_size=25).map(
    lambda parts: "".join("".join(part) for part in parts)
)


def letters(text: str) -> str:
    """All but white space: a very long word may be cut, and then a gap stands in it."""
    return "".join(text.split())


def check_whole_and_bounded(document: Document, max_tokens: int) -> None:
    found = cut(document, max_tokens=max_tokens, count=byte_tokens)
    assert all(
        passage.tokens <= max_tokens and len(passage.text.encode()) <= passage.tokens
        for passage in found
    )
    texts = letters("".join(passage.text for passage in found))
    wanted = ""
    for index, section in enumerate(document.sections):
        if section.path:
            (title,) = {passage.title for passage in found if index in passage.sections}
            is_told = f"{title} > ".startswith(f"{document.title_of(section.path)} > ")
            wanted += "" if is_told else section.path[-1]
        wanted += section.text
    assert texts == letters(wanted)


@settings(max_examples=60, deadline=None)
@given(text=DOCUMENTS, max_tokens=st.integers(12, 200))
@example(text="0\n# 0\n0\n## 0 0\n", max_tokens=18)  # words that repeat, in a title and in texts
@example(text="0\n# 0\n0\n# 0 0\n---\n", max_tokens=18)
@example(text="0\n# 0\n## 0 0\n", max_tokens=12)
def test_every_word_of_a_document_is_in_its_passages_in_order(text: str, max_tokens: int) -> None:
    for name in ("a.md", "a.txt"):
        try:
            document = read_document(name, "", text.encode())
        except InvalidInput:
            continue
        check_whole_and_bounded(document, max_tokens)


@settings(max_examples=60, deadline=None)
@given(text=DOCUMENTS)
def test_a_document_holds_every_letter_of_its_file(text: str) -> None:
    try:
        document = read_document("a.txt", "", text.encode())
    except InvalidInput:
        return
    assert letters("".join(section.text for section in document.sections)) == letters(text)
