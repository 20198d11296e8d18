"""Every request that a controller makes, against every way in which an API server fails it.

Once, or for a while: the first time that the request is made, or the first few times together, as
of a server that is down for a minute. n is told at the end of the test's session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conftest import EVERYTHING
from fault_site import Site, small_adaptation, small_run
from mortal import Life
from pod_work import SyntheticWork

from controller_svc.k8s.api import TIMEOUT_SECONDS, api_error
from seal.errors import SealError, Transient
from seal.records import Stage
from seal.runs.task import ShardTask

A_WHILE = 6
"""Times that a request is failed by a server that is down."""
QUOTA = '{"message": "exceeded quota: small"}'


@dataclass(frozen=True)
class ApiFault:
    """One way to fail."""

    name: str
    status: int = 0
    """Of the reply; 0 for none."""
    body: str = ""
    retry_after: str = ""
    moment: str = "before"
    """`after`: what was asked has been done."""
    seconds: float = 0.0
    """That it takes."""

    def error(self, request: str) -> SealError:
        """As `KubernetesApi` tells it."""
        if self.status:
            headers = {"Retry-After": self.retry_after} if self.retry_after else {}
            return api_error(self.status, self.body, headers, request)
        return Transient(f"{request}: {self.name}")


API_FAULTS = (
    ApiFault("unauthorised", status=401),
    ApiFault("forbidden", status=403),
    ApiFault("quota", status=403, body=QUOTA),
    ApiFault("conflict", status=409),
    ApiFault("gone", status=410),
    ApiFault("unprocessable", status=422),
    ApiFault("too many", status=429, retry_after="1"),
    ApiFault("error", status=500),
    ApiFault("error after all", status=500, moment="after"),
    ApiFault("unavailable", status=503, retry_after="5"),
    ApiFault("timeout of a proxy", status=504),
    ApiFault("timeout of a proxy after all", status=504, moment="after"),
    ApiFault("reset"),
    ApiFault("lost reply", moment="after"),
    ApiFault("hang", seconds=TIMEOUT_SECONDS),
    ApiFault("hang after all", moment="after", seconds=TIMEOUT_SECONDS),
)


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
