"""The figures of `benchmarks.racing.replay`.

Measured on a log of SEAL's rollout, or simulated from its variances and marked as such.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from benchmarks.racing.policies import (
    Policy,
    Simulation,
    Spread,
    Squares,
    replay,
    resamples,
    spread,
)
from benchmarks.racing.seal_log import JudgeCalls, SealLog, count_judge_calls
from seal.errors import InvalidInput

SIMULATED = (Policy(5, 3), Policy(10, 3, (3, 2)), Policy(15, 1))
"""What the log cannot tell: all of its repeats with none to hold out, and more candidates."""
COMPARED = (
    ("5 -> 2", "5 x 2"),
    ("5 -> 2", "5 x 1"),
    ("5 -> 2", "5 x 3"),
    ("10 -> 3 -> 2", "5 x 3"),
    ("10 -> 3 -> 2", "15 x 1"),
)
"""Policies that are set against each other where both are there."""


class LogFacts(BaseModel):
    """What was replayed. Scores are shares of right answers."""

    sha256: str
    passages: int
    candidates: int
    repeats: int
    baseline: float
    """Without an adapter."""
    reward: float
    """Mean over all edits: what a random edit scores."""
    level_at_cut: float | None
    """Share of first repeats in which the second and the third edit of a passage score alike, so
    that a race to two draws lots; None with two edits."""


class ReliabilityFacts(BaseModel):
    """How much of the spread between a passage's candidates is not noise.

    For one repeat, and for the mean of all.
    """

    single: Spread
    """Candidates compared within the same repeats."""
    averaged: Spread
    single_across: Spread
    """Across repeats: the one-way intraclass correlation of
    `seal.restem.statistics.reliability`."""
    averaged_across: Spread
    shared_noise: Spread
    """Share of one training's noise that a repeat gives all candidates of a passage alike, so that
    a comparison does not meet it."""


class PolicyFacts(BaseModel):
    """One policy. Gains are shares of right answers."""

    policy: str
    inner_loops: int
    """Trainings and evaluations of one passage."""
    gain: Spread | None
    """Measured: held-out reward of the chosen edit above that of a random one; None where the log
    cannot tell."""
    over_baseline: Spread | None
    """Measured: the same above the model without an adapter."""
    simulated_gain: Spread
    """`gain` in the fitted model."""


class Comparison(BaseModel):
    """The gain over a random edit of one policy, set against another's."""

    policy: str
    over: str
    inner_loops: tuple[int, int]
    simulated: bool
    ratio: float | None
    """None where the other gains nothing."""
    difference: Spread
    """Paired over passages."""


class JudgeFacts(BaseModel):
    """What a cache of verdicts by question, gold and normalised answer saves."""

    calls: JudgeCalls
    saved_as_logged: float
    """The baseline asked anew for each adapter."""
    saved_baseline_once: float
    """Beyond a baseline that is asked once per context."""
    saved_adapter: float
    """Of the adapted models' calls."""


class Replay(BaseModel):
    """The whole result."""

    command: str
    log: LogFacts
    reliability: ReliabilityFacts
    policies: list[PolicyFacts]
    comparisons: list[Comparison]
    judge: JudgeFacts
    resamples: int
    simulated_contexts: int


def replay_log(log: SealLog, *, command: str, seed: int, number: int, contexts: int) -> Replay:
    """All figures. `number`: bootstrap resamples of the passages; `contexts`: simulated contexts.

    Raises:
        InvalidInput: the log has one repeat of each edit.
    """
    passages, candidates, repeats = log.rewards_P_C_R.shape
    if repeats < 2:
        raise InvalidInput(
            "the log has one repeat of each edit, so that none can be held out",
            remedy="give a log with two or more",
        )
    picked_B_P = resamples(passages, number=number, seed=seed)
    squares = Squares.of(log.rewards_P_C_R)
    random_P = log.rewards_P_C_R.mean(axis=(1, 2))
    replayed = replayable(candidates, repeats)
    measured = {policy.name: replay(log.rewards_P_C_R, policy, seed=seed) for policy in replayed}
    policies = [*replayed, *(policy for policy in SIMULATED if policy not in replayed)]
    simulated = _simulate(policies, squares, picked_B_P, contexts=contexts, seed=seed)
    gains = {
        name: (_mean_and_resampled(rewards_P - random_P, picked_B_P))
        for name, rewards_P in measured.items()
    }
    facts = [
        PolicyFacts(
            policy=policy.name,
            inner_loops=policy.inner_loops,
            gain=spread(*gains[policy.name]) if policy in replayed else None,
            over_baseline=spread(
                *_mean_and_resampled(measured[policy.name] - log.baseline_P, picked_B_P)
            )
            if policy in replayed
            else None,
            simulated_gain=spread(*simulated[policy.name]),
        )
        for policy in policies
    ]
    loops = {policy.name: policy.inner_loops for policy in policies}
    return Replay(
        command=command,
        log=LogFacts(
            sha256=log.sha256,
            passages=passages,
            candidates=candidates,
            repeats=repeats,
            baseline=float(log.baseline_P.mean()),
            reward=float(random_P.mean()),
            level_at_cut=_level_at_cut(log.rewards_P_C_R) if candidates > 2 else None,
        ),
        reliability=_reliability(squares, picked_B_P),
        policies=facts,
        comparisons=[
            *_compare(gains, loops, simulated=False),
            *_compare(simulated, loops, simulated=True),
        ],
        judge=_judge(count_judge_calls(log.verdicts)),
        resamples=number,
        simulated_contexts=contexts,
    )


def replayable(candidates: int, repeats: int) -> list[Policy]:
    """Policies that leave a repeat of the log to hold out.

    They use fewer than all repeats of all candidates, or a race to two.
    """
    every = [Policy(candidates, number) for number in range(1, repeats)]
    return [*every, Policy(candidates, 2, (2,))] if repeats > 2 and candidates > 2 else every


def _level_at_cut(rewards_P_C_R: NDArray[np.float64]) -> float:
    ranked_P_C_R = -np.sort(-rewards_P_C_R, axis=1)
    return float(np.isclose(ranked_P_C_R[:, 1], ranked_P_C_R[:, 2]).mean())


Estimate = tuple[float, NDArray[np.float64]]
"""A number, and the same of every resample."""


def _mean_and_resampled(values_P: NDArray[np.float64], picked_B_P: NDArray[np.int64]) -> Estimate:
    return float(values_P.mean()), values_P[picked_B_P].mean(axis=1)


def _simulate(
    policies: list[Policy],
    squares: Squares,
    picked_B_P: NDArray[np.int64],
    *,
    contexts: int,
    seed: int,
) -> dict[str, Estimate]:
    """Gains by policy with the variances of the log, and with those of every resample."""
    candidates, repeats = (
        max(policy.candidates for policy in policies),
        max(policy.repeats for policy in policies),
    )
    simulation = Simulation(contexts=contexts, candidates=candidates, repeats=repeats, seed=seed)
    fitted, resampled = (
        squares.components(),
        [squares.components(picked_P) for picked_P in picked_B_P],
    )
    return {
        policy.name: (simulation.gain(policy, fitted), simulation.gains(policy, resampled))
        for policy in policies
    }


def _reliability(squares: Squares, picked_B_P: NDArray[np.int64]) -> ReliabilityFacts:
    def of(repeats: int, *, same_repeat: bool) -> Spread:
        value = squares.components(same_repeat=same_repeat).reliability_of(repeats)
        return spread(
            value,
            [
                squares.components(each, same_repeat=same_repeat).reliability_of(repeats)
                for each in picked_B_P
            ],
        )

    return ReliabilityFacts(
        single=of(1, same_repeat=True),
        averaged=of(squares.repeats, same_repeat=True),
        single_across=of(1, same_repeat=False),
        averaged_across=of(squares.repeats, same_repeat=False),
        shared_noise=spread(
            squares.shared_noise(), [squares.shared_noise(each) for each in picked_B_P]
        ),
    )


def _compare(
    gains: dict[str, Estimate], inner_loops: dict[str, int], *, simulated: bool
) -> list[Comparison]:
    found = []
    for policy, over in COMPARED:
        if policy in gains and over in gains:
            (value, resampled_B), (other, other_B) = gains[policy], gains[over]
            found.append(
                Comparison(
                    policy=policy,
                    over=over,
                    inner_loops=(inner_loops[policy], inner_loops[over]),
                    simulated=simulated,
                    ratio=value / other if other > 0 else None,
                    difference=spread(value - other, resampled_B - other_B),
                )
            )
    return found


def _judge(calls: JudgeCalls) -> JudgeFacts:
    return JudgeFacts(
        calls=calls,
        saved_as_logged=calls.saved_as_logged,
        saved_baseline_once=calls.saved_baseline_once,
        saved_adapter=calls.saved_adapter,
    )
