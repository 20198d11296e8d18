"""What choosing an edit by its reward is worth under a policy.

Replayed on a log with held-out repeats, or simulated. Replayed: for every order of a passage's
repeats, the last one is held out; the policy sees the others, one after another, and the edit that
it chooses is scored by the held-out repeat, which is an unbiased estimate of the edit's true reward
because the choice has not seen it. All orders are averaged, and so are all orders of the
candidates, so that ties are broken at random. The rules are those of the worker
(seal.restem.racing).

Simulated: reward = candidate + noise, both normal, with the variances that the log shows between
candidates and within them. For numbers of candidates and repeats that the log does not hold. Real
rewards are shares of a few questions, with ties, which the model does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from seal.outcomes import Outcome
from seal.restem.racing import Runner, advance, rung_sizes
from seal.restem.statistics import CONFIDENCE, spearman_brown

MAX_ORDERS = 120
"""Orders of the candidates that are averaged: all of up to five, as many random ones of more."""
CURVE_POINTS = 24
"""Reliabilities at which a policy is simulated; between them the gain is interpolated."""


@dataclass(frozen=True)
class Policy:
    """How the best of some candidates is chosen."""

    candidates: int
    repeats: int
    survivors: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """As tables show it: `5 x 2` or `5 -> 2`."""
        return (
            " -> ".join(map(str, self.sizes))
            if self.survivors
            else f"{self.candidates} x {self.repeats}"
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Candidates in each repeat."""
        return rung_sizes(self.candidates, repeats=self.repeats, survivors=self.survivors)

    @property
    def inner_loops(self) -> int:
        """Trainings (and evaluations) of one passage."""
        return sum(self.sizes)


@dataclass(frozen=True)
class Spread:
    """A number and its 95 % bootstrap interval over passages."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Components:
    """Variances of the reward between the candidates of a passage."""

    candidate: float
    """Of the candidates' true rewards; below 0 where candidates differ less than their noise
    explains."""
    noise: float
    """Of one repeat around a candidate's true reward."""

    @property
    def reliability(self) -> float:
        """Of one repeat: the share of the spread that is not noise."""
        return (
            self.candidate / (self.candidate + self.noise)
            if self.candidate + self.noise > 0
            else 0.0
        )

    def reliability_of(self, repeats: int) -> float:
        """Of a mean over repeats."""
        return spearman_brown(self.reliability, repeats)


@dataclass(frozen=True)
class Squares:
    """Sums of squares of an analysis of variance, by passage.

    Passages can be resampled by their sums.
    """

    candidates_P: NDArray[np.float64]
    """Between candidates' means."""
    repeats_P: NDArray[np.float64]
    """Between repeats' means: what a repeat does to all candidates of a passage alike."""
    rest_P: NDArray[np.float64]
    """What is left."""
    candidates: int
    repeats: int

    @classmethod
    def of(cls, rewards_P_C_R: NDArray[np.float64]) -> Squares:
        """Of rewards by passage, candidate and repeat."""
        _, candidates, repeats = rewards_P_C_R.shape
        around = rewards_P_C_R - rewards_P_C_R.mean(axis=(1, 2), keepdims=True)
        by_candidate, by_repeat = (
            around.mean(axis=2, keepdims=True),
            around.mean(axis=1, keepdims=True),
        )
        return cls(
            candidates_P=repeats * (by_candidate**2).sum(axis=(1, 2)),
            repeats_P=candidates * (by_repeat**2).sum(axis=(1, 2)),
            rest_P=((around - by_candidate - by_repeat) ** 2).sum(axis=(1, 2)),
            candidates=candidates,
            repeats=repeats,
        )

    def components(
        self, passages_N: NDArray[np.int64] | None = None, *, same_repeat: bool = True
    ) -> Components:
        """From all passages, or from those given by index, as often as they are given.

        `same_repeat`: the noise as it is between candidates that are compared in the same repeats
        (what a repeat does to all of them alike is no noise then). Else it is that of any two
        trainings, and the reliability is `seal.restem.statistics.reliability`.
        """
        picked = np.arange(len(self.rest_P)) if passages_N is None else passages_N
        between = self.candidates_P[picked].mean() / (self.candidates - 1)
        if same_repeat:
            noise = self.rest_P[picked].mean() / ((self.candidates - 1) * (self.repeats - 1))
        else:
            noise = (self.rest_P + self.repeats_P)[picked].mean() / (
                self.candidates * (self.repeats - 1)
            )
        return Components(candidate=float(between - noise) / self.repeats, noise=float(noise))

    def shared_noise(self, passages_N: NDArray[np.int64] | None = None) -> float:
        """Share of a training's noise that a passage's candidates have in common in a repeat."""
        picked = np.arange(len(self.rest_P)) if passages_N is None else passages_N
        rest = float(self.rest_P[picked].mean()) / ((self.candidates - 1) * (self.repeats - 1))
        shared = (
            float(self.repeats_P[picked].mean()) / (self.repeats - 1) - rest
        ) / self.candidates
        return max(shared, 0.0) / (max(shared, 0.0) + rest) if rest > 0 else 0.0


def resamples(passages: int, *, number: int, seed: int) -> NDArray[np.int64]:
    """Passages drawn with replacement, [number, passages]."""
    return np.random.default_rng(seed).integers(0, passages, size=(number, passages))


def spread(value: float, resampled_B: Sequence[float] | NDArray[np.float64]) -> Spread:
    """A number with the percentile interval of its resampled ones."""
    low, high = np.quantile(resampled_B, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Spread(value, float(low), float(high))


def replay(
    rewards_P_C_R: NDArray[np.float64], policy: Policy, *, seed: int = 0
) -> NDArray[np.float64]:
    """Expected held-out reward of the chosen candidate, by passage.

    The policy uses fewer repeats than there are, and all candidates.
    """
    _, candidates, repeats = rewards_P_C_R.shape
    if policy.repeats >= repeats or policy.candidates != candidates:
        raise ValueError(
            f"{policy.name} cannot be replayed on {candidates} candidates with {repeats} repeats, "
            "one of them held out"
        )
    orders = _candidate_orders(candidates, seed)
    return np.array([
        np.mean([
            rewards_C_R[
                choose(rewards_C_R[np.ix_(order, repeat_order[:-1])], policy, order),
                repeat_order[-1],
            ]
            for repeat_order in permutations(range(repeats))
            for order in orders
        ])
        for rewards_C_R in rewards_P_C_R
    ])  # fmt: skip


def choose(rewards_C_R: NDArray[np.float64], policy: Policy, labels: Sequence[int]) -> int:
    """Label of the candidate that the worker's rules choose; ties go to the first."""
    runners: list[Runner] = []
    running: Sequence[int] = range(policy.candidates)
    for repeat, size in enumerate(policy.sizes):
        running = running if repeat == 0 else advance(runners, size)
        runners = [
            Runner(
                candidate=c, outcome=Outcome.OK, scores=tuple(rewards_C_R[c, : repeat + 1].tolist())
            )
            for c in running
        ]
    (winner,) = advance(runners, 1)
    return labels[winner]


def _candidate_orders(candidates: int, seed: int) -> list[tuple[int, ...]]:
    if candidates <= 5:
        return list(permutations(range(candidates)))
    generator = np.random.default_rng(seed)
    return [tuple(generator.permutation(candidates).tolist()) for _ in range(MAX_ORDERS)]


class Simulation:
    """Draws of the model, shared by all policies and components.

    So only these differ between two results.
    """

    def __init__(self, *, contexts: int, candidates: int, repeats: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._candidate_N_C = generator.standard_normal((contexts, candidates))
        self._noise_N_C_R = generator.standard_normal((contexts, candidates, repeats))

    def gain(self, policy: Policy, components: Components) -> float:
        """Expected true reward of the chosen candidate above that of a random one."""
        true_N_C = (
            np.sqrt(max(components.candidate, 0.0)) * self._candidate_N_C[:, : policy.candidates]
        )
        noise_N_C_R = (
            np.sqrt(components.noise) * self._noise_N_C_R[:, : policy.candidates, : policy.repeats]
        )
        total_N_C = np.zeros_like(true_N_C)
        for repeat, size in enumerate(policy.sizes):
            if size < policy.candidates:
                bar_N_1 = -np.partition(-total_N_C, size - 1, axis=1)[:, size - 1 : size]
                total_N_C = np.where(total_N_C >= bar_N_1, total_N_C, -np.inf)
            total_N_C = total_N_C + true_N_C + noise_N_C_R[:, :, repeat]
        chosen_N_1 = total_N_C.argmax(axis=1)[:, None]
        return float(np.take_along_axis(true_N_C, chosen_N_1, axis=1).mean())

    def gains(self, policy: Policy, components: Sequence[Components]) -> NDArray[np.float64]:
        """`gain` for many components, read off a curve over the reliability.

        It is proportional to the total spread.
        """
        reliability_B = np.array([each.reliability_of(1) for each in components])
        spread_B = np.array([np.sqrt(max(each.candidate, 0.0) + each.noise) for each in components])
        grid = np.linspace(0.0, float(reliability_B.max()), CURVE_POINTS)
        curve = [
            self.gain(policy, Components(candidate=float(point), noise=1.0 - float(point)))
            for point in grid
        ]
        gain_B: NDArray[np.float64] = spread_B * np.interp(reliability_B, grid, curve)
        return gain_B
