"""Which edits the policy learns to write: the best of each context, if they helped at all.

The reward is mostly noise (one repeat has a reliability of 0.16: docs/concepts.md, on racing), so
the filter is careful: an edit without gain over the policy's own score is not kept even if it is
the best, and a context whose edits all scored alike says nothing about which to write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from seal.errors import InvalidInput
from seal.outcomes import Outcome
from seal.restem.reward import gain, mean, present
from seal.restem.seeds import derive_seed

SAME_SCORE = 1e-9
"""Rewards this close are equal: means of the same answers may differ in the last bit."""


class DropReason(StrEnum):
    """Why a candidate was not kept."""

    INVALID = "invalid"
    """Its edit parsed to no training example."""
    TOO_LONG = "too_long"
    """A row of its training is longer than the engine or the model's positions allow."""
    INERT = "inert"
    """Its adapter changed nothing."""
    DIVERGED = "diverged"
    """Its training, or the adapted model, met NaN or Inf."""
    REFUSED = "refused"
    """The engine could not do it even alone."""
    UNGRADED = "ungraded"
    """It has no reward, or its context no baseline: no grade could be given."""
    CANCELLED = "cancelled"
    """The caller stopped it."""
    ALL_EQUAL = "all-equal"
    """All graded candidates of its context, two or more, have the same reward."""
    NO_GAIN = "no-gain"
    """Its reward is not above the context's baseline."""
    NOT_BEST = "not-best"
    """It helped, but others of its context rank before it."""
    ELIMINATED = "eliminated"
    """The race went on without it, or it ended the race with fewer scores than others: its mean
    cannot be compared with theirs."""
    PRESELECTED = "preselected"
    """It got no inner loop: others of its context promised more (seal.restem.preselect)."""
    NOT_CHOSEN = "not-chosen"
    """A control without reward drew others of its context."""
    NO_CREDIT = "no-credit"
    """Where parts are chosen: it has a reward, but none of its parts was kept."""


class PartDropReason(StrEnum):
    """Why a part of an edit was not kept, where parts are chosen."""

    FILTERED = "filtered"
    """It parsed to no training example, or the domain's filters left it out."""
    TRUNCATED = "truncated"
    """It was cut off: its end cannot be learnt."""
    UNTRIED = "untried"
    """No inner loop of its edit has a score."""
    TOO_LONG = "too_long"
    """Its row is longer than a training takes."""
    REPEATED = "repeated"
    """An earlier candidate of its context has the same text for the same prompt."""
    NO_CREDIT = "no-credit"
    """No query shows that it helps: no credit, or one that is too small."""
    NEGATIVE = "negative"
    """It does harm: a credit below 0 by as much as a kept one must be above it."""
    NOT_CHOSEN = "not-chosen"
    """Others of its context have more credit or, without a reward, were drawn."""


_REASON_OF_OUTCOME = {
    Outcome.INVALID: DropReason.INVALID,
    Outcome.TOO_LONG: DropReason.TOO_LONG,
    Outcome.INERT: DropReason.INERT,
    Outcome.DIVERGED: DropReason.DIVERGED,
    Outcome.REFUSED: DropReason.REFUSED,
    Outcome.UNGRADED: DropReason.UNGRADED,
    Outcome.CANCELLED: DropReason.CANCELLED,
}


@dataclass(frozen=True)
class Candidate:
    """One edit with what its inner loops gave."""

    context_id: str
    candidate: int
    """Index among the context's k."""
    characters: int
    """Length of the edit's text."""
    outcome: Outcome
    """Ok if at least one repeat has a reward."""
    rewards: tuple[float | None, ...]
    """One per repeat; None where it is missing."""
    logprob: float | None
    """Mean log p of the gold answers under the adapted model, nats per token."""
    baseline: float | None
    """The policy's own score on the context's queries."""
    eliminated: bool = False
    """Out of the race before its end (seal.restem.racing), or before its start."""

    @property
    def reward(self) -> float | None:
        """Mean over the repeats; None if it has none."""
        return mean(self.rewards) if self.outcome is Outcome.OK else None

    @property
    def gain(self) -> float | None:
        """Reward above the baseline."""
        return gain(self.reward, self.baseline)


@dataclass(frozen=True)
class Kept:
    """A candidate that the policy learns."""

    candidate: Candidate
    reward: float
    gain: float


@dataclass(frozen=True)
class Dropped:
    """A candidate that it does not learn, and why."""

    candidate: Candidate
    reason: DropReason


@dataclass(frozen=True)
class Selection:
    """All candidates of a round, divided.

    The order of the candidates that went in does not show.
    """

    kept: tuple[Kept, ...]
    """By context id, the best first; those of a control without reward in the order of the draw."""
    dropped: tuple[Dropped, ...]
    """By context id and candidate."""

    @property
    def counts(self) -> dict[str, int]:
        """Dropped candidates by reason; reasons that did not occur are left out."""
        return dict(sorted(Counter(str(dropped.reason) for dropped in self.dropped).items()))


def select(
    candidates: Iterable[Candidate], *, keep_per_context: int = 1, control_seed: int | None = None
) -> Selection:
    """Keep the best edits of each context that gained something.

    What was eliminated in a race does not compete.
    Ties are broken by log-probability, then by the shorter edit, then by the candidate's index.
    With `control_seed` as many of each context are drawn from all of it that have a reward.

    Raises:
        InvalidInput: `keep_per_context` below 1, or a candidate given twice (a reward counts once).
    """
    if keep_per_context < 1:
        raise InvalidInput(
            f"{keep_per_context} edits cannot be kept",
            field="improve.keepPerContext",
            remedy="give 1 or more",
        )
    contexts: dict[str, dict[int, Candidate]] = {}
    for candidate in candidates:
        if candidate.candidate in contexts.setdefault(candidate.context_id, {}):
            raise InvalidInput(
                f"candidate {candidate.candidate} of context {candidate.context_id!r} is given "
                "twice",
                remedy="give each result once",
            )
        contexts[candidate.context_id][candidate.candidate] = candidate
    kept: list[Kept] = []
    dropped: list[Dropped] = []
    for context_id, members in sorted(contexts.items()):
        of_context = _select_context(members.values(), keep_per_context)
        if control_seed is not None:
            of_context = _drawn(of_context, Random(derive_seed(control_seed, context_id)))  # noqa: S311
        kept += of_context.kept
        dropped += of_context.dropped
    return Selection(tuple(kept), tuple(dropped))


def _select_context(candidates: Iterable[Candidate], keep: int) -> Selection:
    """One context: set apart what has no score, rank the rest, keep the best."""
    graded: list[Kept] = []
    dropped: list[Dropped] = []
    for candidate in sorted(candidates, key=lambda candidate: candidate.candidate):
        reward, gained = candidate.reward, candidate.gain
        if reward is None or gained is None:
            dropped.append(Dropped(candidate, unscored_reason(candidate)))
        else:
            graded.append(Kept(candidate, reward, gained))
    all_equal = _all_equal(graded)
    competing = [one for one in graded if one.gain > SAME_SCORE and not one.candidate.eliminated]
    kept = [] if all_equal else sorted(competing, key=_rank)[:keep]
    dropped += [
        Dropped(one.candidate, DropReason.ALL_EQUAL if all_equal else _why_not(one))
        for one in graded
        if one not in kept
    ]
    return Selection(tuple(kept), tuple(sorted(dropped, key=lambda one: one.candidate.candidate)))


def _drawn(chosen: Selection, random: Random) -> Selection:
    """One context of the control without reward: as many edits as were kept, by chance."""
    if not chosen.kept:
        return chosen
    candidates = [one.candidate for one in chosen.kept] + [one.candidate for one in chosen.dropped]
    candidates.sort(key=lambda one: one.candidate)
    graded = [
        Kept(candidate, candidate.reward, candidate.gain)
        for candidate in candidates
        if candidate.reward is not None and candidate.gain is not None
    ]
    kept = random.sample(graded, len(chosen.kept))
    dropped = [
        *(Dropped(one.candidate, DropReason.NOT_CHOSEN) for one in graded if one not in kept),
        *(one for one in chosen.dropped if one.candidate.gain is None),
    ]
    return Selection(tuple(kept), tuple(sorted(dropped, key=lambda one: one.candidate.candidate)))


def unscored_reason(candidate: Candidate) -> DropReason:
    """Why a candidate without a gain has none."""
    if candidate.eliminated and not candidate.rewards:
        return DropReason.PRESELECTED
    return _REASON_OF_OUTCOME.get(candidate.outcome, DropReason.UNGRADED)


def _why_not(one: Kept) -> DropReason:
    """Why a graded candidate is not kept where some differ."""
    if one.candidate.eliminated:
        return DropReason.ELIMINATED
    return DropReason.NO_GAIN if one.gain <= SAME_SCORE else DropReason.NOT_BEST


def _all_equal(graded: Sequence[Kept]) -> bool:
    """True for two or more candidates that no rung tells apart.

    All that ran it had one and the same mean up to it.
    """
    rungs = {len(one.candidate.rewards) for one in graded if one.candidate.eliminated}
    means = [[one.reward for one in graded if not one.candidate.eliminated]]
    means += [
        present(
            mean(one.candidate.rewards[:rung])
            for one in graded
            if len(one.candidate.rewards) >= rung
        )
        for rung in rungs
    ]
    return len(graded) > 1 and all(
        max(values) - min(values) <= SAME_SCORE for values in means if values
    )


def _rank(one: Kept) -> tuple[float, float, int, int]:
    """Sorts the best first."""
    logprob = mean((one.candidate.logprob,))
    return (
        -round(one.reward, 9),
        float("inf") if logprob is None else -logprob,
        one.candidate.characters,
        one.candidate.candidate,
    )
