"""A run through Jobs: each is created once and adopted, whatever dies, and whoever comes late."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from cluster_objects import CRDS
from cluster_objects import run as run_object
from control_plane import ControlPlane
from eventually import until
from kubernetes.aio import config
from memory_api import Killed, MemoryApi
from prometheus_client import CollectorRegistry

from controller_svc.core import Phase, RunStatus, StartStage, StopStage
from controller_svc.k8s.api import EVENTS, JOBS, RUNS, KubernetesApi, StatusRefused
from controller_svc.k8s.controller import Controller, Key
from controller_svc.k8s.event_post import EventPost
from controller_svc.k8s.gauges import ObjectGauges
from controller_svc.k8s.job_settings import (
    JobSettings,
    PodSettings,
    StoreAccess,
    TrainerPodSettings,
)
from controller_svc.k8s.jobs import stage_job
from controller_svc.k8s.story import Story
from controller_svc.k8s.wanted import Wanted, store_name
from controller_svc.k8s.world import YOUNG_SECONDS, ClusterWorld
from controller_svc.reconcile import reconcile
from controller_svc.worker.settings import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.config import run_of_object
from seal.errors import Conflict, NotFound, SealError, Superseded, Transient
from seal.metrics import Metrics
from seal.records import AdapterReference, ShardSummary, Stage
from seal.runs.epochs import claim_stage
from seal.runs.manifest import read_spec
from seal.runs.shards import ShardStore

SETTINGS = JobSettings(
    worker=PodSettings(image="seal:1"),
    trainer=TrainerPodSettings(image="seal:1"),
    services=ServiceAddresses(generator="g:1", trainer="t:1", evaluator="e:1"),
    store=StoreAccess(uri="file:///artifacts", claim_name="artifacts"),
)
BEGIN_SECONDS = 1_767_225_600.0
"""2026-01-01, when all that the cluster does happens."""
REQUESTS_PER_STAGE, LAST_REQUESTS = 3, 2
"""A look, a status and a Job's creation for each stage; the end."""
FILES_PER_STAGE = 2
"""That it creates, or finds: the manifest and the claim."""
STAGES = ["prepare", "validate", "rollout", "improve", "validate"]
SHORT = STAGES[:2]
"""Of a run of no rounds, whose stages are one of a shard and one of several."""


class Site:
    """A cluster in memory with one run, and controllers that come and go."""

    def __init__(self, directory: Path, *, rounds: int = 1) -> None:
        self.api = MemoryApi()
        self.store = ArtifactStore(str(directory))
        self.api.put(RUNS, run_object("demo", rounds=rounds, shards=2))
        self.asked_for = run_of_object(self.object)
        self.epoch = 1
        self.now = BEGIN_SECONDS
        self.most_live = 0

    @property
    def object(self) -> Any:
        return self.api.objects[(RUNS, "team", "demo")]

    @property
    def wanted(self) -> Wanted:
        manifest, cluster = self.asked_for
        return Wanted(
            kind=RUNS, body=copy.deepcopy(self.object), manifest=manifest, cluster=cluster
        )

    def world(self, epoch: int | None = None) -> ClusterWorld:
        return ClusterWorld(
            self.wanted, api=self.api, store=self.store, settings=SETTINGS,
            epoch=epoch or self.epoch, clock=lambda: self.now,
        )  # fmt: skip

    async def turn(self) -> RunStatus:
        """A controller reads the object and goes one step."""
        wanted = self.wanted
        return await reconcile(
            wanted.manifest.spec, wanted.status, self.world(), told=lambda *_: None
        )

    async def pods(self) -> None:
        """All pods do their work, and what was deleted goes."""
        live: dict[str, int] = {}
        for name, job in list(self.api.jobs().items()):
            if job["metadata"].get("deletionTimestamp"):
                self.api.gone(JOBS, name)
            elif not job.get("status"):
                labels = job["metadata"]["labels"]
                place = f"{labels['seal.dev/round']}-{labels['seal.dev/stage']}"
                live[place] = live.get(place, 0) + 1
                await self._work(job)
        self.most_live = max([self.most_live, *live.values()])

    async def _work(self, job: Any) -> None:
        labels, completions = job["metadata"]["labels"], job["spec"]["completions"]
        stage, round = Stage(labels["seal.dev/stage"]), int(labels["seal.dev/round"])
        name = store_name(self.wanted.owner)
        assert await read_spec(self.store, name) == self.wanted.manifest.spec
        for shard in range(completions):
            files = ShardStore(self.store, run=name, round=round, stage=stage, shard=shard)
            await files.commit_summary(summary(job["metadata"]["name"], stage, round, shard))
        indexes = "0" if completions == 1 else f"0-{completions - 1}"
        self.end(job["metadata"]["name"], "Complete", completedIndexes=indexes)

    def end(self, name: str, type: str, **status: object) -> None:
        condition = {
            "type": type, "status": "True", "reason": "Ended", "message": "so it is",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        self.api.change(JOBS, name, status={"conditions": [condition], **status})

    async def to_the_end(self) -> RunStatus:
        for _ in range(40):
            with suppress(SealError):
                if (status := await self.turn()).phase.terminal:
                    return status
            await self.pods()
        raise AssertionError(f"no end: {self.wanted.status}")


def summary(name: str, stage: Stage, round: int, shard: int) -> ShardSummary:
    improves = stage is Stage.IMPROVE
    return ShardSummary(
        name=name, stage=stage, round=round, shard=shard, attempt=1, seconds=1.0,
        inner_loops_run=1, inner_loops_resumed=0, outcomes={"ok": 1}, tokens={},
        engine_seconds={}, kept=1 if improves else 0,
        policy=AdapterReference(path="adapters/a", sha256="a" * 64) if improves else None,
    )  # fmt: skip


def requests(stages: list[str]) -> int:
    """Of a whole run."""
    return len(stages) * REQUESTS_PER_STAGE + LAST_REQUESTS


@pytest.fixture
def short(tmp_path: Path) -> Site:
    """A run of no rounds."""
    return Site(tmp_path / "store", rounds=0)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "store")


async def first_start(site: Site) -> StartStage:
    """What the first turn starts."""
    world, wanted = site.world(), site.wanted
    started: list[Any] = []

    async def note(action: object) -> None:
        started.append(action)

    world.act = note  # type: ignore[method-assign]
    await reconcile(wanted.manifest.spec, wanted.status, world, told=lambda *_: None)
    return started[0]


async def test_a_run_ends_with_one_job_per_stage_and_its_status_in_the_object(site: Site) -> None:
    status = await site.to_the_end()
    assert status.phase is Phase.COMPLETE and site.wanted.status == status
    names = [job["metadata"]["labels"]["seal.dev/stage"] for job in site.api.jobs().values()]
    assert names == STAGES
    assert all(job["metadata"]["name"].endswith("-a1") for job in site.api.jobs().values())
    assert site.most_live == 1 and len(site.api.requests) == requests(STAGES)


def kill_points() -> Iterator[tuple[int, str]]:
    """Each request of a whole run: before it is carried out, after, and with its reply lost."""
    for number in range(requests(SHORT)):
        for moment in ("before", "after", "lost"):
            yield number, moment


@pytest.mark.parametrize(("number", "moment"), list(kill_points()))
async def test_killed_at_any_request_it_converges_and_no_stage_has_two_live_jobs(
    short: Site, number: int, moment: str
) -> None:
    count = -1
    hit: list[str] = []

    def fault(request: str, done: bool) -> None:
        nonlocal count
        count += not done
        if count == number and done == (moment != "before") and not hit:
            hit.append(request)
            raise Transient("reset") if moment == "lost" else Killed

    short.api.fault = fault
    status = None
    while status is None:
        try:
            status = await short.to_the_end()
        except Killed:
            short.epoch += 1
    assert hit and status.phase is Phase.COMPLETE and short.most_live == 1
    assert status.counters.stages_failed == 0
    assert [job["metadata"]["labels"]["seal.dev/stage"] for job in short.api.jobs().values()] == (
        SHORT
    )
    asked = len(short.api.requests)
    await short.turn()
    writes = [one for one in short.api.requests[asked:] if not one.startswith(("get", "list"))]
    assert writes == [], "a run that has ended writes nothing"


@pytest.mark.parametrize("number", range(FILES_PER_STAGE * len(SHORT)))
@pytest.mark.parametrize("done", [False, True])
async def test_killed_at_any_file_that_it_creates_it_converges(
    short: Site, number: int, done: bool
) -> None:
    create, created = short.store.create_bytes, []

    def create_or_die(path: str, content: bytes) -> bytes:
        if path.endswith("summary.json"):  # a pod's
            return create(path, content)
        created.append(path)
        dies = len(created) == number + 1
        if dies and not done:
            raise Transient("the store is away")
        kept = create(path, content)
        if dies:
            raise Transient("the reply was lost")
        return kept

    short.store.create_bytes = create_or_die  # type: ignore[method-assign]
    assert (await short.to_the_end()).phase is Phase.COMPLETE and short.most_live == 1
    assert len(created) > number + 1 or done


async def test_the_manifest_and_the_claim_are_there_before_the_job(site: Site) -> None:
    def look(request: str, done: bool) -> None:
        if request == "create jobs" and not done:
            run = store_name(site.wanted.owner)
            assert site.store.exists(f"{run}/run.json")
            assert site.store.exists(f"{run}/stages/r0-prepare/epochs/000001")

    site.api.fault = look
    await site.turn()
    assert "create jobs" in site.api.requests


async def test_a_paused_leader_that_wakes_creates_and_saves_nothing(site: Site) -> None:
    old, wanted = site.world(), site.wanted
    start = await first_start(site)
    await claim_stage(site.store, start.run, start.round, start.stage, 2)
    with pytest.raises(Superseded):
        await old.act(start)
    assert not site.api.jobs()
    saved = site.wanted.status
    again = ClusterWorld(site.wanted, api=site.api, store=site.store, settings=SETTINGS, epoch=1)
    with pytest.raises(Superseded):
        await again.save(saved.model_copy(update={"started_seconds": 3.0}))
    with pytest.raises(Conflict):
        await old.save(wanted.status.model_copy(update={"started_seconds": 3.0}))
    assert site.wanted.status == saved


async def test_a_job_of_an_older_epoch_is_adopted_and_its_stage_not_claimed(site: Site) -> None:
    start = await first_start(site)
    await site.world().act(start)
    await site.world(2).act(StartStage(**{**vars(start), "epoch": 2}))
    assert site.api.requests.count("create jobs") == 1
    assert not site.store.exists(f"{start.run}/stages/r0-prepare/epochs/000002")


@pytest.mark.parametrize("change", ["owner", "spec"])
async def test_a_job_of_another_owner_or_spec_is_not_adopted(site: Site, change: str) -> None:
    start = await first_start(site)
    await site.world().act(start)
    metadata = site.api.jobs()[start.name]["metadata"]
    if change == "owner":
        metadata["ownerReferences"][0]["uid"] = "another"
        assert not (await site.world().observe(site.wanted.status)).stages
    else:
        metadata["annotations"]["seal.dev/spec-sha256"] = "f" * 64
    with pytest.raises(Conflict, match=start.name):
        await site.world().act(start)


async def test_a_job_refused_for_a_quota_that_is_being_counted_is_asked_for_again(
    site: Site,
) -> None:
    start = await first_start(site)

    def busy(request: str, done: bool) -> None:
        if request == "create jobs":
            raise Conflict("the quota has been modified")

    site.api.fault = busy
    with pytest.raises(Transient, match="quota"):
        await site.world().act(start)


async def test_a_pause_counts_from_the_end_of_the_attempt_before(site: Site) -> None:
    await site.turn()
    first = next(iter(site.api.jobs()))
    site.end(first, "Failed")
    status = await site.turn()
    assert status.current is not None and status.current.attempt == 2
    assert list(site.api.jobs()) == [first]
    delay = status.current.delay_seconds
    world = site.world()
    site.now += delay - 1
    await reconcile(site.wanted.manifest.spec, site.wanted.status, world, told=lambda *_: None)
    assert world.due_seconds == pytest.approx(1) and list(site.api.jobs()) == [first]
    site.now += 1
    await site.turn()
    assert len(site.api.jobs()) == 2


async def test_what_is_stopped_is_deleted_once_and_stays_in_sight_until_it_has_gone(
    site: Site,
) -> None:
    await site.turn()
    name = next(iter(site.api.jobs()))
    world = site.world()
    for _ in range(2):
        seen = await world.observe(site.wanted.status)
        assert not seen.stages[name].ended
        await world.act(StopStage(name=name))
    assert site.api.requests.count("delete jobs") == 1
    site.api.gone(JOBS, name)
    assert not (await world.observe(site.wanted.status)).stages
    await world.act(StopStage(name=name))


async def test_a_status_that_is_the_same_is_not_written(site: Site) -> None:
    status = await site.turn()
    writes = site.api.requests.count("replace_status restemruns")
    await site.world().save(status)
    assert site.api.requests.count("replace_status restemruns") == writes == 1


async def test_why_a_stage_waits_is_read_from_its_jobs_events(site: Site) -> None:
    await site.turn()
    name, job = next(iter(site.api.jobs().items()))
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"uid": job["metadata"]["uid"]},
        "reason": "FailedCreate",
        "message": "pods is forbidden: exceeded quota: small",
        "lastTimestamp": "2026-01-01T00:00:30Z",
    }
    site.api.put(EVENTS, event)
    asked = len(site.api.requests)
    seen = await site.world().observe(site.wanted.status)
    assert not seen.stages[name].waits, "its pods may be on their way"
    assert site.api.requests[asked:] == ["list jobs"]
    site.now += YOUNG_SECONDS
    seen = await site.world().observe(site.wanted.status)
    assert seen.stages[name].waits == "QuotaExceeded"


async def test_a_run_of_the_same_name_made_again_has_files_and_jobs_of_its_own(site: Site) -> None:
    await site.turn()
    before = store_name(site.wanted.owner)
    site.api.put(RUNS, run_object("demo", rounds=1, shards=2))
    assert store_name(site.wanted.owner) != before
    assert not (await site.world().observe(site.wanted.status)).stages
    with pytest.raises(NotFound):
        await read_spec(site.store, store_name(site.wanted.owner))


async def test_a_job_that_a_rival_creates_at_the_same_moment_is_adopted(site: Site) -> None:
    start = await first_start(site)
    raced: list[str] = []

    def rival(request: str, done: bool) -> None:
        if request == "create jobs" and not done and not raced:
            raced.append(request)
            job = stage_job(
                start, spec=site.wanted.manifest.spec, cluster=site.wanted.cluster,
                owner=site.wanted.owner, settings=SETTINGS,
            )  # fmt: skip
            site.api.put(JOBS, job)

    site.api.fault = rival
    await site.world().act(start)
    assert raced and list(site.api.jobs()) == [start.name]


async def test_a_status_that_older_definitions_refuse_is_told_and_goes_on_with_newer_ones(
    seal_api: ControlPlane, tmp_path: Path
) -> None:
    current = json.loads((CRDS / "restemruns.seal.dev.json").read_text())
    older = copy.deepcopy(current)
    (version,) = older["spec"]["versions"]
    del version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["progress"]
    version["additionalPrinterColumns"] = [
        one for one in version["additionalPrinterColumns"] if "progress" not in one["jsonPath"]
    ]
    seal_api.kubectl("create", "namespace", "older")
    made = run_object("older-1", rounds=1)
    made["metadata"]["namespace"] = "older"
    key = Key(resource=RUNS, namespace="older", name="older-1")

    def define(definition: Any) -> None:
        apply = ("apply", "--server-side", "--force-conflicts", "-f", "-")
        seal_api.kubectl(*apply, stdin=json.dumps(definition))

    def knows_progress() -> bool:
        path = RUNS.path("older", "older-1")
        _, body = seal_api.request("GET", path)
        body["status"] = {"run": "r", "specSha256": "ab" * 32, "phase": "Pending", "progress": {}}
        path += "/status?fieldValidation=Strict&dryRun=All"
        return seal_api.request("PUT", path, body)[0] == 200

    client = await config.new_client_from_config(str(seal_api.kubeconfig))
    async with client:
        api = KubernetesApi(client)
        events = EventPost(api)
        controller = Controller(
            api=api,
            store=ArtifactStore(str(tmp_path)),
            settings=SETTINGS,
            epoch=1,
            story=Story(events, identity="one"),
            gauges=ObjectGauges(Metrics(CollectorRegistry())),
        )
        await api.create(RUNS, "older", made)
        assert knows_progress()
        define(older)
        try:
            await until(lambda: not knows_progress())  # the server takes a moment
            for _ in range(2):
                with pytest.raises(StatusRefused):
                    await controller.reconcile(key)
                await events.flush()
            (event,) = cast("list[Any]", await api.list(EVENTS, "older"))
            assert (event["type"], event["reason"]) == ("Warning", "StatusRefused")
            assert "progress" in event["message"] and "helm upgrade" in event["message"]
            assert not await api.list(JOBS, "older")
        finally:
            define(current)
        await until(knows_progress)
        await controller.reconcile(key)
        body: Any = await api.get(RUNS, "older", "older-1")
        assert body["status"]["phase"] == "Running" and "progress" in body["status"]
        assert len(await api.list(JOBS, "older")) == 1


async def test_a_real_server_takes_the_jobs_and_gives_back_the_status_that_it_was_given(
    seal_api: ControlPlane, tmp_path: Path
) -> None:
    client = await config.new_client_from_config(str(seal_api.kubeconfig))
    async with client:
        api, store = KubernetesApi(client), ArtifactStore(str(tmp_path))
        seal_api.kubectl("create", "namespace", "world")  # other tests list the default one
        made = run_object("world-1", rounds=1)
        await api.create(
            RUNS, "world", made | {"metadata": made["metadata"] | {"namespace": "world"}}
        )

        async def turn() -> tuple[ClusterWorld, RunStatus, str]:
            body: Any = await api.get(RUNS, "world", "world-1")
            manifest, cluster = run_of_object(body)
            wanted = Wanted(kind=RUNS, body=body, manifest=manifest, cluster=cluster)
            world = ClusterWorld(wanted, api=api, store=store, settings=SETTINGS, epoch=1)
            status = await reconcile(manifest.spec, wanted.status, world, told=lambda *_: None)
            return world, status, body["metadata"]["resourceVersion"]

        _, first, _ = await turn()
        world, second, version = await turn()
        assert first == second and second.phase is Phase.RUNNING
        await world.save(second)  # what the server gave back is the same: not written
        assert (await turn())[2] == version
        assert second.current is not None
        name = second.current.name
        assert not (await world.observe(second)).stages[name].ended
        await world.act(StopStage(name=name))
        job: Any = await api.get(JOBS, "world", name)
        assert job["metadata"]["deletionTimestamp"]
