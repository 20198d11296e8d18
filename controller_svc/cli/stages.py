"""How far a run is, from what the controller tells.

The stage, the work of its shards together, and what finished stages came to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controller_svc.core import Phase, RunStatus, Stage, stages
from controller_svc.worker.progress import TaskProgress
from seal.records import ScoreSum
from seal.report.numbers.formats import METRIC_NAMES, duration, plural, score
from seal.settings import RunSpec


@dataclass(frozen=True, kw_only=True)
class Amount:
    """One kind of work of a stage."""

    label: str
    done: int
    total: int
    share: float | None = None
    """Finer than done / total, where it is known."""
    eta_seconds: float | None = None

    @property
    def fraction(self) -> float:
        """Share that is done, in [0, 1]."""
        return (
            self.share if self.share is not None else self.done / self.total if self.total else 0.0
        )

    @property
    def text(self) -> str:
        """12/96."""
        return f"{self.done}/{self.total}"


class StageTracker:
    """Follows one run.

    Work that was found finished counts as done, but not for the time that is left.
    """

    def __init__(self, spec: RunSpec, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._spec, self._clock = spec, clock
        self._plan = stages(spec)
        self._now: tuple[int, Stage] | None = None
        self._shards: dict[int, TaskProgress] = {}
        self._pace: dict[str, _Pace] = {}

    @property
    def title(self) -> str:
        """Round 1 of 2, rollout."""
        return _title(self._now, self._spec.rounds) if self._now else ""

    @property
    def stages_done(self) -> int:
        """Stages before the current one."""
        return self._plan.index(self._now) if self._now in self._plan else 0

    @property
    def stages_total(self) -> int:
        """Stages of the run."""
        return len(self._plan)

    @property
    def run_fraction(self) -> float:
        """Share of the stages that is done.

        The current one counts by the mean of its kinds of work.
        """
        parts = [amount.fraction for amount in self.amounts() if amount.total]
        return (self.stages_done + (sum(parts) / len(parts) if parts else 0.0)) / len(self._plan)

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the end of the stage: of its slowest shard; None if unknown."""
        known = [
            progress.eta_seconds
            for progress in self._shards.values()
            if progress.eta_seconds is not None
        ]
        return max(known) if known and len(known) == len(self._shards) else None

    def got_on(self, progress: TaskProgress) -> None:
        """Take a snapshot of one shard."""
        if (progress.round, progress.stage) == self._now:
            self._shards[progress.shard] = progress

    def amounts(self) -> tuple[Amount, ...]:
        """Generation, training and evaluation of the stage, over all its shards."""
        shards = self._shards.values()
        trainings = sum(shard.trainings_total for shard in shards)
        trained = sum(shard.training_fraction * shard.trainings_total for shard in shards)
        return (
            self._amount(
                "edits",
                sum(shard.edits_done for shard in shards),
                sum(shard.edits_total for shard in shards),
            ),
            self._amount(
                "trainings",
                sum(shard.trainings_done for shard in shards),
                trainings,
                trained / trainings if trainings else None,
            ),
            self._amount(
                "answers",
                sum(shard.evaluated_queries for shard in shards),
                sum(shard.queries_total for shard in shards),
            ),
        )

    def _amount(self, label: str, done: int, total: int, share: float | None = None) -> Amount:
        fraction = share if share is not None else done / total if total else 0.0
        pace = self._pace.setdefault(label, _Pace(fraction, self._clock()))
        return Amount(
            label=label,
            done=done,
            total=total,
            share=share,
            eta_seconds=pace.eta_seconds(fraction, self._clock()),
        )

    def moved(self, status: RunStatus, *, say_start: bool = True) -> list[str]:
        """Lines to say after a change of status: the stage that ended, the one that begins."""
        now = (
            (status.round, status.stage)
            if status.stage is not None and status.phase is Phase.RUNNING
            else None
        )
        if now == self._now:
            return []
        lines = (
            [self._ended(self._now, status)]
            if self._now and status.phase is not Phase.FAILED
            else []
        )
        self._now, self._shards, self._pace = now, {}, {}
        if now and say_start:
            lines.append(f"{self.title} ({self.stages_done + 1} of {len(self._plan)} stages) ...")
        return [line for line in lines if line]

    def _ended(self, stage: tuple[int, Stage], status: RunStatus) -> str:
        """What a stage came to."""
        number, kind = stage
        entry = next((entry for entry in status.rounds if entry.round == number), None)
        if entry is None:
            return ""
        spent = duration(entry.seconds.get(str(kind), 0.0))
        head = f"{_title(stage, self._spec.rounds)}: done in {spent}"
        if kind is Stage.IMPROVE:
            policy = next((policy for policy in status.policies if policy.round == number), None)
            resumed = sum(shard.resumed_steps for shard in self._shards.values())
            head += f" (resumed at step {resumed})" if resumed else ""
            return f"{head}, kept {plural(entry.kept, 'edit')}" + (
                "" if policy and policy.trained else ", the policy stays as it was"
            )
        loops = sum(shard.inner_loops_total for shard in self._shards.values())
        resumed = sum(shard.inner_loops_resumed for shard in self._shards.values())
        work = (
            f", {plural(loops, 'inner loop')}"
            + (f" ({resumed} of them resumed)" if resumed else "")
            if loops
            else ""
        )
        return (
            head + work + self._reward(entry.rollout if kind is Stage.ROLLOUT else entry.validation)
        )

    def _reward(self, scores: Mapping[str, ScoreSum]) -> str:
        """Mean reward of the self-edits and before."""
        grader = self._spec.evaluation.grader
        means = {
            name: scores[name].mean for name in ("baseline", "passage", "edit") if name in scores
        }
        names = {"baseline": "before", "passage": "passage only", "edit": "self-edits"}
        shown = ", ".join(
            f"{names[name]} {score(mean, 'score', grader)}"
            for name, mean in means.items()
            if mean is not None
        )
        return f"; {METRIC_NAMES[grader]}: {shown}" if shown else ""


class _Pace:
    """Time that is left of one kind of work, from what was done since it began to move."""

    def __init__(self, fraction: float, now: float) -> None:
        self._start = (fraction, now)
        self._still = True

    def eta_seconds(self, fraction: float, now: float) -> float | None:
        """None until it has moved a little."""
        first, since = self._start
        if self._still and fraction <= first:
            self._start = (fraction, now)
            return None
        self._still = False
        done, elapsed = fraction - first, now - since
        return elapsed * (1 - fraction) / done if done > 0 and elapsed > 0 else None


def _title(stage: tuple[int, Stage], rounds: int) -> str:
    number, kind = stage
    return f"round {number} of {rounds}, {kind}"
