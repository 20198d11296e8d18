"""What became of an object is told once, in events and metrics, whoever tells it."""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from controller_office import Office, small_adaptation, small_run
from memory_api import Killed

from controller_svc.core import Phase
from controller_svc.k8s.api import API_SERVER, EVENTS, RUNS
from controller_svc.k8s.front.adaptation_objects import read_object, view_of
from controller_svc.k8s.story import RECENT_SECONDS
from seal.errors import SealError, Transient
from seal.run_metrics import SHOWN_AFTER_END_SECONDS

WHOLE = [
    "PrepareRunning", "ValidateRunning", "RolloutRunning", "ImproveRunning", "ValidateRunning",
    "AllRoundsDone",
]  # fmt: skip


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path / "store")


def reasons(office: Office, key: Any) -> list[str]:
    return [reason for _, reason in office.told(key)]


async def test_the_events_of_a_run_are_its_story(office: Office) -> None:
    key = office.submit(small_run())
    await office.to_the_end(key)
    assert reasons(office, key) == WHOLE
    assert {type for type, _ in office.told(key)} == {"Normal"}
    events: list[Any] = [found for at, found in office.api.objects.items() if at[0] == EVENTS]
    assert len({event["metadata"]["name"] for event in events}) == len(WHOLE)
    first = events[0]
    assert first["message"] == "round 0 of 1: prepare"
    assert first["involvedObject"]["kind"] == "RestEMRun" and first["metadata"]["namespace"]
    times = [event["lastTimestamp"] for event in events]
    assert times == sorted(times) and len(set(times)) == len(WHOLE), "each at its own time"


async def test_a_second_attempt_tells_why(office: Office) -> None:
    tried: list[str] = []

    def fail(task: Any) -> Transient | None:
        tried.append(task.name)
        return Transient("the trainer is away") if len(tried) <= 4 else None

    office.work.fail = fail
    key = office.submit(small_run())
    for _ in range(40):
        await office.look(key)
        await office.cluster.step()
    again = next(one for one in office.told(key) if one[1] == "StageAgain")
    assert again[0] == "Warning" and office.status(key).phase is Phase.COMPLETE


async def test_an_event_that_was_not_posted_holds_up_nothing(office: Office) -> None:
    def refuse(request: str, done: bool) -> None:
        if request == "create events":
            raise Transient("away")

    office.api.fault = refuse
    key = office.submit(small_run())
    await office.to_the_end(key)
    assert office.told(key) == []


@pytest.mark.parametrize("stale", [False, True])
async def test_what_became_of_it_is_told_also_where_the_reply_to_its_writing_was_lost(
    office: Office, monkeypatch: pytest.MonkeyPatch, stale: bool
) -> None:
    key, get = office.submit(small_run()), office.api.get
    lost: list[Any] = []
    written: list[Any] = []
    before: Any = None

    def lose(request: str, done: bool) -> None:
        if done and request == "replace_status restemruns":
            written.append(request)
            if len(written) == len(WHOLE) and not lost:
                lost.append(before)
                raise Transient("the connection was reset", away=API_SERVER)

    async def old_once(kind: Any, namespace: str, name: str) -> Any:
        if lost and stale and kind == RUNS and len(lost) == 1:
            lost.append(None)
            return lost[0]
        return await get(kind, namespace, name)

    office.api.fault = lose
    monkeypatch.setattr(office.api, "get", old_once)
    for _ in range(2 * len(WHOLE)):
        before = copy.deepcopy(office.body(key))
        with suppress(SealError):
            await office.look(key)
        await office.cluster.step()
    assert lost and reasons(office, key) == WHOLE
    transitions = office.metrics.registry.get_sample_value
    loops = office.status(key).rounds[-1].outcomes
    assert loops and transitions("seal_inner_loops_total", {"outcome": "ok"}) == sum(
        number
        for entry in office.status(key).rounds
        for name, number in entry.outcomes.items()
        if name.endswith("/ok") and not name.startswith("improve")
    )


@pytest.mark.parametrize("number", range(12))
async def test_of_a_controller_that_dies_over_its_story_the_next_tells_the_rest_and_no_more(
    office: Office, number: int
) -> None:
    key = office.submit(small_run())
    moments = 0

    def die(request: str, done: bool) -> None:
        nonlocal moments
        if request == "create events":
            moments += 1
            if moments == number + 1:
                raise Killed

    office.api.fault = die
    while moments <= number or not office.status(key).phase.terminal:
        try:
            await office.to_the_end(key)
        except Killed:
            office.restart()
    await office.look(key)
    assert sorted(reasons(office, key)) == sorted(WHOLE)


async def test_what_is_long_past_is_not_told_again_when_its_events_have_gone(
    office: Office,
) -> None:
    key = office.submit(small_run())
    await office.to_the_end(key)
    for found in [at for at in office.api.objects if at[0] == EVENTS]:
        del office.api.objects[found]
    office.cluster.now += RECENT_SECONDS + 1
    office.restart()
    await office.look(key)
    assert office.told(key) == []


async def test_a_suspension_and_its_end_are_told(office: Office) -> None:
    key = office.submit(small_run(suspend=True))
    await office.look(key)
    office.change(key, suspend=False)
    await office.look(key)
    assert reasons(office, key)[:3] == ["Suspended", "PrepareRunning", "Resumed"]


async def test_each_suspension_at_the_same_stage_is_told_for_itself(office: Office) -> None:
    key = office.submit(small_run())
    await office.look(key)
    for _ in range(2):
        for suspend in (True, False):
            office.cluster.now += 1
            office.change(key, suspend=suspend)
            await office.look(key)
    assert reasons(office, key) == ["PrepareRunning"] + 2 * ["Suspended", "Resumed"]


async def test_the_metrics_count_objects_transitions_and_loops_and_forget_runs_at_their_end(
    office: Office,
) -> None:
    value = office.metrics.registry.get_sample_value
    run, adapts = office.submit(small_run()), office.submit(small_adaptation())
    for key in (run, adapts):
        await office.look(key)
    assert value("seal_objects", {"kind": "RestEMRun", "phase": "Running"}) == 1
    for _ in range(3):
        await office.cluster.step()
        await office.look(run)
    names = {"namespace": "team", "run": "demo"}
    reward = names | {"round": "0", "stage": "validate", "kind": "edit"}
    assert value("seal_run_reward", reward) is not None
    share = value("seal_run_progress_ratio", names)
    assert share is not None and 0 < share < 1
    await office.to_the_end(run, adapts)
    for kind in ("RestEMRun", "Adaptation"):
        assert value("seal_objects", {"kind": kind, "phase": "Complete"}) == 1
        assert value("seal_objects", {"kind": kind, "phase": "Running"}) == 0
    assert value("seal_run_reward", reward | {"round": "1"}) is not None
    office.cluster.now += SHOWN_AFTER_END_SECONDS + 1
    assert value("seal_run_progress_ratio", names) is None
    assert value("seal_run_reward", reward) is None
    counted = sum(number for key in (run, adapts) for number in loops(office.status(key)).values())
    assert counted and value("seal_inner_loops_total", {"outcome": "ok"}) == counted


def loops(status: Any) -> dict[str, int]:
    """I12: what the object says."""
    counts = dict(status.adaptation.edits) if status.adaptation else {}
    for entry in status.rounds:
        counts |= {
            f"{entry.round}/{name}": number
            for name, number in entry.outcomes.items()
            if not name.startswith("improve/")
        }
    return counts


async def test_adaptations_that_ended_are_counted_once_by_state(office: Office) -> None:
    ends, called_off = office.submit(small_adaptation()), office.submit(small_adaptation("off"))
    office.change(called_off, cancelled=True)
    await office.to_the_end(ends, called_off)
    await office.look(ends)
    view = view_of(office.body(ends), read_object(office.body(ends))[0])

    def ended(state: str) -> float | None:
        return office.metrics.registry.get_sample_value(
            "seal_adaptations_ended_total", {"state": state}
        )

    assert (ended(view.state), ended("Cancelled")) == (1, 1)
