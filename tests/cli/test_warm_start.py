"""A run with a warm start on the command line: it is called supervised wherever it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import HEAD, RUN, one_line, seal
from fake_services import Fakes

LABEL = "(warm start, supervised)"
MANIFEST = f"""{HEAD}
spec:
  rounds: 1
  edit: {{k: 2, family: self-qa}}
  inner: {{repeats: 1, student: base, optimizer: {{epochs: 1}}, examples: {{sharedWord: false}}}}
  improve: {{warmStart: gold, credit: edit}}
  validation: {{retainedQueries: 1, goldBound: false, equalSteps: true, openBook: true}}
  maxUnscoredShare: 1
"""


@pytest.fixture
def warm(here: Path) -> Path:
    (here / "tiny.yaml").write_text(MANIFEST)
    return here


def test_a_family_that_asks_nothing_is_refused_before_anything_is_loaded(
    warm: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN, "--set", "edit.family=implications") == 2
    error = one_line(capsys.readouterr().err)
    assert "spec.improve.warmStart" in error and "edit.family" in error
    assert not fakes.calls


def test_every_place_that_shows_round_0_calls_it_supervised(
    warm: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN) == 0
    said = one_line(capsys.readouterr().err)
    assert f"round 0 of 1 {LABEL}, improve (2 of 6 stages) ..." in said
    assert f"round 0 of 1 {LABEL}, improve: done in" in said
    assert "learnt 3 gold rows" in said
    assert f"round 0 of 1 {LABEL}, validate: done" in said
    assert f"round 1 of 1 {LABEL}" not in said
    assert seal("status", "tiny") == 0
    shown = one_line(capsys.readouterr().out)
    assert "start warm start, supervised" in shown
    assert seal("status", "tiny", "-o", "json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["supervised"] is True
    assert [(one["round"], one["supervised"]) for one in facts["policies"]][:1] == [(0, True)]
    labels = [one["label"] for one in facts["policies"]]
    assert labels == ["warm start, supervised", ""]
    assert seal("status", "tiny", "--adapters") == 0
    assert f"round 0 {LABEL}, validate" in capsys.readouterr().out
    assert seal("list") == 0
    assert "Warm start, supervised: tiny." in capsys.readouterr().out


def test_the_plan_has_a_row_for_it_and_says_what_it_is(
    warm: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN, "--plan") == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith("round")]
    assert [row.split("  ")[0] for row in rows] == [
        "round 0, prepare",
        "round 0, warm start",
        "round 0, validate",
        "round 1, rollout",
        "round 1, improve",
        "round 1, validate",
    ]
    assert "The warm start is supervised" in out
    assert max(len(row) for row in rows) <= 80
    assert seal(*RUN, "--plan", "-o", "json") == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert (stages[1]["stage"], stages[1]["round"], stages[1]["trainings"]) == ("improve", 0, 1)


def test_a_run_that_was_only_warmed_up_is_given_rounds_by_resuming_it(
    warm: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN, "--set", "rounds=0") == 0
    before = dict(fakes.calls)
    assert seal(*RUN, "--resume", "--set", "rounds=1") == 0
    again = {call: n - before.get(call, 0) for call, n in fakes.calls.items()}
    assert not any("/r0/" in name and n for (_, name), n in again.items())
    assert any("/r1/rollout/" in name for _, name in again)


def test_without_a_warm_start_nothing_is_called_supervised(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN) == 0
    assert seal("status", "tiny", "-o", "json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out[captured.out.index('{\n  "name"') :])["supervised"] is False
    assert "supervised)" not in captured.err
