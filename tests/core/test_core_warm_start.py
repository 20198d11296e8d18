"""A warm start in the state machine: an M-step of round 0, before anything is measured."""

from __future__ import annotations

import pytest
from test_core_decide import POLICY, at, failed, finish_stage, finished, wanted

from controller_svc.core import (
    AttemptBudget,
    Observed,
    Phase,
    RunStatus,
    decide,
    new_status,
    policy_of,
    reopen,
    round_name,
    stages,
)
from seal.records import WARM_START, AdapterReference, Stage
from seal.settings import EditSettings, ImproveSettings, RunSpec

SPEC = RunSpec(
    rounds=1,
    shards=2,
    edit=EditSettings(family="self-qa"),
    improve=ImproveSettings(warm_start="gold"),
)
WARM = AdapterReference(path="x/0", sha256="0" * 64)


def warmed(spec: RunSpec = SPEC) -> RunStatus:
    """The warm start is done."""
    status = at(0, Stage.IMPROVE, spec=spec)
    return finish_stage(status, spec=spec, policy=WARM, label=WARM_START, kept_parts=7)


def test_the_warm_start_follows_prepare_and_everything_else_follows_it() -> None:
    assert stages(SPEC) == (
        (0, Stage.PREPARE),
        (0, Stage.IMPROVE),
        (0, Stage.VALIDATE),
        (1, Stage.ROLLOUT),
        (1, Stage.IMPROVE),
        (1, Stage.VALIDATE),
    )
    start = wanted(at(0, Stage.IMPROVE, spec=SPEC), spec=SPEC)
    assert (start.name, start.shards, start.policy) == ("demo-r0-improve-a1", 1, None)


def test_before_it_there_is_no_policy_and_after_it_round_0_is_supervised() -> None:
    with pytest.raises(LookupError, match="round 0"):
        policy_of(at(0, Stage.IMPROVE, spec=SPEC), 0)
    (policy,) = warmed().policies
    assert (policy.round, policy.adapter, policy.trained, policy.supervised) == (
        0,
        WARM,
        True,
        True,
    )
    assert round_name(warmed(), 0) == "round 0 (warm start, supervised)"


def test_round_0_is_measured_by_it_and_the_first_rollout_and_m_step_go_on_from_it() -> None:
    status = warmed()
    assert wanted(status, spec=SPEC).policy == WARM
    rollout = finish_stage(status, spec=SPEC)
    assert wanted(rollout, spec=SPEC).stage is Stage.ROLLOUT
    assert wanted(rollout, spec=SPEC).policy == WARM
    improve = finish_stage(rollout, spec=SPEC)
    assert wanted(improve, spec=SPEC).policy == WARM
    validate = finish_stage(improve, spec=SPEC)
    assert wanted(validate, spec=SPEC).policy == POLICY
    assert [policy.supervised for policy in validate.policies] == [True, False]


def test_one_that_made_no_policy_leaves_the_base_and_nothing_supervised() -> None:
    status = finish_stage(at(0, Stage.IMPROVE, spec=SPEC), spec=SPEC, policy=None)
    (policy,) = status.policies
    assert (policy.adapter, policy.trained, policy.supervised) == (None, False, False)
    assert round_name(status, 0) == "round 0"
    assert wanted(status, spec=SPEC).policy is None


def test_the_message_says_that_it_is_supervised() -> None:
    progressing = at(0, Stage.IMPROVE, spec=SPEC).condition("Progressing")
    assert progressing is not None
    assert progressing.message == "round 0: warm start on gold pairs (supervised)"


def test_one_that_fails_is_tried_again_as_any_stage_and_resumed_under_a_new_name() -> None:
    status, budget = at(0, Stage.IMPROVE, spec=SPEC), AttemptBudget(attempts=2)
    for attempt in (1, 2):
        start = wanted(status, spec=SPEC)
        assert start.name == f"demo-r0-improve-a{attempt}"
        status = decide(SPEC, status, failed(start), budget=budget).status
    assert status.phase is Phase.FAILED
    again = reopen(SPEC, status, now_seconds=9.0)
    assert wanted(again, spec=SPEC).name == "demo-r0-improve-a3"
    assert finish_stage(again, spec=SPEC).stage is Stage.VALIDATE


def test_a_run_that_is_only_warmed_may_be_given_rounds_later() -> None:
    none, one = SPEC.model_copy(update={"rounds": 0}), SPEC
    done = finish_stage(warmed(none), spec=none)
    assert done.phase is Phase.COMPLETE
    start = wanted(reopen(one, done, now_seconds=9.0), spec=one)
    assert (start.round, start.stage, start.policy) == (1, Stage.ROLLOUT, WARM)


def test_without_one_nothing_has_changed() -> None:
    plain = RunSpec(rounds=1)
    status = decide(plain, new_status(plain, run="demo"), Observed()).status
    assert status.policies == (), "a run that is not pinned yet may get another spec"
    status = decide(plain, status, finished(wanted(status, spec=plain))).status
    assert status.stage is Stage.VALIDATE
    assert policy_of(status, 0).adapter is None


@pytest.mark.parametrize("warm_first", [True, False])
def test_a_run_that_was_refused_before_it_was_pinned_may_begin_again_with_or_without_it(
    warm_first: bool,
) -> None:
    cold = SPEC.model_copy(update={"improve": ImproveSettings(warm_start="none")})
    first, second = (SPEC, cold) if warm_first else (cold, SPEC)
    begun = decide(first, new_status(first, run="demo"), Observed()).status
    refused = decide(first, begun, failed(wanted(begun, spec=first), permanent=True)).status
    assert refused.phase is Phase.FAILED
    status = finish_stage(reopen(second, refused, now_seconds=9.0), spec=second)
    if not warm_first:
        assert (status.stage, status.policies) == (Stage.IMPROVE, ())
        status = finish_stage(status, spec=second, policy=WARM, label=WARM_START)
    assert status.stage is Stage.VALIDATE
    (policy,) = status.policies
    assert (policy.adapter, policy.supervised) == ((None, False) if warm_first else (WARM, True))
