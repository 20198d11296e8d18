"""Whatever the bytes: a document that is cut within its bounds, or InvalidInput.

`SEAL_FUZZ_EXAMPLES` says how many files of each kind are tried.
"""

from __future__ import annotations

import importlib.util
import json
import os
import zlib
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_pdf import tiny_pdf, written_pdf

from seal.documents import cut, read_document
from seal.documents.questions import check_questions, read_questions
from seal.errors import InvalidInput

Found = TypeVar("Found")
MAX_TOKENS = 40
EXAMPLES = int(os.environ.get("SEAL_FUZZ_EXAMPLES", "60"))
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.data_too_large]
)


def needs(library: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(library) is None,
        reason=f"needs the extra documents: {library} is not installed",
    )


def attempt(read: Callable[[], Found]) -> Found | InvalidInput:
    """What came of it; any other error is the test's."""
    try:
        return read()
    except InvalidInput as error:
        return error


def check(name: str, content: bytes) -> None:
    document = attempt(lambda: read_document(name, "", content, field="documents[0]"))
    if isinstance(document, InvalidInput):
        assert document.field.startswith("documents[0].")
        assert document.remedy
        assert document.__cause__ is None
        return
    passages = cut(
        document, max_tokens=MAX_TOKENS, count=lambda texts: [len(t.encode()) for t in texts]
    )
    assert passages
    assert all(0 < len(passage.text.encode()) <= MAX_TOKENS for passage in passages)
    assert all(passage.title.encode() for passage in passages)
    error = attempt(lambda: check_questions(document.questions, [document], passage_tokens=16))
    assert error is None or error.field == "questions", "not one of them is only asked"


@pytest.mark.parametrize(
    "name",
    [
        "a.txt",
        "a.md",
        "a.json",
        "a.jsonl",
        pytest.param("a.html", marks=needs("bs4")),
        pytest.param("a.pdf", marks=needs("pypdf")),
    ],
)
@fuzzed
@given(content=st.one_of(st.binary(max_size=400), st.text(max_size=200).map(str.encode)))
def test_any_bytes(name: str, content: bytes) -> None:
    check(name, content)


MARKDOWN = st.lists(
    st.one_of(
        st.sampled_from(
            ["# ", "## ", "\n", "\n\n", "---\n", "===\n", "```", "~~~", "| ", "|-|\n", "- ", "    "]
        ),
        st.sampled_from(["title: ", "\r", "\f", "\t", "\u2028", "\x85", "\ufeff", "*", "_", "`"]),
        st.text(max_size=60),
    ),
    max_size=60,
).map("".join)


@fuzzed
@given(text=MARKDOWN)
def test_any_markdown(text: str) -> None:
    check("a.md", text.encode(errors="replace"))


TAGS = ("p", "div", "h1", "h3", "li", "ul", "table", "tr", "td", "pre", "br", "title", "script")
MARKUP = st.lists(
    st.one_of(
        st.sampled_from([f"<{tag}>" for tag in TAGS] + [f"</{tag}>" for tag in TAGS]),
        st.sampled_from(
            ["<!--", "-->", "<![", "<![CDATA[", "]]>", "<?", "<!", "<a b='", "&#xD800;"]
        ),
        st.sampled_from(
            ["&amp;", "&", "<", ">", '"', "'", "&#0;", "<?xml ?>", "</", "<meta charset="]
        ),
        st.text(max_size=30),
    ),
    max_size=60,
).map("".join)


@needs("bs4")
@fuzzed
@given(text=MARKUP)
def test_any_markup(text: str) -> None:
    check("a.html", text.encode(errors="replace"))


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                ("title", "context", "questions", "question", "answer", "answers", "text", "data")
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)
ROWS = st.fixed_dictionaries(
    {"title": st.text(max_size=9), "context": st.text(max_size=90)},
    optional={"questions": VALUES, "question": VALUES, "answers": VALUES},
)


@fuzzed
@given(rows=st.lists(st.one_of(ROWS, VALUES), max_size=4))
def test_any_rows(rows: list[object]) -> None:
    lines = "\n".join(map(json.dumps, rows)).encode()
    check("a.jsonl", lines)
    check("a.json", json.dumps(rows).encode())
    questions = attempt(lambda: read_questions("q.jsonl", lines))
    if isinstance(questions, InvalidInput):
        assert questions.field.startswith("questions")
        assert questions.remedy


PDF = tiny_pdf([["One (two) three.", "Four"], ["Five six."]], outline=[("Four", 0)])
OPERATIONS = (
    *(b"BT", b"ET", b"/F1 12 Tf", b"/F9 0 Tf", b"(one \\(two) Tj", b"(x", b"[(a) -99 (b)] TJ"),
    *(b"1 0 0 1 9 9 Tm", b"0 0 0 0 0 0 Tm", b"T*", b"q", b"Q", b"/X Do", b"BI ID EI", b"<< >>"),
    *(b"<41", b"<zz> Tj", b"99999999999999999999 TL", b"-1 Tr", b"true", b"[[[", b"]", b"'"),
)
DRAWING = st.lists(st.sampled_from(OPERATIONS), max_size=20).map(b" ".join)


@needs("pypdf")
@fuzzed
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(PDF)), st.integers(0, 40), st.binary(max_size=12)),
        min_size=1,
        max_size=5,
    )
)
def test_any_broken_pdf(changes: list[tuple[int, int, bytes]]) -> None:
    content = PDF
    for place, length, new in changes:
        content = content[:place] + new + content[place + length :]
    check("a.pdf", content)


@needs("pypdf")
@fuzzed
@given(drawing=DRAWING, packed=st.booleans(), cut_at=st.integers(0, 200))
def test_any_drawing(drawing: bytes, packed: bool, cut_at: int) -> None:
    check("a.pdf", written_pdf([drawing, drawing], packed=packed))
    broken = zlib.compress(drawing)[:cut_at]
    check("a.pdf", written_pdf([drawing]).replace(drawing, broken) if drawing else broken)
