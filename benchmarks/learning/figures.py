"""From summaries to figures: means by arm, and paired differences with their intervals.

A passage's score is the mean over the run seeds; a difference is taken seed by seed on one passage,
before that mean, over the passages and seeds that both sides have. Up to three intervals stand by
each:

    over passages            resamples passages; seeds are averaged before. It speaks for other
                             passages and for the policies of these seeds.
    over passages and seeds  resamples both, a seed for all passages at once, as a seed's policy is
                             one for all of them. It speaks for other seeds too, and is wider.
    over titles              resamples titles with all their passages, where some have one in common
                             (an article's paragraphs). It speaks for other articles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from benchmarks.learning.plan import ArmName, CorpusName
from benchmarks.learning.settings import check_same_settings
from benchmarks.learning.summary import DIGITS, MEASURES, Summary, file_name
from seal.errors import Conflict
from seal.records import Interval
from seal.report.numbers.model import Metric
from seal.restem.reward import mean
from seal.restem.statistics import (
    clustered_interval,
    crossed_interval,
    mean_interval,
    paired_differences,
)
from seal.restem.student import LEAST_FOR_A_VERDICT

BOOTSTRAP_SEED, RESAMPLES = 0, 200_000
"""So many that an end of an interval moves by 0.0001 under another seed: it decides on which side
of 0 the end is."""
COMPARED: tuple[Metric, ...] = ("f1", "exact", "contains")
"""The measures of differences; the mean log-probability stands in the table of arms beside them."""
LAST = "last"

BySeed = Mapping[int, Mapping[str, float]]
"""Scores by run seed and passage."""
Ends = dict[str, float]
"""`mean`, `low` and `high`."""
Verdict = Literal["above", "below", "unclear", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table of arms."""

    arm: ArmName
    row: str
    """Of a summary; `edit-last` is the last round's."""
    words: str
    supervised: bool = False
    """It has seen gold pairs."""


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        "base": Row(arm="reward", row="base", words="nothing: the base model"),
        "open-book": Row(
            arm="reward",
            row="open-book",
            words="nothing, the passage shown before the question (open book)",
        ),
        "passage": Row(
            arm="reward", row="passage", words="the passage alone, its own rate and epochs"
        ),
        "passage-equal-steps": Row(
            arm="reward",
            row="passage-equal-steps",
            words="the passage alone, as many steps as round 0's edits",
        ),
        "round0": Row(arm="reward", row="edit-0", words="edits, untrained policy (round 0)"),
        "round1": Row(arm="reward", row="edit-1", words="edits, round 1 of pure ReST^EM"),
        "last": Row(arm="reward", row="edit-last", words="edits, last round of pure ReST^EM"),
        "control1": Row(
            arm="control", row="edit-1", words="edits, round 1 of the control without reward"
        ),
        "control": Row(
            arm="control", row="edit-last", words="edits, last round of the control without reward"
        ),
        "abstain": Row(
            arm="abstain", row="edit-last", words="edits, last round, learning to abstain too"
        ),
        "preselect": Row(
            arm="preselect", row="edit-last", words="edits, last round, one of two preselected"
        ),
        "warm": Row(
            arm="warm", row="edit-0", words="edits, warm start (supervised)", supervised=True
        ),
        "warm-last": Row(
            arm="warm",
            row="edit-last",
            words="edits, last round on top of the warm start (supervised)",
            supervised=True,
        ),
        "gold": Row(
            arm="reward", row="gold", words="the passage's own gold pairs (bound)", supervised=True
        ),
    }
)
"""By key, in the order of the page."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One difference: `above` minus `below`, both keys of `ROWS`."""

    above: str
    below: str
    published: bool = False
    """It stands in docs/learning.json."""

    @property
    def key(self) -> str:
        """Its name there."""
        return f"{self.above}-{self.below}"


CONTRASTS: tuple[Contrast, ...] = (
    Contrast(above="round0", below="passage", published=True),
    Contrast(above="last", below="round0", published=True),
    Contrast(above="last", below="control", published=True),
    Contrast(above="last", below="passage", published=True),
    Contrast(above="warm", below="round0", published=True),
    Contrast(above="warm-last", below="round0", published=True),
    Contrast(above="warm-last", below="passage", published=True),
    Contrast(above="round1", below="control1"),
    Contrast(above="last", below="round1"),
    Contrast(above="control", below="control1"),
    Contrast(above="control", below="round0"),
    Contrast(above="control", below="passage"),
    Contrast(above="round0", below="passage-equal-steps"),
    Contrast(above="last", below="passage-equal-steps"),
    Contrast(above="abstain", below="last"),
    Contrast(above="preselect", below="last"),
    Contrast(above="warm-last", below="warm"),
    Contrast(above="warm", below="last"),
    Contrast(above="warm-last", below="last"),
    Contrast(above="last", below="gold"),
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A mean, or a mean difference."""

    over_passages: Interval
    over_seeds: Interval | None
    """Over passages and seeds; without ends where there is one seed. None: no passage has all."""
    over_titles: Interval | None
    """None where every passage has a title of its own."""
    seeds: int

    @property
    def verdict(self) -> Verdict:
        """Of a difference: on which side of zero its interval over passages is."""
        return verdict_of(self.over_passages)


def verdict_of(interval: Interval) -> Verdict:
    """On which side of zero it is, beyond what is lost where scores are rounded."""
    if interval.n < LEAST_FOR_A_VERDICT or interval.low is None or interval.high is None:
        return "unknown"
    if interval.low > 10**-DIGITS:
        return "above"
    return "below" if interval.high < -(10**-DIGITS) else "unclear"


@dataclass(frozen=True, kw_only=True)
class CorpusFigures:
    """All that was measured on a corpus."""

    corpus: CorpusName
    summaries: tuple[Summary, ...]
    rows: Mapping[str, Mapping[Metric, Measured]]
    """By key of `ROWS`; what was not measured is absent."""
    contrasts: Mapping[str, Mapping[Metric, Measured]]
    """By `Contrast.key`; likewise."""

    @property
    def has_one_round(self) -> bool:
        """Whether the first round is the last."""
        return {summary.rounds for summary in self.summaries} == {1}

    def contrast(self, key: str, measure: Metric) -> Measured | None:
        """One difference, if it was measured."""
        return self.contrasts.get(key, {}).get(measure)


def figures_of(summaries: Sequence[Summary], corpus: CorpusName) -> CorpusFigures:
    """The figures of one corpus.

    Raises:
        Conflict: summaries that do not belong together.
    """
    own = tuple(summary for summary in summaries if summary.corpus == corpus)
    for summary in own[1:]:
        _check_one_corpus(own[0], summary)
    rows = {
        key: found
        for key, row in ROWS.items()
        if (found := _measures({measure: _scores(own, row, measure) for measure in MEASURES}))
    }
    contrasts = {
        contrast.key: found
        for contrast in CONTRASTS
        if (
            found := _measures(
                {measure: _differences(own, contrast, measure) for measure in COMPARED}
            )
        )
    }
    return CorpusFigures(corpus=corpus, summaries=own, rows=rows, contrasts=contrasts)


def _check_one_corpus(first: Summary, other: Summary) -> None:
    """Refuse summaries whose passages, model or settings are others."""
    check_same_settings(file_name(other), other.settings, first.settings)
    for what, before, now in (
        ("training passages", first.train, other.train),
        ("validation passages", first.validation, other.validation),
    ):
        if (before.name, before.sha256) != (now.name, now.sha256):
            raise Conflict(
                f"{other.key} has other {what} than {first.key}: {now.name}, not {before.name}",
                remedy="delete the summaries of one of the two files",
            )
    if other.model_sha256 != first.model_sha256:
        raise Conflict(
            f"{other.key} has other base weights than {first.key}",
            remedy="delete the summaries of one of the two",
        )


def _scores(summaries: Sequence[Summary], row: Row, measure: Metric) -> BySeed:
    """A row's scores by run seed; seeds that lack it are absent."""
    found = {
        summary.seed: summary.scores(_name(row, summary), measure)
        for summary in summaries
        if summary.arm == row.arm
    }
    return {seed: scores for seed, scores in found.items() if scores}


def _name(row: Row, summary: Summary) -> str:
    return row.row.replace(LAST, str(summary.rounds))


def _differences(summaries: Sequence[Summary], contrast: Contrast, measure: Metric) -> BySeed:
    """Of the seeds that both sides have, passage by passage."""
    above = _scores(summaries, ROWS[contrast.above], measure)
    below = _scores(summaries, ROWS[contrast.below], measure)
    found = {
        seed: paired_differences(above[seed], below[seed])
        for seed in sorted(above.keys() & below.keys())
    }
    return {seed: differences for seed, differences in found.items() if differences}


def _measures(values: Mapping[Metric, BySeed]) -> dict[Metric, Measured]:
    return {
        measure: found
        for measure, by_seed in values.items()
        if (found := measured(by_seed)) is not None
    }


def measured(values: BySeed) -> Measured | None:
    """All intervals of some scores or differences; None if there are none."""
    contexts = sorted({context for run in values.values() for context in run})
    means = {
        context: found
        for context in contexts
        if (found := mean(run.get(context) for run in values.values())) is not None
    }
    over_passages = mean_interval(means.values(), seed=BOOTSTRAP_SEED, resamples=RESAMPLES)
    if over_passages is None:
        return None
    titles: dict[str, list[float]] = {}
    for context, value in means.items():
        titles.setdefault(title_of(context), []).append(value)
    return Measured(
        over_passages=over_passages,
        over_seeds=crossed_interval(list(values.values()), seed=BOOTSTRAP_SEED),
        over_titles=clustered_interval(titles.values(), seed=BOOTSTRAP_SEED, resamples=RESAMPLES)
        if len(titles) < len(means)
        else None,
        seeds=len(values),
    )


def title_of(context: str) -> str:
    """The title in a passage's id (`seal.domains.passages.context_id`)."""
    return context.rpartition("-")[0]


def published(figures: Sequence[CorpusFigures]) -> dict[str, dict[str, dict[str, Ends]]]:
    """docs/learning.json: differences with a whole interval, and only what was measured."""
    return {
        one.corpus: {
            contrast.key: found
            for contrast in CONTRASTS
            if contrast.published and (found := _ends(one.contrasts.get(contrast.key, {})))
        }
        for one in figures
        if one.summaries
    }


def _ends(found: Mapping[Metric, Measured]) -> dict[str, Ends]:
    intervals = {measure: value.over_passages for measure, value in found.items()}
    return {
        measure: {"mean": interval.mean, "low": interval.low, "high": interval.high}
        for measure, interval in intervals.items()
        if interval.low is not None and interval.high is not None
    }
