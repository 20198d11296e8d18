"""The table of several few-shot runs."""

from __future__ import annotations

import pytest

from benchmarks.arc.pool import BASE, FIRST, difference, over_runs, shown, strength
from seal.domains.arc.edits import parse_edit
from seal.records import Interval

TASKS = [f"task {index}" for index in range(20)]
RUNS = [
    {
        BASE: dict.fromkeys(TASKS, 0.0),
        FIRST: {task: float(index % 4 == 0) for index, task in enumerate(TASKS)},
        "round 1": {task: float(index % 4 < better) for index, task in enumerate(TASKS)},
    }
    for better in (2, 3, 3)
]


def test_a_task_counts_once_however_many_runs_measured_it() -> None:
    means = over_runs(run["round 1"] for run in RUNS)
    assert len(means) == 20
    assert [round(means[task], 3) for task in TASKS[:4]] == [1.0, 1.0, 0.667, 0.0]


def test_differences_are_paired_by_task_and_their_interval_speaks_for_other_runs() -> None:
    pooled, one = difference(RUNS, "round 1", FIRST), difference(RUNS[:1], "round 1", FIRST)
    assert pooled is not None and one is not None
    assert pooled.mean == pytest.approx(5 / 12) and one.mean == pytest.approx(1 / 4)
    assert pooled.low is not None and pooled.high is not None
    assert 0 < pooled.low < pooled.mean < pooled.high
    assert one.low is not None and one.low < one.mean


@pytest.mark.parametrize(
    ("rate", "epochs", "expected"),
    [(0.001, 2, "up to 0.002"), (0.001, 3, "up to 0.004"), (0.02, 20, "more")],
)
def test_edits_are_classed_by_rate_times_epochs(rate: float, epochs: int, expected: str) -> None:
    edit = parse_edit(f'[true, false, false, true, "train_using_output_tokens", {rate}, {epochs}]')
    assert edit is not None
    assert strength(edit) == expected


def test_what_has_no_interval_is_shown_without_one() -> None:
    assert shown(None) == "-"
    assert shown(Interval(0.25, None, None, 1)) == "0.25"
    assert shown(Interval(0.25, -0.1, 0.5, 20), signed=True) == "+0.25 [-0.10, +0.50]"
