"""HTML: what a reader of the page sees, with sections at its headings h1 to h6.

Needs the extra `documents`. Scripts, styles, navigation and controls are no text; a table has a
line for each row, where empty cells keep the others in their columns, a list one for each item, and
preformatted text keeps its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from seal.documents.model import Document, Outline, titled
from seal.documents.source import EXTRA_REMEDY, Source, decode
from seal.limits import MAX_HEADING_CHARACTERS, MAX_MARKUP_BYTES, MAX_TAGS

if TYPE_CHECKING:
    from bs4 import BeautifulSoup
    from bs4.element import Tag

_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w-]{1,40})", re.IGNORECASE)
_HEAD_BYTES = 4096
"""Where a page names its encoding."""
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_NO_TEXT = frozenset(
    (
        *(
            "title",
            "script",
            "style",
            "noscript",
            "template",
            "nav",
            "svg",
            "iframe",
            "object",
        ),
        *("button", "select", "textarea", "audio", "video", "canvas"),
    )
)
_BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "center", "details", "dialog"),
        *("div", "dl", "fieldset", "figcaption", "figure", "footer", "form", "header", "hr"),
        *("html", "main", "ol", "p", "section", "summary", "table", "ul"),
    )
)
_ROWS = frozenset({"caption", "tr"})
_LINES = frozenset({"br", "dd", "dt", "li"})
_CELLS = frozenset({"td", "th"})
_WITHIN_A_CELL = (_LINES | _BLOCKS) - {"table"}
"""What there parts words, no lines: a cell stays one line, whatever is in it."""
_XML = re.compile(r"\A\s*<\?xml[^>]*>")
"""What makes the library warn that a page is XML."""
_SPACE = re.compile(r"\s+")


def read_html(source: Source) -> Document:
    """A document with a section for each heading; its title is the page's.

    Raises:
        InvalidInput: it is no text in its encoding, or too large, or beautifulsoup4 is not
            installed.

    """
    try:
        from bs4 import BeautifulSoup, ParserRejectedMarkup
    except ModuleNotFoundError:
        problem = "is HTML, and what reads that is not installed here"
        raise source.refuse(problem, EXTRA_REMEDY, at="media_type") from None
    if len(source.content) > MAX_MARKUP_BYTES:
        problem = f"has {len(source.content)} bytes, the limit of HTML is {MAX_MARKUP_BYTES}"
        raise source.refuse(problem, "cut it into several")
    declared = _CHARSET.search(source.content[:_HEAD_BYTES])
    text = decode(source, encoding=declared[1].decode() if declared else "utf-8")
    if (tags := text.count("<")) > MAX_TAGS:
        raise source.refuse(f"has {tags} tags, the limit is {MAX_TAGS}", "cut it into several")
    try:
        soup = BeautifulSoup(_with_ends(_XML.sub("", text, count=1)), "html.parser")
    except ParserRejectedMarkup:
        raise source.refuse("is no HTML that can be read", "hand in its text") from None
    reader = _Reader()
    reader.read(soup)
    title = soup.find(_is_title)
    named = " ".join(title.get_text().split()) if title else ""
    if len(named) > MAX_HEADING_CHARACTERS:
        named = ""
    return titled(source.name, reader.outline.sections(), named)


def _is_title(tag: Tag) -> bool:
    """Whether a tag names the page; pictures within it have titles of their own."""
    above = tag.parent.name if tag.parent is not None else ""
    return tag.name == "title" and above in ("[document]", "html", "head", "body")


def _with_ends(text: str) -> str:
    """A page in which everything that begins with "<" ends: what does not is text.

    Python's parser looks for each such end up to the end of the page: a page of open tags would
    take hours.
    """
    for start, end in (("<!--", "-->"), ("<![", "]>"), ("<", ">")):
        last = text.rfind(end) + 1
        text = text[:last] + text[last:].replace(start, f"&lt;{start[1:]}")
    return text


def _whole_text(tag: Tag) -> str:
    """The text of a heading, or preformatted: its white space is kept, and its lines are parted."""
    from bs4.element import NavigableString, Tag

    parts: list[str] = []
    open_tags = [(tag.name, iter(tag.contents))]
    while open_tags:
        name, children = open_tags[-1]
        child = next(children, None)
        if child is None:
            open_tags.pop()
            parts.append("\n" if name in _BLOCKS else "")
        elif isinstance(child, Tag) and child.name not in _NO_TEXT:
            parts.append("\n" if child.name in _BLOCKS | _LINES else "")
            open_tags.append((child.name, iter(child.contents)))
        elif type(child) is NavigableString:
            parts.append(child)
    return "".join(parts)


class _Reader:
    """Makes blocks of tags and strings, in the order of the page."""

    def __init__(self) -> None:
        self.outline = Outline()
        self._parts: list[str] = []
        self._tables = self._cells = 0
        self._bars = 0
        """Cells of the row that have begun since its last text: the next stands in the last."""
        self._is_item = False
        """An item has begun, and has no text yet."""

    def read(self, page: BeautifulSoup) -> None:
        """Read a page from its beginning to its end."""
        from bs4.element import NavigableString, Tag

        # Its own stack: pages may be nested deeper than Python's calls
        open_tags = [(page.name, iter(page.contents))]
        while open_tags:
            name, children = open_tags[-1]
            child = next(children, None)
            if child is None:
                open_tags.pop()
                self.leave(name)
            elif isinstance(child, Tag):
                if child.name in _HEADINGS or child.name == "pre":
                    self.whole(child.name, _whole_text(child))
                elif child.name not in _NO_TEXT:
                    self.enter(child.name)
                    open_tags.append((child.name, iter(child.contents)))
            elif type(child) is NavigableString:  # its subclasses are comments, scripts and such
                self.text(child)
        self.end_block()

    def text(self, string: str) -> None:
        """A run of text; white space in it is a single space."""
        if not string.isspace():
            self._parts.append("| " * self._bars + "- " * self._is_item)
            self._unmark()
        self._parts.append(_SPACE.sub(" ", string))

    def whole(self, name: str, text: str) -> None:
        """A heading, or preformatted text."""
        self.end_block()
        self._unmark()
        if name in _HEADINGS:
            self.outline.heading(_HEADINGS[name], text)
        else:
            self.outline.block(text.expandtabs(4), is_verbatim=True)

    def enter(self, name: str) -> None:
        """A tag begins."""
        self._meet(name)
        if name == "table":
            self._tables += 1
        elif name in _CELLS:
            self._cells += 1
            self._bars += 1
            self._is_item = False
        elif name == "li":
            self._is_item = True

    def leave(self, name: str) -> None:
        """A tag ends."""
        self._meet(name)
        if name == "table":
            self._tables -= 1
        elif name in _CELLS:
            self._cells -= 1
        elif name == "li":
            self._is_item = False

    def _unmark(self) -> None:
        """What stood before the next text is written, or has none to stand before."""
        self._bars, self._is_item = 0, False

    def _meet(self, name: str) -> None:
        """A tag begins or ends: so does what it parts."""
        if name in _ROWS or name == "table":
            self._bars = 0
        if name in _CELLS or (self._cells and name in _WITHIN_A_CELL):
            self._parts.append(" ")
        elif name in _LINES or name in _ROWS:
            self._parts.append("\n")
        elif name in _BLOCKS:
            self.end_block()

    def end_block(self) -> None:
        """What has come since the last block is one."""
        lines = (_SPACE.sub(" ", line).strip() for line in "".join(self._parts).split("\n"))
        text = "\n".join(filter(None, lines))
        self.outline.block(text, is_verbatim=self._tables > 0)
        self._parts.clear()
