"""Every request that a controller makes, against every way in which an API server fails it.

Once, and for a while: the first time that the request is made, or the first few times together, as
of a server that is down for a minute. By default a fifth of the cases, each fault with some of
the requests. n is told at the end of the test's session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from api_faults import API_FAULTS, ApiFault
from fault_site import EVERYTHING, Site, small_adaptation, small_run
from mortal import Life
from pod_work import SyntheticWork

from seal.errors import SealError, Transient
from seal.records import Stage
from seal.runs.task import ShardTask

REQUESTS = (
    "create events",
    "create jobs",
    "get adaptations",
    "get jobs",
    "get restemruns",
    "list events",
    "list jobs",
    "list pods",
    "replace_status adaptations",
    "replace_status restemruns",
)
A_WHILE = 5
"""Times that a request is failed by a server that is down."""


def rollout_is_slow_and_fails_once(task: ShardTask) -> SealError | None:
    """So that pods and events are looked at, and a second attempt is made."""
    away = task.stage is Stage.ROLLOUT and task.attempt == 1
    return Transient("the generator is away") if away else None


def busy_site(directory: Path) -> Site:
    """One on which every kind of request is made."""
    site = Site(directory, work=SyntheticWork(rollout_is_slow_and_fails_once))
    site.submit(small_run())
    site.submit(small_adaptation(cancelled=True))
    site.submit(small_adaptation("more"))
    return site


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Life]:
    """Undisturbed."""
    site, life = busy_site(tmp_path_factory.mktemp("calm")), Life()
    asyncio.run(site.to_the_end(life))
    return site, life


def test_these_are_all_the_requests_that_are_made(calm: tuple[Site, Life]) -> None:
    asked = {seen.partition(" ")[2] for seen in calm[1].seen}
    assert {one for one in asked if "/" not in one and not one.endswith((".json", "swept"))} == set(
        REQUESTS
    )


@pytest.mark.parametrize("request_name", REQUESTS)
async def test_every_request_may_fail_in_every_way(
    request_name: str,
    calm: tuple[Site, Life],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    undisturbed, cases = calm[0].results(), 0
    place = REQUESTS.index(request_name)
    for number, fault in enumerate(API_FAULTS):
        for times in (1, A_WHILE):
            if not EVERYTHING and (number + place) % 5:
                continue
            cases += 1
            site = busy_site(tmp_path / f"{cases}")
            disturbed = Life(failing(site, fault, request_name, times))
            await site.to_the_end(disturbed)
            assert disturbed.struck >= 1, fault.name
            await site.check_all_counted()
            assert site.results() == undisturbed, (fault.name, times)
    record_property("n", cases)


def failing(
    site: Site, fault: ApiFault, request: str, times: int
) -> Callable[[int, str], SealError | None]:
    """The first so many of these requests fail."""
    left = times

    def strike(number: int, effect: str) -> SealError | None:
        nonlocal left
        if effect != f"{fault.moment} {request}" or not left:
            return None
        left -= 1
        site.cluster.now += fault.seconds
        return fault.error(request)

    return strike
