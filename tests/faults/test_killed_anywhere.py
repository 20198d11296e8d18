"""A controller that dies at any of its side effects, or is failed there, loses and repeats nothing.

Every request to the API server and every file that it writes, in both moments of each: not carried
out yet, and carried out with the reply lost. It dies there and another follows, or it lives on with
an error. I1 to I9 are asked after each; n is told at the end of the test's session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_site import EVERYTHING, Site, small_adaptation, small_run
from memory_api import Killed
from mortal import Fault, Life
from pod_work import SyntheticWork

from controller_svc.core import Phase
from seal.errors import InvalidInput, SealError, Transient
from seal.records import Stage
from seal.runs.task import ShardTask

STRIDE = 1 if EVERYTHING else 7
"""Every which moment is tried; each request has two."""


def never(task: ShardTask) -> SealError | None:
    return None


def first_rollout_fails(task: ShardTask) -> SealError | None:
    """A service that is away for the whole of a stage's first attempt."""
    away = task.stage is Stage.ROLLOUT and task.attempt == 1
    return Transient("the generator is away", retry_after_seconds=15.0) if away else None


def validation_is_refused(task: ShardTask) -> SealError | None:
    """What no other attempt mends."""
    return InvalidInput("no") if task.stage is Stage.VALIDATE and task.round == 1 else None


@dataclass(frozen=True)
class Story:
    """A site's objects, and what happens to their pods."""

    name: str
    objects: tuple[Callable[[], object], ...]
    ends: Phase = Phase.COMPLETE
    fail: Callable[[ShardTask], SealError | None] = never

    def site(self, directory: Path) -> Site:
        site = Site(directory, work=SyntheticWork(self.fail))
        for made in self.objects:
            site.submit(made())
        return site


STORIES = (
    Story("run", (small_run,)),
    Story("warm start", (lambda: small_run(improve={"warmStart": "gold"}),)),
    Story("adaptation", (small_adaptation,)),
    Story("two at once", (small_run, small_adaptation)),
    Story("second attempt", (small_run,), fail=first_rollout_fails),
    Story("refused", (small_run,), ends=Phase.FAILED, fail=validation_is_refused),
    Story("cancelled", (lambda: small_adaptation(cancelled=True),), ends=Phase.CANCELLED),
)


def strikes(number: int) -> Iterator[tuple[str, Fault]]:
    """What happens at one moment."""
    yield "killed", lambda at, effect: Killed() if at == number else None
    yield "failed", lambda at, effect: Transient("reset") if at == number else None


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_killed_or_failed_at_any_side_effect_all_ends_as_if_nothing_had_happened(
    story: Story, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    calm, life = story.site(tmp_path / "calm"), Life()
    await calm.to_the_end(life)
    await calm.check_all_counted()
    undisturbed, story_told = calm.results(), calm.told()
    assert {phase for phase, *_ in undisturbed.values()} == {story.ends}
    cases = struck = 0
    for number in range(len(story.name) % STRIDE, len(life.seen), STRIDE):
        for how, fault in strikes(number):
            cases += 1
            site = story.site(tmp_path / f"{number}-{how}")
            disturbed = Life(fault)
            await site.to_the_end(disturbed)
            struck += disturbed.struck
            await site.check_all_counted()
            assert site.results() == undisturbed, (life.seen[number], how)
            assert set(site.work.done.values()) <= {1}, "a shard's work was done twice"
            if how == "killed":
                assert site.told() == story_told, life.seen[number]
            assert site.epoch == calm.epoch + (how == "killed")
    record_property("n", cases)
    assert struck == cases
