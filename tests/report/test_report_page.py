"""The page: self-contained, well-formed, escaped, readable without colour.

The same report gives the same bytes.
"""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_run import make_run

from seal.artifacts import ArtifactStore
from seal.report import Report, build_report, render_html
from seal.report.numbers.formats import (
    count,
    counts,
    duration,
    interval,
    listed,
    percent,
    plain,
    plural,
    points,
    score,
    with_interval,
)
from seal.report.numbers.model import Estimate
from seal.report.page.markup import Html, join, table, tag, text

VOID = {"meta", "br", "hr"}


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.cells: list[str] = []
        self.feed(html)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data
            if "td" in self.open or "dd" in self.open:
                self.cells.append(data)


def page_of(directory: Path, **recipe: object) -> tuple[Report, Page, str]:
    store = ArtifactStore(str(directory))
    report = build_report(store, make_run(store, **recipe))
    html = render_html(report)
    return report, Page(html), html


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Page, str]:
    return page_of(tmp_path_factory.mktemp("full"))


def test_hostile_text_never_becomes_markup(tmp_path: Path) -> None:
    _, page, html = page_of(tmp_path, hostile=True, stages_done=3, passages=3, train_passages=3)
    assert not {"script", "img", "iframe", "link", "object"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "alert(1)" in page.text
    assert "｟日本語｠" in page.text
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", html)
    html.encode()


def test_the_page_needs_nothing_from_elsewhere(full: tuple[Report, Page, str]) -> None:
    _, page, html = full
    assert [
        value
        for _, name, value in page.attributes
        if name in ("src", "href") and not value.startswith("#")
    ] == []
    assert "url(" not in re.sub(r"url\(#[^)]*\)", "", html)
    assert "@import" not in html
    assert {value for _, name, value in page.attributes if name == "content"} >= {
        "default-src 'none'; style-src 'unsafe-inline'"
    }


def test_ids_are_unique_and_references_lead_somewhere(full: tuple[Report, Page, str]) -> None:
    _, page, html = full
    ids = Counter(value for _, name, value in page.attributes if name == "id")
    assert [name for name, n in ids.items() if n > 1] == []
    targets = [value[1:] for _, name, value in page.attributes if name == "href"] + re.findall(
        r"url\(#([^)]*)\)", html
    )
    assert set(targets) <= set(ids)


def test_figures_are_inline_and_described(full: tuple[Report, Page, str]) -> None:
    _, page, _ = full
    assert page.tags["svg"] == page.tags["figure"] == 4
    assert (
        len(
            [
                1
                for tag_, name, value in page.attributes
                if (tag_, name) == ("svg", "aria-label") and len(value) > 20
            ]
        )
        == 4
    )


def test_figures_tell_their_marks_apart_without_colour(full: tuple[Report, Page, str]) -> None:
    html = full[2]
    assert "<pattern" in html, "dropped candidates are hatched"
    assert html.count("stroke-dasharray") >= 3, "lines have styles"
    results = html[html.index('aria-label="accuracy') :]
    markers = set(
        re.findall(
            r'<path id="(results-m[0-9a-f]+)" d="([^"]*)"', results[: results.index("</svg>")]
        )
    )
    shapes = {path.count("C") * 100 + path.count("L") for _, path in markers}
    assert len(shapes) >= 3, "base, passage, edits and gold have different markers"


def test_every_row_of_the_report_is_in_the_page_with_its_interval(
    full: tuple[Report, Page, str],
) -> None:
    report, page, _ = full
    for row in report.rows:
        assert row.label in page.text
        estimate = row.metrics["contains"]
        assert f"{percent(estimate.mean)} {interval(estimate, 'contains', 'f1')}" in page.text
    for row in report.rows[1:]:
        assert with_interval(row.over_base["score"], "score", "f1", signed=True) in page.text


def test_the_opening_says_what_was_measured_and_whether_it_can_be_told(
    full: tuple[Report, Page, str],
) -> None:
    report, page, _ = full
    assert "16 passages" in page.text
    assert "96 questions" in page.text
    last = report.last_edit_row
    assert last is not None
    low, high = last.over_passage["contains"].low, last.over_passage["contains"].high
    assert low is not None
    assert high is not None
    expected = "the interval is clear of zero" if low > 0 or high < 0 else "the interval holds zero"
    sentence = next(
        part for part in page.text.split("Training on self-edits") if part.startswith(" of round 2")
    )
    assert expected in sentence
    assert "Imaginary 3000" in page.text


def test_kept_and_dropped_edits_stand_side_by_side_with_reasons_examples_and_answers(
    full: tuple[Report, Page, str],
) -> None:
    report, page, html = full
    edits = [
        edit
        for group in report.rollout_details
        for passage in group.passages
        for edit in passage.edits
    ]
    assert html.count('class="card"') == len(edits) == 96
    assert html.count('class="kept"') == html.count('class="dropped"') == 24
    for decision, n in Counter(edit.decision for edit in edits).items():
        assert html.count(f'<span class="tagged">{decision}</span>') == n
    assert all(
        example.completion.strip() in page.text for edit in edits for example in edit.examples
    )
    assert all(
        " / ".join(question.golds) in page.text
        for group in report.rollout_details
        for each in group.passages
        for question in each.questions
    )


@pytest.mark.parametrize(
    ("recipe", "absent", "present"),
    [
        ({"stages_done": 0}, "What each kind of training gives", "No validation is finished yet"),
        ({"stages_done": 1}, "Rewards of the candidates", "phase Running"),
        ({"perfect_before": True}, "kept 1 of 4 edits", "kept no edit"),
        ({"ungraded": 1.0, "repeats": 2}, "0.0 %\u00a0of", "No answer was graded"),
        (
            {"invalid": 1.0},
            "Self-edits of the base model, before any round",
            "No training example could be parsed",
        ),
        (
            {"passages": 1, "train_passages": 1, "k": 1, "gold": False, "retained": False},
            "What is forgotten",
            "too few for an interval",
        ),
        ({"grader": "logprob", "repeats": 2}, "cannot tell how much", "Reliability of the reward"),
        ({"repeats": 2, "racing": (2,)}, "Reliability by round", "ran a race (4 → 2)"),
        ({"edits": False}, "How the edits look", "after training on the passage alone"),
        ({"rounds": 0}, "Rewards of the candidates", "base model only"),
    ],
)
def test_a_run_that_lacks_something_has_a_page_without_it(
    tmp_path: Path, recipe: dict[str, object], absent: str, present: str
) -> None:
    small: dict[str, object] = {"passages": 3, "train_passages": 3, "rounds": 1}
    _, page, _ = page_of(tmp_path, **small | recipe)
    assert present in page.text
    assert absent not in page.text
    assert not {"nan", "None", "inf"} & {
        word for cell in page.cells for word in re.findall(r"\w+", cell)
    }


def test_the_same_report_gives_the_same_bytes(full: tuple[Report, Page, str]) -> None:
    assert render_html(full[0]) == full[2]


def test_text_is_escaped_and_markup_is_not() -> None:
    assert (
        tag("p", "<b>", tag("i", "&"), None, class_="x", open_=True, hidden=None)
        == '<p class="x" open>&lt;b&gt;<i>&amp;</i></p>'
    )
    assert tag("a", "x", title='"><script>') == '<a title="&quot;&gt;&lt;script&gt;">x</a>'
    assert join("a<", Html("<br>")) == "a&lt;<br>"
    assert text("\x00\x1b\ud800") == "���"
    assert "&lt;td&gt;" in table("c", ["<td>"], [["x"]])


def test_numbers_read_well_and_missing_ones_are_dashes() -> None:
    assert percent(0.1234) == "12.3\u00a0%"
    assert (
        percent(None),
        points(None),
        plain(None),
        duration(None),
        counts({}),
        counts({"kept": 0}),
    ) == ("–",) * 6
    assert points(-0.031) == "−3.1"
    assert points(0.031) == "+3.1"
    assert points(-0.0001) == points(0.0001) == "0.0"
    assert score(-2.345, "score", "logprob") == "−2.35"
    assert score(0.5, "score", "contains") == "50.0\u00a0%"
    assert score(0.5, "score", "f1") == "0.500"
    assert (
        with_interval(Estimate(n=9, mean=0.5, low=0.25, high=0.75), "contains", "f1")
        == "50.0\u00a0% [25.0, 75.0]"
    )
    assert with_interval(Estimate(n=1, mean=0.5), "contains", "f1", signed=True) == "+50.0"
    assert with_interval(Estimate(n=0, mean=None), "f1", "f1") == "–"
    assert [duration(each).replace("\u00a0", " ") for each in (4.2, 59.4, 65, 3600, 7500)] == [
        "4.2 s",
        "59 s",
        "1 min 05 s",
        "1 h 00 min",
        "2 h 05 min",
    ]
    assert (plural(1, "passage"), plural(2, "passage"), count(12345)) == (
        "1 passage",
        "2 passages",
        "12,345",
    )
    assert (listed([]), listed(["a"]), listed(["a", "b", "c"])) == ("", "a", "a, b and c")
