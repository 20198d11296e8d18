"""Which parts of an edit helped: credit from the scores of single queries.

The mean reward of an edit says little about sixty parts. But every query has a score of its own,
and an adapted model that was taught a pair repeats that pair's answer. So a part answers for a
query as far as its pair's question is close to it (affinity) and its pair's answer is the one that
the adapted model gave (agreement):

    z[t, p, q] = affinity(p, q) * agreement(p, answer of q in t)       0 if t was not trained on p

for an inner loop t (candidate c, repeat r). What a loop scores above the policy alone is then

    score[t, q] - baseline[q] = edit[q] + repeat[r, q] + sum over p of z[t, p, q] * b[p, q] + noise

with everything on the right normal around 0: `edit` is what training on anything does for the
query, `repeat` the luck that all candidates share (their loops have the same seeds), b what the
part does. The posterior mean of z * b, averaged over the loops that were trained on p and summed
over the queries, is the credit of p, in queries: 0.3 is three tenths of one query more answered.

What this gives without a special case: a wrong pair that takes a query's place is blamed where
other candidates, or the policy alone, answer it; the loops of candidates without the pair tell what
is scored without it; one lucky answer counts for less than one that comes again; a pair in two
candidates is one part with twice the evidence; parts that no answer agrees with have no credit.

Measured on 100 simulated contexts a line (`python -m benchmarks.credit`): rank correlation of what
each rule says of a part with the part's true effect. "Questions alone" is this regression with
z = affinity.

    candidates x repeats   whole edit   questions alone   this
    1 x 1                     .00            .12           .39
    1 x 3                     .00            .16           .68
    4 x 1                     .08            .25           .58
    4 x 3                     .11            .30           .77
    8 x 3                     .13            .40           .82
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PART_VARIANCE = 0.25
"""Prior variance of b: a pair that fits a query fully moves its score by about half."""
EDIT_VARIANCE = 0.05
"""Of what training on any edit does for a query."""
REPEAT_VARIANCE = 0.03
"""Of the luck that loops with the same seeds share."""
NOISE_VARIANCE = 0.12
"""Of one score: a right or wrong answer is mostly its own luck."""
_DIGITS = 9
"""Decimals of a credit: the last bits of a score, or of a library's sums, must not decide."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one inner loop says about the parts of its edit."""

    candidate: int
    repeat: int
    """Loops of the same repeat share their seeds."""
    parts: tuple[int, ...]
    """Parts that it was trained on, each once."""
    responsibility_P_Q: NDArray[np.float64]
    """How far each of these answers for each query, 0 to 1: affinity times agreement."""
    scores_Q: tuple[float | None, ...]
    """Scores of the adapted model; None where one is missing."""


def credit_parts(
    trials: Sequence[Trial], *, parts: int, baseline_Q: Sequence[float | None]
) -> tuple[float | None, ...]:
    """Credit of each of a context's `parts`, in queries; None without any evidence.

    There is evidence where a part answers for a query that both a loop of its own and the policy
    alone have a score for. The order of the trials does not show.
    """
    credits = np.zeros(parts)
    known = np.zeros(parts, dtype=bool)
    ordered = sorted(trials, key=lambda trial: (trial.candidate, trial.repeat))
    for query, baseline in enumerate(baseline_Q):
        scored = [trial for trial in ordered if trial.scores_Q[query] is not None]
        if baseline is None or not scored:
            continue
        z_T_P = np.zeros((len(scored), parts))
        held_T_P = np.zeros((len(scored), parts), dtype=bool)
        for row, trial in enumerate(scored):
            z_T_P[row, trial.parts] = trial.responsibility_P_Q[:, query]
            held_T_P[row, trial.parts] = True
        above_T = np.array([float(trial.scores_Q[query] or 0.0) for trial in scored]) - baseline
        repeat_T = np.array([trial.repeat for trial in scored])
        credits += _posterior_effect(z_T_P, above_T, repeat_T) / np.maximum(held_T_P.sum(0), 1)
        known |= z_T_P.any(axis=0)
    return tuple(
        round(float(credit), _DIGITS) if there else None
        for credit, there in zip(credits, known, strict=True)
    )


def _posterior_effect(
    z_T_P: NDArray[np.float64], above_T: NDArray[np.float64], repeat_T: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Sum over the loops of what each part did to one query's score."""
    covariance_T_T = (
        PART_VARIANCE * z_T_P @ z_T_P.T
        + EDIT_VARIANCE
        + REPEAT_VARIANCE * (repeat_T[:, None] == repeat_T)
        + NOISE_VARIANCE * np.eye(len(above_T))
    )
    b_P = PART_VARIANCE * z_T_P.T @ np.linalg.solve(covariance_T_T, above_T)
    effect_P: NDArray[np.float64] = z_T_P.sum(axis=0) * b_P
    return effect_P
