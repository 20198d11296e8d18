"""The inner loop: one candidate's adapter, trained and asked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from pydantic import Field

from seal.errors import InvalidInput
from seal.settings.base import FileSettings
from seal.settings.edits import ExampleSettings
from seal.settings.training import LoraSettings, OptimizerSettings

RacingScore = Literal["reward", "logprob"]
"""What the first rung ranks by."""


PreselectBy = Literal["gold", "rubric"]
"""What says which candidates promise most."""


class InnerLoopSettings(FileSettings):
    """Training of one candidate's adapter."""

    student: Literal["base", "policy"] = "policy"
    """What learns an edit and is asked: the policy that wrote it, as published, or the `base` model
    alone. Over the base the policy only writes: adapters do not drift with it and are served
    without it, and what a context's baseline and bounds are is the same in every round."""
    lora: LoraSettings = LoraSettings()
    """Shape of the adapter."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """How it is trained."""
    examples: ExampleSettings = ExampleSettings()
    """What it is trained on."""
    repeats: int = Field(default=3, ge=1, le=100)
    """Trainings per candidate, each with its own seeds; the reward is their mean."""
    preselect: int = Field(default=0, ge=0, le=1024)
    """In a rollout, how many candidates of a context are trained on, those that promise most by
    `preselectBy`; 0 trains on all. Validation always trains on all."""
    preselect_by: PreselectBy = "gold"
    """What says which candidates promise most: their pairs' likeness to the context's questions and
    gold answers (seal.restem.preselect), or the `rubric` by which the judge's model at the
    evaluator's endpoint rates an edit, without seeing a question of the context."""
    racing: tuple[int, ...] = ()
    """In a rollout, how many candidates of a context are trained again after each repeat but the
    last, the best first: `[2]` with 2 repeats of 5 candidates takes 7 trainings instead of 10, `[3,
    2]` with 3 repeats of 10 takes 15. Of whole edits only those that ran all repeats can be kept;
    parts get their credit from every repeat there is. Empty: every candidate gets all repeats.
    Bounds and validation always get all: a race would flatter what it measures."""
    racing_score: RacingScore = "reward"
    """What the first repeat of a race ranks by: the reward, or the mean log-probability of the gold
    answers, which is finer than a few right or wrong answers. It is measured with every reward, so
    that it costs nothing and saves nothing. Later repeats rank by the mean reward."""


def check_survivors(survivors: Sequence[int], *, candidates: int, repeats: int) -> None:
    """Refuse a schedule that is no race.

    Raises:
        InvalidInput: numbers that do not fall strictly from below `candidates` to 1 or more, or not
            one number per repeat but the last.
    """
    sizes = (candidates, *survivors)
    shown = list(survivors)
    if survivors[-1] < 1 or any(after >= before for before, after in pairwise(sizes)):
        raise InvalidInput(
            f"survivors {shown} of {candidates} candidates do not become fewer with every repeat",
            field="inner.racing",
            remedy=f"give numbers that fall strictly, from below edit.k = {candidates} (or "
            "inner.preselect) to 1 or more, or none",
        )
    if len(sizes) != repeats:
        raise InvalidInput(
            f"a race to {shown} has {len(sizes)} repeats, but inner.repeats is {repeats}",
            field="inner.racing",
            remedy=f"set inner.repeats to {len(sizes)}, or inner.racing to "
            f"{'[]' if repeats == 1 else f'{repeats - 1} numbers'}",
        )
