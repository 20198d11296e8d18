"""The page: self-contained, well-formed, escaped, readable without colour.

The same report gives the same bytes.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_run import Maker, make_run

from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.domains.base import Context, Query
from seal.outcomes import Outcome
from seal.report import Report, build_report, render_html
from seal.report.numbers.comparisons import comparisons
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
    storage,
    with_interval,
)
from seal.report.numbers.model import Difference, Estimate, Verdict
from seal.report.numbers.words import OUTCOME_WORDS, name_of
from seal.report.page.advice import advice
from seal.report.page.markup import Html, join, table, tag, text
from seal.report.page.style import CSS

MEASURES = tuple(measure.name for measure in get_domain("knowledge").measures)

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
    assert page.tags["svg"] == page.tags["figure"] == 5
    described = [
        value for tag_, name, value in page.attributes if (tag_, name) == ("svg", "aria-label")
    ]
    assert len(described) == 5 and all(len(value) > 20 for value in described)


def picture_of(html: str) -> str:
    """The first figure of the page."""
    return html[html.index("<svg") : html.index("</svg>")]


def test_the_page_opens_with_a_bar_and_an_interval_for_every_row_and_measure(
    full: tuple[Report, Page, str],
) -> None:
    report, _, html = full
    before, picture = html[html.index("<body") : html.index("<svg")], picture_of(html)
    assert report.headline in before
    assert not re.search("<(table|figure|ul|dl|h2|section)", before.removesuffix("<figure>"))
    labels = re.findall(r'class="name" x="0" y="\d+">([^<]*)<', picture)
    assert labels == [row.label for row in report.rows]
    assert re.findall(r'class="title"[^>]*>([^<]*)<', picture) == ["F1", "exact match", "contains"]
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)%"', picture)]
    means = [row.metrics[measure].mean or 0.0 for row in report.rows for measure in MEASURES]
    assert widths == pytest.approx([30 * mean for mean in means], abs=0.01), "the axes end at 1"
    for row in report.rows:
        for place, measure in enumerate(MEASURES):
            estimate = row.metrics[measure]
            assert interval(estimate, measure, "") in picture
            low, high = (35 * place + 30 * (end or 0.0) for end in (estimate.low, estimate.high))
            assert f'class="interval" x1="{low:.2f}%" x2="{high:.2f}%"' in picture


def test_the_reference_line_is_the_better_passage_row_and_crosses_no_words(tmp_path: Path) -> None:
    report, page, html = page_of(tmp_path, bounds=True, rounds=0, passages=6)
    best = report.row("passage-equal-steps")
    assert best is not None and report.best_passage == best.key
    lines = re.findall(
        r'class="reference" x1="([\d.]+)%" x2="[\d.]+%" y1="(\d+)" y2="(\d+)"', picture_of(html)
    )
    assert len(lines) == 3 * len(report.rows)
    assert sorted({float(x) for x, _, _ in lines}) == pytest.approx(
        [
            35 * place + 30 * (best.metrics[measure].mean or 0.0)
            for place, measure in enumerate(MEASURES)
        ],
        abs=0.01,
    )
    words = {int(y) for y in re.findall(r'<text x="[\d.]+%?" y="(\d+)"', picture_of(html))}
    assert not [y for y in words for _, top, bottom in lines if int(top) < y < int(bottom)]
    assert f"The dashed line, “{best.label}”, is what" in page.text
    assert f"“{best.label}”, which has the higher F1 of the two" in page.text


def test_rounds_without_reward_have_bars_of_their_own(tmp_path: Path) -> None:
    small: dict[str, object] = {"rounds": 1, "passages": 3, "train_passages": 3}
    _, page, html = page_of(tmp_path, credit="part", selection="random", **small)
    fills = re.findall(r'class="bar (\w+)"', picture_of(html))
    assert fills[::3] == ["empty", "pale", "full", "dotted", "hatched"]
    assert "self-edits, round 1 (control without reward)" in page.text


def test_bars_differ_without_colour_and_take_the_colours_of_the_page(
    full: tuple[Report, Page, str],
) -> None:
    _, _, html = full
    fills = re.findall(r'class="bar (\w+)"', picture_of(html))
    assert fills[::3] == ["empty", "pale", "full", "full", "full", "hatched"]
    assert len(fills) == 18, "one bar for each measure"
    assert "<pattern" in picture_of(html)
    figures = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", figures), "a fixed colour is lost on a dark page"
    assert "prefers-color-scheme: dark" in html
    assert set(re.findall(r"var\((--\w+)\)", html)) <= set(re.findall(r"(--\w+):", html))


def test_a_row_without_score_has_no_bar_and_says_so(tmp_path: Path) -> None:
    _, _, html = page_of(tmp_path, invalid=1.0, rounds=0, passages=3)
    picture = picture_of(html)
    assert "no score" in picture
    assert len(re.findall('class="bar ', picture)) == 9, "base, passage, gold; three measures"


def test_figures_tell_their_marks_apart_without_colour(full: tuple[Report, Page, str]) -> None:
    html = full[2]
    assert html.count("<pattern") >= 2, "dropped candidates are hatched"
    assert html.count("stroke-dasharray") >= 3, "lines have styles"
    differences = html[html.index("paired differences with 95 % intervals") :]
    markers = set(
        re.findall(
            r'<path id="(differences-m[0-9a-f]+)" d="([^"]*)"',
            differences[: differences.index("</svg>")],
        )
    )
    shapes = {path.count("C") * 100 + path.count("L") for _, path in markers}
    assert len(shapes) >= 3, "passage, edits and gold have different markers"


def test_the_histograms_legend_covers_no_bar(full: tuple[Report, Page, str]) -> None:
    html = full[2]
    assert html.index('id="rewards-legend_1"') > html.rindex('id="rewards-axes_'), "outside of all"


def test_every_comparison_is_in_the_page_with_its_interval_and_verdict(
    full: tuple[Report, Page, str],
) -> None:
    report, page, html = full
    names = [each.name for each in comparisons(report.rows)]
    assert names == [
        "passage alone − base model",
        "round 0 − passage alone",
        "round 1 − passage alone",
        "round 2 − passage alone",
        "round 1 − round 0",
        "round 2 − round 0",
        "round 2 − round 1",
        "gold questions − passage alone",
    ]
    rows = [re.sub("<[^>]*>", "|", row) for row in re.findall("<tr>.*?</tr>", html)]
    for each in comparisons(report.rows):
        row = next(row for row in rows if f"|{each.left}|" in row and f"|{each.right}|" in row)
        for metric in MEASURES:
            cell = with_interval(each.over[metric], metric, "f1", signed=True)
            assert f"{cell}{each.over[metric].verdict}" in row.replace("|", "")
    assert all(finding in page.text for finding in report.findings)


def test_bytes_per_round_are_shown(full: tuple[Report, Page, str]) -> None:
    report, page, _ = full
    assert "2.9\xa0MiB" in page.cells
    for sizes in report.kept_bytes.values():
        assert storage(sum(sizes.values())) in page.cells


def test_what_to_do_next_follows_from_what_came_out(tmp_path: Path) -> None:
    recipes: tuple[tuple[dict[str, object], str], ...] = (
        ({"gain": 0.6, "learnt": -1.0}, "Do not use the policy of round 2."),
        ({"gain": 0.35, "learnt": 1.0}, "Repeat the run with another seed"),
        ({"passages": 4, "rounds": 1}, "Measure on more passages."),
        ({"passages": 2, "stages_done": 1}, "Let it finish."),
        ({"passages": 8, "rounds": 0, "invalid": 0.8}, "Find out why so much has no score."),
        ({"passages": 8, "rounds": 0, "truncated": 0.9}, "edit.maxTokens ("),
        (
            {"passages": 2, "rounds": 1, "perfect_before": True},
            "Give the choice more to choose from.",
        ),
    )
    quiet: dict[str, object] = {"diverged": 0.0, "invalid": 0.0, "train_passages": 3}
    for place, (recipe, lead) in enumerate(recipes):
        store = ArtifactStore(str(tmp_path / str(place)))
        report = build_report(store, make_run(store, **quiet | recipe))
        assert lead in " ".join(advice(report)), recipe


def test_where_all_differences_are_equal_no_smallest_one_is_named(tmp_path: Path) -> None:
    report, *_ = page_of(tmp_path, passages=8, rounds=1, train_passages=3)
    alike = Difference(n=8, mean=0.0, low=0.0, high=0.0, verdict=Verdict.UNCLEAR)
    rows = tuple(
        row.model_copy(
            update={
                name: dict.fromkeys(getattr(row, name), alike)
                for name in ("over_first", "over_passage")
            }
        )
        for row in report.rows
    )
    (said,) = (
        step
        for step in advice(report.model_copy(update={"rows": rows}))
        if "Measure on more" in step
    )
    assert "cannot say how small a difference it would see" in said and "0.0 points" not in said


def test_where_the_passage_alone_is_as_good_as_the_gold_questions_there_is_no_room(
    tmp_path: Path,
) -> None:
    report, *_ = page_of(tmp_path, passages=8, rounds=1, train_passages=3, gain=0.0)
    f1 = {"gold": 0.8, "passage": 0.7}

    def said(**means: float) -> str:
        rows = [
            row.model_copy(
                update={
                    "metrics": row.metrics
                    | {"f1": Estimate(n=8, mean=means.get(row.key, row.metrics["f1"].mean))},
                    "over_passage": dict.fromkeys(
                        row.over_passage, Difference(n=8, mean=0.0, verdict=Verdict.UNCLEAR)
                    ),
                }
            )
            for row in report.rows
        ]
        return " ".join(advice(report.model_copy(update={"rows": tuple(rows)})))

    assert "there is room" in said(**f1)
    assert "there is room" not in said(**f1 | {"passage": 0.8})


def test_every_way_to_have_no_score_is_counted_and_explained(tmp_path: Path) -> None:
    silent = (Outcome.TOO_LONG, Outcome.INERT, Outcome.REFUSED)
    for outcome in silent:
        few: dict[str, object] = {"passages": 6, "train_passages": 4, "stages_done": 2}
        _, page, _ = page_of(tmp_path / outcome, diverged=0.5, failure=outcome, **few)
        assert OUTCOME_WORDS[outcome] in page.text
        assert outcome.replace("_", " ") in page.text and "too_long" not in page.text
        for other in set(silent) - {outcome}:
            assert OUTCOME_WORDS[other] not in page.text, "what did not occur is not explained"


def test_text_of_any_script_and_several_gold_answers_are_shown(tmp_path: Path) -> None:
    query = Query(
        query_id="c/0",
        question="灯塔建于哪一年？",
        answers=("1850年", "一八五零年"),
    )
    chinese = Context("c", "灯塔", "灯塔建于1850年。", (query,))
    arabic = replace(chinese, context_id="a", title="المنارة")

    def foreign(maker: Maker) -> None:
        maker.validation = (chinese, arabic)

    store = ArtifactStore(str(tmp_path))
    run = make_run(store, foreign, passages=2, train_passages=2, rounds=1)
    page = Page(html := render_html(build_report(store, run)))
    assert " / ".join(query.answers) in page.text
    assert "gold answers, any of them counts" in page.text
    assert f"<bdi>{query.question}</bdi>" in html, "each text runs in its own direction"
    assert f"<bdi>{arabic.title}</bdi>" in html
    assert chinese.text in page.text


def test_every_row_of_the_report_is_in_the_page_with_its_interval(
    full: tuple[Report, Page, str],
) -> None:
    report, page, _ = full
    for row in report.rows:
        assert row.label in page.text
        for measure in MEASURES:
            assert with_interval(row.metrics[measure], measure, "f1") in page.text


def test_the_opening_says_what_was_measured_and_what_the_words_mean(
    full: tuple[Report, Page, str],
) -> None:
    _, page, html = full
    assert "16 passages" in page.text
    assert "96 questions" in page.text
    for word in ("passage", "self-edit", "base model", "policy", "gold questions", "log p"):
        assert f"<dt>{word}</dt>" in html, "the page explains its words"
    assert "Imaginary 3000" in page.text


def test_text_and_tables_have_one_width_and_the_glossary_draws_no_line(
    full: tuple[Report, Page, str],
) -> None:
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", CSS)
    narrow = {selector.strip() for selector, rule in rules if "max-width:" in rule}
    assert narrow == {"body", ".answers td"}, "in print the body takes the whole paper"
    assert any(".words" in selector and "border: 0" in rule for selector, rule in rules)
    assert '<details class="words"><summary>What the words mean</summary>' in full[2]


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


def test_edits_are_numbered_from_one_as_in_the_terminal(full: tuple[Report, Page, str]) -> None:
    report, page, html = full
    edits = report.rollout_details[0].passages[0].edits
    assert [edit.candidate for edit in edits] == [0, 1, 2, 3]
    assert set(re.findall(r"<b>Edit (\d+) </b>", html)) == {"1", "2", "3", "4"}
    assert f"edit 1 ({name_of(edits[0].decision)})" in page.text
    assert not re.search(r"[Cc]andidate \d", page.text)


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
            "The passages are too few to compare",
        ),
        ({"grader": "logprob", "repeats": 2}, "cannot tell how much", "Reliability of the reward"),
        ({"repeats": 2, "racing": (2,)}, "Reliability by round", "ran a race (4 → 2)"),
        ({"edits": False}, "How the edits look", "compare the passage alone with no training"),
        ({"rounds": 0}, "Rewards of the candidates", "base model only"),
        (
            {"rounds": 0, "warm": True, "credit": "part"},
            "base model only",
            "no rounds, ended 2023",
        ),
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


def test_what_became_of_parts_and_that_chance_chose_them_is_on_the_page(tmp_path: Path) -> None:
    _, _, page = page_of(tmp_path, credit="part", selection="random", invalid=0.2)
    assert "self-edits, round 2 (control without reward)" in page
    assert "Parts by round" in page and "others of its passage helped more" in page
    assert "The next policy learns single parts" in page


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
    assert score(0.5, "score", "f1") == score(0.5, "f1", "") == "50.0\u00a0%"
    assert score(0.5, "f1", "", signed=True) == "+50.0"
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
    assert [storage(each).replace("\u00a0", " ") for each in (0, 1023, 1536, 2**20 - 1)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "1.0 MiB",
    ]
    assert [storage(each).replace("\u00a0", " ") for each in (5 * 2**30,)] == [
        "5.0 GiB",
    ]
    assert (plural(1, "passage"), plural(2, "passage"), count(12345)) == (
        "1 passage",
        "2 passages",
        "12,345",
    )
    assert (listed([]), listed(["a"]), listed(["a", "b", "c"])) == ("", "a", "a, b and c")


def test_the_page_says_who_learns_and_that_a_warm_start_is_supervised(tmp_path: Path) -> None:
    def student(maker: Maker) -> None:
        inner = maker.spec.inner.model_copy(update={"student": "base"})
        maker.spec = maker.spec.model_copy(update={"inner": inner})

    store = ArtifactStore(str(tmp_path))
    small: dict[str, object] = {"rounds": 1, "passages": 3, "train_passages": 3, "credit": "part"}
    report = build_report(store, make_run(store, student, warm=True, **small))
    page = Page(html := render_html(report))
    assert "trained on the base model; the policy only writes" in page.text
    state = html[html.index('<p class="soft">') : html.index('<p class="headline">')]
    assert "; warm start, supervised" in state
    assert "self-edits, round 0 (warm start, supervised)" in picture_of(html)
    assert "a warm start, which is supervised" in page.text and "40 gold" in page.text
    assert "round 0, warm start" in page.text
    for part in (*report.rollouts[0].best_parts, *report.rollouts[0].worst_parts):
        assert part.text in page.text


def test_pairs_and_cover_of_every_stage_are_on_the_page(full: tuple[Report, Page, str]) -> None:
    report, page, _ = full
    for shape in report.shapes:
        assert plain(shape.pairs, digits=1) in page.cells
        assert percent(shape.cover) in page.cells
