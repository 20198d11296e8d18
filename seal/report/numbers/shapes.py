"""How edits and rewards are spread: lengths, diversity, histograms.

A policy that collapses shows here before it shows in the accuracy.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from seal.domains.base import Domain
from seal.domains.graders import grade
from seal.domains.words import distinct_share
from seal.records import ContextRecord, EditRecord, edit_text, part_texts
from seal.report.numbers.model import Bin, EditShape, Spread
from seal.report.numbers.source import Stage
from seal.restem.reward import mean
from seal.restem.statistics import diversity

BINS = 12
"""About so many bars in a histogram."""
LONE_BAR = 0.1
"""Width of the bar of values that are all the same, with nothing beside them."""


def spread(values: Iterable[float]) -> Spread | None:
    """Five numbers and the mean; None for an empty list."""
    ordered = sorted(values)
    if not ordered:
        return None
    lower, median, upper = (
        statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    )
    return Spread(
        n=len(ordered),
        minimum=ordered[0],
        lower_quartile=lower,
        median=median,
        upper_quartile=upper,
        maximum=ordered[-1],
        mean=statistics.fmean(ordered),
    )


def edit_shape(stage: Stage, domain: Domain) -> EditShape | None:
    """How the edits of a rollout or validation look; None if it has none."""
    edits = [edit for record in stage.records for edit in record.edits]
    if not edits or stage.name == "improve":
        return None
    texts_by_context = [
        [edit_text(record.parts, edit) for edit in record.edits] for record in stage.records
    ]
    texts = [text for texts in texts_by_context for text in texts]
    return EditShape(
        stage=stage.name,
        round=stage.round,
        policy_round=stage.policy_round,
        edits=len(edits),
        empty=sum(not edit.examples for edit in edits),
        truncated=sum(edit.truncated for edit in edits),
        tokens=spread(edit.tokens for edit in edits),
        examples=spread(len(edit.examples) for edit in edits),
        pairs=_pairs(edits),
        cover=mean(mean(_cover(record, edit) for edit in record.edits) for record in stage.records)
        if _pairs(edits) is not None
        else None,
        unique_share=len(set(texts)) / len(texts),
        distinct_pairs_share=distinct_share(texts, 2),
        choices=_choices(stage, domain),
        diversity=mean(diversity(texts) for texts in texts_by_context),
    )


def _choices(stage: Stage, domain: Domain) -> dict[str, dict[str, int]]:
    """How many edits chose which possibility, by name; values in the order of their text."""
    found: dict[str, Counter[str]] = {}
    for record in stage.records:
        for edit in record.edits:
            chosen = domain.choices(part_texts(record.parts, edit)) if edit.examples else {}
            for name, value in chosen.items():
                found.setdefault(name, Counter())[value] += 1
    return {
        name: dict(sorted(counted.items(), key=lambda item: in_order(item[0])))
        for name, counted in found.items()
    }


def in_order(value: str) -> tuple[float, str]:
    """Sorts numbers by size, before words by their letters."""
    try:
        return float(value), ""
    except ValueError:
        return math.inf, value


def _pairs(edits: Sequence[EditRecord]) -> float | None:
    """Usable question-answer pairs per edit; None if there are none in any."""
    pairs = sum(bool(example.question) for edit in edits for example in edit.examples)
    return pairs / len(edits) if pairs else None


def _cover(record: ContextRecord, edit: EditRecord) -> float | None:
    """Share of the gold answers that the answer of some pair holds."""
    answers = [example.answer for example in edit.examples if example.question]
    return mean(
        float(any(grade("contains", answer, asked.golds, None) for answer in answers))
        for asked in record.baseline.answers
    )


def histogram(
    values: Sequence[tuple[float, bool]],
    *,
    width: float | None = None,
    centred: bool = False,
    beside: Sequence[float] = (),
) -> tuple[Bin, ...]:
    """Bars of equal width over (value, kept).

    `width` None takes a round one, by which bars are seen as such also on an axis that has to show
    the values `beside`; `centred` gives zero a bar of its own, around it. Rounding never
    moves a value over an edge: values within 1e-9 of an edge belong to the bar above.
    """
    if not values:
        return ()
    numbers = [value for value, _ in values]
    step = width or _round_width([*numbers, *beside])
    offset = 0.5 if centred else 0.0
    places = [(math.floor(value / step + offset + 1e-9), kept) for value, kept in values]
    first, last = min(place for place, _ in places), max(place for place, _ in places)
    return tuple(
        Bin(
            low=round((place - offset) * step, 9),
            high=round((place + 1 - offset) * step, 9),
            kept=sum(kept for where, kept in places if where == place),
            dropped=sum(not kept for where, kept in places if where == place),
        )
        for place in range(first, last + 1)
    )


def _round_width(values: Sequence[float]) -> float:
    """1, 2 or 5 times a power of ten, so that the values take about `BINS` bars."""
    extent = max(values) - min(values)
    if extent < 1e-6:
        return LONE_BAR
    rough = extent / BINS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(
        factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * 0.999
    )
