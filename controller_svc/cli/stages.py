"""How far a run is, from what the controller tells.

The stage, the work of its shards together, and what finished stages came to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controller_svc.cli.estimate import Place, RunEstimate
from controller_svc.cli.workload import StageWork
from controller_svc.core import (
    Phase,
    RunStatus,
    StageStatus,
    is_warm_start,
    parse_ranges,
    share_of_stage,
    stages,
)
from controller_svc.worker.progress import TaskProgress
from seal.domains import get_domain
from seal.records import WARM_START, ScoreSum, Stage
from seal.report.numbers.formats import GRADER_NAMES, duration, plural, score
from seal.settings import RunSpec


@dataclass(frozen=True, kw_only=True)
class Amount:
    """One kind of work of a stage."""

    label: str
    done: int
    total: int
    share: float | None = None
    """Finer than done / total, where it is known."""

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

    def __init__(
        self,
        spec: RunSpec,
        work: Sequence[StageWork] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`work`: the expected work of all stages; without it every stage counts the same."""
        self._spec = spec
        self._plan = stages(spec)
        self._work = {(one.round, one.stage): one for one in work}
        costs = {
            place: self._work[place].cost if place in self._work else 1.0 for place in self._plan
        }
        self._estimate = RunEstimate(costs, clock=clock)
        self._now: Place | None = None
        self._current: StageStatus | None = None
        self._labels: dict[int, str] = {}
        self._shards: dict[int, TaskProgress] = {}
        self._found: dict[int, float] = {}

    @property
    def title(self) -> str:
        """Round 1 of 2, rollout."""
        return self._title(self._now) if self._now else ""

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
        """Share of the run's expected work that is done."""
        return self._estimate.share

    @property
    def stage_fraction(self) -> float:
        """Share of the stage's expected work that is done."""
        if self._current is None:
            return 0.0
        told = {shard: self._share_of(progress) for shard, progress in self._shards.items()}
        return share_of_stage(self._current, told)

    def stage_seconds(self) -> float | None:
        """Seconds to the end of the stage, to be shown; None if unknown."""
        return self._estimate.stage_seconds()

    def run_seconds(self) -> float | None:
        """Seconds to the end of the run, to be shown; None if unknown."""
        return self._estimate.run_seconds()

    def got_on(self, progress: TaskProgress) -> None:
        """Take a snapshot of one shard."""
        if (progress.round, progress.stage) != self._now:
            return
        # What the first snapshot of a shard shows, an earlier attempt had finished
        self._found.setdefault(progress.shard, self._share_of(progress))
        self._shards[progress.shard] = progress
        self._reckon()

    def _note(self, current: StageStatus | None) -> None:
        """Take which shards of the stage have ended."""
        self._current = current
        if current is not None:
            # Those that an earlier attempt had finished are found done, and tell nothing
            self._found = dict.fromkeys(parse_ranges(current.completed), 1.0) | self._found
            self._reckon()

    def _reckon(self) -> None:
        """Reckon the time left anew."""
        if self._current is not None:
            found = sum(self._found.values()) / self._current.shards
            self._estimate.moved(self.stage_fraction, found=found)

    def _share_of(self, progress: TaskProgress) -> float:
        """Share of a shard's expected work that is done: its kinds by what they cost."""
        work = self._work.get((progress.round, progress.stage))
        return progress.share if work is None else progress.share_by(work.costs)

    def amounts(self) -> tuple[Amount, ...]:
        """Generation, training and evaluation of the stage, over all its shards."""
        shards = self._shards.values()
        trainings = sum(shard.trainings_total for shard in shards)
        trained = sum(shard.training_fraction * shard.trainings_total for shard in shards)
        return (
            _amount(
                "edits",
                sum(shard.edits_done for shard in shards),
                sum(shard.edits_total for shard in shards),
            ),
            _amount(
                "trainings",
                sum(shard.trainings_done for shard in shards),
                trainings,
                trained / trainings if trainings else None,
            ),
            _amount(
                "answers",
                sum(shard.evaluated_queries for shard in shards),
                sum(shard.queries_total for shard in shards),
            ),
        )

    def moved(self, status: RunStatus, *, say_start: bool = True) -> list[str]:
        """Lines to say after a change of status: the stage that ended, the one that begins."""
        now = (
            (status.round, status.stage)
            if status.stage is not None and status.phase is Phase.RUNNING
            else None
        )
        current = status.current if now else None
        if now == self._now:
            self._note(current)
            return []
        self._labels = {entry.round: entry.label for entry in status.rounds}
        lines = (
            [self._ended(self._now, status)]
            if self._now and status.phase is not Phase.FAILED
            else []
        )
        self._now, self._shards, self._found = now, {}, {}
        self._estimate.enter(now)
        self._note(current)
        if now and say_start:
            lines.append(f"{self.title} ({self.stages_done + 1} of {len(self._plan)} stages) ...")
        return [line for line in lines if line]

    def _title(self, stage: tuple[int, Stage]) -> str:
        number, kind = stage
        warm = WARM_START if is_warm_start(number, kind) else ""
        label = self._labels.get(number) or warm
        return f"round {number} of {self._spec.rounds}{f' ({label})' if label else ''}, {kind}"

    def _ended(self, stage: tuple[int, Stage], status: RunStatus) -> str:
        """What a stage came to."""
        number, kind = stage
        entry = next((entry for entry in status.rounds if entry.round == number), None)
        if entry is None:
            return ""
        spent = duration(entry.seconds.get(str(kind), 0.0))
        longest = "" if self._spec.shards == 1 else ", its longest shard"
        head = f"{self._title(stage)}: done{longest} in {spent}"
        if kind is Stage.IMPROVE:
            policy = next((policy for policy in status.policies if policy.round == number), None)
            resumed = sum(shard.resumed_steps for shard in self._shards.values())
            head += f" (resumed at step {resumed})" if resumed else ""
            stays = "" if policy and policy.trained else ", the policy stays as it was"
            if number == 0:
                return f"{head}, learnt {plural(entry.kept_parts, 'gold row')}{stays}"
            parts = f"{plural(entry.kept_parts, 'part')} of "
            return (
                f"{head}, kept {parts if self._spec.improve.credit == 'part' else ''}"
                + plural(entry.kept, "edit")
                + stays
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
        bounds = get_domain(self._spec.domain).words.short_rows
        names = {
            "baseline": "before",
            **{kind: name for kind, name in bounds.items() if kind in ("passage", "fixed-edit")},
            "edit": "self-edits",
        }
        shown = ", ".join(
            f"{name} {score(scores[kind].mean, 'score', grader)}"
            for kind, name in names.items()
            if kind in scores and scores[kind].mean is not None
        )
        return f"; {GRADER_NAMES[grader]}: {shown}" if shown else ""


def _amount(label: str, done: int, total: int, share: float | None = None) -> Amount:
    return Amount(label=label, done=done, total=total, share=share)
