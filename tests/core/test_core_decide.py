"""The state machine, case by case: what follows from which observation."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from controller_svc.core import (
    AttemptBudget,
    Decision,
    Observed,
    Phase,
    RunStatus,
    Stage,
    StartTask,
    StopTask,
    TaskFailed,
    TaskResult,
    TaskState,
    TaskSucceeded,
    decide,
    new_status,
    policy_of,
    reopen,
    stages,
)
from seal.records import AdapterReference, ScoreSum, ShardSummary
from seal.settings import RunSpec

SPEC = RunSpec(rounds=1, shards=2)
POLICY = AdapterReference(path="x/1", sha256="1" * 64)


def summary_of(task: StartTask, **update: object) -> ShardSummary:
    plain: dict[str, object] = {
        "name": task.name,
        "stage": str(task.stage),
        "round": task.round,
        "shard": task.shard,
        "attempt": task.attempt,
        "seconds": 1.0,
        "inner_loops_run": 3,
        "inner_loops_resumed": 1,
        "outcomes": {"ok": 4},
        "tokens": {"train": 10},
        "engine_seconds": {"train": 0.5},
        "scores": {} if task.stage is Stage.IMPROVE else {"baseline": ScoreSum(n=2, total=0.5)},
    }
    return ShardSummary.model_validate(plain | update)


def succeeded(task: StartTask, **update: object) -> TaskSucceeded:
    return TaskSucceeded(summary=summary_of(task, **update))


def starts(decision: Decision) -> list[StartTask]:
    return [action for action in decision.actions if isinstance(action, StartTask)]


def finish_stage(
    status: RunStatus, *, spec: RunSpec = SPEC, policy: AdapterReference | None = POLICY
) -> Decision:
    """Every task of the current stage succeeds; an M-step makes `policy`."""
    wanted = starts(decide(spec, status, Observed()))
    results = {
        task.name: succeeded(task, policy=policy if task.stage is Stage.IMPROVE else None)
        for task in wanted
    }
    return decide(spec, status, Observed(results=results))


def at(
    round: int, stage: Stage, *, spec: RunSpec = SPEC, policy: AdapterReference | None = POLICY
) -> RunStatus:
    """A run that has reached (round, stage) without trouble."""
    status = decide(spec, new_status(spec, run="demo"), Observed()).status
    while (status.round, status.stage) != (round, stage):
        status = finish_stage(status, spec=spec, policy=policy).status
    return status


def fail(
    task: StartTask, *, permanent: bool, message: str = "no", retry_after_seconds: float = 0.0
) -> Mapping[str, TaskResult]:
    reason = "InvalidInput" if permanent else "Transient"
    return {
        task.name: TaskFailed(
            permanent=permanent,
            reason=reason,
            message=message,
            retry_after_seconds=retry_after_seconds,
        )
    }


def test_a_permanent_failure_ends_the_run_with_its_reason_and_stops_the_other_shards() -> None:
    status = at(1, Stage.ROLLOUT)
    first, second = starts(decide(SPEC, status, Observed()))
    ended = decide(
        SPEC,
        status,
        Observed(
            live=frozenset({second.name}), results=fail(first, permanent=True, message="bad row 3")
        ),
    )
    failed = ended.status.condition("Failed")
    assert ended.status.phase is Phase.FAILED
    assert failed is not None
    assert (failed.status, failed.reason) == ("True", "InvalidInput")
    assert "bad row 3" in failed.message and first.name in failed.message
    assert [task.state for task in ended.status.tasks] == [TaskState.FAILED, TaskState.STOPPED]
    assert ended.actions == (StopTask(name=second.name),)


def test_transient_failures_are_tried_again_under_a_new_name_until_the_budget_is_spent() -> None:
    status, names = at(1, Stage.ROLLOUT), []
    budget = AttemptBudget(attempts=3)
    for _ in range(3):
        task = starts(decide(SPEC, status, Observed()))[0]
        names.append(task.name)
        status = decide(
            SPEC, status, Observed(results=fail(task, permanent=False)), budget=budget
        ).status
    failed = status.condition("Failed")
    assert names == ["demo-r1-rollout-0-a1", "demo-r1-rollout-0-a2", "demo-r1-rollout-0-a3"]
    assert status.phase is Phase.FAILED
    assert failed is not None and failed.reason == "AttemptsExhausted"
    assert status.counters.tasks_failed == 3


def test_the_pause_before_an_attempt_doubles_is_bounded_and_honours_what_the_server_asked_for() -> (
    None
):
    budget = AttemptBudget(base_seconds=2.0, max_seconds=60.0)
    pauses = [budget.delay_seconds(name="x", attempt=attempt) for attempt in range(1, 40)]
    assert pauses[0] == 0.0
    assert 1.0 <= pauses[1] <= 2.0
    assert pauses[1:6] == sorted(pauses[1:6]) and pauses[2] == 2 * pauses[1]
    assert max(pauses) <= 60.0
    assert budget.delay_seconds(name="x", attempt=2, retry_after_seconds=120.0) == 120.0


def test_a_second_attempt_waits_until_the_first_has_gone() -> None:
    status = at(1, Stage.IMPROVE)
    (task,) = starts(decide(SPEC, status, Observed()))
    ghost = decide(
        SPEC, status, Observed(live=frozenset({task.name}), results=fail(task, permanent=False))
    )
    assert ghost.actions == (StopTask(name=task.name),)
    (again,) = starts(decide(SPEC, ghost.status, Observed(results=fail(task, permanent=False))))
    assert again.attempt == 2


def test_a_task_that_the_world_lost_is_asked_for_again_by_name_and_costs_no_attempt() -> None:
    status = at(1, Stage.ROLLOUT)
    wanted = starts(decide(SPEC, status, Observed()))
    running = decide(SPEC, status, Observed(live=frozenset(task.name for task in wanted)))
    lost = decide(SPEC, running.status, Observed())
    assert running.actions == ()
    assert starts(lost) == wanted
    assert lost.status == status


def test_a_summary_of_another_task_is_never_counted() -> None:
    status = at(1, Stage.ROLLOUT)
    first, second = starts(decide(SPEC, status, Observed()))
    ended = decide(SPEC, status, Observed(results={first.name: succeeded(second)})).status
    failed = ended.condition("Failed")
    assert failed is not None and failed.reason == "WrongResult"


def test_a_message_is_cut_to_one_kilobyte_even_in_the_middle_of_a_character() -> None:
    status = at(1, Stage.IMPROVE)
    (task,) = starts(decide(SPEC, status, Observed()))
    ended = decide(
        SPEC, status, Observed(results=fail(task, permanent=True, message="ä" * 2000))
    ).status
    failed = ended.condition("Failed")
    assert failed is not None and 1000 < len(failed.message.encode()) <= 1024


def test_what_nobody_wants_is_stopped() -> None:
    status = at(1, Stage.IMPROVE)
    (task,) = starts(decide(SPEC, status, Observed()))
    decision = decide(SPEC, status, Observed(live=frozenset({task.name, "demo-r1-rollout-0-a1"})))
    assert decision.actions == (StopTask(name="demo-r1-rollout-0-a1"),)


def test_a_terminal_status_never_changes_and_wants_nothing() -> None:
    complete = finish_stage(at(1, Stage.VALIDATE)).status
    late = TaskFailed(permanent=True, reason="Internal", message="late")
    decision = decide(
        SPEC, complete, Observed(live=frozenset({"x"}), results={"demo-r1-validate-0-a1": late})
    )
    assert complete.phase is Phase.COMPLETE
    assert decision.status == complete
    assert decision.actions == (StopTask(name="x"),)


def test_an_improve_that_kept_nothing_leaves_the_old_policy() -> None:
    two = RunSpec(rounds=2, shards=1)
    status = finish_stage(at(2, Stage.IMPROVE, spec=two), spec=two, policy=None).status
    assert policy_of(status, 1).adapter == POLICY and policy_of(status, 1).improved
    assert policy_of(status, 2).adapter == POLICY and not policy_of(status, 2).improved
    (validate,) = starts(decide(two, status, Observed()))
    assert validate.policy == POLICY


def test_rollout_and_improve_use_the_policy_of_the_round_before_and_validation_its_own() -> None:
    two = RunSpec(rounds=2)
    seen = {}
    status = decide(two, new_status(two, run="demo"), Observed()).status
    while status.stage is not None:
        (task,) = starts(decide(two, status, Observed()))
        seen[(task.round, task.stage)] = task.policy.sha256[0] if task.policy else None
        policy = AdapterReference(path="x", sha256=str(task.round) * 64)
        status = finish_stage(status, spec=two, policy=policy).status
    assert seen == {
        (0, Stage.VALIDATE): None,
        (1, Stage.ROLLOUT): None,
        (1, Stage.IMPROVE): None,
        (1, Stage.VALIDATE): "1",
        (2, Stage.ROLLOUT): "1",
        (2, Stage.IMPROVE): "1",
        (2, Stage.VALIDATE): "2",
    }


def test_zero_rounds_only_measure_the_base_model() -> None:
    none = RunSpec(rounds=0)
    assert stages(none) == ((0, Stage.VALIDATE),)
    assert finish_stage(at(0, Stage.VALIDATE, spec=none), spec=none).status.phase is Phase.COMPLETE


def test_a_round_sums_its_shards_and_keeps_stages_apart() -> None:
    status = finish_stage(at(1, Stage.VALIDATE)).status
    (zero, one) = status.rounds
    assert (zero.round, one.round) == (0, 1)
    assert one.validation == {"baseline": ScoreSum(n=4, total=1.0)} == one.rollout
    assert one.outcomes == {"rollout/ok": 8, "improve/ok": 4, "validate/ok": 8}
    assert one.tokens == {"train": 50} and one.engine_seconds == {"train": 2.5}
    assert (one.inner_loops_run, one.inner_loops_resumed) == (15, 5)
    assert (
        status.counters.tasks_started,
        status.counters.tasks_succeeded,
        status.counters.tasks_failed,
    ) == (7, 7, 0)


def test_a_condition_keeps_its_transition_time_while_its_value_stays() -> None:
    status = decide(SPEC, new_status(SPEC, run="demo"), Observed(now_seconds=5.0)).status
    wanted = starts(decide(SPEC, status, Observed()))
    status = decide(
        SPEC,
        status,
        Observed(results={task.name: succeeded(task) for task in wanted}, now_seconds=9.0),
    ).status
    progressing = status.condition("Progressing")
    assert progressing is not None
    assert (progressing.reason, progressing.last_transition_seconds) == ("RolloutRunning", 5.0)


def test_only_its_owner_takes_up_a_failed_run_again_and_what_had_succeeded_stays() -> None:
    status = at(1, Stage.ROLLOUT)
    first, second = starts(decide(SPEC, status, Observed()))
    results = {first.name: succeeded(first), **fail(second, permanent=True)}
    failed = decide(SPEC, status, Observed(results=results)).status
    again = reopen(SPEC, failed)
    assert starts(decide(SPEC, failed, Observed())) == []
    assert [task.name for task in starts(decide(SPEC, again, Observed()))] == [second.name]
    assert reopen(SPEC, status) == status
    assert finish_stage(again).status.stage is Stage.IMPROVE


def test_the_policy_of_a_round_to_come_is_a_lookup_error() -> None:
    with pytest.raises(LookupError, match="round 1"):
        policy_of(new_status(SPEC, run="demo"), 1)
