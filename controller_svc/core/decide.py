"""The ReST^EM state machine as a pure function: (spec, status, observed) -> (status, actions).

    r0: validate, then for every round: rollout -> improve -> validate

Level-triggered: what to do follows from what is wanted and what is there, never from what happened
last. Called again with the same observation it returns the same status and the same actions; a task
that the world lost is asked for again under the same name. Phases, rounds and stages only move
forward; a terminal status never changes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from controller_svc.core.names import task_name
from controller_svc.core.rounds import fold_stage
from controller_svc.core.state import (
    Action,
    Condition,
    Counters,
    Decision,
    Observed,
    Phase,
    PolicyStatus,
    Reason,
    RunStatus,
    Stage,
    StartTask,
    StopTask,
    TaskFailed,
    TaskState,
    TaskStatus,
    TaskSucceeded,
)
from seal.settings import RunSpec

MAX_MESSAGE_CHARACTERS = 1024
_RUNNING_REASONS = {
    Stage.ROLLOUT: Reason.ROLLOUT_RUNNING,
    Stage.IMPROVE: Reason.IMPROVE_RUNNING,
    Stage.VALIDATE: Reason.VALIDATE_RUNNING,
}


@dataclass(frozen=True, kw_only=True)
class AttemptBudget:
    """How often a task is tried, and how long the controller waits between."""

    attempts: int = 4
    """Attempts of one shard of one stage, the first included."""
    base_seconds: float = 2.0
    """Pause before the second attempt; it doubles from there."""
    max_seconds: float = 60.0
    """Longest pause, unless the failing side asked for more."""

    def delay_seconds(self, *, name: str, attempt: int, retry_after_seconds: float = 0.0) -> float:
        """Seconds to pause before `attempt`, at least what was asked for.

        They double, and lie between half and all of it by a hash of the name.
        """
        if attempt <= 1:
            return 0.0
        full = min(self.max_seconds, self.base_seconds * 2.0 ** min(attempt - 2, 30))
        share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
        return max(full * (0.5 + share / 2), retry_after_seconds)


DEFAULT_BUDGET = AttemptBudget()


def spec_digest(spec: RunSpec) -> str:
    """sha256 of a spec's canonical JSON."""
    return hashlib.sha256(
        json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode()
    ).hexdigest()


def stages(spec: RunSpec) -> tuple[tuple[int, Stage], ...]:
    """(round, stage) of the whole run, in order."""
    learning = (
        (round, stage)
        for round in range(1, spec.rounds + 1)
        for stage in (Stage.ROLLOUT, Stage.IMPROVE, Stage.VALIDATE)
    )
    return ((0, Stage.VALIDATE), *learning)


def shards(spec: RunSpec, stage: Stage) -> int:
    """Tasks of one stage: the M-step is one, the others are cut by `spec.shards`."""
    return 1 if stage is Stage.IMPROVE else spec.shards


def new_status(spec: RunSpec, *, run: str) -> RunStatus:
    """The status of a run that has not started."""
    return RunStatus(run=run, spec_sha256=spec_digest(spec))


def decide(
    spec: RunSpec, status: RunStatus, observed: Observed, *, budget: AttemptBudget = DEFAULT_BUDGET
) -> Decision:
    """What the status is now and what has to be done about it. Save the status before you act."""
    while (moved := _step(spec, status, observed, budget)) != status:
        status = moved
    return Decision(status=status, actions=_actions(spec, status, observed))


def reopen(spec: RunSpec, status: RunStatus, *, now_seconds: float = 0.0) -> RunStatus:
    """A failed run as its owner takes it up again: the tasks of its stage get a fresh budget.

    Any other status is returned as it is. This is the one way out of a terminal phase, it is never
    taken by `decide`, and it is for the owner's explicit wish only.
    """
    if status.phase is not Phase.FAILED or status.stage is None:
        return status
    again = tuple(
        task
        if task.state is TaskState.SUCCEEDED
        else _first_attempt(status.run, task.round, task.stage, task.shard)
        for task in status.tasks
    )
    counters = _count(
        status.counters,
        tasks_started=sum(task.state is not TaskState.SUCCEEDED for task in status.tasks),
    )
    status = status.model_copy(
        update={
            "phase": Phase.RUNNING,
            "tasks": again,
            "counters": counters,
            "finished_seconds": None,
        }
    )
    status = _set_condition(status, "Failed", "False", Reason.RESUMED, "", now_seconds)
    return _set_condition(
        status, "Progressing", "True", Reason.RESUMED, "taken up again by its owner", now_seconds
    )


def policy_of(status: RunStatus, round: int) -> PolicyStatus:
    """The policy after `round`; the base model for round 0.

    Raises:
        LookupError: the round has not had its M-step.

    """
    for policy in status.policies:
        if policy.round == round:
            return policy
    raise LookupError(f"round {round} has no policy yet")


def _step(spec: RunSpec, status: RunStatus, observed: Observed, budget: AttemptBudget) -> RunStatus:
    """One move forward, or the same status if there is none to make."""
    if status.phase.terminal:
        return status
    if status.phase is Phase.PENDING:
        status = status.model_copy(
            update={
                "phase": Phase.RUNNING,
                "started_seconds": observed.now_seconds,
                "policies": (PolicyStatus(round=0, adapter=None, improved=False),),
            }
        )
        return _enter(spec, status, *stages(spec)[0], observed)
    for index, task in enumerate(status.tasks):
        result = observed.results.get(task.name)
        if task.state is TaskState.RUNNING and result is not None:
            return _absorb(status, index, result, observed, budget)
    if all(task.state is TaskState.SUCCEEDED for task in status.tasks):
        return _finish_stage(spec, status, observed)
    return status


def _absorb(
    status: RunStatus,
    index: int,
    result: TaskSucceeded | TaskFailed,
    observed: Observed,
    budget: AttemptBudget,
) -> RunStatus:
    """Take one task's end into the status: summary, next attempt, or the run's failure."""
    task = status.tasks[index]
    counters = status.counters
    if isinstance(result, TaskSucceeded):
        summary = result.summary
        if (summary.stage, summary.round, summary.shard) != (task.stage, task.round, task.shard):
            message = (
                f"task {task.name} delivered the summary of {summary.stage} "
                f"round {summary.round} shard {summary.shard}"
            )
            return _fail(status, index, Reason.WRONG_RESULT, message, observed)
        done = task.model_copy(
            update={"state": TaskState.SUCCEEDED, "summary": summary, "message": ""}
        )
        return _replace_task(status, index, done, _count(counters, tasks_succeeded=1))
    if result.permanent:
        return _fail(status, index, result.reason, f"task {task.name}: {result.message}", observed)
    if task.attempt >= budget.attempts:
        message = (
            f"task {task.name} was the last of {budget.attempts} attempts: "
            f"{result.reason}: {result.message}"
        )
        return _fail(status, index, Reason.ATTEMPTS_EXHAUSTED, message, observed)
    attempt = task.attempt + 1
    name = task_name(
        run=status.run,
        round=task.round,
        stage=task.stage,
        shard=_shard_in_name(task.stage, task.shard),
        attempt=attempt,
    )
    delay_seconds = budget.delay_seconds(
        name=name, attempt=attempt, retry_after_seconds=result.retry_after_seconds
    )
    update = {
        "name": name,
        "attempt": attempt,
        "delay_seconds": delay_seconds,
        "message": _cut(f"{result.reason}: {result.message}"),
    }
    return _replace_task(
        status,
        index,
        task.model_copy(update=update),
        _count(counters, tasks_failed=1, tasks_started=1),
    )


def _finish_stage(spec: RunSpec, status: RunStatus, observed: Observed) -> RunStatus:
    """Fold the stage, all of whose shards are done, and enter the next one or end the run."""
    finished = (status.tasks[0].round, status.tasks[0].stage)
    status = fold_stage(status)
    plan = stages(spec)
    following = plan.index(finished) + 1
    if following < len(plan):
        return _enter(spec, status, *plan[following], observed)
    update = {
        "phase": Phase.COMPLETE,
        "stage": None,
        "tasks": (),
        "finished_seconds": observed.now_seconds,
    }
    status = status.model_copy(update=update)
    status = _set_condition(
        status, "Progressing", "False", Reason.ALL_ROUNDS_DONE, "", observed.now_seconds
    )
    return _set_condition(
        status,
        "Complete",
        "True",
        Reason.ALL_ROUNDS_DONE,
        f"{spec.rounds} rounds done",
        observed.now_seconds,
    )


def _enter(
    spec: RunSpec, status: RunStatus, round: int, stage: Stage, observed: Observed
) -> RunStatus:
    """The status with the tasks of (round, stage) wanted."""
    tasks = tuple(
        _first_attempt(status.run, round, stage, shard) for shard in range(shards(spec, stage))
    )
    counters = _count(status.counters, tasks_started=len(tasks))
    status = status.model_copy(
        update={"round": round, "stage": stage, "tasks": tasks, "counters": counters}
    )
    message = f"round {round} of {spec.rounds}: {stage}"
    return _set_condition(
        status, "Progressing", "True", _RUNNING_REASONS[stage], message, observed.now_seconds
    )


def _first_attempt(run: str, round: int, stage: Stage, shard: int) -> TaskStatus:
    name = task_name(
        run=run, round=round, stage=stage, shard=_shard_in_name(stage, shard), attempt=1
    )
    return TaskStatus(name=name, stage=stage, round=round, shard=shard, attempt=1)


def _shard_in_name(stage: Stage, shard: int) -> int | None:
    return None if stage is Stage.IMPROVE else shard


def _fail(
    status: RunStatus, index: int, reason: str, message: str, observed: Observed
) -> RunStatus:
    """End the run: the task failed for good, the others are stopped."""
    message = _cut(message)
    failed = status.tasks[index].model_copy(update={"state": TaskState.FAILED, "message": message})
    status = _replace_task(status, index, failed, _count(status.counters, tasks_failed=1))
    tasks = tuple(
        task.model_copy(update={"state": TaskState.STOPPED})
        if task.state is TaskState.RUNNING
        else task
        for task in status.tasks
    )
    status = status.model_copy(
        update={"phase": Phase.FAILED, "tasks": tasks, "finished_seconds": observed.now_seconds}
    )
    status = _set_condition(
        status, "Progressing", "False", Reason.RUN_FAILED, "", observed.now_seconds
    )
    return _set_condition(status, "Failed", "True", reason, message, observed.now_seconds)


def _actions(spec: RunSpec, status: RunStatus, observed: Observed) -> tuple[Action, ...]:
    """The difference between what is wanted and what is there."""
    wanted = {
        task.name: task
        for task in status.tasks
        if task.state is TaskState.RUNNING and not status.phase.terminal
    }
    stops = tuple(StopTask(name=name) for name in sorted(observed.live - wanted.keys()))
    starts = tuple(
        _start(spec, status, task)
        for task in wanted.values()
        if task.name not in observed.live and not _has_live_predecessor(status, task, observed)
    )
    return (*stops, *starts)


def _has_live_predecessor(status: RunStatus, task: TaskStatus, observed: Observed) -> bool:
    """True while an earlier attempt of the same shard still lives.

    It is stopped first, so that never two work on one shard.
    """
    earlier = (
        task_name(
            run=status.run,
            round=task.round,
            stage=task.stage,
            shard=_shard_in_name(task.stage, task.shard),
            attempt=attempt,
        )
        for attempt in range(1, task.attempt)
    )
    return any(name in observed.live for name in earlier)


def _start(spec: RunSpec, status: RunStatus, task: TaskStatus) -> StartTask:
    """The action for one wanted task.

    Rollout and improve work with the policy of the round before, validation with the round's own.
    """
    before = task.round if task.stage is Stage.VALIDATE else task.round - 1
    return StartTask(
        name=task.name,
        run=status.run,
        stage=task.stage,
        round=task.round,
        shard=task.shard,
        shards=shards(spec, task.stage),
        attempt=task.attempt,
        policy=policy_of(status, before).adapter,
        delay_seconds=task.delay_seconds,
    )


def _replace_task(status: RunStatus, index: int, task: TaskStatus, counters: Counters) -> RunStatus:
    tasks = (*status.tasks[:index], task, *status.tasks[index + 1 :])
    return status.model_copy(update={"tasks": tasks, "counters": counters})


def _count(
    counters: Counters, *, tasks_started: int = 0, tasks_succeeded: int = 0, tasks_failed: int = 0
) -> Counters:
    return Counters(
        tasks_started=counters.tasks_started + tasks_started,
        tasks_succeeded=counters.tasks_succeeded + tasks_succeeded,
        tasks_failed=counters.tasks_failed + tasks_failed,
    )


def _set_condition(
    status: RunStatus, type: str, value: str, reason: str, message: str, now_seconds: float
) -> RunStatus:
    """The status with one condition set; its transition time moves only if its value does."""
    old = status.condition(type)
    since = old.last_transition_seconds if old is not None and old.status == value else now_seconds
    new = Condition.model_validate(
        {
            "type": type,
            "status": value,
            "reason": str(reason),
            "message": _cut(message),
            "last_transition_seconds": since,
        }
    )
    others = tuple(condition for condition in status.conditions if condition.type != type)
    return status.model_copy(
        update={"conditions": tuple(sorted((*others, new), key=lambda condition: condition.type))}
    )


def _cut(message: str) -> str:
    """At most 1 kB of a message, cut on a character."""
    return message.encode()[:MAX_MESSAGE_CHARACTERS].decode(errors="ignore")
