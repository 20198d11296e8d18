"""Several runs of the few-shot domain, one a seed, as one table and one picture.

    python -m benchmarks.arc.pool --root seal-runs arc-0 arc-1 arc-2 [--picture docs/few-shot.svg]

Every run measures the same validation tasks. Shares have Wilson intervals over tasks; differences
are paired by task, and their intervals resample tasks and runs apart
(`seal.restem.statistics.crossed_interval`). A last table is of the rollouts: what the settings that
were tried came to on training tasks, by rate times epochs.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.arc.picture import draw_choices
from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.domains.arc.edits import TrainSettings, parse_edit
from seal.records import Interval, part_texts
from seal.report.numbers.model import Metric
from seal.report.numbers.scores import adapted_scores, baseline_scores, evaluation_score, loops_of
from seal.report.numbers.shapes import edit_shape
from seal.report.numbers.source import RunFiles, Stage, read_run
from seal.restem.reward import mean
from seal.restem.statistics import (
    crossed_interval,
    mean_interval,
    paired_differences,
    success_interval,
)

BASE, FIRST = "in context", "untrained edits"
STRENGTHS = (0.002, 0.004, 0.01, 0.02, 0.05)
"""Upper ends of the classes of rate times epochs."""
Scores = dict[str, dict[str, float]]
"""By row, then by task."""


def validated(files: RunFiles) -> Iterator[Stage]:
    """The validations of a run, in the order of its rounds."""
    return files.named("validate")


def rows_of(files: RunFiles, metric: Metric) -> Scores:
    """What each validation of a run came to."""
    rows: Scores = {}
    for stage in validated(files):
        if stage.round == 0:
            rows[BASE] = baseline_scores(stage.records, [metric])[metric]
        name = FIRST if stage.round == 0 else f"round {stage.round}"
        rows[name] = adapted_scores(stage.records, "edit", [metric])[metric]
    return rows


def shown(interval: Interval | None, *, signed: bool = False) -> str:
    """A share, or a difference of two, with its interval."""
    if interval is None:
        return "-"
    number = "{:+.2f}" if signed else "{:.2f}"
    ends = (interval.low, interval.high)
    if ends[0] is None or ends[1] is None:
        return number.format(interval.mean)
    return f"{number} [{number}, {number}]".format(interval.mean, *ends)


def over_runs(scores: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each task: runs measure the same tasks, which are not independent of another."""
    runs = list(scores)
    return {task: mean(run.get(task) for run in runs) or 0.0 for task in runs[0]}


def difference(runs: Sequence[Scores], name: str, reference: str) -> Interval | None:
    """How far a row is above another; of a single run over its tasks alone."""
    paired = [paired_differences(rows[name], rows[reference]) for rows in runs]
    if len(paired) == 1:
        return mean_interval(paired[0].values(), seed=0)
    return crossed_interval(paired, seed=0)


def score_table(runs: Sequence[RunFiles]) -> list[str]:
    """A line for each row that all runs have."""
    solved = [rows_of(run, "grid") for run in runs]
    cells = [rows_of(run, "cells") for run in runs]
    lines = [
        "| | solved, each run | solved | right cells | over in context | over untrained edits |",
        "|---|---|---|---|---|---|",
    ]
    for name in solved[0]:
        if not all(name in rows for rows in solved):
            continue
        columns = [
            ", ".join(f"{mean(rows[name].values()) or 0:.2f}" for rows in solved),
            shown(success_interval(over_runs(rows[name] for rows in solved).values())),
            f"{mean(one for rows in cells for one in rows[name].values()) or 0:.2f}",
            *(
                "-"
                if name in (reference, BASE)
                else shown(difference(solved, name, reference), signed=True)
                for reference in (BASE, FIRST)
            ),
        ]
        lines.append(f"| {name} | {' | '.join(columns)} |")
    return lines


def chosen(runs: Sequence[RunFiles], *, last: bool) -> dict[str, Counter[str]]:
    """What the edits of the first or the last validation chose, all runs together."""
    found: dict[str, Counter[str]] = {}
    for run in runs:
        stage = list(validated(run))[-1 if last else 0]
        shape = edit_shape(stage, get_domain("arc"))
        if shape is None:
            continue
        found.setdefault("edit", Counter()).update(
            {"valid": shape.edits - shape.empty, "invalid": shape.empty}
        )
        for name, counts in shape.choices.items():
            found.setdefault(name, Counter()).update(counts)
    return found


def strength(edit: TrainSettings) -> str:
    """The class of an edit by rate times epochs: how far it moves the weights."""
    moved = edit.training.learning_rate * edit.training.num_train_epochs
    return next((f"up to {end:g}" for end in STRENGTHS if moved <= end + 1e-12), "more")


def tried(runs: Sequence[RunFiles]) -> Iterator[tuple[TrainSettings, float]]:
    """Every edit of the rollouts with its success."""
    for run in runs:
        for stage in run.named("rollout"):
            for record in stage.records:
                for edit in record.edits:
                    parsed = parse_edit(next(iter(part_texts(record.parts, edit)), ""))
                    score = mean(
                        evaluation_score(loop.evaluation, "grid")
                        for loop in loops_of(record, "edit", edit.candidate)
                    )
                    if parsed is not None and score is not None:
                        yield parsed, score


def tried_table(runs: Sequence[RunFiles]) -> list[str]:
    """Success in the rollouts by rate times epochs, and by what rows have a loss on."""
    scores: dict[str, list[float]] = {}
    for edit, score in tried(runs):
        augmented = any(edit.data_generation.model_dump().values())
        for name in (
            f"rate x epochs {strength(edit)}",
            f"loss on {edit.training.strategy.removeprefix('train_using_').replace('_', ' ')}",
            "augmented" if augmented else "not augmented",
        ):
            scores.setdefault(name, []).append(score)
    names = [f"rate x epochs up to {end:g}" for end in STRENGTHS] + ["rate x epochs more"]
    names += sorted(scores.keys() - set(names))
    return ["| settings | edits | solved |", "|---|---|---|"] + [
        f"| {name} | {len(scores[name])} | {shown(success_interval(scores[name]))} |"
        for name in names
        if name in scores
    ]


def choices_table(before: Mapping[str, Counter[str]], after: Mapping[str, Counter[str]]) -> str:
    """Before and after, a line for each choice."""
    lines = ["| choice | before | after |", "|---|---|---|"]
    for name in before:
        counted = (
            ", ".join(f"{value} {count}" for value, count in sorted(side.get(name, {}).items()))
            for side in (before, after)
        )
        lines.append(f"| {name} | {' | '.join(counted)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--root", default="seal-runs")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    store = ArtifactStore(given.root)
    runs = [read_run(store, name) for name in given.runs]
    before, after = chosen(runs, last=False), chosen(runs, last=True)
    print("\n".join(score_table(runs)), choices_table(before, after), sep="\n\n")
    print("", "\n".join(tried_table(runs)), sep="\n")
    if given.picture:
        draw_choices(before, after, given.picture)


if __name__ == "__main__":
    main()
