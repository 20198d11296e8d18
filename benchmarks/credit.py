"""How well the credit of parts finds those that help, on simulated inner loops.

    python -m benchmarks.credit [--contexts 200]

A simulated context has queries, part prompts and, for each prompt, a few texts that the policy may
write. An adapted model's answer to a query comes from one of the pairs it was trained on, the
likelier the closer their questions are, or from the passage. What a part is worth is known: what
the expected number of right answers loses without it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seal.restem.credit import Trial, credit_parts

QUERIES = 6
PROMPTS = 24
TEXTS = 4
"""Different texts that the policy writes for a prompt."""
WRONG_ANSWERS = 6
"""Answers 1 to 6 of a query are wrong, 0 is right."""
THRESHOLD = 0.05
"""Credit above which a part counts as kept, queries."""


@dataclass(frozen=True, kw_only=True)
class SimulatedContext:
    """Inner loops of one context, with the truth about its parts."""

    held_C_P: NDArray[np.bool_]
    """Parts of each candidate."""
    affinity_P_Q: NDArray[np.float64]
    """As it is measured: with error, and not 0 for some pairs that have nothing to do with it."""
    says_P_Q: NDArray[np.int_]
    """The answer that each pair teaches for a query."""
    answers_C_R_Q: NDArray[np.int_]
    scores_C_R_Q: NDArray[np.float64]
    baseline_Q: NDArray[np.float64]
    worth_P: NDArray[np.float64]
    """Expected right answers that a part adds; NaN for one that no candidate has."""
    idle_P: NDArray[np.bool_]
    """Parts that can do nothing."""


def simulate(
    rng: np.random.Generator, *, candidates: int, repeats: int, all_idle: bool = False
) -> SimulatedContext:
    """One context. `all_idle`: no part has any effect, and every answer is the passage's."""
    parts = PROMPTS * TEXTS
    about_P = np.repeat(
        np.where(rng.random(PROMPTS) < 0.6, rng.integers(0, QUERIES, PROMPTS), -1), TEXTS
    )
    closeness_P_Q = np.where(
        rng.random((parts, QUERIES)) < 0.15, rng.beta(1.5, 6, (parts, QUERIES)), 0.0
    )
    aimed = np.flatnonzero(about_P >= 0)
    closeness_P_Q[aimed, about_P[aimed]] = rng.beta(4, 3, len(aimed))
    closeness_P_Q *= not all_idle
    says_P_Q = rng.integers(0, WRONG_ANSWERS + 1, (parts, QUERIES))
    says_P_Q[aimed, about_P[aimed]] = np.where(
        rng.random(len(aimed)) < 0.4, 0, rng.integers(1, WRONG_ANSWERS + 1, len(aimed))
    )
    stray = (rng.random((parts, QUERIES)) < 0.08) * rng.beta(1.5, 5, (parts, QUERIES))
    error = 0.1 * rng.standard_normal((parts, QUERIES)) * (closeness_P_Q > 0)
    held = _sample_texts(rng, candidates)
    of_passage_Q = np.clip(rng.beta(0.6, 1.2, QUERIES), 0, 1)
    weight_P_Q, passage = np.expm1(4.0 * closeness_P_Q), float(np.expm1(2.0))
    answers = _answers(rng, held, weight_P_Q, passage, of_passage_Q, says_P_Q, repeats)
    return SimulatedContext(
        held_C_P=held,
        affinity_P_Q=np.clip(closeness_P_Q + error + stray, 0, 1),
        says_P_Q=says_P_Q,
        answers_C_R_Q=answers,
        scores_C_R_Q=(answers == 0).astype(float),
        baseline_Q=(rng.random(QUERIES) < 0.7 * of_passage_Q).astype(float),
        worth_P=_worth(held, weight_P_Q, passage, of_passage_Q, says_P_Q == 0),
        idle_P=closeness_P_Q.max(axis=1) == 0,
    )


def _sample_texts(rng: np.random.Generator, candidates: int) -> NDArray[np.bool_]:
    """Which text each candidate has for each prompt; about a third of the prompts give none."""
    chances = rng.dirichlet(np.ones(TEXTS), PROMPTS)
    held = np.zeros((candidates, PROMPTS, TEXTS), dtype=bool)
    for candidate in range(candidates):
        for prompt in np.flatnonzero(rng.random(PROMPTS) < 0.65):
            held[candidate, prompt, rng.choice(TEXTS, p=chances[prompt])] = True
    return held.reshape(candidates, PROMPTS * TEXTS)


def _answers(
    rng: np.random.Generator,
    held_C_P: NDArray[np.bool_],
    weight_P_Q: NDArray[np.float64],
    passage: float,
    of_passage_Q: NDArray[np.float64],
    says_P_Q: NDArray[np.int_],
    repeats: int,
) -> NDArray[np.int_]:
    """What each adapted model says: half of its luck is that of the repeat (shared seeds)."""
    candidates, parts = held_C_P.shape
    answers = np.empty((candidates, repeats, QUERIES), dtype=np.int_)
    with np.errstate(divide="ignore"):
        log_weight_P_Q = np.log(weight_P_Q)
    for repeat in range(repeats):
        shared = rng.gumbel(size=(parts + 1, QUERIES))
        by_passage_Q = np.where(
            rng.random(QUERIES) < of_passage_Q, 0, rng.integers(1, WRONG_ANSWERS + 1, QUERIES)
        )
        for candidate in range(candidates):
            own = rng.gumbel(size=shared.shape)
            luck = np.where(rng.random(shared.shape) < 0.5, own, shared)
            pull = np.where(held_C_P[candidate][:, None], log_weight_P_Q, -np.inf)
            source_Q = np.argmax(np.vstack([pull, np.full(QUERIES, np.log(passage))]) + luck, 0)
            said = np.vstack([says_P_Q, by_passage_Q])
            answers[candidate, repeat] = said[source_Q, np.arange(QUERIES)]
    return answers


def _worth(
    held_C_P: NDArray[np.bool_],
    weight_P_Q: NDArray[np.float64],
    passage: float,
    of_passage_Q: NDArray[np.float64],
    right_P_Q: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Expected right answers that a part adds, mean over the candidates that have it."""

    def expected(held_P: NDArray[np.bool_]) -> float:
        weight = weight_P_Q * held_P[:, None]
        right = (weight * right_P_Q).sum(axis=0) + passage * of_passage_Q
        return float((right / (weight.sum(axis=0) + passage)).sum())

    worth = np.full(held_C_P.shape[1], np.nan)
    for part in np.flatnonzero(held_C_P.any(axis=0)):
        holders = held_C_P[held_C_P[:, part]]
        without = holders.copy()
        without[:, part] = False
        worth[part] = np.mean(
            [expected(a) - expected(b) for a, b in zip(holders, without, strict=True)]
        )
    return worth


def trials_of(context: SimulatedContext, *, agreement: bool = True) -> list[Trial]:
    """The inner loops as the estimator takes them; some answers agree by a common word only."""
    trials = []
    for candidate, held_P in enumerate(context.held_C_P):
        parts = np.flatnonzero(held_P)
        for repeat, answers_Q in enumerate(context.answers_C_R_Q[candidate]):
            says = context.says_P_Q[parts]
            alike = np.where(says == answers_Q, 1.0, 0.3 * ((says + answers_Q) % 7 == 0))
            trials.append(
                Trial(
                    candidate=candidate,
                    repeat=repeat,
                    parts=tuple(int(part) for part in parts),
                    responsibility_P_Q=context.affinity_P_Q[parts] * (alike if agreement else 1.0),
                    scores_Q=tuple(context.scores_C_R_Q[candidate, repeat].tolist()),
                )
            )
    return trials


def by_credit(context: SimulatedContext, *, agreement: bool = True) -> NDArray[np.float64]:
    """Credit of each part; no evidence is 0."""
    found = credit_parts(
        trials_of(context, agreement=agreement),
        parts=len(context.worth_P),
        baseline_Q=context.baseline_Q.tolist(),
    )
    return np.array([credit or 0.0 for credit in found])


def by_whole_edit(context: SimulatedContext) -> NDArray[np.float64]:
    """Each part gets the gain of the edits that have it."""
    gain_C = context.scores_C_R_Q.mean(axis=(1, 2)) - context.baseline_Q.mean()
    holders_P = np.maximum(context.held_C_P.sum(axis=0), 1)
    gain_P: NDArray[np.float64] = gain_C @ context.held_C_P / holders_P
    return gain_P


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's; 0 where one of the two is constant."""
    ranks = np.vstack([_ranks(first), _ranks(second)])
    if not np.ptp(ranks, axis=1).all():
        return 0.0
    first, second = ranks - ranks.mean(axis=1, keepdims=True)
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts + 1) / 2)[inverse]
    return ranks


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one design, means over the contexts."""

    whole_edit: float
    """Rank correlation of whole-edit selection with the truth."""
    without_agreement: float
    credit: float
    kept: float
    """Parts above the threshold, per context."""
    kept_worth: float
    """Mean true worth of these, queries."""
    any_worth: float
    """Mean true worth of any part."""
    idle_kept: float
    """Share of the parts that can do nothing which are above the threshold."""


def measure(*, candidates: int, repeats: int, contexts: int, seed: int = 0) -> Figures:
    """Simulate contexts and compare what each rule says of their parts with the truth."""
    whole, plain, credit, kept = [], [], [], []
    kept_worth: list[float] = []
    any_worth: list[float] = []
    idle: list[bool] = []
    for number in range(contexts):
        rng = np.random.default_rng([seed, candidates, repeats, number])
        context = simulate(rng, candidates=candidates, repeats=repeats)
        there = ~np.isnan(context.worth_P)
        worth, found = context.worth_P[there], by_credit(context)[there]
        whole.append(rank_correlation(by_whole_edit(context)[there], worth))
        plain.append(rank_correlation(by_credit(context, agreement=False)[there], worth))
        credit.append(rank_correlation(found, worth))
        kept.append(np.count_nonzero(found > THRESHOLD))
        kept_worth.extend(worth[found > THRESHOLD])
        any_worth.extend(worth)
        idle.extend(found[context.idle_P[there]] > THRESHOLD)
    return Figures(
        whole_edit=float(np.mean(whole)),
        without_agreement=float(np.mean(plain)),
        credit=float(np.mean(credit)),
        kept=float(np.mean(kept)),
        kept_worth=float(np.mean(kept_worth)) if kept_worth else 0.0,
        any_worth=float(np.mean(any_worth)),
        idle_kept=float(np.mean(idle)),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", type=int, default=200, help="simulated contexts a design")
    contexts = parser.parse_args().contexts
    print(
        "| candidates x repeats | whole edit | without agreement | credit | kept | their worth "
        "| any part's worth | idle parts kept |\n|---|---|---|---|---|---|---|---|"
    )
    for candidates in (1, 2, 4, 8):
        for repeats in (1, 2, 3):
            found = measure(candidates=candidates, repeats=repeats, contexts=contexts)
            print(
                f"| {candidates} x {repeats} | {found.whole_edit:.2f} | "
                f"{found.without_agreement:.2f} | {found.credit:.2f} | {found.kept:.1f} | "
                f"{found.kept_worth:+.2f} | {found.any_worth:+.2f} | {found.idle_kept:.1%} |"
            )


if __name__ == "__main__":
    main()
