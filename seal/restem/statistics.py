"""What the numbers of a run are worth.

Paired intervals over contexts, reliability of the reward, diversity of the edits. Contexts differ
far more than methods do, so two methods are compared on the same contexts, by the mean of the
differences. Missing scores drop out (in pairs, both sides); nothing is filled in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from seal.domains.words import normalise
from seal.records import Interval
from seal.restem.reward import gain, mean, present
from seal.restem.select import SAME_SCORE
from seal.restem.student import student_quantile

CONFIDENCE = 0.95
RESAMPLES = 10_000
_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class PassCounts:
    """How many gains are what."""

    improved: int
    unchanged: int
    worsened: int


@dataclass(frozen=True)
class Reliability:
    """How much of the rewards' spread between candidates is more than noise between repeats.

    1 is all of it; candidates are compared within their context.
    """

    single: float
    """Intraclass correlation of one repeat; below 0 where repeats of one candidate differ more than
    candidates do."""
    averaged: float
    """Of the mean over `repeats` repeats, by Spearman-Brown; 0 where `single` is not positive."""
    repeats: int
    candidates: int
    """Candidates with at least one reward."""


def mean_interval(
    values: Iterable[float | None], *, seed: int, resamples: int = RESAMPLES
) -> Interval | None:
    """Mean over contexts with its expanded percentile interval; None if there is no value.

    The same values and seed give the same interval in any order. The interval is widened to hold
    the mean where rounding, or a single freak value, would leave it outside.
    """
    there = present(values)
    centre = mean(there)
    if centre is None:
        return None
    if len(there) < 2:
        return Interval(centre, None, None, len(there))
    means_R = _resampled_means(
        np.sort(np.asarray(there, dtype=np.float64)), seed=seed, resamples=resamples
    )
    return _expanded(means_R, centre, n=len(there))


def _expanded(means_R: NDArray[np.float64], centre: float, *, n: int) -> Interval:
    """The interval of resampled means [R] of `n` values.

    Plain percentiles of a bootstrap take the spread of the values for that of what they come from:
    it is smaller by (n - 1) / n, and known no better than Student's t has it. So the percentiles
    lie further out, where t has its own: Hesterberg, arXiv 1411.5279, on the expanded percentile
    interval. It approaches the plain one as n grows: of 8 values it is a quarter wider, of 60 a
    thirtieth.
    """
    beyond = NormalDist().cdf(-student_quantile(n - 1) * math.sqrt(n / (n - 1)))
    low, high = np.quantile(means_R, [beyond, 1 - beyond])
    return Interval(centre, min(float(low), centre), max(float(high), centre), n)


def success_interval(values: Iterable[float | None]) -> Interval | None:
    """Share of successes over contexts with its Wilson interval; None if there is no value.

    Unlike resampling it is honest where all succeed or none does. A context with several questions
    counts once, by the share of them that succeed.
    """
    there = present(values)
    share = mean(there)
    if share is None:
        return None
    n, z = len(there), NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Interval(share, min(low, share), max(high, share), n)


def _resampled_means(
    values_C: NDArray[np.float64], *, seed: int, resamples: int
) -> NDArray[np.float64]:
    """Means of `resamples` draws with replacement, [R] from [C].

    In blocks, so that memory stays bounded.
    """
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_ELEMENTS // len(values_C))
    means = [
        values_C[
            generator.integers(
                0, len(values_C), size=(min(block, resamples - start), len(values_C))
            )
        ].mean(axis=1)
        for start in range(0, resamples, block)
    ]
    return np.concatenate(means)


def crossed_interval(values: Sequence[Mapping[str, float]], *, seed: int) -> Interval | None:
    """Mean over contexts and runs with an interval that speaks for other runs too.

    `values`: by context id, one mapping per run (per run seed); contexts that lack a run are left
    out. Contexts and runs are resampled apart, and a drawn run counts for all contexts: its policy
    is one for all of them, so that drawing runs anew for every context would average away what they
    have in common. The percentiles are those for as many contexts (`mean_interval`). Few runs tell
    little of their spread: of S of them, the bootstrap shows (S - 1) / S of its variance. None
    without a context; no ends below two contexts or runs.
    """
    shared = sorted(set.intersection(*(set(run) for run in values))) if values else []
    if not shared:
        return None
    values_S_C = np.asarray([[run[context] for context in shared] for run in values])
    runs, contexts = values_S_C.shape
    centre = float(values_S_C.mean())
    if runs < 2 or contexts < 2:
        return Interval(centre, None, None, contexts)
    generator = np.random.default_rng(seed)
    drawn_R_S = generator.multinomial(runs, [1 / runs] * runs, size=RESAMPLES) / runs
    drawn_R_C = generator.multinomial(contexts, [1 / contexts] * contexts, size=RESAMPLES)
    means_R = (drawn_R_S @ values_S_C * (drawn_R_C / contexts)).sum(axis=1)
    return _expanded(means_R, centre, n=contexts)


def clustered_interval(
    values: Iterable[Sequence[float]], *, seed: int, resamples: int = RESAMPLES
) -> Interval | None:
    """Mean over all values, with an interval that draws whole groups of them with replacement.

    It speaks for other groups where the values of one are no independent ones, as passages of one
    article are not. A drawn sample's mean is over its values, so that large groups count for more.
    The percentiles are those for as many groups (`mean_interval`), and so is the interval's `n`.
    None without a value; no ends below two groups.
    """
    groups = sorted((sum(group), len(group)) for group in values if group)
    if not groups:
        return None
    sums_G, sizes_G = np.asarray(groups, dtype=np.float64).T
    centre, n = float(sums_G.sum() / sizes_G.sum()), len(groups)
    if n < 2:
        return Interval(centre, None, None, n)
    drawn_R_G = np.random.default_rng(seed).multinomial(n, [1 / n] * n, size=resamples)
    return _expanded(drawn_R_G @ sums_G / (drawn_R_G @ sizes_G), centre, n=n)


def paired_differences(
    scores: Mapping[str, float | None], reference: Mapping[str, float | None]
) -> dict[str, float]:
    """`scores` - `reference` by id (of contexts, or of queries), where both are there."""
    return _there({id: gain(scores[id], reference[id]) for id in _shared(scores, reference)})


def paired_by_context(
    scores: Mapping[str, Mapping[str, float | None]],
    reference: Mapping[str, Mapping[str, float | None]],
) -> dict[str, float]:
    """`scores` - `reference` by context id: the mean over the queries that both have a score of.

    Both are by context and query id. Means over what each has would be of two tests.
    """
    return _there(
        {
            id: mean(paired_differences(scores[id], reference[id]).values())
            for id in _shared(scores, reference)
        }
    )


def _shared(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    return sorted(one.keys() & other.keys())


def _there(values: Mapping[str, float | None]) -> dict[str, float]:
    return {id: value for id, value in values.items() if value is not None}


def pass_counts(gains: Iterable[float | None]) -> PassCounts:
    """Gains above, at and below 0; missing ones do not count."""
    there = present(gains)
    improved = sum(value > SAME_SCORE for value in there)
    worsened = sum(value < -SAME_SCORE for value in there)
    return PassCounts(improved, len(there) - improved - worsened, worsened)


def reliability(
    rewards: Iterable[Sequence[Sequence[float | None]]], *, repeats: int
) -> Reliability | None:
    """Reliability of the reward from its repeats: rewards by context, candidate and repeat.

    What differs between contexts is left out. A one-way analysis of variance with candidates nested
    in contexts, unequal numbers of repeats allowed; with one context it is the plain ICC(1). None
    where it is undefined: no context with two candidates, no candidate with two repeats, or no
    spread at all. `repeats` is the number over which a reward is averaged.
    """
    contexts = [
        [there for candidate in context if (there := present(candidate))] for context in rewards
    ]
    contexts = [context for context in contexts if len(context) > 1]
    between_df = sum(len(context) - 1 for context in contexts)
    within_df = sum(len(candidate) - 1 for context in contexts for candidate in context)
    if not between_df or not within_df:
        return None
    between = sum(_between_squares(context) for context in contexts) / between_df
    within = sum(_squares(candidate) for context in contexts for candidate in context) / within_df
    size = sum(_effective_repeats(context) for context in contexts) / between_df
    spread = between + (size - 1) * within
    if spread <= SAME_SCORE**2:
        return None
    single = (between - within) / spread
    return Reliability(single, spearman_brown(single, repeats), repeats, sum(map(len, contexts)))


def _between_squares(candidates: Sequence[Sequence[float]]) -> float:
    """Squared deviations of candidates' means from their context's mean, weighted by repeats."""
    everything = [value for candidate in candidates for value in candidate]
    return sum(
        len(candidate) * (float(np.mean(candidate)) - float(np.mean(everything))) ** 2
        for candidate in candidates
    )


def _squares(values: Sequence[float]) -> float:
    """Squared deviations from the mean."""
    return float(np.var(values)) * len(values)


def _effective_repeats(candidates: Sequence[Sequence[float]]) -> float:
    """A context's share of the average number of repeats in an unbalanced design.

    With n each it is n (candidates - 1).
    """
    sizes = [len(candidate) for candidate in candidates]
    return sum(sizes) - sum(size * size for size in sizes) / sum(sizes)


def spearman_brown(single: float, repeats: int) -> float:
    """Reliability of a mean over repeats from that of one: n r / (1 + (n - 1) r).

    0 where one has none.
    """
    return repeats * single / (1 + (repeats - 1) * single) if single > 0 else 0.0


def diversity(edits: Sequence[str]) -> float | None:
    """Mean distance between two edits of a context: 1 - shared words / all words (Jaccard).

    0 alike, 1 no word shared; None below two.
    """
    words = [frozenset(normalise(edit).split()) for edit in edits]
    return mean(_distance(one, other) for one, other in combinations(words, 2))


def _distance(one: frozenset[str], other: frozenset[str]) -> float:
    return 1.0 - len(one & other) / len(one | other) if one | other else 0.0
