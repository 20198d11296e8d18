"""Two leaders: one that was paused and wakes, and two that both believe that they lead.

n is told at the end of the test's session.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fault_site import EVERYTHING, Site, small_adaptation, small_run
from memory_api import Killed
from memory_cluster import CALM, STORM, Chances
from mortal import Life, Sleeper, dies_at

HOURS_SECONDS = 7200.0
SEEDS = 400 if EVERYTHING else 16
STRIDE = 1 if EVERYTHING else 7
"""Every which request somebody sleeps before."""


def site_of(directory: Path, *, seed: int = 0, chances: Chances = CALM) -> Site:
    site = Site(directory, seed=seed, chances=chances)
    site.submit(small_run())
    site.submit(small_adaptation())
    return site


@pytest.mark.parametrize("turns", [1, 3, 99], ids=["soon", "later", "after the end"])
async def test_a_leader_paused_before_any_request_does_no_harm_when_it_wakes(
    turns: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    calm, life = site_of(tmp_path / "calm"), Life()
    await calm.to_the_end(life)
    undisturbed = calm.results()
    cases = 0
    for number in itertools.count(1 + turns % STRIDE, STRIDE):
        site = site_of(tmp_path / str(number))
        if not await slept_through(site, Sleeper(number), turns):
            break
        cases += 1
        await site.check_all_counted()
        assert site.results() == undisturbed, number
    record_property("n", cases)
    assert cases > 60 / STRIDE


async def slept_through(site: Site, sleeper: Sleeper, turns: int) -> bool:
    """One sleeps while another leads for so many turns; False if nothing was left to sleep over."""
    paused = site.elect(Life(pause=sleeper))
    for _ in range(99):
        turning = asyncio.create_task(paused.turn())
        sleeping = asyncio.create_task(sleeper.asleep.wait())
        await asyncio.wait({turning, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        sleeping.cancel()
        if sleeper.asleep.is_set():
            break
        await turning
        if site.ended:
            return False
        await site.cluster.step()
    site.rivals = True
    other = site.elect()
    for _ in range(turns):
        await other.turn()
        if site.ended:
            break
        await site.cluster.step()
    if site.ended:
        await site.cluster.step(HOURS_SECONDS)  # its Jobs have lived their time
    before = len(paused.life.done)
    paused.life.leads = False
    sleeper.woken.set()
    await turning
    paused.lose_the_watch()
    # M4: what it was about to send is carried out or refused, and nothing follows it
    assert paused.life.done[before:] in ([], [sleeper.request])
    await site.to_the_end()
    return True


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_two_that_lead_at_once_in_a_storm_end_as_if_nothing_had_happened(
    seed: int, tmp_path: Path
) -> None:
    calm = site_of(tmp_path / "calm")
    await calm.to_the_end()
    chance = random.Random(seed)
    site = site_of(tmp_path / "storm", seed=seed, chances=STORM)
    site.rivals = True

    async def dawdle(request: str) -> None:
        for _ in range(chance.randint(0, 6)):
            await asyncio.sleep(0)

    rivals = [site.elect(Life(pause=dawdle)) for _ in range(2)]
    for _ in range(chance.randint(1, 30)):
        turns = [asyncio.create_task(one.turn()) for one in rivals]
        for _ in range(chance.randint(0, 3)):
            await asyncio.sleep(0)
            await site.cluster.step(1.0)
        await asyncio.gather(*turns)
        if chance.random() < 0.2:
            rivals[chance.randrange(2)] = site.elect(Life(pause=dawdle))
    deaths = [Life(dies_at(chance.randint(0, 60))) for _ in range(chance.randint(0, 3))]
    with suppress(Killed):
        await site.to_the_end(*deaths)
    await site.check_all_counted()
    assert site.results() == calm.results()
