"""Racing: successive halving of a context's candidates.

So repeats go where the choice is made. One repeat of every candidate, another only of the best: 5
-> 2 takes 7 inner loops where two repeats of all take 10, and 10 -> 3 -> 2 takes the 15 of 5 x 3.
Repeat j of all candidates of a context has the same seeds (common random numbers), so a rung
compares edits under the same luck (Jamieson and Talwalkar 2016, arXiv 1502.07943, "successive
halving").

A mean of one repeat is never compared with a mean of two. Who leads after one repeat leads partly
by luck (the winner's curse); those who ran again have paid that back, the others have not, and a
lucky loser of the first rung would beat a better finalist. So only the finalists compete for being
kept, by the mean over all their repeats, of which they have equally many.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from seal.outcomes import Outcome
from seal.restem.reward import mean, present
from seal.settings import check_survivors

_SAME_DIGITS = 9
"""Scores that are equal in so many decimals are equal: means of the same answers may differ in the
last bit."""
_UNSCORED_ORDER = (
    Outcome.OK,
    Outcome.UNGRADED,
    Outcome.CANCELLED,
    Outcome.REFUSED,
    Outcome.DIVERGED,
    Outcome.INERT,
    Outcome.TOO_LONG,
    Outcome.INVALID,
)
"""Of candidates without any score, those go first that another repeat may yet score."""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """A candidate in a race, with what its repeats gave so far."""

    candidate: int
    """Index among the context's k; unique in a race."""
    outcome: Outcome
    """Ok if a repeat has a score, else how the first one ended."""
    scores: tuple[float | None, ...]
    """One per repeat that was run; None where it is missing."""
    logprob: float | None = None
    """Mean log p of the gold answers, nats per token; breaks ties."""
    characters: int = 0
    """Length of the edit; breaks ties that the log-probability leaves."""


def rung_sizes(candidates: int, *, repeats: int, survivors: Sequence[int] = ()) -> tuple[int, ...]:
    """Candidates that run each repeat, first repeat first.

    Without survivors there is no race and all run all.

    Raises:
        InvalidInput: as `check_survivors` does.
    """
    if not survivors:
        return (candidates,) * repeats
    check_survivors(survivors, candidates=candidates, repeats=repeats)
    return (candidates, *survivors)


def advance(runners: Collection[Runner], survivors: int) -> tuple[int, ...]:
    """Candidates that run the next repeat, by index.

    The `survivors` best, or all if there are fewer. Ranked are first those with the most scores
    (one repeat that diverged or could not be graded puts a candidate behind all that have theirs),
    then the higher mean score, the higher log-probability, the shorter edit, the lower index. So
    one without any score survives only where too few others are left, an invalid edit last. The
    order of `runners` does not show.
    """
    return tuple(sorted(runner.candidate for runner in sorted(runners, key=_rank)[:survivors]))


def finalists(runners: Collection[Runner]) -> frozenset[int]:
    """Candidates that compete for being kept.

    Of those that ran the most repeats, those with the most scores. Where all ran equally often
    there was no race: all compete, and a missing repeat is merely left out of a mean.
    """
    longest = max((len(runner.scores) for runner in runners), default=0)
    last_rung = [runner for runner in runners if len(runner.scores) == longest]
    if len(last_rung) == len(runners):
        return frozenset(runner.candidate for runner in runners)
    scored = max(len(present(runner.scores)) for runner in last_rung)
    return frozenset(
        runner.candidate for runner in last_rung if len(present(runner.scores)) == scored
    )


def _rank(runner: Runner) -> tuple[int, int, float, float, int, int]:
    """Sorts the best first."""
    there = present(runner.scores)
    return (
        -len(there),
        0 if there else _UNSCORED_ORDER.index(runner.outcome),
        -round(math.fsum(there) / len(there), _SAME_DIGITS) if there else 0.0,
        math.inf if (logprob := mean((runner.logprob,))) is None else -logprob,
        runner.characters,
        runner.candidate,
    )
