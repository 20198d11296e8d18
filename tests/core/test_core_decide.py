"""The state machine, case by case: what follows from which observation."""

from __future__ import annotations

import pytest

from controller_svc.core import (
    AttemptBudget,
    Decision,
    FailedIndex,
    Observed,
    Phase,
    RunStatus,
    StageObserved,
    StageState,
    StageSums,
    StartStage,
    StopStage,
    decide,
    new_status,
    policy_of,
    reopen,
    share_of_stage,
    stages,
    sum_shards,
)
from seal.records import AdapterReference, ScoreSum, ShardSummary, Stage
from seal.settings import RunSpec

SPEC = RunSpec(rounds=1, shards=2)
RUN = "demo"
POLICY = AdapterReference(path="x/1", sha256="1" * 64)


def sums_of(start: StartStage, **update: object) -> StageSums:
    plain: dict[str, object] = {
        "stage": start.stage,
        "round": start.round,
        "shards": start.shards,
        "outcomes": {"ok": 4},
        "tokens": {"train": 10},
        "engine_seconds": {"train": 0.5},
        "seconds": 1.0,
        "stored_bytes": {"records": 100},
        "inner_loops_run": 3,
        "inner_loops_resumed": 1,
        "scores": {} if start.stage is Stage.IMPROVE else {"baseline": ScoreSum(n=2, total=0.5)},
        "policy": POLICY if start.stage is Stage.IMPROVE else None,
    }
    return StageSums(**(plain | update))  # type: ignore[arg-type]


def finished(start: StartStage, **update: object) -> Observed:
    seen = StageObserved(completed="0-1", ended=True, sums=sums_of(start, **update))
    return Observed(stages={start.name: seen})


def running(*names: str, completed: str = "") -> dict[str, StageObserved]:
    return {name: StageObserved(completed=completed) for name in names}


def failed(
    start: StartStage,
    *,
    permanent: bool = False,
    ended: bool = True,
    completed: str = "",
    message: str = "no",
    retry_after_seconds: float = 0.0,
) -> Observed:
    why = FailedIndex(
        permanent=permanent,
        reason="NotFound" if permanent else "Transient",
        message=message,
        retry_after_seconds=retry_after_seconds,
    )
    seen = StageObserved(completed=completed, failed={1: why}, ended=ended)
    return Observed(stages={start.name: seen})


def starts(decision: Decision) -> list[StartStage]:
    return [action for action in decision.actions if isinstance(action, StartStage)]


def wanted(status: RunStatus, *, spec: RunSpec = SPEC) -> StartStage:
    """The one stage that a status asks for."""
    (start,) = starts(decide(spec, status, Observed()))
    return start


def finish_stage(status: RunStatus, *, spec: RunSpec = SPEC, **update: object) -> RunStatus:
    return decide(spec, status, finished(wanted(status, spec=spec), **update)).status


def at(round: int, stage: Stage, *, spec: RunSpec = SPEC) -> RunStatus:
    """A run that has reached (round, stage) without trouble."""
    status = decide(spec, new_status(spec, run=RUN), Observed()).status
    while (status.round, status.stage) != (round, stage):
        status = finish_stage(status, spec=spec)
    return status


def to_the_end(spec: RunSpec = SPEC) -> RunStatus:
    return finish_stage(at(spec.rounds, Stage.VALIDATE, spec=spec), spec=spec)


def reason(status: RunStatus) -> str:
    condition = status.condition("Failed")
    assert condition is not None and condition.status == "True"
    return condition.reason


def test_a_run_prepares_first_and_then_goes_stage_by_stage() -> None:
    assert stages(SPEC) == (
        (0, Stage.PREPARE),
        (0, Stage.VALIDATE),
        (1, Stage.ROLLOUT),
        (1, Stage.IMPROVE),
        (1, Stage.VALIDATE),
    )
    first = wanted(decide(SPEC, new_status(SPEC, run=RUN), Observed()).status)
    assert (first.name, first.shards, first.policy) == ("demo-r0-prepare-a1", 1, None)
    assert wanted(at(1, Stage.ROLLOUT)).shards == 2
    assert wanted(at(1, Stage.IMPROVE)).shards == 1


def test_what_is_started_carries_the_epoch_of_its_controller() -> None:
    (start,) = starts(decide(SPEC, at(1, Stage.ROLLOUT), Observed(epoch=7)))
    assert start.epoch == 7


def test_a_permanent_failure_ends_the_run_with_its_reason_and_stops_the_other_shards() -> None:
    status = at(1, Stage.ROLLOUT)
    start = wanted(status)
    ended = decide(
        SPEC, status, failed(start, permanent=True, ended=False, message="no such policy")
    )
    condition = ended.status.condition("Failed")
    assert ended.status.phase is Phase.FAILED
    assert condition is not None and reason(ended.status) == "NotFound"
    assert "no such policy" in condition.message
    assert f"{start.name}, shard 1" in condition.message
    assert ended.status.current is not None
    assert ended.status.current.state is StageState.FAILED
    assert ended.actions == (StopStage(name=start.name),)


def test_shards_are_repeated_by_their_job_and_not_by_the_core() -> None:
    status = at(1, Stage.ROLLOUT)
    start = wanted(status)
    decision = decide(SPEC, status, failed(start, ended=False, completed="0"))
    assert decision.actions == ()
    current = decision.status.current
    assert current is not None
    assert (current.attempt, current.completed, current.failed_shards) == (1, "0", 1)
    assert (current.failed[0].index, current.failed[0].reason) == (1, "Transient")


def test_a_stage_that_ended_unfinished_is_tried_again_under_a_new_name_until_the_budget_is_spent() -> (  # noqa: E501
    None
):
    status, names = at(1, Stage.ROLLOUT), []
    budget = AttemptBudget(attempts=3)
    for _ in range(3):
        start = wanted(status)
        names.append(start.name)
        status = decide(SPEC, status, failed(start, completed="0"), budget=budget).status
    assert names == ["demo-r1-rollout-a1", "demo-r1-rollout-a2", "demo-r1-rollout-a3"]
    assert status.phase is Phase.FAILED
    assert reason(status) == "AttemptsExhausted"
    assert status.counters.stages_failed == 3
    assert status.current is not None and status.current.completed == "0"


def test_a_stage_whose_shards_say_done_without_summaries_is_tried_again() -> None:
    status = at(1, Stage.ROLLOUT)
    start = wanted(status)
    seen = StageObserved(completed="0-1", ended=True, sums=None, message="the volume was empty")
    again = decide(SPEC, status, Observed(stages={start.name: seen})).status
    assert again.current is not None
    assert again.current.attempt == 2
    assert "the volume was empty" in again.current.message


def test_the_pause_before_an_attempt_doubles_is_bounded_and_honours_what_the_server_asked_for() -> (
    None
):
    budget = AttemptBudget(base_seconds=2.0, max_seconds=60.0)
    pauses = [budget.delay_seconds(name="x", attempt=attempt) for attempt in range(1, 40)]
    assert pauses[0] == 0.0
    assert 1.0 <= pauses[1] <= 2.0
    assert pauses[1:6] == sorted(pauses[1:6]) and pauses[2] == 2 * pauses[1]
    assert max(pauses) <= 60.0
    for name in map(str, range(50)):
        assert 1.0 <= budget.delay_seconds(name=name, attempt=2) <= 2.0
        assert 30.0 <= budget.delay_seconds(name=name, attempt=30) <= 60.0
    assert budget.delay_seconds(name="x", attempt=2, retry_after_seconds=120.0) == 120.0
    status = at(1, Stage.IMPROVE)
    asked = decide(SPEC, status, failed(wanted(status), retry_after_seconds=1000.0)).status
    assert asked.current is not None and asked.current.delay_seconds == 1000.0
    start = wanted(status := at(1, Stage.ROLLOUT))
    busy = {
        index: FailedIndex(reason="Exhausted", message="full", retry_after_seconds=seconds)
        for index, seconds in enumerate((30.0, 1000.0))
    }
    seen = Observed(stages={start.name: StageObserved(failed=busy, ended=True)})
    longest = decide(SPEC, status, seen).status.current
    assert longest is not None and longest.delay_seconds == 1000.0, "of two the longer"


def test_a_second_attempt_waits_until_the_first_has_gone() -> None:
    status = at(1, Stage.IMPROVE)
    first = wanted(status)
    again = decide(SPEC, status, failed(first)).status
    ghost = decide(SPEC, again, Observed(stages=running(first.name)))
    assert ghost.actions == (StopStage(name=first.name),)
    assert wanted(ghost.status).attempt == 2


def test_a_stage_that_the_world_lost_is_asked_for_again_by_name_and_costs_no_attempt() -> None:
    status = at(1, Stage.ROLLOUT)
    start = wanted(status)
    seen = decide(SPEC, status, Observed(stages=running(start.name)))
    lost = decide(SPEC, seen.status, Observed())
    assert seen.actions == ()
    assert starts(lost) == [start]
    assert lost.status == status


def test_a_stale_view_takes_back_no_finished_shard() -> None:
    spec = RunSpec(rounds=1, shards=6)
    status = at(1, Stage.ROLLOUT, spec=spec)
    name = wanted(status, spec=spec).name
    for view, known in (("0,3-4", "0,3-4"), ("0", "0,3-4"), ("", "0,3-4"), ("1,3-5", "0-1,3-5")):
        seen = Observed(stages=running(name, completed=view))
        status = decide(spec, status, seen).status
        assert status.current is not None and status.current.completed == known


def test_the_status_says_why_a_stage_waits() -> None:
    status = at(1, Stage.IMPROVE)
    seen = StageObserved(message="no node has a free GPU")
    waiting = decide(SPEC, status, Observed(stages={wanted(status).name: seen})).status
    assert waiting.current is not None
    assert waiting.current.message == "no node has a free GPU"


def test_a_message_is_cut_to_one_kilobyte_even_in_the_middle_of_a_character() -> None:
    status = at(1, Stage.IMPROVE)
    ended = decide(
        SPEC, status, failed(wanted(status), permanent=True, message="ä" * 2000)
    ).status.condition("Failed")
    assert ended is not None and 1000 < len(ended.message.encode()) <= 1024


def test_what_nobody_wants_is_stopped() -> None:
    status = at(1, Stage.IMPROVE)
    names = (wanted(status).name, "demo-r1-rollout-a1")
    decision = decide(SPEC, status, Observed(stages=running(*names)))
    assert decision.actions == (StopStage(name="demo-r1-rollout-a1"),)


def test_a_terminal_status_never_changes_and_wants_nothing() -> None:
    complete = to_the_end()
    late = StageObserved(failed={0: FailedIndex(permanent=True, reason="Internal", message="late")})
    decision = decide(SPEC, complete, Observed(stages={"demo-r1-validate-a1": late}))
    assert complete.phase is Phase.COMPLETE
    assert (complete.stage, complete.current) == (None, None)
    assert decision.status == complete
    assert decision.actions == (StopStage(name="demo-r1-validate-a1"),)


def test_too_few_scores_end_the_run_and_the_condition_counts_the_outcomes() -> None:
    status = at(1, Stage.ROLLOUT)
    outcomes = {"ok": 4, "diverged": 3, "ungraded": 2}
    ended = decide(SPEC, status, finished(wanted(status), outcomes=outcomes)).status
    condition = ended.condition("Failed")
    assert ended.phase is Phase.FAILED and reason(ended) == "TooFewScores"
    assert condition is not None
    assert "5 of 9 inner loops" in condition.message
    assert "3 diverged, 2 ungraded" in condition.message
    half = finish_stage(status, outcomes={"ok": 2, "invalid": 2})
    assert half.stage is Stage.IMPROVE, "half is still enough"
    tolerant = SPEC.model_copy(update={"max_unscored_share": 0.9})
    again = finish_stage(reopen(tolerant, ended, now_seconds=9.0), spec=tolerant, outcomes=outcomes)
    assert again.stage is Stage.IMPROVE


def test_what_a_stage_with_too_few_scores_took_is_told_at_once_and_only_once() -> None:
    status = at(1, Stage.ROLLOUT)
    outcomes = {"ok": 1, "diverged": 9}
    ended = decide(SPEC, status, finished(wanted(status), outcomes=outcomes)).status
    (_, told) = ended.rounds
    assert told.outcomes == {"rollout/diverged": 9, "rollout/ok": 1}
    assert ended.cost.tokens["rollout/train"] == 10
    tolerant = SPEC.model_copy(update={"max_unscored_share": 0.9})
    again = finish_stage(reopen(tolerant, ended, now_seconds=9.0), spec=tolerant, outcomes=outcomes)
    assert again.stage is Stage.IMPROVE
    assert again.rounds == ended.rounds and again.cost == ended.cost
    calm = finish_stage(at(1, Stage.ROLLOUT), outcomes={"ok": 10})
    hopeless = finish_stage(reopen(SPEC, ended, now_seconds=9.0), outcomes=outcomes)
    assert hopeless.phase is Phase.FAILED and hopeless.cost == ended.cost
    assert again.cost == calm.cost and again.rounds[1].stored_bytes == calm.rounds[1].stored_bytes


def test_an_m_step_that_diverged_is_no_lack_of_scores() -> None:
    status = finish_stage(at(1, Stage.IMPROVE), outcomes={"diverged": 1}, policy=None)
    assert status.stage is Stage.VALIDATE


def test_an_improve_that_kept_nothing_leaves_the_old_policy() -> None:
    two = RunSpec(rounds=2, shards=1)
    status = finish_stage(at(2, Stage.IMPROVE, spec=two), spec=two, policy=None)
    assert policy_of(status, 1).adapter == POLICY and policy_of(status, 1).trained
    assert policy_of(status, 2).adapter == POLICY and not policy_of(status, 2).trained
    assert wanted(status, spec=two).policy == POLICY


def test_rollout_and_improve_use_the_policy_of_the_round_before_and_validation_its_own() -> None:
    two = RunSpec(rounds=2)
    seen = {}
    status = decide(two, new_status(two, run=RUN), Observed()).status
    while status.stage is not None:
        start = wanted(status, spec=two)
        seen[(start.round, start.stage)] = start.policy.sha256[0] if start.policy else None
        policy = AdapterReference(path="x", sha256=str(start.round) * 64)
        update = {"policy": policy} if start.stage is Stage.IMPROVE else {}
        status = finish_stage(status, spec=two, **update)
    assert seen == {
        (0, Stage.PREPARE): None,
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
    assert stages(none) == ((0, Stage.PREPARE), (0, Stage.VALIDATE))
    assert to_the_end(none).phase is Phase.COMPLETE


def test_a_round_sums_its_stages_and_keeps_them_apart() -> None:
    status = to_the_end()
    (zero, one) = status.rounds
    assert (zero.round, one.round) == (0, 1)
    assert one.validation == {"baseline": ScoreSum(n=2, total=0.5)} == one.rollout
    assert one.outcomes == {"rollout/ok": 4, "improve/ok": 4, "validate/ok": 4}
    spent = [f"{stage}/train" for stage in ("improve", "rollout", "validate")]
    assert one.tokens == dict.fromkeys(spent, 10)
    assert one.engine_seconds == dict.fromkeys(spent, 0.5)
    assert one.stored_bytes == {"records": 300}
    assert one.seconds == {"rollout": 1.0, "improve": 1.0, "validate": 1.0}
    assert (one.inner_loops_run, one.inner_loops_resumed) == (9, 3)
    counters = status.counters
    assert (counters.stages_started, counters.stages_succeeded) == (5, 5)
    assert (counters.shards_succeeded, counters.stages_failed) == (8, 0)


def test_the_time_of_a_stage_is_that_of_its_longest_shard_and_squares_are_of_all_or_none() -> None:
    def summary(shard: int, seconds: float, squares: float | None) -> ShardSummary:
        return ShardSummary(
            name="s",
            stage=Stage.ROLLOUT,
            round=1,
            shard=shard,
            attempt=1,
            seconds=seconds,
            inner_loops_run=0,
            inner_loops_resumed=0,
            outcomes={},
            tokens={},
            engine_seconds={},
            scores={
                "edit": ScoreSum(n=2, total=0.5, squares=0.25),
                "best": ScoreSum(n=2, total=1.0, squares=squares),
            },
            result_sha256="a" * 64,
        )

    shards = [summary(0, 2.0, None), summary(1, 3.0, 0.5), summary(2, 1.0, 0.5)]
    sums = sum_shards(shards, stage=Stage.ROLLOUT, round=1)
    assert sums.seconds == 3.0
    assert sums.scores["edit"] == ScoreSum(n=6, total=1.5, squares=0.75)
    assert sums.scores["best"] == ScoreSum(n=6, total=3.0, squares=None)


def test_a_shard_counts_once_in_the_share_of_its_stage() -> None:
    current = at(1, Stage.ROLLOUT).current
    assert current is not None and current.shards == 2
    current = current.model_copy(update={"completed": "0"})
    assert share_of_stage(current, {0: 0.4, 1: 0.5}) == 0.75
    assert share_of_stage(current, {}) == 0.5


def test_a_condition_keeps_its_transition_time_while_its_value_stays() -> None:
    status = decide(SPEC, new_status(SPEC, run=RUN), Observed(now_seconds=5.0)).status
    seen = finished(wanted(status))
    later = Observed(stages=seen.stages, now_seconds=9.0)
    progressing = decide(SPEC, status, later).status.condition("Progressing")
    assert progressing is not None
    assert (progressing.reason, progressing.last_transition_seconds) == ("ValidateRunning", 5.0)


def test_only_its_owner_takes_up_a_failed_run_again_and_a_name_is_never_used_twice() -> None:
    status, names, budget = at(1, Stage.ROLLOUT), set(), AttemptBudget(attempts=2)
    for _ in range(3):
        while not status.phase.terminal:
            start = wanted(status)
            assert start.name not in names
            names.add(start.name)
            seen = failed(start, completed="0")
            status = decide(SPEC, status, seen, budget=budget).status
        assert starts(decide(SPEC, status, Observed())) == []
        status = reopen(SPEC, status, now_seconds=9.0)
        assert status.current is not None and status.current.completed == "0"
    assert len(names) == 6, "each resume has a budget of its own"
    assert finish_stage(status).stage is Stage.IMPROVE
    running_status = at(1, Stage.ROLLOUT)
    assert reopen(SPEC, running_status, now_seconds=9.0) == running_status


def test_the_pauses_of_a_run_that_was_taken_up_again_begin_anew() -> None:
    status, budget = at(1, Stage.ROLLOUT), AttemptBudget(attempts=6)
    while not status.phase.terminal:
        status = decide(SPEC, status, failed(wanted(status)), budget=budget).status
    status = reopen(SPEC, status, now_seconds=9.0)
    again = decide(SPEC, status, failed(wanted(status)), budget=budget).status.current
    assert again is not None and again.attempt == 8
    assert again.delay_seconds <= budget.base_seconds


def test_a_finished_run_that_is_given_more_rounds_goes_on_from_its_last() -> None:
    done, three = to_the_end(), SPEC.model_copy(update={"rounds": 3})
    again = reopen(three, done, now_seconds=9.0)
    start = wanted(again, spec=three)
    assert (start.name, start.policy) == ("demo-r2-rollout-a1", POLICY)
    assert again.rounds == done.rounds
    assert done.finished_seconds is not None and again.finished_seconds is None
    complete = again.condition("Complete")
    assert complete is not None and complete.status == "False"
    while again.stage is not None:
        again = finish_stage(again, spec=three)
    assert again.phase is Phase.COMPLETE
    assert [entry.round for entry in again.rounds] == [0, 1, 2, 3]
    assert reopen(SPEC, done, now_seconds=9.0) == done


def test_the_policy_of_a_round_to_come_is_a_lookup_error() -> None:
    with pytest.raises(LookupError, match="round 1"):
        policy_of(new_status(SPEC, run=RUN), 1)


def test_the_status_of_a_thousand_shards_and_twenty_rounds_stays_below_64_kib() -> None:
    spec = RunSpec(rounds=20, shards=1000)
    names = ("baseline", "edit", "best", "passage", "gold", "retained", "retained_policy")
    watched = ("gain", "edit_tokens", "distinct_1", "distinct_2", "duplicate", "ungraded")
    score = ScoreSum(n=1234, total=617.3333333333334, squares=308.6666666666667)
    scores = dict.fromkeys(names, score)
    kinds = ("ok", "invalid", "too_long", "inert", "diverged", "refused", "ungraded", "cancelled")
    outcomes = {kind: 1000 if kind == "ok" else 99 for kind in kinds}
    amounts = {"generate": 123456.7890123, "train": 123456.7890123, "evaluate": 123456.7890123}
    status = decide(spec, new_status(spec, run="r" * 40), Observed()).status
    while (status.round, status.stage) != (20, Stage.VALIDATE):
        status = finish_stage(
            status,
            spec=spec,
            scores=scores,
            measures={} if status.stage is Stage.IMPROVE else dict.fromkeys(watched, score),
            outcomes=outcomes,
            engine_seconds=amounts,
            tokens=dict.fromkeys(amounts, 10**9),
            result_sha256="a" * 64,
        )
    start = wanted(status, spec=spec)
    why = FailedIndex(reason="Transient", message="x" * 5000)
    seen = StageObserved(
        completed=",".join(str(index) for index in range(0, 1000, 2)),
        failed=dict.fromkeys(range(1, 1000, 2), why),
        message="y" * 5000,
    )
    status = decide(spec, status, Observed(stages={start.name: seen})).status
    assert status.current is not None and status.current.failed_shards == 500
    assert [bool(entry.measures) for entry in status.rounds] == 17 * [False] + 4 * [True]
    assert len(status.model_dump_json().encode()) < 64 * 1024
