"""Killed at every side effect, in every moment of it, a run ends as if nothing had happened.

One process and no wire, so that every one of them can be tried: `test_resume` does a few with real
processes. The reconcile loop is the same in both worlds; here it drives a laptop's, where the death
of the process takes the workers with it, and a cluster's, where Jobs live on, pods die, nodes are
lost with ghosts on them, and two controllers believe that they are in charge.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from controller_harness import RUN, small_spec
from direct_clients import MOMENTS, Bureau, DirectClients, NumberedStore
from fake_cluster import CONTROLLER_ERRORS, FakeCluster
from few_shot import few_shot_spec
from parts_by_chance import parts_spec, use_chance_affinity
from resume_harness import Crash, Effects, KillPoint, crash, kill_points

import controller_svc.local.world as local
from controller_svc.core import AttemptBudget, Phase, RunStatus
from controller_svc.local.world import Budgets, run_local
from controller_svc.reconcile import reconcile
from controller_svc.worker.settings import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.records import SelectionRecord, Stage
from seal.resources import RestEMRun
from seal.runs.epochs import claim_stage
from seal.runs.store import selection_path
from seal.settings import (
    EditSettings,
    ImproveSettings,
    InnerLoopSettings,
    RunSpec,
    ValidationSettings,
)

NOWHERE = ServiceAddresses.all_at("unix:/nowhere")
AT_ONCE = AttemptBudget(attempts=4, base_seconds=0.0, max_seconds=0.0)
TURNS = 40
"""Controllers that a run may use up."""


@pytest.fixture(autouse=True)
def no_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here loses power."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """One round, as few side effects as there can be with every kind of them."""
    return small_spec(
        tmp_path_factory.mktemp("data"),
        passages=(2, 1, 1),
        rounds=1,
        edit=EditSettings(k=2),
        inner=InnerLoopSettings(repeats=1),
        validation=ValidationSettings(edits_per_context=1, retained_queries=1),
    )


@pytest.fixture(scope="module")
def cut_spec(spec: RunSpec) -> RunSpec:
    """The same in two shards."""
    return spec.model_copy(update={"shards": 2})


@pytest.fixture(scope="module")
def warm_spec(spec: RunSpec) -> RunSpec:
    """The same after a warm start, over the base model: baselines are the run's."""
    update = {
        "edit": EditSettings(k=1, family="self-qa"),
        "improve": ImproveSettings(warm_start="gold"),
        "inner": InnerLoopSettings(repeats=1, student="base"),
        "validation": ValidationSettings(
            edits_per_context=1, retained_queries=0, equal_steps=True, open_book=True
        ),
    }
    return spec.model_copy(update=update)


def outcome(status: RunStatus, root: str) -> object:
    """What must be the same: adapters, selection, scores, and how much was counted."""
    store = ArtifactStore(root)
    selection = store.read_json(selection_path(RUN, 1), SelectionRecord)
    rounds = [
        (r.round, r.kept, r.rollout, r.validation, r.outcomes, r.tokens, r.selection_sha256)
        for r in status.rounds
    ]
    loops = sum(r.inner_loops_run + r.inner_loops_resumed for r in status.rounds)
    adapters = sorted({path.rpartition("/")[0] for path in store.list(f"{RUN}/adapters")})
    policies = [policy.adapter for policy in status.policies]
    return status.phase, policies, adapters, rounds, selection, loops


async def on_a_laptop(
    spec: RunSpec, root: str, bureau: Bureau, *, resume: bool, effects: Effects
) -> RunStatus:
    """One process's share of a run."""
    bureau.store = NumberedStore.at(root, Effects())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(local, "ArtifactStore", lambda uri: NumberedStore.at(uri, effects))
        patched.setattr(local, "ServiceClients", lambda *_: DirectClients(bureau, effects))
        return await run_local(
            RestEMRun.of(RUN, spec),
            root=root,
            services=NOWHERE,
            resume=resume,
            budgets=Budgets(shard=AT_ONCE, stage=AT_ONCE),
        )


async def killed_and_resumed(
    spec: RunSpec, root: str, point: KillPoint
) -> tuple[RunStatus, Bureau, bool]:
    """A run that dies once and is taken up again; whether it died."""
    bureau, died = Bureau(), False
    try:
        effects = Effects(point=point, die=crash)
        status = await on_a_laptop(spec, root, bureau, resume=False, effects=effects)
    except Crash:
        died = True
        status = await on_a_laptop(spec, root, bureau, resume=True, effects=Effects())
    return status, bureau, died


async def test_a_laptop_killed_at_any_side_effect_ends_as_if_nothing_had_happened(
    spec: RunSpec, tmp_path: Path
) -> None:
    calm = Effects()
    done = await on_a_laptop(spec, str(tmp_path / "calm"), Bureau(), resume=False, effects=calm)
    undisturbed = outcome(done, str(tmp_path / "calm"))
    assert done.phase is Phase.COMPLETE
    kinds = {effect for effect, _ in calm.seen}
    assert kinds == {"write", "create", "remove", "generate", "train", "evaluate"}
    deaths, every = 0, list(kill_points(calm))
    for number, point in enumerate(every):
        root = str(tmp_path / str(number))
        status, bureau, died = await killed_and_resumed(spec, root, point)
        deaths += died
        assert outcome(status, root) == undisturbed, point
        assert set(bureau.trained.values()) == {1}, point
    assert deaths > 0.95 * len(every)


async def test_a_few_shot_run_too(tmp_path: Path) -> None:
    spec, calm = few_shot_spec(tmp_path), Effects()
    done = await on_a_laptop(spec, str(tmp_path / "calm"), Bureau(), resume=False, effects=calm)
    undisturbed = outcome(done, str(tmp_path / "calm"))
    assert done.phase is Phase.COMPLETE
    deaths, every = 0, list(kill_points(calm))[::7]
    for number, point in enumerate(every):
        root = str(tmp_path / str(number))
        status, bureau, died = await killed_and_resumed(spec, root, point)
        deaths += died
        assert outcome(status, root) == undisturbed, point
        assert set(bureau.trained.values()) == {1}, point
    assert deaths > 0.95 * len(every)


async def test_a_run_with_credit_to_parts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_chance_affinity(monkeypatch)
    spec = parts_spec(
        tmp_path,
        passages=(2, 1, 1),
        inner=InnerLoopSettings(repeats=1, preselect=2),
        edit=EditSettings(family="self-qa-by-sentence", k=3, trained_prompt="short"),
        validation=ValidationSettings(edits_per_context=1, retained_queries=1),
    )
    calm = Effects()
    done = await on_a_laptop(spec, str(tmp_path / "calm"), Bureau(), resume=False, effects=calm)
    undisturbed = outcome(done, str(tmp_path / "calm"))
    assert done.rounds[1].kept_parts > 2
    for number, point in enumerate(list(kill_points(calm))[3::14]):
        root = str(tmp_path / str(number))
        status, bureau, _ = await killed_and_resumed(spec, root, point)
        assert outcome(status, root) == undisturbed, point
        assert set(bureau.trained.values()) == {1}, point


async def test_a_laptop_killed_in_or_after_a_warm_start_ends_as_if_nothing_had_happened(
    warm_spec: RunSpec, tmp_path: Path
) -> None:
    calm = Effects()
    done = await on_a_laptop(
        warm_spec, str(tmp_path / "calm"), Bureau(), resume=False, effects=calm
    )
    undisturbed = outcome(done, str(tmp_path / "calm"))
    assert [policy.supervised for policy in done.policies] == [True, False]
    chosen = kill_points(calm, chosen=lambda nth, name: "r0" in name or not nth % 9)
    for number, point in enumerate(list(chosen)[::3]):
        root = str(tmp_path / str(number))
        status, bureau, _ = await killed_and_resumed(warm_spec, root, point)
        assert outcome(status, root) == undisturbed, point
        assert set(bureau.trained.values()) == {1}, point


async def test_a_control_without_reward_is_called_so_in_the_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_chance_affinity(monkeypatch)
    improve = ImproveSettings(credit="part", min_credit=0.01, selection="random")
    spec = parts_spec(tmp_path, passages=(2, 1, 0), improve=improve)
    done = await on_a_laptop(spec, str(tmp_path), Bureau(), resume=False, effects=Effects())
    assert [entry.label for entry in done.rounds] == ["", "control without reward"]
    assert done.rounds[1].kept_parts > 0


async def test_on_an_object_store_too(spec: RunSpec, s3_root: str, tmp_path: Path) -> None:
    calm = Effects()
    done = await on_a_laptop(spec, f"{s3_root}/calm", Bureau(), resume=False, effects=calm)
    undisturbed = outcome(done, f"{s3_root}/calm")
    for number, point in enumerate(list(kill_points(calm))[3::23]):
        root = f"{s3_root}/{number}"
        status, _, died = await killed_and_resumed(spec, root, point)
        assert died
        assert outcome(status, root) == undisturbed, point


async def on_a_cluster(cluster: FakeCluster, effects: list[Effects]) -> RunStatus:
    """Controllers take turns, one after another or two at once, until the run is complete."""
    deaths = iter(effects)
    rivals: list[asyncio.Task[bool]] = []

    async def turn(watched: Effects) -> bool:
        """One controller's turn; True if it saw the run's end."""
        world, status = cluster.elect(watched), cluster.status
        try:
            while not status.phase.terminal:
                status = await reconcile(
                    cluster.spec, status, world, told=lambda *_: None, budget=AT_ONCE
                )
                await cluster.news()
        except CONTROLLER_ERRORS:
            return False
        return True

    for _ in range(TURNS):
        rivals.append(asyncio.create_task(turn(next(deaths, Effects()))))
        if cluster.random.random() < cluster.lost_nodes:
            await cluster.news()
            continue  # paused, not dead: another takes over beside it
        if await rivals[-1]:
            break
    await asyncio.gather(*rivals)
    await cluster.end()
    status = cluster.status
    assert status.phase is Phase.COMPLETE, (cluster.epoch, status.stage, status.conditions)
    return status


def cluster_of(spec: RunSpec, root: str, *, seed: int = 0, **faults: float) -> FakeCluster:
    store = ArtifactStore(root)
    store.write_json(f"{RUN}/run.json", RestEMRun.of(RUN, spec))
    bureau = Bureau(store=store)
    return FakeCluster(spec, store, bureau, random.Random(seed), **faults)


async def test_a_controller_killed_at_any_side_effect_finds_its_jobs_and_goes_on(
    cut_spec: RunSpec, tmp_path: Path
) -> None:
    calm = Effects()
    cluster = cluster_of(cut_spec, str(tmp_path / "calm"))
    undisturbed = outcome(await on_a_cluster(cluster, [calm]), str(tmp_path / "calm"))
    assert {effect for effect, _ in calm.seen} == {"save", "act"}
    number = deaths = 0
    for nth in range(1, len(calm.seen) + 1):
        for when in MOMENTS:
            number += 1
            root = str(tmp_path / str(number))
            cluster = cluster_of(cut_spec, root)
            dying = Effects(point=KillPoint(nth=nth, when=when), die=crash)
            status = await on_a_cluster(cluster, [dying])
            deaths += dying.dead  # how many views of a stage are saved depends on the moment
            assert outcome(status, root) == undisturbed, (nth, when)
            assert set(cluster.bureau.trained.values()) == {1}
            names = [name.rpartition("-a")[0] for name in cluster.jobs]
            assert len(names) == len(set(names)), "Jobs are adopted, not made again"
    assert deaths > 0.7 * number


async def test_a_job_of_an_older_controller_on_a_stage_that_a_newer_one_claimed_is_made_again(
    cut_spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overtaken(
        store: ArtifactStore, run: str, round: int, stage: Stage, epoch: int
    ) -> None:
        await claim_stage(store, run, round, stage, epoch)
        if epoch == 1 and stage is Stage.VALIDATE:
            await claim_stage(store, run, round, stage, 3)  # which finds the Job of this one there

    calm = cluster_of(cut_spec, str(tmp_path / "calm"))
    undisturbed = outcome(await on_a_cluster(calm, []), str(tmp_path / "calm"))
    monkeypatch.setattr("fake_cluster.claim_stage", overtaken)
    cluster = cluster_of(cut_spec, str(tmp_path / "rivals"))
    status = await on_a_cluster(cluster, [])
    assert outcome(status, str(tmp_path / "rivals")) == undisturbed
    attempts = [name.rpartition("-")[2] for name in cluster.jobs if "-r0-validate-" in name]
    assert attempts == ["a1", "a2"]
    assert cluster.epoch == 3


@pytest.mark.parametrize("seed", range(3))
async def test_a_warm_start_with_ghosts_and_two_controllers_is_done_once(
    warm_spec: RunSpec, tmp_path: Path, seed: int
) -> None:
    cut = warm_spec.model_copy(update={"shards": 2})
    calm = cluster_of(cut, str(tmp_path / "calm"))
    undisturbed = outcome(await on_a_cluster(calm, []), str(tmp_path / "calm"))
    root, faults = str(tmp_path / "storm"), {"pod_deaths": 0.3, "lost_nodes": 0.3, "stale": 0.4}
    cluster = cluster_of(cut, root, seed=seed, **faults)
    dying = Effects(point=KillPoint(nth=2 + seed, when="after"), die=crash)
    assert outcome(await on_a_cluster(cluster, [dying]), root) == undisturbed


@pytest.mark.parametrize("seed", range(12))
async def test_with_ghosts_killed_pods_old_views_and_two_controllers_nothing_is_counted_twice(
    cut_spec: RunSpec, tmp_path: Path, seed: int
) -> None:
    calm = cluster_of(cut_spec, str(tmp_path / "calm"))
    undisturbed = outcome(await on_a_cluster(calm, []), str(tmp_path / "calm"))
    root, chance = str(tmp_path / "storm"), random.Random(seed)
    faults = {"pod_deaths": 0.3, "lost_nodes": 0.3, "stale": 0.4}
    cluster = cluster_of(cut_spec, root, seed=seed, **faults)
    deaths = [
        Effects(point=KillPoint(nth=chance.randint(1, 6), when=chance.choice(MOMENTS)), die=crash)
        for _ in range(chance.randint(0, 5))
    ]
    status = await on_a_cluster(cluster, deaths)
    assert outcome(status, root) == undisturbed
