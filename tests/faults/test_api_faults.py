"""Every request that a controller makes, against every way in which an API server fails it.

Once, or for a while: the first time that the request is made, or the first few times together, as
of a server that is down for a minute. n is told at the end of the test's session.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from api_faults import API_FAULTS, ApiFault
from fault_site import EVERYTHING, Site, small_adaptation, small_run
from mortal import Life
from pod_work import SyntheticWork

from seal.errors import SealError, Transient
from seal.records import Stage
from seal.runs.task import ShardTask

A_WHILE = 6
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


async def test_every_request_may_fail_in_every_way(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    calm, life = busy_site(tmp_path / "calm"), Life()
    await calm.to_the_end(life)
    undisturbed = calm.results()
    requests = sorted(
        {seen.partition(" ")[2] for seen in life.seen if "/" not in seen and "json" not in seen}
    )
    assert {"create jobs", "get jobs", "list jobs", "list pods"} <= set(requests)
    assert {"replace_status restemruns", "replace_status adaptations"} <= set(requests)
    cases = 0
    for place, request in enumerate(requests):
        for number, fault in enumerate(API_FAULTS, start=place):
            for times in (1, A_WHILE) if EVERYTHING else (1, A_WHILE)[number % 2 :][:1]:
                cases += 1
                site = busy_site(tmp_path / f"{cases}")
                disturbed = Life(failing(site, fault, request, times))
                await site.to_the_end(disturbed)
                assert disturbed.struck >= 1, (request, fault.name)
                await site.check_all_counted()
                assert site.results() == undisturbed, (request, fault.name, times)
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
