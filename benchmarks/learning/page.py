"""docs/learning.md: what the figures say, their tables, and how they were made.

Nothing is said that was not measured; an arm that is missing is said to be missing. The text of
`benchmarks/notes-learning.md` (what was tuned on what, how often validation was looked at) is laid
in whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import JsonValue

from benchmarks.learning.figures import (
    BOOTSTRAP_SEED,
    COMPARED,
    CONTRASTS,
    RESAMPLES,
    ROWS,
    Contrast,
    CorpusFigures,
    Measured,
    verdict_of,
)
from benchmarks.learning.opening import (
    CORPUS_WORDS,
    SHORT,
    difference,
    gains_table,
    line,
    reward_words,
    table,
    with_ends,
)
from benchmarks.learning.plan import ARMS, PLAN, Planned
from benchmarks.learning.settings import Settings, is_own
from benchmarks.learning.summary import MEASURES, Summary
from seal.files import file_errors
from seal.records import Interval
from seal.report.numbers.formats import (
    GRADER_NAMES,
    MISSING,
    counts,
    duration,
    listed,
    plain,
    plural,
)
from seal.report.numbers.model import Metric
from seal.restem import statistics

PICTURE_FILE = "learning.svg"
HEADING = re.compile(r"^## ", re.MULTILINE)
COMMAND = "make learning TRAIN=FILE VALIDATION=FILE"


def read_notes(file: Path) -> str:
    """The hand-written part, from its first heading on; empty if there is none."""
    with file_errors(file):
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
    heading = HEADING.search(text)
    return text[heading.start() :].strip() if heading else ""


def render_page(
    figures: Sequence[CorpusFigures], notes: str, *, plan: Sequence[Planned] = PLAN
) -> str:
    """The whole page."""
    summaries = [summary for one in figures for summary in one.summaries]
    parts = [
        "# What edits, rounds and the reward add",
        " ".join(reward_words(one) for one in figures),
        gains_table(figures),
        f"![Scores of every arm on both corpora]({PICTURE_FILE})",
        *(part for one in figures for part in _corpus(one)),
        *_missing(figures, plan),
        *_how(summaries),
        notes,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _corpus(figures: CorpusFigures) -> Iterator[str]:
    """The tables of one corpus."""
    where = CORPUS_WORDS[figures.corpus]
    yield f"## {where[0].upper()}{where[1:]}"
    head = ["trained on", "passages", "seeds", *(GRADER_NAMES[measure] for measure in MEASURES)]
    yield table(head, (_row(figures, key) for key in ROWS if _is_shown(figures, key)))
    if figures.contrasts:
        yield from _contrasts(figures)
    yield from _edits(figures)


def _contrasts(figures: CorpusFigures) -> Iterator[str]:
    """The table of differences."""
    yield (
        "Paired differences, bold where the interval over passages is clear of 0 before it is "
        "rounded; in italics the interval over passages and run seeds where there are several."
    )
    yield table(
        ["difference", "passages", "seeds", *(GRADER_NAMES[measure] for measure in COMPARED)],
        (_contrast_row(figures, one.key, one.above, one.below) for one in _shown(figures)),
    )
    yield from _over_titles(figures)


def _shown(figures: CorpusFigures) -> Iterator[Contrast]:
    """The differences that were measured, of rows that the page has."""
    return (
        contrast
        for contrast in CONTRASTS
        if contrast.key in figures.contrasts
        and _is_shown(figures, contrast.above)
        and _is_shown(figures, contrast.below)
    )


def _over_titles(figures: CorpusFigures) -> Iterator[str]:
    """The same differences for other articles, where passages share some."""
    shown = [
        contrast
        for contrast in _shown(figures)
        if (found := figures.contrast(contrast.key, "f1")) is not None
        and found.over_titles is not None
    ]
    if not shown:
        return
    yield (
        "The same with titles resampled in place of passages, bold where the interval is clear of "
        "0: passages of one title are paragraphs of one article, and need not be independent."
    )
    yield table(
        ["difference", "passages", "titles", *(GRADER_NAMES[measure] for measure in COMPARED)],
        (_title_row(figures.contrasts[one.key], one.above, one.below) for one in shown),
    )


def _title_row(found: Mapping[Metric, Measured], above: str, below: str) -> str:
    first = found["f1"]
    cells = [
        _marked(one.over_titles) if (one := found.get(measure)) and one.over_titles else MISSING
        for measure in COMPARED
    ]
    words = f"{SHORT[above]} − {SHORT[below]}"
    titles = first.over_titles.n if first.over_titles else MISSING
    return line(words, first.over_passages.n, titles, *cells)


def _marked(interval: Interval) -> str:
    """A difference, bold where it is clear of 0."""
    text = difference(interval)
    return f"**{text}**" if verdict_of(interval) in ("above", "below") else text


def _is_shown(figures: CorpusFigures, key: str) -> bool:
    """Round 1 is not told twice where it is the last."""
    return key in figures.rows and not (key in ("round1", "control1") and figures.has_one_round)


def _row(figures: CorpusFigures, key: str) -> str:
    found = figures.rows[key]
    first = next(iter(found.values()))
    cells = [
        with_ends(found[measure].over_passages) if measure in found else MISSING
        for measure in MEASURES
    ]
    return line(ROWS[key].words, first.over_passages.n, first.seeds, *cells)


def _contrast_row(figures: CorpusFigures, key: str, above: str, below: str) -> str:
    found = figures.contrasts[key]
    first = next(iter(found.values()))
    cells = [
        _two_intervals(found[measure]) if measure in found else MISSING for measure in COMPARED
    ]
    words = f"{SHORT[above]} − {SHORT[below]}"
    return line(words, first.over_passages.n, first.seeds, *cells)


def _two_intervals(found: Measured) -> str:
    text = _marked(found.over_passages)
    wide = found.over_seeds
    if wide is None or wide.low is None or wide.high is None:
        return text
    ends = f"[{plain(wide.low, signed=True)}, {plain(wide.high, signed=True)}]"
    return f"{text} *{ends}*"


def _edits(figures: CorpusFigures) -> Iterator[str]:
    """How the edits look and what was kept of them."""
    lines = [
        line(
            summary.arm,
            summary.seed,
            stage,
            found.edits,
            plain(found.usable, digits=1),
            plain(found.cover, digits=2),
            found.empty,
            _selection(summary, stage),
        )
        for summary in figures.summaries
        for stage, found in summary.edits.items()
    ]
    if lines:
        yield "Edits by stage; what the M-step of a rollout's round kept of them stands beside it."
        asked = ["usable pairs an edit", "cover", "empty"]
        yield table(["arm", "seed", "stage", "edits", *asked, "M-step"], lines)


def _selection(summary: Summary, stage: str) -> str:
    if stage == "r0-validate" and summary.gold_rows:
        return f"warm start on {plural(summary.gold_rows, 'gold row')}, supervised"
    round, _, name = stage.removeprefix("r").partition("-")
    selection = summary.selections.get(int(round)) if name == "rollout" else None
    if selection is None:
        return ""
    rows, dropped = plural(selection.rows, "row"), counts(selection.dropped)
    abstaining = f", {selection.abstaining} of them abstaining" if selection.abstaining else ""
    return f"{rows} of {plural(selection.edits, 'edit')}{abstaining}; dropped: {dropped}"


def _missing(figures: Sequence[CorpusFigures], plan: Sequence[Planned]) -> Iterator[str]:
    """Runs of the plan that have no figures."""
    there = {summary.key for one in figures for summary in one.summaries}
    lines = []
    for planned in plan:
        seeds = [
            str(seed)
            for seed in range(planned.seeds)
            if f"{planned.corpus}/{planned.arm}/{seed}" not in there
        ]
        if seeds:
            lines.append(
                f"- {planned.arm} on {CORPUS_WORDS[planned.corpus]}: "
                f"{'seed' if len(seeds) == 1 else 'seeds'} {listed(seeds)} of {planned.seeds}"
            )
    if lines:
        yield "## Not measured"
        yield "\n".join(["Planned, and not there yet; nothing is extrapolated.", "", *lines])


def _how(summaries: Sequence[Summary]) -> Iterator[str]:
    """Arms, intervals, data, settings and machines."""
    yield "## How it was measured"
    yield "\n".join(f"- `{name}`: {arm.words}" for name, arm in ARMS.items())
    yield (
        "Every adapter is trained on the base model, afresh for every passage; the policy only "
        "writes. The last round is the last one that was planned, never the best one. A score is "
        "the mean over a passage's questions, then over run seeds. Intervals are 95 % "
        f"bootstraps (seed {BOOTSTRAP_SEED}; {RESAMPLES:,} resamples of passages or titles, "
        f"{statistics.RESAMPLES:,} of passages and run seeds) of the differences, taken "
        "passage by passage and seed by seed, with percentiles as far out as Student's t has them "
        "(Hesterberg, arXiv 1411.5279). The first one resamples passages, each with its mean "
        "over seeds: it speaks for other passages and these policies. The one in italics resamples "
        "run seeds as well, a drawn seed for all passages at once, because a seed's policy is one "
        "for all of them; it speaks for other runs too, and with few seeds it is still too narrow. "
        "Both take passages for independent; where some share a title, a table of its own has "
        "titles resampled with all their passages. Of a title that both given files have, the "
        "passages are used on one side alone: no article is learnt from and measured on."
    )
    yield "\n".join(_provenance(summaries))
    yield (
        "<details><summary>Settings that all arms share</summary>\n\n```yaml\n"
        + yaml.safe_dump(_shared(summaries[0].settings), sort_keys=False, width=100)
        + "```\n\n</details>"
    )


def _provenance(summaries: Sequence[Summary]) -> Iterator[str]:
    files = {
        source.name: source
        for summary in summaries
        for source in (summary.train, summary.validation)
    }
    for name, source in files.items():
        largest = max(
            (
                found
                for summary in summaries
                for found in (summary.train, summary.validation)
                if found.name == name
            ),
            key=lambda found: found.contexts,
        )
        titles = f" of {plural(largest.titles, 'title')}" if largest.titles else ""
        yield (
            f"- Data: {name}, the first {plural(largest.contexts, 'passage')}{titles}, sha256 "
            f"{source.sha256[:16]}"
        )
    models = {
        (str(summary.settings["model"]), summary.model_sha256[:16]): None for summary in summaries
    }
    yield from (f"- Model: {name}, weights {sha256}" for name, sha256 in models)
    rounds = {
        (summary.corpus, summary.rounds, _learnt_from(summary)): None for summary in summaries
    }
    taken = listed(
        [
            f"{plural(n, 'round')} on {CORPUS_WORDS[corpus]}, each on {passages}"
            for corpus, n, passages in rounds
        ]
    )
    yield f"- Rounds: {taken}"
    machines = {
        f"{summary.machine.processor}, {plural(summary.machine.cores, 'core')}, "
        f"{summary.machine.memory_gib:.0f} GiB, {summary.machine.system}, torch "
        f"{summary.machine.versions.get('torch', MISSING)}, {summary.machine.dtype}"
        for summary in summaries
    }
    yield from (f"- Machine: {machine}" for machine in sorted(machines))
    total = sum(sum(summary.seconds.values()) for summary in summaries)
    yield f"- Time: {duration(total)} for {plural(len(summaries), 'run')}"
    yield f"- Command: `{COMMAND}`; a run for each file of [learning](learning)"


def _learnt_from(summary: Summary) -> str:
    """The training passages of a round."""
    taken, there = int(str(summary.settings["data.trainContexts"])), summary.train.contexts
    if taken < there:
        return f"{taken} of {there} training passages, drawn by the run seed"
    return f"all {there} training passages, the same for every run seed"


def _shared(settings: Settings) -> dict[str, JsonValue]:
    """The settings that no arm has of its own, as a manifest's spec has them."""
    tree: dict[str, JsonValue] = {}
    for name, value in settings.items():
        if is_own(name):
            continue
        *sections, leaf = name.split(".")
        place = tree
        for section in sections:
            below = place.setdefault(section, {})
            assert isinstance(below, dict)  # a leaf has no leaves below it
            place = below
        place[leaf] = value
    return tree
