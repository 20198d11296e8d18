"""The parts of an edit on the page: a table that opens on demand, one row for each text."""

from __future__ import annotations

from collections import Counter

from seal.report.numbers.entries import EditEntry, PartEntry, PartGroup
from seal.report.numbers.formats import plain, plural
from seal.report.page.markup import Html, details, join, table, tag


def parts_of(edit: EditEntry) -> Html:
    """What was used of an edit, and what was left out."""
    parts = [part for group in edit.groups for part in group.parts]
    fates = Counter(part.fate for part in parts)
    learnt = sum(part.learnt for part in parts)
    summary = f"{fates['used']} of {plural(len(parts), 'part')} used" + "".join(
        f", {number} {word}"
        for word, number in (
            ("filtered", fates["filtered"]),
            ("abstained", fates["abstained"]),
            ("learnt by the policy", learnt),
        )
        if number
    )
    return details(
        summary,
        table(
            "Parts by the text that they were asked on; bold: learnt by the policy",
            ("text", "used", "left out"),
            [_cells(group) for group in edit.groups],
            words=dict.fromkeys(range(3), ""),
            class_="answers",
        ),
    )


def _cells(group: PartGroup) -> tuple[Html, Html, Html]:
    used = [_used(part) for part in group.parts if part.fate == "used"]
    out = [tag("bdi", part.text) for part in group.parts if part.fate == "filtered"]
    silent = sum(part.fate == "abstained" for part in group.parts)
    if silent:
        out.append(tag("span", f"{silent} abstained", class_="soft"))
    return tag("bdi", group.asked_on), _lines(used), _lines(out)


def _used(part: PartEntry) -> Html:
    text = tag("bdi", part.text)
    numbers = [
        f"{name} {plain(value, digits=2)}"
        for name, value in (("log p", part.logprob), ("credit", part.credit))
        if value is not None
    ]
    return join(
        tag("b", text) if part.learnt else text,
        tag("span", f" ({', '.join(numbers)})", class_="soft") if numbers else None,
    )


def _lines(items: list[Html]) -> Html:
    return join(*(tag("div", item) for item in items))
