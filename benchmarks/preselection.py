"""What preselection finds, on the rollouts of runs in which every candidate was trained.

    python -m benchmarks.preselection RUN...

RUN: directories of finished runs whose `edit.k` is 2 or more and that preselected nothing. For each
training passage the candidate that `inner.preselect: 1` would have trained is looked up, and set
against a candidate of chance (the mean of all) and against the best one, by the rewards that their
inner loops had. Intervals are over passages. No model is run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.records import Interval
from seal.report.numbers.scores import candidate_scores
from seal.report.numbers.source import RunFiles, read_run
from seal.restem.preselect import preselect
from seal.restem.statistics import mean_interval


@dataclass(frozen=True)
class Choice:
    """Candidates of one passage in one rollout, by the rewards of their inner loops."""

    passage: str
    preselected: float
    chance: float
    """Mean over all candidates."""
    best: float

    @property
    def told_apart(self) -> bool:
        """Whether it matters which one is trained."""
        return self.best > self.chance


@dataclass(frozen=True)
class Found:
    """Over passages."""

    rollouts: int
    """Passages with two or more candidates that have a reward, a rollout each."""
    told_apart: int
    """Of these, rollouts whose candidates differ in reward."""
    best_found: float
    """Share of those in which the best candidate is the preselected one."""
    gain: Interval | None
    """Reward of the preselected candidate less that of one of chance."""
    room: Interval | None
    """Reward of the best candidate less that of one of chance."""


def choices(run: RunFiles) -> Iterator[Choice]:
    """What preselection would have chosen in each rollout of a run."""
    domain = get_domain(run.spec.domain)
    for stage in run.named("rollout"):
        for record in stage.records:
            rewards = candidate_scores(record, "edit", "score")
            edits = [edit for edit in record.edits if edit.candidate in rewards]
            if len(edits) < 2:
                continue
            context = run.contexts[record.context_id]
            (chosen,) = preselect(edits, context=context, domain=domain, count=1)
            yield Choice(
                record.context_id, rewards[chosen], fmean(rewards.values()), max(rewards.values())
            )


def found(all_choices: Iterable[Choice]) -> Found:
    """What the choices come to; an interval without a choice is None."""
    tried = list(all_choices)
    told_apart = [choice for choice in tried if choice.told_apart]
    hits = sum(choice.preselected == choice.best for choice in told_apart)
    return Found(
        rollouts=len(tried),
        told_apart=len(told_apart),
        best_found=hits / len(told_apart) if told_apart else 0.0,
        gain=_over_passages(tried, lambda choice: choice.preselected - choice.chance),
        room=_over_passages(tried, lambda choice: choice.best - choice.chance),
    )


def _over_passages(tried: Iterable[Choice], value_of: Callable[[Choice], float]) -> Interval | None:
    """Of each passage's mean: its rollouts in several rounds and runs are not independent."""
    values: dict[str, list[float]] = {}
    for choice in tried:
        values.setdefault(choice.passage, []).append(value_of(choice))
    return mean_interval(map(fmean, values.values()), seed=0)


def _written(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.mean:+.3f}"
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def main() -> None:
    """Print what the runs given as arguments tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's directory")
    runs = [
        read_run(ArtifactStore(str(path.parent)), path.name) for path in parser.parse_args().runs
    ]
    result = found(choice for run in runs for choice in choices(run))
    print(f"rollouts of a passage with two or more rewards: {result.rollouts}")
    print(f"  whose candidates differ in reward: {result.told_apart}")
    print(f"  of these, the best candidate is the preselected one: {result.best_found:.0%}")
    print(f"reward of the preselected one over one of chance: {_written(result.gain)}")
    print(f"reward of the best one over one of chance:        {_written(result.room)}")


if __name__ == "__main__":
    main()
