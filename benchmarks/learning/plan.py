"""Which runs are made: the arms, the passages and the run seeds, as one table of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Literal, get_args

from seal.config import load_run
from seal.errors import InvalidInput
from seal.records import Stage
from seal.resources import RestEMRun
from seal.settings import RunSpec

CorpusName = Literal["validation", "natural"]
"""`validation`: the embedded corpus. `natural`: passages of files that are given as arguments."""
ArmName = Literal["reward", "control", "warm", "abstain", "preselect"]
CORPORA: tuple[CorpusName, ...] = get_args(CorpusName)
ARM_NAMES: tuple[ArmName, ...] = get_args(ArmName)

Changes = Mapping[str, object]
"""Settings by dotted name, as `--set` has them."""

BOUNDS: Changes = MappingProxyType(
    {
        "validation.goldBound": True,
        "validation.equalSteps": True,
        "validation.openBook": True,
    }
)
"""Beside the passage alone at its own best, which every run has."""
NO_BOUNDS: Changes = MappingProxyType(dict.fromkeys(BOUNDS, False))
SHARED: Changes = MappingProxyType(
    {
        "inner.student": "base",
        "data.retained": "",
        "validation.retainedQueries": 0,
    }
)
"""What all arms change of the profile: adapters on the base model can be compared between rounds,
and forgetting is not what is measured here."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to make policies."""

    words: str
    """What it is, for the page."""
    changes: Changes
    """Its own settings."""
    shares: tuple[tuple[int, Stage], ...] = ()
    """Rounds and stages that it takes over from the reward run of its seed, in their order."""


BEFORE_ROLLOUTS = ((0, Stage.PREPARE), (0, Stage.VALIDATE))
BEFORE_SELECTION = (*BEFORE_ROLLOUTS, (1, Stage.ROLLOUT))
PURE: Changes = MappingProxyType(
    {
        "improve.credit": "part",
        "improve.selection": "reward",
        "improve.warmStart": "none",
        "improve.abstainShare": 0.0,
        "inner.preselect": 0,
    }
)

ARMS: Mapping[ArmName, Arm] = MappingProxyType(
    {
        "reward": Arm(
            words="pure ReST^EM: the M-step learns the parts that the inner loop credits",
            changes=PURE,
        ),
        "control": Arm(
            words="the same without reward: of each passage as many parts as credit would keep of "
            "its own rollout, drawn at random among the usable ones",
            changes={**PURE, "improve.selection": "random"},
            shares=BEFORE_SELECTION,
        ),
        "warm": Arm(
            words="supervised warm start on gold pairs of training passages, ReST^EM on top of it",
            changes={**PURE, "improve.warmStart": "gold"},
        ),
        "abstain": Arm(
            words="pure ReST^EM whose M-step also learns to write nothing where parts had no use: "
            "one row for every four parts that it keeps",
            changes={**PURE, "improve.abstainShare": 0.25},
            shares=BEFORE_SELECTION,
        ),
        "preselect": Arm(
            words="pure ReST^EM that trains on one of two candidates, the one that promises more "
            "by its pairs: half of the inner loops",
            changes={**PURE, "inner.preselect": 1},
            shares=BEFORE_ROLLOUTS,
        ),
    }
)
OWN_SETTINGS = tuple(
    name for name in PURE if any(arm.changes[name] != PURE[name] for arm in ARMS.values())
)
"""In which arms differ."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """An arm on a corpus."""

    corpus: CorpusName
    arm: ArmName
    pool: int
    """Training passages: the first ones of the file, 0 for all; all of the embedded corpus."""
    train: int
    """Of these, taken by a round; 0 for all."""
    validation: int
    """Validation passages: the first ones of the file, 0 for all."""
    rounds: int
    seeds: int
    """Run seeds, from 0."""
    bounds: int = 0
    """Run seeds, from 0, that also measure `BOUNDS`."""


_ON_NATURAL_TEXT = partial(Planned, corpus="natural", pool=32, train=32)
_ON_THE_CORPUS = partial(Planned, corpus="validation", pool=0, train=8, validation=0, rounds=2)
PLAN: tuple[Planned, ...] = (
    _ON_NATURAL_TEXT(arm="reward", validation=60, rounds=2, seeds=3, bounds=1),
    _ON_NATURAL_TEXT(arm="control", validation=60, rounds=2, seeds=3, bounds=1),
    _ON_THE_CORPUS(arm="reward", seeds=3, bounds=1),
    _ON_THE_CORPUS(arm="control", seeds=3, bounds=1),
    _ON_NATURAL_TEXT(arm="warm", validation=60, rounds=1, seeds=3),
    _ON_THE_CORPUS(arm="warm", seeds=1),
    _ON_THE_CORPUS(arm="abstain", seeds=1, bounds=1),
    _ON_THE_CORPUS(arm="preselect", seeds=1, bounds=1),
)
"""The arms that decide have 60 natural passages and three run seeds, the others one seed. A run
that begins as its reward run does takes that over. On natural text a round takes all training
passages: reward and control share the first one's rollout."""

TINY: Changes = MappingProxyType(
    {
        "rounds": 1,
        "edit.family": "self-qa-by-sentence",
        "edit.k": 2,
        "edit.maxTokens": 6,
        "inner.optimizer.epochs": 1,
        "inner.lora.rank": 2,
        "improve.optimizer.epochs": 1,
        "improve.lora.rank": 2,
        "evaluation.questionFormat": "plain",
        "evaluation.grader": "f1",
        "evaluation.maxTokens": 3,
        "maxUnscoredShare": 1.0,
    }
)
"""Every step on a random model, which writes no pairs."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of the plan."""

    corpus: CorpusName
    arm: ArmName
    seed: int
    planned: Planned
    changes: Changes
    """All that the run changes of its profile, data and seed apart."""

    @property
    def key(self) -> str:
        """How `--only` names it."""
        return f"{self.corpus}/{self.arm}/{self.seed}"

    @property
    def name(self) -> str:
        """Name of the run."""
        return f"learning-{self.corpus}-{self.arm}-{self.seed}"

    def spec(self, *, model: str, train: str, validation: str) -> RunSpec:
        """The run's spec on these data.

        Raises:
            InvalidInput: a setting is refused.
        """
        data = {
            "model": model,
            "seed": self.seed,
            "data.train": train,
            "data.validation": validation,
            "data.trainContexts": self.planned.train,
            "data.validationContexts": self.planned.validation,
        }
        return load_run(None, {**self.changes, **data}).spec

    def manifest(self, *, model: str, train: str, validation: str) -> RestEMRun:
        """The run as `seal run` would get it."""
        return RestEMRun.of(self.name, self.spec(model=model, train=train, validation=validation))


def planned_runs(
    plan: Sequence[Planned] = PLAN, *, changes: Changes = MappingProxyType({})
) -> tuple[PlannedRun, ...]:
    """All runs, in the order in which they are made: seed by seed, so that each seed is whole.

    `changes`: settings that win over those of the table, in all arms.
    """
    return tuple(
        PlannedRun(
            corpus=planned.corpus,
            arm=planned.arm,
            seed=seed,
            planned=planned,
            changes={
                **SHARED,
                "rounds": planned.rounds,
                **ARMS[planned.arm].changes,
                **(BOUNDS if seed < planned.bounds else NO_BOUNDS),
                **changes,
            },
        )
        for seed in range(max(planned.seeds for planned in plan))
        for planned in plan
        if seed < planned.seeds
    )


def tiny_plan(plan: Sequence[Planned] = PLAN) -> tuple[Planned, ...]:
    """The same arms on two passages and one run seed."""
    return tuple(
        replace(planned, pool=min(planned.pool, 2), train=2, validation=2, seeds=1)
        for planned in plan
    )


def pick(runs: Sequence[PlannedRun], only: str) -> tuple[PlannedRun, ...]:
    """Runs whose key is one of `natural/reward/0,validation` or begins so; all for no words.

    Raises:
        InvalidInput: words that name no run.
    """
    wanted = [words.strip().strip("/") for words in only.split(",") if words.strip()]
    for words in wanted:
        if not any(_names(words, run) for run in runs):
            raise InvalidInput(
                f"--only: {words!r} names no run of the plan",
                field="only",
                remedy="use some of: " + ", ".join(run.key for run in runs),
            )
    return tuple(run for run in runs if not wanted or any(_names(words, run) for words in wanted))


def _names(words: str, run: PlannedRun) -> bool:
    return f"{run.key}/".startswith(f"{words}/")


def lender_of(run: PlannedRun, runs: Sequence[PlannedRun]) -> PlannedRun | None:
    """The reward run whose first stages it shares; None if it shares none."""
    if not ARMS[run.arm].shares:
        return None
    return next(
        (
            other
            for other in runs
            if (other.corpus, other.arm, other.seed) == (run.corpus, "reward", run.seed)
        ),
        None,
    )
