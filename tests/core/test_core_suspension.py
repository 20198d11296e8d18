"""What keeps a stage, and what its owner stops for now: said in conditions, and nothing is lost."""

from __future__ import annotations

import pytest
from test_core_decide import SPEC, at, finished, running, starts, wanted

from controller_svc.core import (
    Decision,
    Observed,
    Phase,
    RunStatus,
    StageObserved,
    StopStage,
    decide,
    new_status,
    set_condition,
)
from seal.records import Stage

SUSPENDED = Observed(suspended=True, now_seconds=5.0)


def said(status: RunStatus, type: str) -> tuple[str, str]:
    condition = status.condition(type)
    assert condition is not None
    return condition.status, condition.reason


def suspend(status: RunStatus, *live: str) -> Decision:
    return decide(SPEC, status, Observed(suspended=True, now_seconds=5.0, stages=running(*live)))


def test_why_a_stage_does_not_get_on_stands_in_its_condition_until_it_does() -> None:
    status = at(1, Stage.ROLLOUT)
    start = wanted(status)
    kept = StageObserved(waits="QuotaExceeded", message="quota small is full")
    waits = decide(SPEC, status, Observed(stages={start.name: kept}, now_seconds=3.0)).status
    condition = waits.condition("Progressing")
    assert condition is not None and condition.message == "quota small is full"
    assert said(waits, "Progressing") == ("False", "QuotaExceeded")
    assert condition.last_transition_seconds == 3.0
    again = decide(SPEC, waits, Observed(stages=running(start.name))).status
    assert said(again, "Progressing") == ("True", "RolloutRunning")


def test_a_suspension_stops_what_runs_starts_nothing_and_keeps_what_is_done() -> None:
    status = at(1, Stage.ROLLOUT)
    name = wanted(status).name
    before = decide(SPEC, status, Observed(stages=running(name, completed="0"))).status
    decision = suspend(before, name)
    assert decision.actions == (StopStage(name=name),)
    assert said(decision.status, "Suspended") == ("True", "Suspended")
    assert said(decision.status, "Progressing") == ("False", "Suspended")
    assert decision.status.phase is Phase.RUNNING
    assert decision.status.current == before.current and before.current is not None
    assert suspend(decision.status) == Decision(status=decision.status, actions=())


def test_what_goes_on_does_so_with_the_same_attempt_once_the_old_one_has_gone() -> None:
    status = at(1, Stage.ROLLOUT)
    name = wanted(status).name
    stopped = suspend(status, name).status
    going = decide(SPEC, stopped, Observed(stages=running(name)))
    assert going.actions == ()
    assert said(going.status, "Suspended") == ("False", "Resumed")
    assert said(going.status, "Progressing") == ("True", "RolloutRunning")
    (start,) = starts(decide(SPEC, going.status, Observed()))
    assert (start.name, start.attempt) == (name, 1)


def test_one_that_is_suspended_before_it_begins_does_not_begin() -> None:
    status = new_status(SPEC, run="demo")
    decision = decide(SPEC, status, SUSPENDED)
    assert decision.actions == () and decision.status.phase is Phase.PENDING
    assert said(decision.status, "Suspended") == ("True", "Suspended")
    assert starts(decide(SPEC, decision.status, Observed()))


def test_what_a_stage_came_to_meanwhile_counts_when_it_goes_on() -> None:
    status = at(1, Stage.ROLLOUT)
    done = finished(wanted(status))
    stopped = suspend(status).status
    held = decide(SPEC, stopped, Observed(stages=done.stages, suspended=True))
    assert held.status.stage is Stage.ROLLOUT and held.actions == ()
    assert decide(SPEC, held.status, done).status.stage is Stage.IMPROVE


@pytest.mark.parametrize("cancelled", [False, True])
def test_an_end_is_final_also_for_one_that_is_suspended(cancelled: bool) -> None:
    stopped = suspend(at(1, Stage.ROLLOUT)).status
    ended = decide(SPEC, stopped, Observed(suspended=True, cancelled=True)).status
    assert ended.phase is Phase.CANCELLED
    observed = Observed(suspended=not cancelled, cancelled=cancelled)
    assert decide(SPEC, ended, observed) == Decision(status=ended, actions=())


def test_one_that_is_cancelled_while_it_is_suspended_ends_also_after_a_stage_that_is_done() -> None:
    status = at(1, Stage.ROLLOUT)
    done = finished(wanted(status))
    stopped = suspend(status).status
    seen = Observed(stages=done.stages, suspended=True, cancelled=True, now_seconds=6.0)
    ended = decide(SPEC, stopped, seen)
    assert ended.status.phase is Phase.CANCELLED and ended.actions == ()
    assert [entry.round for entry in ended.status.rounds if entry.rollout] == [1]


def test_what_kept_one_that_is_suspended_stands_in_its_condition_no_longer_than_it_does() -> None:
    stopped = suspend(at(1, Stage.ROLLOUT)).status
    told = set_condition(stopped, "Progressing", "False", "Unavailable", "no store", 6.0)
    assert suspend(told).status == stopped
