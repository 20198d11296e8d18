"""Whatever becomes of a run is told by one transition, in both worlds: a log line, a count."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from controller_harness import IMPATIENT, RUN, small_spec
from controller_office import Office, small_run
from fake_services import Fakes, serve_fakes
from structlog.testing import capture_logs

from controller_svc.core import Phase, RunStatus, transitions
from controller_svc.local.observer import SilentObserver
from controller_svc.local.world import run_local
from seal.metrics import metrics
from seal.records import Stage
from seal.resources import RUN_KIND, RestEMRun

ROOT = Path(__file__).parents[2]


class Saved(SilentObserver):
    """Keeps every status that was saved."""

    def __init__(self) -> None:
        self.statuses: list[RunStatus] = []

    def on_status(self, status: RunStatus) -> None:
        self.statuses.append(status)


def counted() -> Counter[str]:
    return Counter(
        {
            sample.labels["reason"]: int(sample.value)
            for family in metrics.transitions.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels["kind"] == RUN_KIND
        }
    )


def logged(lines: list[Any], kind: str = RUN_KIND) -> list[str]:
    return [line["event"] for line in lines if line.get("kind") == kind]


async def local_run(
    directory: Path, observer: SilentObserver, *, rounds: int = 1, resume: bool = False
) -> RunStatus:
    async with serve_fakes(Fakes()) as addresses:
        return await run_local(
            RestEMRun.of(RUN, small_spec(directory, rounds=rounds)),
            root=directory / "artifacts",
            services=addresses,
            resume=resume,
            progress=observer,
            settings=IMPATIENT,
        )


async def test_each_change_that_a_laptop_saves_is_told_once(tmp_path: Path) -> None:
    saved, before = Saved(), counted()
    with capture_logs() as lines:
        await local_run(tmp_path, saved)
    wanted = [
        one.reason
        for old, new in zip(saved.statuses, saved.statuses[1:], strict=False)
        for one in transitions(old, new)
    ]
    assert wanted[-1] == "AllRoundsDone" and "RolloutRunning" in wanted
    assert logged(lines) == wanted
    assert counted() - before == Counter(wanted)


class Stopped(BaseException):
    """Ctrl-C."""


class StopsAt(SilentObserver):
    """Its owner stops the run at a stage."""

    def on_status(self, status: RunStatus) -> None:
        if status.stage is Stage.ROLLOUT:
            raise Stopped


async def test_a_run_that_goes_on_at_its_owners_wish_says_so_once(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        await local_run(tmp_path, StopsAt())
    for rounds, told in ((1, ["Resumed"]), (1, []), (2, ["Resumed"])):
        before = counted()
        with capture_logs() as lines:
            status = await local_run(tmp_path, SilentObserver(), rounds=rounds, resume=True)
        assert status.phase is Phase.COMPLETE
        assert logged(lines)[:1] == told
        assert (counted() - before)["Resumed"] == len(told)


async def test_each_event_of_a_cluster_is_a_line_and_a_count(tmp_path: Path) -> None:
    office, before = Office(tmp_path / "store"), counted()
    key = office.submit(small_run())
    with capture_logs() as lines:
        await office.to_the_end(key)
    told = [reason for _, reason in office.told(key)]
    assert told[-1] == "AllRoundsDone"
    assert logged(lines) == told and counted() - before == Counter(told)


async def test_a_laptop_shows_of_a_run_what_its_status_says(tmp_path: Path) -> None:
    status = await local_run(tmp_path, SilentObserver())
    value, place = metrics.registry.get_sample_value, {"namespace": "default", "run": RUN}
    one = status.rounds[-1]
    for name, score in one.validation.items():
        if not name.startswith("retained"):
            labels = {"round": "1", "stage": "validate", "kind": name}
            assert value("seal_run_reward", place | labels) == pytest.approx(score.mean)
    assert value("seal_run_progress_ratio", place) == 1.0
    assert value("seal_run_edits", place | {"round": "1", "fate": "kept"}) == one.kept
    rollout = place | {"round": "1", "stage": "rollout"}
    low, mean, high = (value(f"seal_run_gain{end}", rollout) for end in ("_low", "", "_high"))
    assert None not in (low, mean, high) and low <= mean <= high  # type: ignore[operator]
    for gauge in ("edit_tokens", "duplicate_edits_ratio", "ungraded_ratio"):
        assert value(f"seal_run_{gauge}", rollout) is not None
    cost = place | {"stage": "rollout", "kind": "train"}
    assert value("seal_run_tokens", cost) == one.tokens["rollout/train"]
    assert value("seal_run_engine_seconds", cost) == one.engine_seconds["rollout/train"]


def test_no_other_place_counts_transitions() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "controller_svc").rglob("*.py")
        if re.search(r"metrics\.transitions\b", path.read_text(encoding="utf-8"))
    }
    assert found == {"controller_svc/transition.py"}
