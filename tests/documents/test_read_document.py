"""Documents of text: what is read, and how one that cannot be read is refused."""

from __future__ import annotations

import json
import sys
import time

import pytest

from seal.documents import media_type_of, read_document
from seal.errors import InvalidInput
from seal.limits import (
    MAX_DOCUMENT_BYTES,
    MAX_DOCUMENT_CHARACTERS,
    MAX_HEADING_CHARACTERS,
    MAX_LINES,
    MAX_QUESTIONS,
)

SECRET = "Zanzibar"


def markdown(text: str, *, name: str = "guide.md") -> list[tuple[str, str]]:
    """Title and text of each section."""
    document = read_document(name, "", text.encode())
    return [(document.title_of(section.path), section.text) for section in document.sections]


def refusal(name: str, content: bytes, media_type: str = "") -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read_document(name, media_type, content, field="documents[3]")
    assert caught.value.remedy
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None, "a cause would carry the document's text into logs"
    return caught.value


def test_a_text_has_the_title_of_its_file_and_its_paragraphs_as_blocks() -> None:
    document = read_document("notes/fire_safety-2024.txt", "", b"One two.\n \nThree\nfour.\n")
    assert document.title == "fire safety 2024"
    (section,) = document.sections
    assert section.path == ()
    assert [block.text for block in section.blocks] == ["One two.", "Three\nfour."]


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_and_line_ends_of_every_system_are_no_text(mark: str) -> None:
    content = "Grüße aus Köln.\r\n\r\nZweiter\rAbsatz.".encode(mark)
    document = read_document("a.txt", "", content)
    assert document.sections[0].text == "Grüße aus Köln.\n\nZweiter\nAbsatz."


def test_sections_of_markdown_stand_under_their_headings() -> None:
    assert markdown("# Guide\nIntro.\n## Fire ##\nRun.\n### Alarm\nRing.\n## Water\nSwim.\n") == [
        ("Guide", "Intro."),
        ("Guide: Fire", "Run."),
        ("Guide: Fire > Alarm", "Ring."),
        ("Guide: Water", "Swim."),
    ]


def test_a_title_is_the_front_matters_then_the_only_top_heading_then_the_files_name() -> None:
    assert markdown('---\ntitle: "Rules"\nauthor: Ann\n---\n# Fire\nRun now.\n') == [
        ("Rules", "author: Ann"),
        ("Rules: Fire", "Run now."),
    ]
    assert markdown("# Fire\nRun now.\n") == [("Fire", "Run now.")]
    assert markdown("# Fire\nRun.\n# Water\nSwim.\n") == [
        ("guide: Fire", "Run."),
        ("guide: Water", "Swim."),
    ]


@pytest.mark.parametrize(
    "title",
    [
        "Rules of fire",
        "'Rules of fire'",
        ">-\n  Rules\n  of fire",
        "|\n  Rules of fire",
        "Rules\n  of fire",
    ],
)
def test_a_title_of_the_front_matter_is_whole_however_it_is_written(title: str) -> None:
    text = f"---\ntitle: {title}\nauthor: Ann\n---\nRun now.\n"
    assert markdown(text) == [("Rules of fire", "author: Ann\n\nRun now.")]


@pytest.mark.parametrize("title", ['The "Great" Fire', "Don't say 'no'", 'On "fire"'])
def test_quotes_within_a_title_of_the_front_matter_stay(title: str) -> None:
    assert markdown(f"---\ntitle: {title}\n---\nRun now.\n") == [(title, "Run now.")]


@pytest.mark.parametrize(
    ("written", "heading"),
    [
        ("Fire ##", "Fire"),
        ("Fire #  ", "Fire"),
        ("Fire # #", "Fire #"),
        ("C#", "C#"),
        ("\tFire\t#\t", "Fire"),
    ],
)
def test_a_heading_loses_what_closes_it(written: str, heading: str) -> None:
    assert markdown(f"# {written}\nRun now.\n") == [(heading, "Run now.")]


@pytest.mark.parametrize(
    "text",
    [
        f"# a{' ' * 200_000}b\nSome text.",
        f"# {'`' * 200_000} a\nSome text.",
        f"a | b\n{' ' * 200_000}x",
        f"a | b\n{'- | ' * 50_000}x",
        "---\ntitle: a" + " 'b" * 50_000 + "\n---\nSome text.",
    ],
)
def test_a_line_of_markdown_takes_no_longer_than_its_length(text: str) -> None:
    started = time.process_time()
    assert markdown(text)
    assert time.process_time() - started < 10  # quadratic work takes minutes, or days


@pytest.mark.parametrize(
    ("written", "heading"),
    [
        ("**Fire** and _water_", "Fire and water"),
        ("2 * 3 and a*b*c", "2 * 3 and a*b*c"),
        ("The method `__init__` of `*args`", "The method __init__ of *args"),
    ],
)
def test_a_heading_loses_its_emphasis_and_nothing_else(written: str, heading: str) -> None:
    assert markdown(f"# {written}\nRun now.\n") == [(heading, "Run now.")]


def test_a_line_that_only_looks_like_an_item_may_be_underlined() -> None:
    text = "**Fire**\n===\nRun now.\n\n2.5 million lamps\n---\nMore.\n"
    assert markdown(text) == [("Fire", "Run now."), ("Fire: 2.5 million lamps", "More.")]


def test_underlined_lines_are_headings_and_rulers_are_not() -> None:
    assert markdown("Guide\n=====\nIntro.\n\nFire\n---\nRun.\n\n- item\n---\n\n---\nEnd.\n") == [
        ("Guide", "Intro."),
        ("Guide: Fire", "Run.\n\n- item\n---\n\n---\nEnd."),
    ]


@pytest.mark.parametrize(
    "code",
    [
        "```sh\n# no heading\n\nls\n```",
        "~~~\n# no heading\n```\n~~~~",
        "    # no heading\n    ls",
        "- item\n\n   ```\n   # no heading\n   ```",
        "```\n# never closed",
    ],
)
def test_a_hash_within_code_begins_no_section(code: str) -> None:
    assert markdown(f"# Guide\nText.\n\n{code}\n")[0][0] == "Guide"
    assert len(markdown(f"# Guide\nText.\n\n{code}\n")) == 1


@pytest.mark.parametrize(
    ("before", "goes_on"), [("Like this:", False), ("- Like this:", True), ("1. a\n   - b", True)]
)
def test_an_indented_fence_begins_code_in_an_item_alone(before: str, goes_on: bool) -> None:
    titles = [title for title, _ in markdown(f"{before}\n\n    ```\n    ls\n\n# Fire\nRun now.\n")]
    assert ("Fire" in "".join(titles)) is not goes_on


def test_code_and_tables_keep_their_lines() -> None:
    code = "```\nif x:\n    y\n\nz\n```"
    table = "| a | b |\n|---|---|\n| 1 | 2 |"
    document = read_document("a.md", "", f"Text.\n\n{code}\n\n{table}\n".encode())
    blocks = document.sections[0].blocks
    assert [(block.text, block.is_verbatim) for block in blocks] == [
        ("Text.", False),
        (code, True),
        (table, True),
    ]


def test_a_heading_too_long_for_a_title_is_text() -> None:
    long = "word " * (MAX_HEADING_CHARACTERS // 4)
    assert markdown(f"# Guide\nOne two.\n## {long}\n") == [("Guide", f"One two.\n\n{long.strip()}")]


def test_rows_of_a_dataset_are_sections_with_their_questions() -> None:
    rows = [
        {
            "title": "Veldra",
            "context": "Veldra is long.",
            "questions": [{"question": "How is Veldra?", "answer": "long"}],
        },
        {"title": "", "context": "Oss is high.\n\nVery high."},
    ]
    document = read_document("two.jsonl", "", "\n".join(map(json.dumps, rows)).encode())
    assert [document.title_of(section.path) for section in document.sections] == ["Veldra", "two"]
    assert document.sections[1].text == "Oss is high.\n\nVery high."
    (question,) = document.questions
    assert (question.question, question.answers) == ("How is Veldra?", ("long",))
    assert (question.document, question.section) == ("two.jsonl", 0)


def test_a_squad_file_is_a_document_and_its_unanswerable_questions_are_counted() -> None:
    answered = {"question": "How?", "answers": [{"text": "long"}]}
    impossible = {"question": "Why?", "answers": [], "is_impossible": True}
    article = {"title": "A_b", "paragraphs": [{"context": "It is.", "qas": [answered, impossible]}]}
    document = read_document("squad.json", "", json.dumps({"data": [article]}).encode())
    assert document.title_of(document.sections[0].path) == "A b"
    assert len(document.questions) == 1
    assert document.unanswerable == 1


@pytest.mark.parametrize(
    "row",
    [
        {"title": SECRET, "context": 3},
        {"title": SECRET, "context": SECRET, "questions": [{"question": SECRET, "answer": ""}]},
        {SECRET: 1},
        SECRET,
    ],
)
def test_a_bad_row_is_refused_by_its_number_without_its_text(row: object) -> None:
    error = refusal("a.jsonl", f'{{"title": "", "context": "x y"}}\n{json.dumps(row)}'.encode())
    assert error.field == "documents[3].content"
    assert error.message.startswith("a.jsonl, row 2"), "the file is named once, with the row"
    assert error.message.count("a.jsonl") == 1


def test_a_key_that_stands_twice_is_told_where_it_says_nothing_of_the_text() -> None:
    known = refusal("a.jsonl", b'{"title": "a", "title": "b", "context": "x y"}')
    assert known.message == "a.jsonl, row 1: the key 'title' stands twice in one object"
    own = refusal("a.jsonl", f'{{"{SECRET}": 1, "{SECRET}": 2, "context": "x y"}}'.encode())
    assert own.message == "a.jsonl, row 1: a key stands twice in one object"


def test_a_passage_with_too_many_questions_is_refused_when_it_is_read() -> None:
    many = [{"question": f"{n}?", "answer": SECRET} for n in range(MAX_QUESTIONS + 1)]
    row = {"title": "", "context": f"{SECRET} is long.", "questions": many}
    error = refusal("a.jsonl", json.dumps(row).encode())
    assert error.message == "a.jsonl, row 1: holds 4097 questions, the limit is 4096"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b" \n\t", "holds no word"),
        (b"...!", "holds no word"),
        (SECRET.encode(), "holds a single word"),
        (SECRET.encode() + b" \0\1\2 text", "is binary"),
        (b"\x01\x02\x03" * 9 + SECRET.encode(), "is binary"),
        (b"\x7fELF\xff\xfe" + SECRET.encode(), "not text in UTF-8 at byte 4"),
        ("Köln ".encode("latin-1") + SECRET.encode(), "not text in UTF-8 at byte 1"),
    ],
)
def test_content_that_is_no_text_to_learn_from_is_refused(content: bytes, problem: str) -> None:
    error = refusal("a.txt", content)
    assert error.field == "documents[3].content"
    assert problem in error.message


def test_content_that_is_too_large_is_refused() -> None:
    assert "bytes, the limit is" in refusal("a.txt", b"a" * (MAX_DOCUMENT_BYTES + 1)).message
    characters = refusal("a.txt", b"a " * MAX_DOCUMENT_CHARACTERS)
    assert "characters, the limit is" in characters.message
    lines = refusal("a.txt", b"a\n" * (MAX_LINES + 1))
    assert f"has {MAX_LINES + 1} lines, the limit is" in lines.message


@pytest.mark.parametrize("name", ["", " ", "a\nb.txt", "a" * 256])
def test_a_name_that_nobody_could_read_is_refused(name: str) -> None:
    assert refusal(name, b"one two").field == "documents[3].name"


def test_a_name_that_is_too_long_is_told_with_its_length_and_the_limit() -> None:
    error = refusal("b" * 256, b"one two")
    assert "'" + "b" * 60 + "...' has 256 characters, the limit is 255" in error.message
    assert read_document("b" * 251 + ".txt", "", b"one two").name.startswith("bb")


@pytest.mark.parametrize(("name", "library"), [("a.pdf", "pypdf"), ("a.html", "bs4")])
def test_without_the_extra_the_command_that_installs_it_is_named(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    error = refusal(name, b"one two")
    assert error.field == "documents[3].media_type"
    assert "pip install 'seal-kubernetes[documents]'" in error.remedy


def test_the_media_type_counts_before_the_name_and_either_must_be_known() -> None:
    assert media_type_of("A.MD") == "text/markdown"
    assert media_type_of("a.bin", "Text/Plain; charset=utf-8") == "text/plain"
    assert refusal("a.docx", b"one two").field == "documents[3].media_type"
    assert refusal("a.txt", b"one two", "image/png").field == "documents[3].media_type"
    assert "text/markdown" in refusal("readme", b"one two").remedy
