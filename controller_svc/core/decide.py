"""The state machine as a pure function: (spec, status, observed) -> (status, actions).

    a run         r0: prepare -> (warm start: improve) -> validate, then for every round:
                      rollout -> improve -> validate
    an adaptation prepare -> (without questions: question) -> rollout -> adapt

Level-triggered: what to do follows from what is wanted and what is there, never from what happened
last. Called again with the same observation it returns the same status and the same actions; a
stage that the world lost is asked for again under the same name. Its shards are not the core's: a
Job (or its stand-in) starts, repeats and gives them up; the core starts another attempt of the
whole stage, in which finished shards are found done. Phases, rounds, stages and attempts only move
forward; a terminal status never changes.
"""

from __future__ import annotations

from collections.abc import Mapping

from controller_svc.core.budget import DEFAULT_BUDGET, AttemptBudget
from controller_svc.core.conditions import cut, set_condition
from controller_svc.core.ends import cancel, end, fail
from controller_svc.core.moves import count, enter, progressing, set_current
from controller_svc.core.observed import (
    Action,
    Decision,
    FailedIndex,
    Observed,
    StageObserved,
    StageSums,
    StartStage,
    StopStage,
)
from controller_svc.core.plan import is_warm_start, spec_digest, stages
from controller_svc.core.ranges import format_ranges, parse_ranges
from controller_svc.core.rounds import fold_stage, unscored
from controller_svc.core.state import (
    AdaptationStatus,
    FailedShard,
    Phase,
    PolicyStatus,
    Reason,
    RunStatus,
    StageStatus,
)
from controller_svc.core.suspension import go_on, is_suspended, suspend
from seal.errors import Internal, error_class
from seal.names import stage_name
from seal.outcomes import Outcome
from seal.records import AdaptationResult, AdapterReference, Stage
from seal.settings import AdaptationSpec, RunSpec, Spec

MAX_SHARD_MESSAGE_BYTES = 256
MAX_FAILED_SHARDS = 8
"""Failed shards that the status names; all are counted."""
_WITH_LOOPS = (Stage.ROLLOUT, Stage.VALIDATE)


def new_status(spec: Spec, *, run: str, now_seconds: float = 0.0) -> RunStatus:
    """The status of what has not started; `now_seconds`: Unix time of an adaptation's acceptance.

    `run`: its name in the store.
    """
    adaptation = None
    if isinstance(spec, AdaptationSpec):
        adaptation = AdaptationStatus(
            documents=len(spec.data.documents),
            self_made=spec.questions.source == "self-made",
            accepted_seconds=now_seconds,
        )
    return RunStatus(run=run, spec_sha256=spec_digest(spec), adaptation=adaptation)


def decide(
    spec: Spec, status: RunStatus, observed: Observed, *, budget: AttemptBudget = DEFAULT_BUDGET
) -> Decision:
    """What the status is now and what has to be done about it. Save the status before you act."""
    while (moved := _step(spec, status, observed, budget)) != status:
        status = moved
    return Decision(status=status, actions=_actions(spec, status, observed))


def policy_of(status: RunStatus, round: int) -> PolicyStatus:
    """The policy after `round`; for round 0 the base model, or what the warm start made of it.

    Raises:
        LookupError: the round has not had its M-step.

    """
    for policy in status.policies:
        if policy.round == round:
            return policy
    raise LookupError(f"round {round} has no policy yet")


def _step(spec: Spec, status: RunStatus, observed: Observed, budget: AttemptBudget) -> RunStatus:
    """One move forward, or the same status if there is none to make."""
    if status.phase.terminal:
        return status
    seen = observed.stages.get(status.current.name) if status.current else None
    # A stage that is done counts all the same: cancelled after the last one, all of it is done
    if observed.cancelled and (seen is None or seen.sums is None):
        return cancel(status, observed)
    if observed.suspended and not observed.cancelled:
        return suspend(status, observed)  # what its stage comes to is seen when it goes on
    if is_suspended(status):
        return go_on(spec, status, observed)
    if status.current is None:
        update = {
            "phase": Phase.RUNNING,
            "started_seconds": observed.now_seconds,
        }
        begun = status.model_copy(update=update)
        return enter(spec, begun, *stages(spec)[0], observed.now_seconds)
    if seen is None:
        return status
    status, current = _note(spec, status, status.current, seen, observed)
    permanent = {index: why for index, why in seen.failed.items() if why.permanent}
    if permanent:
        index, why = min(permanent.items())
        return fail(status, current, why.reason, _shard(current, index, why), observed)
    if not seen.ended:
        return status
    if seen.sums is None:
        return _again(status, current, seen, observed, budget)
    return _finish_stage(spec, status, current, seen.sums, observed)


def _first_policies(spec: Spec) -> tuple[PolicyStatus, ...]:
    """The base model is a run's policy of round 0, unless a warm start makes that."""
    if isinstance(spec, AdaptationSpec) or spec.improve.warm_start == "gold":
        return ()
    return (PolicyStatus(round=0, adapter=None, trained=False),)


def _note(
    spec: Spec,
    status: RunStatus,
    current: StageStatus,
    seen: StageObserved,
    observed: Observed,
) -> tuple[RunStatus, StageStatus]:
    """What the world shows of the current attempt; a stale view takes back no finished shard."""
    completed = parse_ranges(current.completed) | parse_ranges(seen.completed)
    update: dict[str, object] = {"completed": format_ranges(completed)}
    if seen.failed:
        update |= {"failed": _named(seen.failed), "failed_shards": len(seen.failed)}
    if seen.message and not seen.waits:
        update["message"] = cut(seen.message)
    current = current.model_copy(update=update)
    status = status.model_copy(update={"current": current})
    now = observed.now_seconds
    if seen.waits:
        status = set_condition(status, "Progressing", "False", seen.waits, seen.message, now)
    elif not seen.ended:
        status = progressing(spec, status, current, now)
    return status, current


def _named(failed: Mapping[int, FailedIndex]) -> tuple[FailedShard, ...]:
    """The first few of the failed shards."""
    return tuple(
        FailedShard(
            index=index, reason=why.reason, message=cut(why.message, MAX_SHARD_MESSAGE_BYTES)
        )
        for index, why in sorted(failed.items())[:MAX_FAILED_SHARDS]
    )


def _again(
    status: RunStatus,
    current: StageStatus,
    seen: StageObserved,
    observed: Observed,
    budget: AttemptBudget,
) -> RunStatus:
    """Another attempt of a stage that ended unfinished, or the run's failure."""
    if seen.failed:
        index, first = min(seen.failed.items())
        why = _shard(current, index, first)
    else:
        why = f"{current.name} ended unfinished: {seen.message or 'shards have no summary'}"
    if current.attempt - current.opened_attempt + 1 >= budget.attempts:
        message = f"the last of {budget.attempts} attempts: {why}"
        return fail(status, current, Reason.ATTEMPTS_EXHAUSTED, message, observed)
    attempt = current.attempt + 1
    name = stage_name(run=status.run, round=current.round, stage=current.stage, attempt=attempt)
    asked = max((failed.retry_after_seconds for failed in seen.failed.values()), default=0.0)
    status = set_current(
        status,
        current,
        name=name,
        attempt=attempt,
        delay_seconds=budget.delay_seconds(
            name=name,
            attempt=attempt - current.opened_attempt + 1,
            retry_after_seconds=asked,
        ),
        message=cut(why),
    )
    return status.model_copy(update={"counters": count(status.counters, failed=1, started=1)})


def _finish_stage(
    spec: Spec, status: RunStatus, current: StageStatus, sums: StageSums, observed: Observed
) -> RunStatus:
    """Fold the stage, all of whose shards are done, and enter the next one or end the run."""
    missing, total = unscored(sums) if current.stage in _WITH_LOOPS else (0, 0)
    if missing > spec.max_unscored_share * total:
        # Spent all the same, and what its loops came to is what its owner has to see
        status = fold_stage(status, sums, observed.now_seconds, counted=current.counted)
        current = current.model_copy(update={"counted": True})
        return fail(status, current, Reason.TOO_FEW_SCORES, _too_few(spec, current, sums), observed)
    if current.stage is Stage.ADAPT and sums.result is None:
        message = f"{current.name} has left no result"
        return fail(status, current, error_class(Internal).reason, message, observed)
    counters = count(status.counters, succeeded=1, shards=current.shards)
    status = status.model_copy(update={"counters": counters})
    status = fold_stage(status, sums, observed.now_seconds, counted=current.counted)
    if current.stage is Stage.PREPARE:
        # Not before: a run that is not pinned yet may begin again with another spec
        status = status.model_copy(update={"policies": _first_policies(spec)})
    plan = stages(spec)
    following = plan.index((current.round, current.stage)) + 1
    if following < len(plan):
        return enter(spec, status, *plan[following], observed.now_seconds)
    if isinstance(spec, RunSpec):
        done = f"{spec.rounds} round{'' if spec.rounds == 1 else 's'} done"
        reason, message = str(Reason.ALL_ROUNDS_DONE), done
    else:
        reason, message = _judged(sums.result)
    return end(status, Phase.COMPLETE, reason, message, observed)


def _judged(result: AdaptationResult | None) -> tuple[str, str]:
    """Reason and message of an adaptation's end: what the gate said."""
    if result is None:
        raise LookupError("an adaptation that is done has a result")
    return str(result.gate.reason or Reason.PUBLISHED), result.gate.message


def _too_few(spec: Spec, current: StageStatus, sums: StageSums) -> str:
    missing, total = unscored(sums)
    counts = ", ".join(
        f"{number} {name}" for name, number in sorted(sums.outcomes.items()) if name != Outcome.OK
    )
    where = (
        f"round {current.round}, {current.stage}," if isinstance(spec, RunSpec) else "the rollout"
    )
    return (
        f"{missing} of {total} inner loops of {where} have no "
        f"score: {counts}; maxUnscoredShare is {spec.max_unscored_share:g}: find out why, or allow "
        "more and resume"
    )


def _shard(current: StageStatus, index: int, why: FailedIndex) -> str:
    """A failed shard for people."""
    shard = f", shard {index}" if current.shards > 1 else ""
    return f"{current.name}{shard}: {why.reason}: {why.message}"


def _actions(spec: Spec, status: RunStatus, observed: Observed) -> tuple[Action, ...]:
    """The difference between what is wanted and what is there.

    Another attempt is started once the one before has gone, so that never two work on one shard.
    """
    wanted = status.phase is Phase.RUNNING and not observed.suspended
    current = status.current if wanted else None
    live = {name for name, seen in observed.stages.items() if not seen.ended}
    unwanted = sorted(live - {current.name} if current else live)
    stops = tuple(StopStage(name=name) for name in unwanted)
    if current is None or unwanted or current.name in observed.stages:
        return stops
    return (
        StartStage(
            name=current.name,
            run=status.run,
            stage=current.stage,
            round=current.round,
            shards=current.shards,
            attempt=current.attempt,
            epoch=observed.epoch,
            policy=_policy_for(spec, status, current),
            delay_seconds=current.delay_seconds,
        ),
    )


def _policy_for(spec: Spec, status: RunStatus, current: StageStatus) -> AdapterReference | None:
    """Rollout and improve work with the policy of the round before, validation with its own.

    The warm start has none before it. An adaptation's writes its edits, and nothing else.
    """
    if isinstance(spec, AdaptationSpec):
        return spec.policy if current.stage is Stage.ROLLOUT else None
    if current.stage is Stage.PREPARE or is_warm_start(current.round, current.stage):
        return None
    before = current.round if current.stage is Stage.VALIDATE else current.round - 1
    return policy_of(status, before).adapter
