"""Local mode: refusals before anything starts, failures on the way, and stopping."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import grpc
import pytest
from controller_harness import IMPATIENT, RUN, small_spec
from fake_services import Fakes, serve_fakes
from resume_harness import REPOSITORY, Effects, Scene

from controller_svc.core import AttemptBudget, Phase, Reason, RunStatus, StageStatus, StageSums
from controller_svc.local.lock import Locked, check_free, run_lock
from controller_svc.local.world import Budgets, run_local
from controller_svc.runs import check_run, open_run, read_manifest, read_status, write_status
from controller_svc.worker.progress import TaskProgress
from controller_svc.world import read_sums
from seal.artifacts import ArtifactStore, Model
from seal.errors import Conflict, InvalidInput, Transient
from seal.metrics import metrics
from seal.records import Stage
from seal.resources import RestEMRun
from seal.runs.store import status_path
from seal.settings import ArtifactSettings, DataSettings, EditSettings, RunSpec

QUICK = Budgets(
    shard=AttemptBudget(attempts=3, base_seconds=0.01, max_seconds=0.02),
    stage=AttemptBudget(attempts=2, base_seconds=0.01, max_seconds=0.02),
)


class Killed(BaseException):
    """The process has died here."""


class Watcher:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.statuses: list[RunStatus] = []
        self.progress: list[TaskProgress] = []
        self.then: Callable[[TaskProgress], None] = lambda progress: None

    def on_status(self, status: RunStatus) -> None:
        self.statuses.append(status)

    def on_progress(self, progress: TaskProgress) -> None:
        self.progress.append(progress)
        self.then(progress)


async def run(
    spec: RunSpec,
    directory: Path,
    *,
    resume: bool = False,
    fakes: Fakes | None = None,
    watcher: Watcher | None = None,
) -> RunStatus:
    """One local run on fakes."""
    async with serve_fakes(fakes or Fakes()) as addresses:
        return await run_local(
            RestEMRun.of(RUN, spec),
            root=directory / "artifacts",
            services=addresses,
            resume=resume,
            progress=watcher or Watcher(),
            settings=IMPATIENT,
            budgets=QUICK,
        )


async def test_a_run_is_not_started_over_an_existing_one(tmp_path: Path) -> None:
    spec = small_spec(tmp_path, rounds=0)
    await run(spec, tmp_path)
    with pytest.raises(
        Conflict, match=r"run 'demo' exists already \(Complete\).*--resume"
    ) as refused:
        await run(spec, tmp_path)
    assert "--resume" in refused.value.remedy
    with pytest.raises(Conflict):
        await check_run(
            ArtifactStore(str(tmp_path / "artifacts")), RestEMRun.of(RUN, spec), resume=False
        )


async def test_a_resume_with_another_spec_names_the_fields_that_differ(tmp_path: Path) -> None:
    spec = small_spec(tmp_path, rounds=0)
    await run(spec, tmp_path)
    before = (tmp_path / "artifacts" / status_path("demo")).read_bytes()
    changed = spec.model_copy(update={"seed": 7, "edit": EditSettings(k=4, family="rewrite")})
    with pytest.raises(
        Conflict,
        match=r"spec\.edit\.family: 'implications' -> 'rewrite', "
        r"spec\.edit\.k: 3 -> 4, spec\.seed: 0 -> 7",
    ) as refused:
        await run(changed, tmp_path, resume=True)
    assert refused.value.field == "spec.edit.family"
    assert (tmp_path / "artifacts" / status_path("demo")).read_bytes() == before


async def test_of_many_differing_fields_the_first_are_named_and_the_rest_counted(
    tmp_path: Path,
) -> None:
    spec = small_spec(tmp_path, rounds=0)
    await run(spec, tmp_path)
    edit = EditSettings(k=7, temperature=0.5, top_p=0.5, max_tokens=9)
    with pytest.raises(
        Conflict,
        match=r"edit\.k: .*, spec\.edit\.maxTokens: .*, spec\.edit\.temperature: .* and 1 more",
    ):
        await run(spec.model_copy(update={"edit": edit}), tmp_path, resume=True)


@pytest.mark.parametrize("moment", ["before its status", "after its status"])
async def test_a_run_killed_while_it_is_given_more_rounds_goes_on_and_takes_no_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    spec, store = small_spec(tmp_path, rounds=1), ArtifactStore(str(tmp_path / "artifacts"))
    await run(spec, tmp_path)
    one, two = (RestEMRun.of(RUN, spec.model_copy(update={"rounds": rounds})) for rounds in (1, 2))

    async def killed(store: ArtifactStore, status: RunStatus) -> None:
        if moment == "after its status":
            await write_status(store, status)
        raise Killed

    monkeypatch.setattr("controller_svc.runs.write_status", killed)
    with pytest.raises(Killed):
        await open_run(store, two, resume=True)
    monkeypatch.undo()
    with pytest.raises(Conflict, match=r"spec\.rounds: 2 -> 1"):
        await check_run(store, one, resume=True)
    assert (await run(two.spec, tmp_path, resume=True)).phase is Phase.COMPLETE


def hold_lock(root: Path) -> subprocess.Popen[str]:
    """A process that runs `demo`."""
    script = """
        import sys
        from controller_svc.local.lock import run_lock
        from seal.artifacts import ArtifactStore, Model
        with run_lock(ArtifactStore(sys.argv[1]), "demo"):
            print("locked", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(root)]
    holder = subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    return holder


async def test_two_processes_do_not_run_the_same_run(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "artifacts") as other:
        with pytest.raises(Conflict, match=f"is being run by process {other.pid}"):
            await run(small_spec(tmp_path), tmp_path)
        other.kill()
    with run_lock(ArtifactStore(str(tmp_path / "artifacts")), "demo"):
        pass


def test_a_lock_is_held_on_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    store, (most, hard) = ArtifactStore(str(tmp_path)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # as a full disk: no byte is written
    try:
        with run_lock(store, "demo"), pytest.raises(Locked, match="by process unknown"):
            check_free(store, "demo")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    with run_lock(store, "demo"), pytest.raises(Locked, match=f"by process {os.getpid()}"):
        check_free(store, "demo")


async def test_a_run_whose_directory_is_taken_away_ends_and_says_what_happened(
    tmp_path: Path,
) -> None:
    watcher, root = Watcher(), tmp_path / "artifacts"

    def take_away(progress: TaskProgress) -> None:
        if progress.stage is Stage.ROLLOUT and root.exists():
            root.rename(tmp_path / "elsewhere")

    watcher.then = take_away
    with pytest.raises(Transient, match="was deleted, or its volume taken away") as caught:
        await run(small_spec(tmp_path), tmp_path, fakes=Fakes(delay_seconds=0.02), watcher=watcher)
    assert str(root) in caught.value.remedy


async def test_refused_data_leave_no_run_behind(tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    leaking = spec.model_copy(
        update={
            "data": DataSettings(train=spec.data.train, validation=spec.data.train, retained="")
        }
    )
    with pytest.raises(InvalidInput):
        await run(leaking, tmp_path)
    with pytest.raises(InvalidInput):
        await check_run(
            ArtifactStore(str(tmp_path / "artifacts")), RestEMRun.of(RUN, leaking), resume=False
        )
    assert await read_status(ArtifactStore(str(tmp_path / "artifacts")), "demo") is None
    assert (await run(spec, tmp_path)).phase is Phase.COMPLETE


async def test_a_permanent_error_ends_the_run_with_its_reason_and_a_resume_tries_again(
    tmp_path: Path,
) -> None:
    spec = small_spec(tmp_path, rounds=1)
    fakes = Fakes(
        fail=lambda kind, name, call: grpc.StatusCode.NOT_FOUND if "/improve/" in name else None
    )
    failed = await run(spec, tmp_path, fakes=fakes)
    condition = failed.condition("Failed")
    assert failed.phase is Phase.FAILED
    assert condition is not None
    assert (condition.status, condition.reason) == ("True", "NotFound")
    assert failed == await read_status(ArtifactStore(str(tmp_path / "artifacts")), "demo")
    done = await run(spec, tmp_path, resume=True)
    assert done.phase is Phase.COMPLETE
    no_more = done.condition("Failed")
    assert no_more is not None
    assert no_more.last_transition_seconds > condition.last_transition_seconds
    assert [c.type for c in done.conditions if c.status == "True"] == ["Complete"]


def away(path_part: str, times: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A store that cannot be reached for so many writes of a kind of file; their paths."""
    create, refused = ArtifactStore.create_json, []

    def create_json(self: ArtifactStore, path: str, model: Model) -> Model:
        if path_part in path and len(refused) < times:
            refused.append(path)
            raise Transient(f"{path} cannot be reached", remedy="try again later")
        return create(self, path, model)

    monkeypatch.setattr(ArtifactStore, "create_json", create_json)
    return refused


async def test_a_shard_that_fails_transiently_is_tried_again_and_takes_up_its_own_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_spec(tmp_path, rounds=1)
    refused = away(".edit-2-1.json", 2, monkeypatch)
    status = await run(spec, tmp_path)
    assert len(refused) == 2
    assert status.phase is Phase.COMPLETE
    assert status.counters.stages_failed == 0, "it is the stand-in of the Job that repeats a shard"
    one = status.rounds[1]
    assert one.inner_loops_run + one.inner_loops_resumed == 18 + 8
    assert one.inner_loops_resumed > 0


async def test_a_stage_whose_shards_gave_up_is_started_again_and_what_is_done_stays_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watcher()
    away("r1-rollout/shard-0001/summary", QUICK.shard.attempts, monkeypatch)
    spec, fakes = small_spec(tmp_path, rounds=1, shards=2), Fakes()
    status = await run(spec, tmp_path, fakes=fakes, watcher=watcher)
    assert status.phase is Phase.COMPLETE
    assert status.counters.stages_failed == 1
    names = [seen.current.name for seen in watcher.statuses if seen.current]
    assert "demo-r1-rollout-a2" in names
    assert max(fakes.calls.values()) == 1, "no piece of work was asked for twice"


async def test_attempts_end_and_the_condition_says_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away("r0-validate/shard-0000/summary", 1000, monkeypatch)
    status = await run(small_spec(tmp_path), tmp_path)
    condition = status.condition("Failed")
    assert condition is not None
    assert condition.reason == "AttemptsExhausted"
    assert "demo-r0-validate-a2" in condition.message
    assert "cannot be reached" in condition.message


async def test_a_finished_run_can_be_given_more_rounds_and_goes_on_from_its_last(
    tmp_path: Path,
) -> None:
    spec, fakes = small_spec(tmp_path, rounds=1), Fakes()
    done = await run(spec, tmp_path)
    more = spec.model_copy(update={"rounds": 2})
    again = await run(more, tmp_path, resume=True, fakes=fakes)
    assert again.phase is Phase.COMPLETE
    assert again.rounds[:2] == done.rounds
    assert {name.split("/")[1] for _, name in fakes.calls} == {"r2"}
    with pytest.raises(Conflict, match=r"spec\.rounds: 2 -> 1"):
        await run(spec, tmp_path, resume=True)
    saved = await read_manifest(ArtifactStore(str(tmp_path / "artifacts")), RUN)
    assert saved is not None and saved.spec == more


async def test_a_run_that_prepare_refused_can_be_begun_again_with_mended_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_spec(tmp_path, rounds=0)
    with monkeypatch.context() as patched:
        patched.setattr("controller_svc.runs.load_data", lambda spec: {})
        missing = spec.model_copy(update={"data": DataSettings(validation="no.jsonl")})
        failed = await run(missing, tmp_path)
        assert failed.phase is Phase.FAILED
    done = await run(spec, tmp_path)
    assert done.phase is Phase.COMPLETE
    assert done.counters.stages_failed == 1


async def test_a_process_that_was_overtaken_saves_nothing_and_its_workers_commit_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller_svc.local.world.run_lock", lambda store, run: nullcontext())
    spec, training = small_spec(tmp_path, rounds=1), asyncio.Event()
    watcher = Watcher()
    watcher.then = lambda progress: training.set() if progress.stage is Stage.ROLLOUT else None
    first = asyncio.create_task(
        run(spec, tmp_path, fakes=Fakes(delay_seconds=0.02), watcher=watcher)
    )
    await asyncio.wait_for(training.wait(), 20)
    second = await run(spec, tmp_path, resume=True)
    with pytest.raises(Conflict, match="taken over by another process"):
        await first
    assert second.phase is Phase.COMPLETE
    store = ArtifactStore(str(tmp_path / "artifacts"))
    assert await read_status(store, RUN) == second
    calm = await run(spec, tmp_path / "calm")
    assert [policy.adapter for policy in second.policies] == [p.adapter for p in calm.policies]
    assert [entry.outcomes for entry in second.rounds] == [entry.outcomes for entry in calm.rounds]


async def test_a_defect_of_a_worker_ends_the_run_and_not_the_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("controller_svc.worker.contexts_task.shard_scores", broken)
    status = await run(small_spec(tmp_path), tmp_path)
    condition = status.condition("Failed")
    assert condition is not None
    assert condition.reason == "Internal"
    assert "unexpected ZeroDivisionError" in condition.message


async def test_a_full_disk_stops_the_run_without_a_false_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seal.errors import Exhausted

    create = ArtifactStore.create_bytes

    def full(self: ArtifactStore, path: str, content: bytes) -> bytes:
        if "/inner/" in path:
            raise Exhausted(f"no space left to write {path}", remedy="free space on that disk")
        return create(self, path, content)

    spec = small_spec(tmp_path, rounds=0)
    with monkeypatch.context() as patched:
        patched.setattr(ArtifactStore, "create_bytes", full)
        status = await run(spec, tmp_path)
    condition = status.condition("Failed")
    assert condition is not None
    assert "no space left" in condition.message
    assert (await run(spec, tmp_path, resume=True)).phase is Phase.COMPLETE


async def test_cancelling_stops_every_task_and_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    spec, watcher, training = small_spec(tmp_path, rounds=1), Watcher(), asyncio.Event()
    watcher.then = lambda progress: (
        training.set() if progress.stage is Stage.ROLLOUT and progress.trained_steps else None
    )
    running = asyncio.create_task(
        run(spec, tmp_path, fakes=Fakes(delay_seconds=0.02), watcher=watcher)
    )
    await asyncio.wait_for(training.wait(), 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    left = await read_status(ArtifactStore(str(tmp_path / "artifacts")), "demo")
    assert left is not None
    assert (left.phase, left.stage) == (Phase.RUNNING, Stage.ROLLOUT)
    assert [
        task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("demo-")
    ] == []
    assert (await run(spec, tmp_path, resume=True)).phase is Phase.COMPLETE


async def test_no_task_starts_before_its_intent_is_on_disk(tmp_path: Path) -> None:
    store, unknown = ArtifactStore(str(tmp_path / "artifacts")), []

    def check(kind: str, name: str, call: int) -> None:
        status = store.read_json(status_path("demo"), RunStatus)
        if name.split("/")[1:3] != [f"r{status.round}", status.stage]:
            unknown.append(name)

    status = await run(small_spec(tmp_path, rounds=1), tmp_path, fakes=Fakes(fail=check))
    assert status.phase is Phase.COMPLETE
    assert unknown == []


async def test_a_finished_run_is_resumed_without_a_call(tmp_path: Path) -> None:
    spec, fakes = small_spec(tmp_path, rounds=0), Fakes()
    done = await run(spec, tmp_path)
    assert await run(spec, tmp_path, resume=True, fakes=fakes) == done
    assert fakes.calls == {}
    assert (
        await check_run(
            ArtifactStore(str(tmp_path / "artifacts")), RestEMRun.of(RUN, spec), resume=True
        )
        == done
    )


async def test_inner_loops_are_counted_by_outcome_as_the_status_counts_them(tmp_path: Path) -> None:
    def counted() -> dict[str, float]:
        samples = next(iter(metrics.inner_loops.collect())).samples
        return {
            sample.labels["outcome"]: sample.value
            for sample in samples
            if sample.name.endswith("_total")
        }

    before = counted()
    status = await run(small_spec(tmp_path, rounds=1), tmp_path)
    totals: dict[str, float] = {}
    for name, number in (item for entry in status.rounds for item in entry.outcomes.items()):
        stage, outcome = name.split("/")
        if stage != "improve":
            totals[outcome] = totals.get(outcome, 0) + number
    assert {
        outcome: value - before.get(outcome, 0)
        for outcome, value in counted().items()
        if value != before.get(outcome)
    } == totals


async def test_a_lost_status_is_rebuilt_from_what_is_committed(tmp_path: Path) -> None:
    spec, fakes = small_spec(tmp_path, rounds=1), Fakes()
    done = await run(spec, tmp_path)
    (tmp_path / "artifacts" / status_path("demo")).unlink()
    again = await run(spec, tmp_path, resume=True, fakes=fakes)
    assert fakes.calls == {}
    assert (again.policies, again.rounds) == (done.policies, done.rounds)


def spoil(spec: RunSpec) -> None:
    for path in (spec.data.train, spec.data.validation, spec.data.retained):
        Path(path).write_text("not even JSON")


async def test_a_run_is_pinned_to_the_data_it_began_with(tmp_path: Path) -> None:
    spec = small_spec(tmp_path, rounds=1)
    failing = Fakes(
        fail=lambda kind, name, call: grpc.StatusCode.INTERNAL if "/r1/rollout" in name else None
    )
    await run(spec, tmp_path, fakes=failing)
    spoil(spec)
    assert (await run(spec, tmp_path, resume=True)).phase is Phase.COMPLETE


async def test_a_resume_of_a_run_that_never_began_begins_it(tmp_path: Path) -> None:
    assert (
        await run(small_spec(tmp_path, rounds=0), tmp_path, resume=True)
    ).phase is Phase.COMPLETE


async def test_the_same_seeds_give_the_same_digests_and_another_seed_others(tmp_path: Path) -> None:
    finals = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        directory = tmp_path / name
        directory.mkdir()
        scene = Scene(
            spec=small_spec(tmp_path, seed=seed, shards=2), directory=directory, settings=IMPATIENT
        )
        await scene.run(resume=False, effects=Effects())
        finals.append(scene.final())
    assert finals[0] == finals[1] != finals[2]


async def test_the_watcher_sees_every_stage_in_order_and_no_step_back(tmp_path: Path) -> None:
    watcher = Watcher()
    await run(small_spec(tmp_path, rounds=1, shards=2), tmp_path, watcher=watcher)
    stages = [(status.round, status.stage) for status in watcher.statuses]
    order = [
        (0, None),
        (0, "prepare"),
        (0, "validate"),
        (1, "rollout"),
        (1, "improve"),
        (1, "validate"),
        (1, None),
    ]
    assert list(dict.fromkeys(stages)) == order
    for name in {progress.name for progress in watcher.progress}:
        done = [progress.inner_loops_done for progress in watcher.progress if progress.name == name]
        assert done == sorted(done)


@pytest.mark.parametrize("keep", [False, True])
async def test_what_nothing_refers_to_is_deleted_and_the_bytes_of_each_round_are_known(
    tmp_path: Path, keep: bool
) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"))
    artifacts = ArtifactSettings(keep_inner_adapters=keep)
    spec = small_spec(tmp_path, rounds=1, shards=2, artifacts=artifacts)
    fakes, most = Fakes(store=store), 0

    def count(status: RunStatus) -> None:
        nonlocal most
        most = max(most, len({path.split("/")[2] for path in store.list(f"{RUN}/adapters")}))

    watcher = Watcher()
    watcher.on_status = count  # type: ignore[method-assign]
    status = await run(spec, tmp_path, fakes=fakes, watcher=watcher)
    kept = {path.split("/")[2] for path in store.list(f"{RUN}/adapters")}
    trained = status.rounds[1].outcomes["rollout/ok"] + status.rounds[0].outcomes["validate/ok"]
    policy = status.policies[1].adapter
    assert policy is not None and policy.sha256 in kept
    assert len(kept) > trained if keep else kept == {policy.sha256}
    assert keep or most < trained, "adapters go as soon as their shard has its summary"
    assert not (tmp_path / "artifacts" / RUN / "trainings").exists()
    assert store.exists(f"{RUN}/stages/r1-rollout/shard-0001/records.jsonl")
    for entry in status.rounds:
        assert entry.stored_bytes["records"] > 0 and entry.stored_bytes["adapters"] > 0
    assert status.rounds[1].stored_bytes["policy"] > 0


async def test_a_store_that_refuses_to_delete_makes_no_run_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: ArtifactStore, reference: object) -> None:
        raise Transient("cannot be reached")

    monkeypatch.setattr(ArtifactStore, "remove_directory", refuse)
    store = ArtifactStore(str(tmp_path / "artifacts"))
    status = await run(small_spec(tmp_path, rounds=1), tmp_path, fakes=Fakes(store=store))
    assert status.phase is Phase.COMPLETE
    monkeypatch.undo()
    await run(small_spec(tmp_path, rounds=1), tmp_path, resume=True)
    assert len({path.split("/")[2] for path in store.list(f"{RUN}/adapters")}) == 1


@pytest.mark.parametrize("failures", [1, 2])
async def test_a_store_away_while_it_is_read_what_a_stage_came_to_costs_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    asked = Counter[Stage]()

    async def away(store: ArtifactStore, run: str, stage: StageStatus) -> StageSums | None:
        asked[stage.stage] += 1
        if asked[stage.stage] <= failures:
            raise Transient("the store cannot be reached")
        return await read_sums(store, run, stage)

    monkeypatch.setattr("controller_svc.local.world.read_sums", away)
    status = await run(small_spec(tmp_path, rounds=0), tmp_path)
    assert status.phase is Phase.COMPLETE
    assert asked == {Stage.PREPARE: failures + 1, Stage.VALIDATE: failures + 1}
    assert status.counters.stages_failed == 0


async def test_a_store_that_stays_away_uses_up_the_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise Transient("the store cannot be reached")

    monkeypatch.setattr("controller_svc.local.world.read_sums", away)
    status = await run(small_spec(tmp_path, rounds=0), tmp_path)
    failed = status.condition("Failed")
    assert failed is not None and failed.reason == Reason.ATTEMPTS_EXHAUSTED
    assert "the store cannot be reached" in failed.message
