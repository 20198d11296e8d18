"""A document before it is read: its bytes, and how it is refused."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from seal.errors import InvalidInput
from seal.limits import (
    MAX_DOCUMENT_BYTES,
    MAX_DOCUMENT_CHARACTERS,
    MAX_DOCUMENT_NAME_CHARACTERS,
    MAX_LINES,
)

_TEXT_REMEDY = "save it as text in UTF-8, or give another media type"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MEANT = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    # The name was read as ASCII
    "utf-16": "utf-8",
    "utf-16-le": "utf-8",
    "utf-16-be": "utf-8",
}
"""What pages mean by an encoding, where it is another one, as browsers have it."""
_ENCODINGS = frozenset(
    (
        *("utf-8", "gb18030", "big5hkscs", "euc_jp", "iso2022_jp", "cp932", "cp949"),
        *(f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
        *("cp866", "cp874", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic"),
        *(f"cp{page}" for page in range(1250, 1259)),
    )
)
"""Those that browsers know, by Python's names. It knows others too: some are no text, and a page in
punycode would take hours."""
EXTRA_REMEDY = (
    "install it where documents are read: pip install 'seal-kubernetes[documents]'; or hand in text"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_MAX_CONTROL_SHARE = 0.01
"""More control characters are no text."""
_MAX_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Source:
    """A document before it is read."""

    name: str
    content: bytes
    field: str
    """Its place in the request, for example "documents[3]"; may be empty."""
    what: str = "the document"

    def refuse(self, problem: str, remedy: str, *, at: str = "content") -> InvalidInput:
        """The error for it; the caller raises it."""
        return InvalidInput(
            f"{self.what} {self.name!r} {problem}",
            field=".".join(filter(None, (self.field, at))),
            remedy=remedy,
        )


def check_name(name: str, *, field: str) -> None:
    """Refuse a document's name that is empty, too long or not printable.

    `field`: where it stands in the request. Raises InvalidInput.
    """
    long = len(name) > _MAX_SHOWN_CHARACTERS
    shown = repr(f"{name[:_MAX_SHOWN_CHARACTERS]}..." if long else name)
    if not name.strip():
        problem = "a document has an empty name"
    elif not name.isprintable():
        problem = f"the document's name {shown} holds what cannot be printed"
    elif len(name) > MAX_DOCUMENT_NAME_CHARACTERS:
        problem = (
            f"the document's name {shown} has {len(name)} characters, the limit is "
            f"{MAX_DOCUMENT_NAME_CHARACTERS}"
        )
    else:
        return
    raise InvalidInput(
        problem,
        field=field,
        remedy=f"give 1 to {MAX_DOCUMENT_NAME_CHARACTERS} printable characters, for example the "
        "file's name: notes.md",
    )


def check_size(source: Source) -> None:
    """Refuse a file of too many bytes. Raises InvalidInput."""
    if len(source.content) > MAX_DOCUMENT_BYTES:
        problem = f"has {len(source.content)} bytes, the limit is {MAX_DOCUMENT_BYTES}"
        raise source.refuse(problem, "cut it into several")


def decode(source: Source, *, encoding: str = "utf-8") -> str:
    """The text of a document, its lines ended by line feeds alone.

    In this encoding, or in the UTF-8 or UTF-16 that its mark says. Raises InvalidInput for anything
    else.
    """
    mark, encoding = next(
        ((mark, marked) for mark, marked in _BOMS if source.content.startswith(mark)),
        (b"", _known(encoding)),
    )
    if not encoding:
        raise source.refuse("is in an encoding that is not known", _TEXT_REMEDY)
    try:
        text = source.content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        at = error.start + len(mark)
        # The error itself holds the bytes of the document
        raise source.refuse(
            f"is not text in {encoding.upper()} at byte {at}", _TEXT_REMEDY
        ) from None
    controls = sum(1 for _ in _CONTROLS.finditer(text))
    if "\0" in text or controls > _MAX_CONTROL_SHARE * len(text):
        raise source.refuse("is binary", _TEXT_REMEDY)
    if len(text) > MAX_DOCUMENT_CHARACTERS:
        problem = f"has {len(text)} characters, the limit is {MAX_DOCUMENT_CHARACTERS}"
        raise source.refuse(problem, "cut it into several")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if (lines := text.count("\n")) > MAX_LINES:
        raise source.refuse(f"has {lines} lines, the limit is {MAX_LINES}", "cut it into several")
    return text


def _known(encoding: str) -> str:
    """Python's name of the encoding that is meant; empty for one that no browser knows."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        return ""
    meant = _MEANT.get(name, name)
    return meant if meant in _ENCODINGS else ""
