"""HTML by construction.

Text becomes part of the page only through `tag` and `table`, which escape it. A plain `str` is
text, an `Html` is markup; there is no other way in. Model answers, edits and passages are text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff￾￿]")
_VOID = frozenset({"br", "hr", "meta"})


class Html(str):
    """Markup that is safe as it stands."""

    __slots__ = ()


Child = str | None
FIRST: Mapping[int, str] = MappingProxyType({0: ""})
"""Columns of words in most tables: the first."""


def text(value: str) -> Html:
    """Escaped text; characters that HTML does not allow become U+FFFD."""
    return Html(html.escape(_CONTROL.sub("�", value)))


def join(*children: Child) -> Html:
    """Children one after the other: plain strings escaped, None left out."""
    return Html(
        "".join(
            child if isinstance(child, Html) else text(child)
            for child in children
            if child is not None
        )
    )


def tag(name: str, /, *children: Child, **attributes: str | bool | None) -> Html:
    """An element. A trailing underscore of an attribute is dropped, others become dashes.

    True has no value, None is left out.
    """
    shown = "".join(
        _attribute(key, value) for key, value in attributes.items() if value not in (None, False)
    )
    if name in _VOID:
        return Html(f"<{name}{shown}>")
    return Html(f"<{name}{shown}>{join(*children)}</{name}>")


def _attribute(name: str, value: str | bool | None) -> str:
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{text(str(value))}"'


def paragraph(*children: Child) -> Html:
    """A paragraph."""
    return tag("p", *children)


def bullets(items: Iterable[Child]) -> Html:
    """An unordered list."""
    return tag("ul", *(tag("li", item) for item in items))


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Names and values."""
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs),
        class_="facts",
    )


def table(
    caption: str,
    head: Sequence[Child],
    rows: Iterable[Sequence[Child]],
    *,
    words: Mapping[int, str] = FIRST,
    class_: str = "",
) -> Html:
    """A table that scrolls by itself if it is too wide.

    Columns are numbers, aligned right, unless `words` gives them another class.
    """
    kinds = [words.get(column, "n") or None for column in range(len(head))]
    header = tag(
        "tr",
        *(
            tag("th", cell, class_=kind, scope="col")
            for cell, kind in zip(head, kinds, strict=True)
        ),
    )
    body = (
        tag("tr", *(_cell(column, cell, kinds[column]) for column, cell in enumerate(row)))
        for row in rows
    )
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", header),
            tag("tbody", *body),
            class_=class_ or None,
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def _cell(column: int, cell: Child, kind: str | None) -> Html:
    return tag("td", cell, class_=kind) if column else tag("th", cell, class_=kind, scope="row")


def figure(svg: Html, caption: str) -> Html:
    """A figure with its caption."""
    return tag("figure", svg, tag("figcaption", caption))


def details(
    summary: Child, *children: Child, open_: bool = False, class_: str | None = None
) -> Html:
    """A part that opens on demand; in print it is open."""
    return tag("details", tag("summary", summary), *children, open=open_, class_=class_)
