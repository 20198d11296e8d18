"""P7: whether edits get the same rewards when trained in `clean` mode and in `parity`.

`parity` is how the reference trains them.

Parity mode fills every row up with end-of-sequence tokens that count as targets. The published
length is 2,048; it is computed in full, so this figure fills up to `agreement_tokens`, an eighth of
the cost, and says how many targets are padding.

Every edit is trained `agreement_seeds` times in either mode, each time with other seeds for initial
weights and order, on the same engine with the published settings; then the adapted model is asked
the passage's questions. An edit's reward is the mean over its questions of log p of the gold answer
(the figure) or of the answer's token F1 (in the details).

A reward is noisy between seeds, so the figure, Spearman's correlation of the edits' rewards between
a clean training and one of the mode under *other* seeds, is held against the same correlation
between two clean trainings under different seeds. There is a significant drop if the 95 % interval
of (clean with clean) - (clean with mode), a bootstrap over passages, lies above 0. A mode whose own
rewards are noisier between seeds agrees less with anything: the details give its correlation with
itself. Overall correlations are mostly between passages; the details give them within passages too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import (
    Setting,
    engine_on,
    load_model,
    make_figure,
    train_all,
    training_request,
)
from benchmarks.data import EditCase
from benchmarks.evaluation import evaluate_all, evaluation_request
from benchmarks.figures import Figure, Figures
from benchmarks.ranks import Agreement, Scores, agreement, bootstrap, spearman, within_contexts
from seal.domains import get_domain
from seal.engine import Engine, EvaluationResult
from seal.engine.text import ModelText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEYS = ("P7",)
CLEAN, PARITY = "clean", "parity"


@dataclass(frozen=True)
class Rewards:
    """Rewards of all edits after one training each."""

    logprob_E: Scores
    f1_E: Scores


def measure(setting: Setting, wanted: Collection[str], *, mode: str = PARITY) -> Figures:
    """Train every edit in both modes under every seed."""
    sizes = setting.sizes
    cases = setting.cases.grid(
        sizes.agreement_contexts, sizes.agreement_edits, queries=sizes.evaluation_queries
    )
    conditions = [
        (side, kind, seed)
        for seed in range(sizes.agreement_seeds)
        for side, kind in enumerate((CLEAN, mode))
    ]
    rewards: tuple[list[Rewards], list[Rewards]] = ([], [])
    model = load_model(setting)
    padding = _padding_share(model.tokenizer, cases, _pad_to_tokens(setting, mode))
    with engine_on(model, slots=sizes.slots) as engine:
        for done, (side, kind, seed) in enumerate(conditions):
            setting.report(f"P7 rewards, {kind}", done, len(conditions))
            rewards[side].append(_rewards(setting, engine, cases, kind, seed))
    setting.report("P7 rewards", len(conditions), len(conditions))
    return {"P7": _figure(setting, cases, *rewards, mode, padding)}


def _pad_to_tokens(setting: Setting, kind: str) -> int:
    """Tokens up to which a mode fills a row."""
    return setting.sizes.agreement_tokens if kind == PARITY else 0


def _padding_share(
    tokenizer: PreTrainedTokenizerBase, cases: Sequence[EditCase], pad_to_tokens: int
) -> float:
    """Share of the targets that are padding."""
    text = ModelText(tokenizer, name="reference")
    rows = [
        text.example(*example, pad_to_tokens=pad_to_tokens)
        for case in cases
        for example in case.examples
    ]
    return sum(row.pads for row in rows) / sum(row.targets for row in rows)


def _rewards(
    setting: Setting, engine: Engine, cases: Sequence[EditCase], kind: str, seed: int
) -> Rewards:
    """One training and evaluation of every edit."""
    sizes = setting.sizes
    pad_to_tokens = _pad_to_tokens(setting, kind)
    trainings = [
        training_request(
            case, epochs=sizes.agreement_epochs, seed=seed, pad_to_tokens=pad_to_tokens
        )
        for case in cases
    ]
    trained = train_all(engine, trainings)
    requests = [
        evaluation_request(
            engine,
            case,
            result.adapter,
            queries=len(case.context.queries),
            max_tokens=sizes.answer_tokens,
        )
        for case, result in zip(cases, trained, strict=True)
    ]
    hold = training_request(cases[0], epochs=1, seed=0)
    answered, _ = evaluate_all(engine, requests, hold=hold)
    f1 = [_f1(case, result) for case, result in zip(cases, answered, strict=True)]
    return Rewards(np.array([mean(result.logprobs) for result in answered]), np.array(f1))


def _f1(case: EditCase, result: EvaluationResult) -> float:
    domain = get_domain("knowledge")
    pairs = zip(result.answers, case.context.queries, strict=True)
    grades = [
        domain.grade("f1", domain.clean_answer(answer, "plain"), query.answers, None)
        for answer, query in pairs
    ]
    return mean(grade for grade in grades if grade is not None)


def _figure(
    setting: Setting,
    cases: Sequence[EditCase],
    clean: Sequence[Rewards],
    mode: Sequence[Rewards],
    name: str,
    padding: float,
) -> Figure:
    contexts = [case.context.context_id for case in cases]
    views = {
        "log p": ([one.logprob_E for one in clean], [one.logprob_E for one in mode]),
        "F1": ([one.f1_E for one in clean], [one.f1_E for one in mode]),
    }
    views |= {
        f"{view}, within passages": tuple(
            [within_contexts(one_E, contexts) for one_E in side] for side in sides
        )  # type: ignore[misc]
        for view, sides in views.items()
    }
    details = {
        "n": f"{len(cases)} edits of {len(set(contexts))} passages, {len(clean)} seeds in each "
        "mode",
        "padding": f"{100 * padding:.0f} % of the targets ({name})",
    }
    drops: dict[str, tuple[float, float]] = {}
    for view, sides in views.items():
        details[view], drops[view] = _compare(
            contexts, *sides, resamples=setting.sizes.agreement_resamples
        )
    first_clean, first_mode = views["log p"]
    same = mean(spearman(one, other) for one, other in zip(first_clean, first_mode, strict=True))
    details["same seeds, log p"] = f"{same:.3f}"
    for view in ("log p", "F1"):
        means = [float(np.mean(side)) for side in views[view]]
        details[f"mean {view}"] = f"{means[0]:.3f} (clean), {means[1]:.3f} ({name})"
    pairs = permutations(range(len(clean)), 2)
    return make_figure(
        setting,
        "P7",
        [spearman(first_clean[i], first_mode[j]) for i, j in pairs],
        value=agreement(first_clean, first_mode).across,
        reading=f"mean over pairs of different seeds of Spearman(log p clean, log p {name}); met "
        "unless the drop's interval lies above 0",
        details=details,
        sizes=(
            *(
                "agreement_contexts",
                "agreement_edits",
                "agreement_seeds",
                "agreement_epochs",
                "agreement_tokens",
            ),
            *("answer_tokens", "agreement_resamples"),
        ),
        met=not drops["log p"][0] > 0,
    )


def _compare(
    contexts: Sequence[str], clean: Sequence[Scores], mode: Sequence[Scores], *, resamples: int
) -> tuple[str, tuple[float, float]]:
    """What one reward says, in words, and the interval of the drop."""

    def pick(index_B: NDArray[np.intp]) -> Agreement:
        return agreement([one[index_B] for one in clean], [one[index_B] for one in mode])

    def statistic(index_B: NDArray[np.intp]) -> dict[str, float]:
        drawn = pick(index_B)
        return {
            "across": drawn.across,
            "ceiling": drawn.ceiling,
            "own": drawn.own,
            "drop": drawn.drop,
        }

    whole = pick(np.arange(len(contexts)))
    intervals = bootstrap(contexts, statistic, resamples=resamples)
    if not np.isfinite(whole.drop):
        return "no correlation: in one of the trainings every edit has the same reward", intervals[
            "drop"
        ]
    words = ", ".join(
        f"{label} {value:.3f} [{intervals[key][0]:.3f}, {intervals[key][1]:.3f}]"
        for label, key, value in (
            ("clean with the mode", "across", whole.across),
            ("clean with clean", "ceiling", whole.ceiling),
            ("the mode with itself", "own", whole.own),
            ("drop", "drop", whole.drop),
        )
    )
    return words, intervals["drop"]
