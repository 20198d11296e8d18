"""HTML documents, with the extra `documents`."""

from __future__ import annotations

import resource
import time
import warnings

import pytest

from seal.documents import read_document
from seal.errors import InvalidInput
from seal.limits import MAX_MARKUP_BYTES, MAX_TAGS

pytest.importorskip("bs4", reason="needs the extra documents: beautifulsoup4 is not installed")

SECRET = "Zanzibar"


def sections(html: str) -> list[tuple[str, str]]:
    document = read_document("page.html", "", html.encode())
    return [(document.title_of(section.path), section.text) for section in document.sections]


def refusal(content: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read_document("a.html", "", content, field="documents[2]")
    assert caught.value.field == "documents[2].content"
    assert caught.value.remedy
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value)
    return caught.value


def test_sections_stand_under_the_headings_of_the_page() -> None:
    html = """<!doctype html><html><head><title>Safety</title></head><body>
        <p>Intro.</p><h2>Fire <em>alarm</em></h2><p>Run.</p><h3>Bell</h3>Ring.<h2>Water</h2>
        <div><p>Swim.<p>Dive.</div></body></html>"""
    assert sections(html) == [
        ("Safety", "Intro."),
        ("Safety: Fire alarm", "Run."),
        ("Safety: Fire alarm > Bell", "Ring."),
        ("Safety: Water", "Swim.\n\nDive."),
    ]


def test_a_page_whose_title_is_its_heading_has_it_once() -> None:
    assert sections("<title>Fire</title><h1>Fire</h1><p>Run now.") == [("Fire", "Run now.")]
    assert sections("<h1>Fire</h1><p>Run now.") == [("Fire", "Run now.")]
    assert sections("<p>Run now.") == [("page", "Run now.")]


def test_a_head_that_is_not_closed_ends_where_the_body_begins() -> None:
    html = "<html><head><title>Guide</title><style>p {}</style><body><h1>Lamp</h1><p>It is green."
    assert sections(html) == [("Guide: Lamp", "It is green.")]


def test_tags_within_a_line_part_no_words_and_white_space_is_one_space() -> None:
    assert sections("<p>Hy<b>dro</b>gen\n  is <a href='x'>light</a>.<br>Very&nbsp;so.") == [
        ("page", "Hydrogen is light.\nVery so.")
    ]


def test_a_heading_and_preformatted_text_are_what_is_seen_of_them() -> None:
    html = """<h1>Fire<br>alarm <button>Copy link</button></h1><p>Run now.
        <h2><div>Of</div><div>water</div></h2>
        <pre><svg><title>icon</title></svg>if x:<br>    y</pre>"""
    assert sections(html) == [("Fire alarm", "Run now."), ("Fire alarm: Of water", "if x:\n    y")]


def test_lists_tables_and_preformatted_text_keep_their_lines() -> None:
    html = """<ul><li>one <b>big</b><li>two</ul>
        <table><tr><th>Name<th>Age<tr><td><p>Ann</p><td>3</table>
        <pre>if x:\n    y</pre>"""
    document = read_document("a.html", "", html.encode())
    assert [(block.text, block.is_verbatim) for block in document.sections[0].blocks] == [
        ("- one big\n- two", False),
        ("| Name | Age\n| Ann | 3", True),
        ("if x:\n    y", True),
    ]


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("<td>Ann<td><td>Rome", "| Ann | | Rome"),
        ("<td><td>3<td>", "| | 3"),
        ("<td>Ann<br>Lee<td><ul><li>a<li>b</ul>", "| Ann Lee | - a - b"),
        ("<td>Ann<td><ul><li></ul><td>Rome", "| Ann | | Rome"),
    ],
)
def test_a_row_is_one_line_and_its_empty_cells_keep_the_others_in_their_columns(
    row: str, line: str
) -> None:
    head = "<tr><th>Name<th>Age<th>Home"
    html = f"<table>{head}<tr>{row}<tr><td><td></table>"
    assert sections(html) == [("page", f"| Name | Age | Home\n{line}")]


@pytest.mark.parametrize(
    "empty",
    [
        "<ul><li></ul>",
        "<ul><li><script>x</script></ul>",
        "<table><tr><td></table>",
        "<table><tr><th><td> </td></table>",
    ],
)
def test_an_empty_item_or_cell_puts_no_mark_before_what_follows(empty: str) -> None:
    assert sections(f"{empty}<p>One two.") == [("page", "One two.")]
    assert sections(f"One two.{empty}Three.") == [("page", "One two.\n\nThree.")]


@pytest.mark.parametrize("whole", ["<pre>code here</pre>", "<h2>Head</h2>"])
@pytest.mark.parametrize("mark", ["<ul><li>{}</ul>", "<table><tr><td>{}</table>"])
def test_the_mark_of_a_heading_or_of_code_does_not_pass_to_the_next_text(
    whole: str, mark: str
) -> None:
    _, text = sections(f"{mark.format(whole)}<p>One two.")[-1]
    assert text.splitlines()[-1] == "One two."


@pytest.mark.parametrize(
    "hidden",
    [
        "<script>{}</script>",
        "<style>{}</style>",
        "<!-- {} -->",
        "<nav>{}</nav>",
        "<template><p>{}</p></template>",
        "<noscript>{}</noscript>",
        "<select><option>{}</select>",
        "<![CDATA[{}]]>",
        "<?php {} ?>",
    ],
)
def test_what_no_reader_sees_is_no_text(hidden: str) -> None:
    ((_, text),) = sections(f"<p>One two.</p>{hidden.format(SECRET)}<p>Three.</p>")
    assert text == "One two.\n\nThree."


def test_a_page_names_its_encoding() -> None:
    latin = '<meta charset="iso-8859-1"><p>Köln — zwei</p>'.encode("cp1252")
    assert read_document("a.html", "", latin).sections[0].text == "Köln — zwei"
    utf16 = "<p>Köln zwei</p>".encode("utf-16")
    assert read_document("a.html", "", utf16).sections[0].text == "Köln zwei"
    assert "not text in UTF-8" in refusal("<p>Köln zwei</p>".encode("latin-1")).message
    named16 = '<meta charset="utf-16"><p>Köln zwei</p>'.encode()
    assert read_document("a.html", "", named16).sections[0].text == "Köln zwei"
    chinese = '<meta charset="gb2312"><p>朱镕基 二</p>'.encode("gb18030")
    assert read_document("a.html", "", chinese).sections[0].text == "朱镕基 二"


@pytest.mark.parametrize(
    "encoding",
    ["zip", "undefined", "klingon", "punycode", "idna", "unicode_escape", "utf-7", "rot13"],
)
def test_a_page_in_what_is_no_encoding_of_pages_is_refused_unread(encoding: str) -> None:
    page = f"<meta charset={encoding}><p>One two</p>".encode() + b"a-" * 1_000_000
    began = time.process_time()
    assert "an encoding that is not known" in refusal(page).message
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<p></p>", "no word"),
        (f"<p>{SECRET}</p>".encode(), "single word"),
        (b"<p>One two\0", "binary"),
        (b"<p>One two" + b" " * MAX_MARKUP_BYTES, "the limit of HTML"),
        (b"<p>One two" + b"<b>" * MAX_TAGS, "tags, the limit is"),
    ],
)
def test_what_is_no_page_with_text_is_refused(content: bytes, problem: str) -> None:
    assert problem in refusal(content).message


def test_a_page_nested_deeper_than_any_stack_is_read_within_memory() -> None:
    depth = 10_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sections("<div><b>" * depth + "One two.") == [("page", "One two.")]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_halves_of_characters_and_foreign_markup_do_no_harm() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sections("<?xml version='1.0'?><a xmlns='x'>One&#xD800; &#x1; &unknown; two</a>")
    found[0][1].encode()
    assert "One" in found[0][1] and "two" in found[0][1]
