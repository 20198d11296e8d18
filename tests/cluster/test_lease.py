"""One controller leads at a time, knows when it leads no more, and each turn has a new number."""

from __future__ import annotations

import asyncio

import pytest
from memory_api import MemoryApi

from controller_svc.k8s.api import LEASES
from controller_svc.k8s.lease import Leadership, LeaseTimes
from seal.errors import Superseded, Transient

START = 1_800_000_000.0
TIMES = LeaseTimes()


class Time:
    """One clock for all, that moves when somebody sleeps or a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def candidate(api, time: Time, name: str, times: LeaseTimes = TIMES) -> Leadership:
    return Leadership(
        api, namespace="team", name="seal", identity=name, times=times,
        clock=time.clock, wall_clock=lambda: START + time.now, sleep=time.sleep,
    )  # fmt: skip


def spec(api: MemoryApi):
    return api.objects[(LEASES, "team", "seal")]["spec"]


async def test_a_second_candidate_waits_until_the_first_has_been_silent_for_the_leases_duration():
    api, time = MemoryApi(), Time()
    first = await candidate(api, time, "a").acquire()
    began = time.now
    second = await candidate(api, time, "b").acquire()
    assert second == first + 1
    assert LeaseTimes().duration_seconds <= time.now - began <= 5
    assert spec(api)["holderIdentity"] == "b"


async def test_a_candidate_looks_at_the_moment_at_which_the_lease_is_free():
    api, time = MemoryApi(), Time()
    await candidate(api, time, "a").acquire()
    time.now += 0.3  # the renewal, seen late by a candidate whose pauses do not divide 4 s
    times, seen = LeaseTimes(look_seconds=0.7), time.now
    await candidate(api, time, "b", times).acquire()
    assert time.now - seen == pytest.approx(times.duration_seconds)


async def test_a_leader_that_renews_is_not_followed():
    api, time = MemoryApi(), Time()
    leader, other = candidate(api, time, "a"), candidate(api, time, "b")
    epoch = await leader.acquire()
    holding = asyncio.create_task(leader.hold())
    waiting = asyncio.create_task(other.acquire())
    for _ in range(200):
        await asyncio.sleep(0)
    assert time.now > 150 and not holding.done() and not waiting.done()
    assert (leader.epoch, other.epoch) == (epoch, None)
    holding.cancel()
    assert await waiting > epoch


async def test_a_paused_leader_knows_on_waking_that_it_leads_no_more():
    api, time = MemoryApi(), Time()
    paused = candidate(api, time, "a")
    await paused.acquire()
    time.now += LeaseTimes().deadline_seconds
    asked = len(api.requests)
    assert paused.epoch is None and len(api.requests) == asked
    await candidate(api, time, "b").acquire()
    with pytest.raises(Superseded):
        await paused.hold()
    assert spec(api)["holderIdentity"] == "b"


async def test_a_leader_paused_over_anothers_whole_turn_does_not_go_on_under_a_new_number():
    api, time = MemoryApi(), Time()
    paused = candidate(api, time, "a")
    epoch = await paused.acquire()

    async def others_turn(seconds: float) -> None:
        time.now += 10
        await candidate(api, time, "b").acquire()
        time.now += 10
        paused._sleep = time.sleep

    paused._sleep = others_turn
    with pytest.raises(Superseded):
        await paused.hold()
    assert await paused.acquire() == epoch + 2


@pytest.mark.parametrize("request_name", ["create leases", "replace leases"])
async def test_a_lost_reply_costs_no_turn(request_name: str):
    api, time = MemoryApi(), Time()
    if request_name.startswith("replace"):
        await candidate(api, time, "a").acquire()
        time.now += 5
    lost: list[str] = []

    def lose(request: str, done: bool) -> None:
        if done and request == request_name and not lost:
            lost.append(request)
            raise Transient("the connection was reset")

    api.fault = lose
    taken = await candidate(api, time, "b").acquire()
    assert lost and taken == spec(api)["leaseTransitions"]
    assert len([one for one in api.requests if one.startswith("create")]) == 1
    if request_name.startswith("replace"):
        assert taken == int((START + 100) // 60) + 1


async def test_of_two_that_take_a_free_lease_at_once_one_leads():
    api, time = MemoryApi(), Time()
    await candidate(api, time, "a").acquire()
    time.now += 5
    one, two = candidate(api, time, "b"), candidate(api, time, "c")
    raced: list[bool] = []

    def race(request: str, done: bool) -> None:
        if request == "replace leases" and not done and not raced:
            raced.append(True)
            api.fault = lambda request, done: None
            api.change(LEASES, "seal", spec={**spec(api), "holderIdentity": "c",
                       "leaseTransitions": spec(api)["leaseTransitions"] + 1})  # fmt: skip

    for each in (one, two):
        await each._attempt()
    time.now += 5
    api.fault = race
    await one._attempt()
    assert raced and one.epoch is None
    await two._attempt()
    assert two.epoch == spec(api)["leaseTransitions"]


async def test_a_leader_whose_server_is_away_stops_before_another_may_take_over():
    api, time = MemoryApi(), Time()
    leader = candidate(api, time, "a")
    await leader.acquire()
    began = time.now

    def away(request: str, done: bool) -> None:
        raise Transient("away")

    api.fault = away
    with pytest.raises(Superseded):
        await leader.hold()
    assert time.now - began < LeaseTimes().duration_seconds


async def test_a_leader_whose_server_hangs_stops_before_another_may_take_over():
    api = MemoryApi()
    times = LeaseTimes(retry_seconds=0.05, deadline_seconds=0.3, duration_seconds=1)
    leader = Leadership(api, namespace="team", name="seal", identity="a", times=times)
    await leader.acquire()
    began = asyncio.get_running_loop().time()

    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    api.get = hang
    with pytest.raises(Superseded):
        await leader.hold()
    assert asyncio.get_running_loop().time() - began < times.duration_seconds
    assert leader.epoch is None


async def test_a_released_lease_is_taken_at_once():
    api, time = MemoryApi(), Time()
    leader = candidate(api, time, "a")
    epoch = await leader.acquire()
    await leader.release()
    began = time.now
    assert leader.epoch is None
    assert await candidate(api, time, "b").acquire() == epoch + 1 and time.now == began


async def test_a_lease_that_somebody_deletes_does_not_begin_to_count_anew():
    api, time = MemoryApi(), Time()
    leader = candidate(api, time, "a")
    epoch = await leader.acquire()
    api.objects.clear()
    with pytest.raises(Superseded):
        await leader.hold()
    assert await leader.acquire() > epoch


async def test_a_lease_that_somebody_restores_does_not_begin_to_count_anew():
    api, time = MemoryApi(), Time()
    leader = candidate(api, time, "a")
    epoch = await leader.acquire()
    await leader.release()
    api.change(LEASES, "seal", spec={"holderIdentity": "", "leaseTransitions": 3})
    time.now += 60
    assert await candidate(api, time, "b").acquire() > epoch
