"""The controller's pure core: state, names and decisions. No I/O, no clock, no randomness."""

from controller_svc.core.budget import DEFAULT_BUDGET, AttemptBudget
from controller_svc.core.decide import decide, new_status, policy_of
from controller_svc.core.names import stage_name
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
from controller_svc.core.plan import place_name, shards, spec_digest, stages
from controller_svc.core.ranges import format_ranges, parse_ranges
from controller_svc.core.reopen import reopen
from controller_svc.core.rounds import round_name, sum_shards
from controller_svc.core.state import (
    AdaptationStatus,
    Condition,
    Counters,
    FailedShard,
    FinishedStage,
    Phase,
    PolicyStatus,
    Reason,
    RoundStatus,
    RunStatus,
    StageState,
    StageStatus,
)

__all__ = [
    "DEFAULT_BUDGET",
    "Action",
    "AdaptationStatus",
    "AttemptBudget",
    "Condition",
    "Counters",
    "Decision",
    "FailedIndex",
    "FailedShard",
    "FinishedStage",
    "Observed",
    "Phase",
    "PolicyStatus",
    "Reason",
    "RoundStatus",
    "RunStatus",
    "StageObserved",
    "StageState",
    "StageStatus",
    "StageSums",
    "StartStage",
    "StopStage",
    "decide",
    "format_ranges",
    "new_status",
    "parse_ranges",
    "place_name",
    "policy_of",
    "reopen",
    "round_name",
    "shards",
    "spec_digest",
    "stage_name",
    "stages",
    "sum_shards",
]
