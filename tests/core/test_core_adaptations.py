"""An adaptation in the state machine: its stages, its ends, its events."""

from __future__ import annotations

import pytest
from synthetic_adaptation import ADAPTER, adaptation_spec, synthetic_result

from controller_svc.core import (
    AdaptationState,
    Decision,
    Ended,
    Event,
    FailedIndex,
    Judged,
    Observed,
    Phase,
    Prepared,
    Questioned,
    Rewarded,
    RunStatus,
    StageObserved,
    StageSums,
    StartStage,
    StopStage,
    Trained,
    adaptation_state,
    decide,
    events,
    new_status,
    reopen,
    stages,
    sum_shards,
)
from seal.records import (
    AdaptationCounts,
    AdapterReference,
    GateReason,
    ScoreSum,
    ShardSummary,
    Stage,
)
from seal.settings import AdaptationSpec, RunSpec

SPEC = adaptation_spec(shards=2)
RUN = "adapt-demo-0a1b"
POLICY = AdapterReference(path="run/adapters/1", sha256="3" * 64)
PREPARED = AdaptationCounts(documents=1, passages=6, passages_too_long=1)
QUESTIONED = AdaptationCounts(questions_written=40, reward_questions=9, held_out_questions=8)


def sums_of(stage: Stage, **update: object) -> StageSums:
    """What a stage comes to."""
    by_stage: dict[Stage, dict[str, object]] = {
        Stage.PREPARE: {"counts": PREPARED},
        Stage.QUESTION: {"counts": QUESTIONED, "tokens": {"generate": 400}},
        Stage.ROLLOUT: {
            "outcomes": {"ok": 10, "invalid": 2},
            "scores": {
                "baseline": ScoreSum(n=6, total=0.6),
                "edit": ScoreSum(n=6, total=1.8),
                "best": ScoreSum(n=6, total=2.4),
            },
            "tokens": {"generate": 900, "train": 5000},
            "engine_seconds": {"generate": 1.0, "train": 2.0},
        },
        Stage.ADAPT: {"result": synthetic_result()},
    }
    shards = 1 if stage in (Stage.PREPARE, Stage.ADAPT) else 2
    plain: dict[str, object] = {"stage": stage, "round": 0, "shards": shards, "seconds": 3.0}
    return StageSums(**(plain | by_stage[stage] | update))  # type: ignore[arg-type]


def wanted(status: RunStatus, *, spec: AdaptationSpec = SPEC) -> StartStage:
    """The one stage that a status asks for."""
    (start,) = decide(spec, status, Observed()).actions
    assert isinstance(start, StartStage)
    return start


def finished(start: StartStage, *, cancelled: bool = False, **update: object) -> Observed:
    seen = StageObserved(ended=True, sums=sums_of(start.stage, **update))
    times = {Stage.PREPARE: 10.0, Stage.QUESTION: 20.0, Stage.ROLLOUT: 30.0, Stage.ADAPT: 40.0}
    return Observed(stages={start.name: seen}, now_seconds=times[start.stage], cancelled=cancelled)


def finish(status: RunStatus, *, spec: AdaptationSpec = SPEC, **update: object) -> RunStatus:
    return decide(spec, status, finished(wanted(status, spec=spec), **update)).status


def accepted(spec: AdaptationSpec = SPEC) -> RunStatus:
    return new_status(spec, run=RUN, now_seconds=5.0)


def at(stage: Stage, *, spec: AdaptationSpec = SPEC) -> RunStatus:
    """An adaptation that has reached a stage without trouble."""
    status = decide(spec, accepted(spec), Observed(now_seconds=6.0)).status
    while status.stage is not stage:
        status = finish(status, spec=spec)
    return status


def ended(**update: object) -> RunStatus:
    return finish(at(Stage.ADAPT), **update)


def test_it_prepares_makes_questions_tries_edits_and_adapts() -> None:
    assert [stage for _, stage in stages(SPEC)] == ["prepare", "question", "rollout", "adapt"]
    assert {round for round, _ in stages(SPEC)} == {0}
    first = wanted(decide(SPEC, accepted(), Observed()).status)
    assert (first.name, first.shards) == ("adapt-demo-0a1b-r0-prepare-a1", 1)
    assert [wanted(at(stage)).shards for stage in (Stage.QUESTION, Stage.ROLLOUT, Stage.ADAPT)] == [
        2,
        2,
        1,
    ]


def test_with_questions_given_the_model_makes_none() -> None:
    given = adaptation_spec(self_made=False)
    assert [stage for _, stage in stages(given)] == ["prepare", "rollout", "adapt"]


def test_the_policy_writes_the_edits_and_nothing_else() -> None:
    spec = adaptation_spec(policy=POLICY)
    policies = {stage: wanted(at(stage, spec=spec), spec=spec).policy for _, stage in stages(spec)}
    assert policies.pop(Stage.ROLLOUT) == POLICY
    assert set(policies.values()) == {None}


def test_an_adapter_that_the_gate_lets_pass_is_published() -> None:
    status = ended()
    assert status.phase is Phase.COMPLETE
    assert adaptation_state(status) is AdaptationState.PUBLISHED
    condition = status.condition("Complete")
    assert condition is not None and condition.reason == "Published"
    assert condition.message == "gain +0.250"
    assert (status.policies, status.rounds) == ((), ())


def test_an_adapter_that_the_gate_refuses_stays_readable_and_the_condition_says_by_which_number() -> (  # noqa: E501
    None
):
    status = ended(result=synthetic_result(refused=GateReason.FORGETS, gain=0.5))
    assert adaptation_state(status) is AdaptationState.REFUSED
    condition = status.condition("Complete")
    assert condition is not None
    assert (condition.reason, condition.message) == ("Forgets", "gain +0.500")
    assert status.adaptation is not None and status.adaptation.result is not None
    assert status.adaptation.result.adapter == ADAPTER


def test_an_adapt_stage_without_a_result_fails_and_is_no_publication() -> None:
    status = ended(result=None)
    condition = status.condition("Failed")
    assert adaptation_state(status) is AdaptationState.FAILED
    assert condition is not None and condition.reason == "Internal"


def test_messages_of_an_adaptation_speak_of_no_rounds() -> None:
    spec = adaptation_spec(max_unscored_share=0.5)
    status = at(Stage.ROLLOUT, spec=spec)
    progressing = status.condition("Progressing")
    assert progressing is not None
    assert (progressing.reason, progressing.message) == ("RolloutRunning", "rollout")
    few = finish(status, spec=spec, outcomes={"ok": 1, "invalid": 3}).condition("Failed")
    assert few is not None and few.reason == "TooFewScores"
    assert "3 of 4 inner loops of the rollout have no score" in few.message
    assert "round" not in few.message


def test_edits_without_scores_do_not_end_an_adaptation_unless_it_was_asked_to() -> None:
    status = finish(at(Stage.ROLLOUT), outcomes={"invalid": 12}, scores={})
    assert status.stage is Stage.ADAPT


def test_counts_and_costs_add_up_over_stages() -> None:
    adaptation = ended().adaptation
    assert adaptation is not None
    assert adaptation.counts == AdaptationCounts(
        documents=1,
        passages=6,
        passages_too_long=1,
        questions_written=40,
        reward_questions=9,
        held_out_questions=8,
    )
    assert adaptation.edits == {"ok": 10, "invalid": 2}
    costs = [(done.stage, done.tokens, done.ended_seconds) for done in adaptation.stages]
    assert costs == [
        (Stage.PREPARE, {}, 10.0),
        (Stage.QUESTION, {"generate": 400}, 20.0),
        (Stage.ROLLOUT, {"generate": 900, "train": 5000}, 30.0),
        (Stage.ADAPT, {}, 40.0),
    ]


def test_shards_add_up_to_the_counts_of_their_stage() -> None:
    def summary(shard: int) -> ShardSummary:
        return ShardSummary(
            name="q",
            stage=Stage.QUESTION,
            round=0,
            shard=shard,
            attempt=1,
            seconds=1.0,
            inner_loops_run=0,
            inner_loops_resumed=0,
            outcomes={},
            tokens={},
            engine_seconds={},
            counts=AdaptationCounts(questions_written=10 + shard, held_out_questions=2),
        )

    sums = sum_shards([summary(0), summary(1)], stage=Stage.QUESTION, round=0)
    assert sums.counts == AdaptationCounts(questions_written=21, held_out_questions=4)


def test_events_tell_the_whole_story_in_order() -> None:
    told = events(ended())
    assert [event.sequence for event in told] == [1, 2, 3, 4, 5, 6, 7]
    assert [event.time_seconds for event in told] == [5.0, 10.0, 20.0, 30.0, 40.0, 40.0, 40.0]
    _, prepared, questioned, rewarded, trained, judged, end = (event.what for event in told)
    assert prepared == Prepared(counts=PREPARED, self_made=True)
    assert questioned == Questioned(written=40, kept=17, held_out=8)
    assert rewarded == Rewarded(
        edits={"ok": 10, "invalid": 2}, baseline=0.6 / 6, reward=1.8 / 6, best=2.4 / 6
    )
    assert isinstance(trained, Trained) and trained.adapter == ADAPTER
    assert isinstance(judged, Judged) and judged.verdict.passed
    assert end == Ended(state=AdaptationState.PUBLISHED, message="")


def test_an_event_never_changes_once_it_is_there() -> None:
    status, told = accepted(), list[tuple[Event, ...]]()
    while not status.phase.terminal:
        told.append(events(status))
        status = decide(SPEC, status, Observed(now_seconds=6.0)).status
        status = finish(status)
    whole = events(status)
    assert [len(part) for part in told] == [1, 2, 3, 4]
    assert all(whole[: len(part)] == part for part in told)


def test_a_mean_without_scores_is_missing_in_its_event() -> None:
    told = events(finish(at(Stage.ROLLOUT), scores={}, outcomes={"invalid": 3}))
    assert told[-1].what == Rewarded(edits={"invalid": 3}, baseline=None, reward=None, best=None)


def test_a_failure_is_the_last_event_with_its_message() -> None:
    status = at(Stage.PREPARE)
    poison = FailedIndex(permanent=True, reason="InvalidInput", message="documents[0] is empty")
    seen = StageObserved(failed={0: poison}, ended=True)
    failed = decide(SPEC, status, Observed(stages={wanted(status).name: seen})).status
    last = events(failed)[-1].what
    assert isinstance(last, Ended) and last.state is AdaptationState.FAILED
    assert "documents[0] is empty" in last.message


def cancel(status: RunStatus) -> Decision:
    running = {status.current.name: StageObserved()} if status.current else {}
    return decide(SPEC, status, Observed(stages=running, cancelled=True, now_seconds=50.0))


@pytest.mark.parametrize("stage", [stage for _, stage in stages(SPEC)])
def test_cancelled_in_any_stage_it_stops_what_runs_and_ends(stage: Stage) -> None:
    status = at(stage)
    stopped = cancel(status)
    assert status.current is not None
    assert stopped.actions == (StopStage(name=status.current.name),)
    assert stopped.status.phase is Phase.CANCELLED
    assert stopped.status.finished_seconds == 50.0
    condition = stopped.status.condition("Cancelled")
    assert condition is not None and condition.message == f"cancelled during {stage}"
    assert events(stopped.status)[-1].what == Ended(state=AdaptationState.CANCELLED, message="")
    assert events(stopped.status)[:-1] == events(status)
    again = cancel(stopped.status)
    assert (again.status, again.actions) == (stopped.status, ())


def test_cancelled_before_it_started_it_never_starts() -> None:
    decision = cancel(accepted())
    assert decision.actions == ()
    assert decision.status.phase is Phase.CANCELLED
    assert decision.status.started_seconds is None


def test_cancelled_after_its_last_stage_was_done_it_is_done() -> None:
    status = at(Stage.ADAPT)
    decision = decide(SPEC, status, finished(wanted(status), cancelled=True))
    assert adaptation_state(decision.status) is AdaptationState.PUBLISHED
    assert decision.actions == ()


def test_cancelled_between_two_stages_what_was_done_counts_and_nothing_follows() -> None:
    status = at(Stage.ROLLOUT)
    decision = decide(SPEC, status, finished(wanted(status), cancelled=True))
    assert decision.status.phase is Phase.CANCELLED
    assert decision.status.adaptation is not None
    assert decision.status.adaptation.ended(Stage.ROLLOUT) is not None
    assert decision.actions == ()


def test_a_run_is_cancelled_in_the_same_way() -> None:
    spec = RunSpec(rounds=1)
    status = decide(spec, new_status(spec, run="demo"), Observed()).status
    assert decide(spec, status, Observed(cancelled=True)).status.phase is Phase.CANCELLED


def test_nobody_takes_up_an_adaptation_that_has_ended() -> None:
    for status in (ended(), ended(result=None), cancel(at(Stage.ROLLOUT)).status):
        assert reopen(SPEC, status, now_seconds=9.0) == status


def test_a_run_has_no_events_of_an_adaptation() -> None:
    spec = RunSpec(rounds=1)
    with pytest.raises(LookupError, match="no adaptation"):
        events(new_status(spec, run="demo"))


def test_the_status_survives_the_way_to_disk_and_back() -> None:
    status = ended()
    back = RunStatus.model_validate_json(status.model_dump_json())
    assert back == status
    assert events(back) == events(status)
