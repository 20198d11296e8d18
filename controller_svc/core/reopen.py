"""The one way out of a terminal phase: a run's owner takes it up again."""

from __future__ import annotations

from controller_svc.core.conditions import set_condition
from controller_svc.core.moves import count, enter, set_current
from controller_svc.core.plan import spec_digest, stages
from controller_svc.core.state import Phase, Reason, RunStatus, StageState, StageStatus
from seal.names import stage_name
from seal.records import Stage
from seal.settings import Spec


def reopen(spec: Spec, status: RunStatus, *, now_seconds: float) -> RunStatus:
    """A run as its owner takes it up again, with a spec that may have more rounds.

    A failed one gets another attempt of its stage with a fresh budget, a complete one goes on with
    the rounds that it did not have. This is the one way out of a terminal phase, it is never taken
    by `decide`, and it is for the owner's explicit wish only. What was cancelled, and an adaptation
    that has ended, stay as they are: who watched it has been told. `now_seconds`: Unix time.
    """
    if status.adaptation is not None:
        return status
    status = status.model_copy(update={"spec_sha256": spec_digest(spec)})
    if status.phase is Phase.FAILED and status.current is not None:
        return _reopen_failed(status, status.current, now_seconds)
    following = (status.round + 1, Stage.ROLLOUT)
    if status.phase is Phase.COMPLETE and following in stages(spec):
        status = status.model_copy(update={"phase": Phase.RUNNING, "finished_seconds": None})
        status = set_condition(status, "Complete", "False", Reason.RESUMED, "", now_seconds)
        return enter(spec, status, *following, now_seconds)
    return status


def _reopen_failed(status: RunStatus, failed: StageStatus, now_seconds: float) -> RunStatus:
    attempt = failed.attempt + 1
    status = set_current(
        status,
        failed,
        name=stage_name(run=status.run, round=failed.round, stage=failed.stage, attempt=attempt),
        attempt=attempt,
        opened_attempt=attempt,
        state=StageState.RUNNING,
        delay_seconds=0.0,
        failed=(),
        failed_shards=0,
        message="",
    )
    counters = count(status.counters, started=1)
    status = status.model_copy(
        update={"phase": Phase.RUNNING, "counters": counters, "finished_seconds": None}
    )
    status = set_condition(status, "Failed", "False", Reason.RESUMED, "", now_seconds)
    return set_condition(
        status, "Progressing", "True", Reason.RESUMED, "taken up again by its owner", now_seconds
    )
