"""PDF documents, with the extra `documents`."""

from __future__ import annotations

import io
import logging
import resource
import time

import pytest
from tiny_pdf import tiny_pdf, written_pdf

from seal.documents import Document, cut, read_document
from seal.errors import InvalidInput

pypdf = pytest.importorskip("pypdf", reason="needs the extra documents: pypdf is not installed")

SECRET = "Zanzibar"


def of_pages(*pages: list[str], outline: list[tuple[str, int]] | None = None) -> Document:
    return read_document("a-b.pdf", "", tiny_pdf(pages, outline=outline or []))


def refusal(content: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read_document("a.pdf", "", content, field="documents[2]")
    assert caught.value.field == "documents[2].content"
    assert caught.value.remedy
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("packed", [False, True])
def test_the_text_of_all_pages_is_read_and_the_title_is_the_files(packed: bool) -> None:
    content = tiny_pdf([["One (two) Köln.", "Three."], ["Four five."]], packed=packed)
    document = read_document("a-b.pdf", "", content)
    assert document.title == "a b"
    (section,) = document.sections
    assert section.text == "One (two) Köln.\nThree.\n\nFour five."


def test_entries_of_the_outline_that_are_lines_of_their_page_are_headings() -> None:
    document = of_pages(
        ["Preface text.", "Chapter 1", "Run now.", "Chapter 2"],
        ["Swim now.", "The end."],
        outline=[("Chapter 1", 0), ("Chapter  2", 0), ("Nowhere", 1)],
    )
    assert [(section.path, section.text) for section in document.sections] == [
        ((), "Preface text."),
        (("Chapter 1",), "Run now."),
        (("Chapter 2",), "Swim now.\nThe end."),
    ]


def test_a_sentence_and_a_word_that_go_on_over_a_break_are_whole_again() -> None:
    document = of_pages(
        ["The well-known harbour of Oss was dug by the engi-", "neers of Veldra, who had a well-"],
        ["known engineer and a ship-", "Yard of their own and", "did not stop."],
    )
    text = document.sections[0].text
    assert "engineers of Veldra, who had a well-known engineer and a ship-Yard" in text
    (passage,) = cut(document, max_tokens=256, count=lambda texts: [len(t) // 3 for t in texts])
    assert "own and did not stop." in passage.text


def test_ligatures_are_the_letters_that_they_stand_for() -> None:
    from seal.documents.pdf import _lines

    assert _lines("e\ufb03cient  \ufb02ow\n") == ["efficient flow"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"%PDF-1.7\n", "no PDF that can be read"),
        (SECRET.encode(), "no PDF that can be read"),
        (tiny_pdf([[SECRET + " one two"]])[:300], "no PDF that can be read"),
        (tiny_pdf([[]]), "holds no text"),
        (tiny_pdf([[SECRET]]), "a single word"),
    ],
)
def test_what_is_no_pdf_with_text_is_refused(content: bytes, problem: str) -> None:
    assert problem in refusal(content).message


def test_a_protected_pdf_is_refused_unless_anybody_may_read_it() -> None:
    for password, is_read in ((SECRET, False), ("", True)):
        writer = pypdf.PdfWriter(clone_from=io.BytesIO(tiny_pdf([["One two three."]])))
        writer.encrypt(password, owner_password="owner", algorithm="RC4-128")
        written = io.BytesIO()
        writer.write(written)
        if is_read:
            document = read_document("a.pdf", "", written.getvalue())
            assert document.sections[0].text == "One two three."
        else:
            assert "protected" in refusal(written.getvalue()).message


def test_a_line_without_a_space_takes_no_longer_than_its_length() -> None:
    sequence = "GATTACA" * 30_000
    started = time.process_time()
    assert of_pages(["One two.", sequence]).sections[0].text == f"One two.\n{sequence}"
    assert time.process_time() - started < 20  # quadratic work takes minutes


def test_a_small_file_that_holds_a_great_deal_is_refused_in_bounded_time_and_memory() -> None:
    line = b"BT /F1 12 Tf (%s) Tj ET\n" % (SECRET.encode() * 1000)
    bomb = written_pdf([line * 30_000], packed=True)
    assert len(bomb) < 2_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    refusal(bomb)
    assert time.process_time() - started < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB


def test_many_pages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seal.documents.pdf.MAX_PAGES", 2)
    assert "has 3 pages, the limit is 2" in refusal(tiny_pdf([["one two"]] * 3)).message


def test_many_drawing_operations_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seal.documents.pdf.MAX_DRAWING_OPERATIONS", 50)
    assert "holds too much by page 2 of 3" in refusal(tiny_pdf([["one two"] * 20] * 3)).message


def test_a_file_that_takes_all_memory_is_refused_as_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: object, **kwargs: object) -> str:
        raise MemoryError

    monkeypatch.setattr("pypdf.PageObject.extract_text", full)
    assert "holds too much" in refusal(tiny_pdf([["one two"]])).message


def test_no_text_of_a_document_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        refusal(tiny_pdf([[f"{SECRET} one two"]]).replace(b"xref", b"xerf")[:420])
    assert SECRET not in caplog.text
    assert not caplog.records
