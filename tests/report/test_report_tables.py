"""The result in the terminal: within 80 columns, and no number is cut or folded."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap

import pytest
from synthetic_run import make_run

from controller_svc.cli.tables import NAME_COLUMNS, VERDICT_WORDS, print_tables
from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.outcomes import Outcome
from seal.report import Report, build_report
from seal.report.numbers.comparisons import comparisons
from seal.report.numbers.formats import NBSP, duration, interval, percent, score

MEASURES = tuple(measure.name for measure in get_domain("knowledge").measures)


def printed(
    directory: Path, capsys: pytest.CaptureFixture[str], **recipe: object
) -> tuple[Report, str]:
    store = ArtifactStore(str(directory))
    report = build_report(store, make_run(store, **recipe))
    print_tables(report, html="runs/demo/report.html", json="runs/demo/report.json")
    return report, capsys.readouterr().out


@pytest.mark.parametrize(
    ("columns", "recipe"),
    [
        ("80", {}),
        ("40", {"grader": "contains", "repeats": 2, "racing": (2,), "rounds": 1}),
        ("80", {"grader": "logprob", "failure": Outcome.TOO_LONG, "diverged": 0.4, "rounds": 1}),
        ("80", {"credit": "part", "rounds": 1}),
        ("80", {"credit": "part", "selection": "random", "rounds": 1}),
        ("80", {"rounds": 10, "passages": 7, "train_passages": 3, "invalid": 0.3}),
        ("80", {"rounds": 1, "bounds": True, "credit": "part", "selection": "random"}),
    ],
)
def test_tables_fit_80_columns_and_no_number_is_cut_or_folded(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: str,
    recipe: dict[str, object],
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    report, out = printed(tmp_path, capsys, **recipe)
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in out
    lines = lines[next(i for i, line in enumerate(lines) if line.startswith("Validation,")) :]
    for row in report.rows:
        first = next(line for line in lines if line.strip().startswith(row.label[:20]))
        below = lines[lines.index(first) + 1]
        for measure in MEASURES:
            assert percent(row.metrics[measure].mean) in first
            assert interval(row.metrics[measure], measure, "") in below
    assert out.count("by log p") == (2 if report.spec.evaluation.grader == "logprob" else 0)
    for rollout in report.rollouts:
        for decision, n in rollout.decisions.items():
            shown = f"{n} {decision}".replace("_", " ").replace(" ", NBSP)
            assert decision == "kept" or shown in out
    for stage in report.stages:
        assert any(stage.stage in line and duration(stage.seconds) in line for line in lines)


def test_every_comparison_has_its_verdict_in_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, out = printed(tmp_path, capsys, gain=0.6, learnt=-1.0)
    lines = [line.strip() for line in out.splitlines()]
    assert report.headline in " ".join(lines)
    assert "The rounds made the self-edits worse in every measure." in " ".join(lines)
    for each in comparisons(report.rows):
        line = next(line for line in lines if line.startswith(wrap(each.name, NAME_COLUMNS)[0]))
        below = lines[lines.index(line) + 1]
        for measure in MEASURES:
            over = each.over[measure]
            shown = score(over.mean, measure, "", signed=True)
            assert f"{shown} {VERDICT_WORDS[over.verdict]}" in line
            assert interval(over, measure, "", signed=True) in below


@pytest.mark.parametrize("grader", ["f1", "exact", "logprob", "contains"])
def test_no_two_tables_have_one_title(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], grader: str
) -> None:
    _, out = printed(tmp_path, capsys, grader=grader, rounds=1, passages=3, train_passages=2)
    titles = [line.rstrip() for line in out.splitlines() if line.startswith("Differences")]
    assert len(titles) == len(set(titles)) == (2 if grader == "logprob" else 1)


def test_a_run_that_measured_nothing_prints_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = printed(tmp_path, capsys, stages_done=0)
    assert "No validation is finished yet" in out
    assert "trained on" not in out and percent(0.0) not in out
