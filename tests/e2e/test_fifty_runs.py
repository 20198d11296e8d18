"""However many runs come and go on a cluster, each pod shows as many series as after a few.

`E2E_RUNS` of them, by default fifty.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from release import SERVICES, TINY, Release, until

from controller_svc.core import Phase

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

RUNS, AT_ONCE = int(os.environ.get("E2E_RUNS", "50")), 5
OTHERS = ("controller", "api")
GONE_SECONDS = 60.0
"""Until the controller has seen that a run is deleted."""

Series = frozenset[tuple[str, frozenset[tuple[str, str]]]]


def shown(pod: str, release: Release) -> Series:
    """Name and labels of all that a pod shows."""
    return frozenset(
        (sample.name, frozenset(sample.labels.items()))
        for family in text_string_to_metric_families(release.metrics(pod))
        for sample in family.samples
    )


def of_runs(series: Series) -> set[str]:
    """The runs that are named."""
    return {value for _, labels in series for label, value in labels if label == "run"}


def live(numbers: Iterable[int], release: Release) -> None:
    """Runs from their beginning to their end, side by side; then they are deleted."""
    names = [release.apply_run(f"tiny-{number}", **TINY) for number in numbers]
    for name in names:
        run = release.wait_for(name)
        assert run.status is not None and run.status.phase is Phase.COMPLETE, run.body
    (controller,) = release.pods("controller")
    assert of_runs(shown(controller, release)) & set(names), "what has just ended is still shown"
    release.kubectl("delete", "restemruns", *names, "--timeout=120s")
    until(lambda: not of_runs(shown(controller, release)), seconds=GONE_SECONDS)


def test_fifty_runs_leave_as_many_series_as_a_few(
    release: Release, record_property: pytest.RecordProperty
) -> None:
    pods = [pod for component in (*SERVICES, *OTHERS) for pod in release.pods(component)]
    live(range(AT_ONCE), release)
    few = {pod: shown(pod, release) for pod in pods}
    for first in range(AT_ONCE, RUNS, AT_ONCE):
        live(range(first, first + AT_ONCE), release)
    for pod, series in few.items():
        assert shown(pod, release) - series == set(), pod
    record_property("n", RUNS)
