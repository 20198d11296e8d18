"""Whatever owners, pods, nodes, API servers and controllers do, in any order: I1 to I9 hold.

Objects are submitted, edited, suspended, resumed, cancelled, deleted and made again under the same
name, while pods fail, controllers die, pause and wake, and requests are refused or their replies
lost. Then the faults stop, and everything has to end as it does without them.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from api_faults import API_FAULTS, ApiFault
from fault_site import EVERYTHING, Site, small_adaptation, small_run
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from invariants import check_jobs
from memory_api import Key, Killed
from memory_cluster import CALM, STORM
from mortal import Life, Sleeper
from pod_work import SyntheticWork

from controller_svc.core import Phase
from controller_svc.k8s.api import ADAPTATIONS
from seal.errors import SealError, Transient
from seal.runs.task import ShardTask

SPECS: dict[str, Any] = {
    "run": small_run,
    "longer": lambda name: small_run(name, rounds=2, shards=3),
    "warm": lambda name: small_run(name, improve={"warmStart": "gold"}),
    "adaptation": small_adaptation,
}
NAMES = ("ada", "bob", "cyd")
EXPECTED: dict[str, object] = {}
"""What each comes to undisturbed."""
QUIET_STEPS = 12


async def undisturbed(made: str) -> object:
    """What an object of this spec comes to if nothing happens."""
    if made not in EXPECTED:
        with tempfile.TemporaryDirectory() as directory:
            site = Site(Path(directory))
            site.submit(SPECS[made]("calm"))
            await site.to_the_end()
            EXPECTED[made] = site.results()["calm"]
    return EXPECTED[made]


class Story(RuleBasedStateMachine):
    """One site, from its first object to the peace after the last fault."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.away = False
        self.made: dict[str, str] = {}
        """Which spec each object has, by uid."""
        self.asleep: list[tuple[Life, Sleeper, asyncio.Task[None]]] = []
        self.clocks_fail = False
        """One that wakes believes that it still leads."""

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @initialize(seed=st.integers(0, 2**32), clocks_fail=st.booleans())
    def begin(self, seed: int, clocks_fail: bool) -> None:
        self.clocks_fail = clocks_fail
        self.site = Site(
            Path(self.directory.name), seed=seed, chances=STORM, work=SyntheticWork(self._fail)
        )
        self.life = Life()
        self.leader = self.site.elect(self.life)

    def _fail(self, task: ShardTask) -> SealError | None:
        """Services are away, though never for all of a stage's attempts."""
        return Transient("away") if self.away and task.attempt == 1 else None

    def _elect(self) -> None:
        self.leader.lose_the_watch()
        self.life = Life()
        self.leader = self.site.elect(self.life)

    def _key(self, name: str) -> Key | None:
        return next((key for key in self.site.keys if key[2] == name), None)

    @rule(name=st.sampled_from(NAMES), made=st.sampled_from(sorted(SPECS)))
    def submit(self, name: str, made: str) -> None:
        """Also again, once an object of this name was deleted and is gone."""
        if self._key(name) is None:
            key = self.site.submit(SPECS[made](name))
            self.made[self.site.api.objects[key]["metadata"]["uid"]] = made

    @rule(name=st.sampled_from(NAMES), suspend=st.booleans())
    def suspend(self, name: str, suspend: bool) -> None:
        self._edit(name, suspend=suspend)

    @rule(name=st.sampled_from(NAMES), queue=st.sampled_from(["", "team"]))
    def queue(self, name: str, queue: str) -> None:
        self._edit(name, queueName=queue)

    @rule(name=st.sampled_from(NAMES))
    def cancel(self, name: str) -> None:
        if (key := self._key(name)) is not None and key[0] == ADAPTATIONS:
            self._edit(name, cancelled=True)

    def _edit(self, name: str, **changes: object) -> None:
        if (key := self._key(name)) is None:
            return
        found = self.site.api.objects[key]
        self.site.api.change(key[0], name, spec=found["spec"] | changes)
        found["metadata"]["generation"] += 1

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        if (key := self._key(name)) is not None:
            metadata = self.site.api.objects[key]["metadata"]
            self._run(self.site.api.delete(*key, uid=metadata["uid"]))

    @rule(turns=st.integers(1, 6))
    def go_on(self, turns: int) -> None:
        """The leader works, and the cluster does."""
        self._run(self._go_on(turns))

    async def _go_on(self, turns: int) -> None:
        for _ in range(turns):
            try:
                await self.leader.turn()
            except Killed:
                self._elect()
            await self.site.cluster.step()
            check_jobs(self.site.api, rivals=self.site.rivals)

    @rule(after=st.integers(0, 30))
    def die(self, after: int) -> None:
        """The leader dies so many moments from now."""
        at = len(self.life.seen) + after
        self.life.fault = lambda number, effect: Killed() if number == at else None

    @rule(fault=st.sampled_from(API_FAULTS), after=st.integers(0, 12))
    def fail(self, fault: ApiFault, after: int) -> None:
        """One of the leader's next requests is failed."""
        at = len(self.life.seen) + after

        def strike(number: int, effect: str) -> SealError | None:
            return fault.error(effect) if number == at else None

        self.life.fault = strike

    @rule(after=st.integers(1, 12))
    def pause(self, after: int) -> None:
        """The leader falls asleep before one of its next requests, and another follows."""
        self._run(self._pause(Sleeper(after)))

    async def _pause(self, sleeper: Sleeper) -> None:
        self.life.pause = sleeper
        turning = asyncio.create_task(self.leader.turn())
        sleeping = asyncio.create_task(sleeper.asleep.wait())
        await asyncio.wait({turning, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        sleeping.cancel()
        if sleeper.asleep.is_set():
            self.site.rivals = True
            self.asleep.append((self.life, sleeper, turning))
        else:
            with suppress(Killed):
                await turning
        self._elect()

    @precondition(lambda self: self.asleep)
    @rule()
    def wake(self) -> None:
        self._run(self._wake())

    async def _wake(self) -> None:
        life, sleeper, turning = self.asleep.pop(0)
        life.leads = self.clocks_fail
        sleeper.woken.set()
        with suppress(Killed):
            await turning

    @rule()
    def lose_the_watch(self) -> None:
        """The leader hears nothing more, until its side gives the connection up."""
        self.leader.lose_the_watch()

    @rule()
    def watch_again(self) -> None:
        self.leader.lose_the_watch()
        self.leader.listen()

    @rule(away=st.booleans())
    def services(self, away: bool) -> None:
        self.away = away

    @rule(seconds=st.sampled_from([30.0, 600.0, 7200.0]))
    def wait(self, seconds: float) -> None:
        """Long enough for what has a time to live."""
        self._run(self.site.cluster.step(seconds))

    def teardown(self) -> None:
        if hasattr(self, "site"):
            self._run(self._end())
        self.loop.close()
        self.directory.cleanup()

    async def _end(self) -> None:
        """The faults stop. What is suspended is at rest; taken up, it ends like everything."""
        while self.asleep:
            await self._wake()
        self.away, self.site.cluster.chances = False, CALM
        self._elect()
        await self._go_on(QUIET_STEPS)
        for key in self.site.keys:
            if self.site.api.objects[key]["spec"].get("suspend"):
                self._check_suspended(key)
                self._edit(key[2], suspend=False)
        self._elect()
        await self.site.to_the_end()
        await self.site.check_all_counted()
        for key in self.site.keys:
            await self._check_end(key)

    def _check_suspended(self, key: Key) -> None:
        uid = self.site.api.objects[key]["metadata"]["uid"]
        assert not [job for job in self.site.cluster.live if self._owner(job.job) == uid], (
            "a suspended object has pods"
        )

    def _owner(self, job: Key) -> str | None:
        found = self.site.api.objects.get(job)
        return found and found["metadata"]["ownerReferences"][0]["uid"]

    async def _check_end(self, key: Key) -> None:
        """I1, I9: it has come to what it comes to undisturbed, unless its owner cancelled it."""
        found = self.site.api.objects[key]
        expected = await undisturbed(self.made[found["metadata"]["uid"]])
        status = self.site.status(key)
        if status.phase is Phase.CANCELLED:
            assert key[0] == ADAPTATIONS and found["spec"]["cancelled"]
        else:
            assert self.site.results()[key[2]] == expected, status


Story.TestCase.settings = settings(
    max_examples=2000 if EVERYTHING else 25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_any_story = Story.TestCase
