"""`python -m trainer_svc.improve`: the M-step with an engine of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
import structlog
from controller_harness import RUN, Workplace, small_spec, workplace
from fake_services import MODEL, Fakes
from service_harness import FAST
from tiny_model import tiny_model

import trainer_svc.improve
import trainer_svc.service
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.settings import ServiceAddresses
from seal.adapters import AdapterCache
from seal.artifacts import ArtifactStore
from seal.engine import Engine, load_adapter
from seal.errors import AccessDenied, Conflict, Transient
from seal.loading import Backend
from seal.options import EngineOptions, ServiceOptions
from seal.records import Stage
from seal.rpc.lifecycle import Signals
from seal.rpc.server import start_server
from seal.runs.epochs import claim_stage
from seal.serving import STOPPED_AT_ONCE
from seal.settings import EngineSettings, ImproveSettings, LoraSettings, OptimizerSettings
from seal.termination import read_termination
from trainer_svc.improve import ImproveOptions, run_improve
from trainer_svc.trainings import Trainings

ROOT = Path(__file__).parents[2]
NAME = "tiny-llama"
IMPROVE = ImproveSettings(
    lora=LoraSettings(rank=4, alpha=8.0, target_modules=("q_proj", "v_proj")),
    optimizer=OptimizerSettings(learning_rate=1e-3, epochs=3, batch_size=1),
    checkpoint_every_seconds=1000.0,
)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(tiny_model(), EngineSettings(slots=1, dtype="float32", max_rank=8))
    yield engine
    engine.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Workplace]:
    """A run whose first rollout is done, by fakes that know the tiny model."""
    fakes = Fakes(model=MODEL.model_copy(update={"base_sha256": ""}))
    spec = small_spec(tmp_path, model=NAME, improve=IMPROVE)
    async with workplace(tmp_path, spec=spec, fakes=fakes) as place:
        await place.run(Stage.ROLLOUT, round=1)
        yield place


def backend(engine: Engine, store: ArtifactStore) -> Backend:
    return Backend(engine, store, AdapterCache(store, base=engine.base))


def options(place: Workplace, **changes: object) -> ImproveOptions:
    values: dict[str, object] = {"artifacts": place.store.root_uri, "run": RUN, "round": 1}
    return ImproveOptions(**(values | changes))  # type: ignore[arg-type]


async def test_a_key_that_is_changed_under_the_job_is_worth_another_pod(
    place: Workplace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deny(*_: object) -> None:
        raise AccessDenied("s3://bucket: access was denied (403)", remedy="set AWS_ACCESS_KEY_ID")

    monkeypatch.setattr(trainer_svc.improve, "pinned", deny)
    with pytest.raises(Transient, match="though the manifest could be read"):
        await run_improve(options(place), backend(engine, place.store), asyncio.Queue())


async def test_the_job_makes_the_policy_that_the_trainer_service_makes(
    place: Workplace, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEAL_TERMINATION_MESSAGE", str(tmp_path / "termination-log"))
    await run_improve(options(place), backend(engine, place.store), asyncio.Queue())
    by_job = await place.files(Stage.IMPROVE, round=1).summary()
    assert by_job is not None and by_job.policy is not None
    said = read_termination((tmp_path / "termination-log").read_text())
    assert said is not None and said.outcome == "done"
    assert (said.name, said.result_sha256) == (by_job.name, by_job.result_sha256)
    assert said.message.startswith("improve of round 1: policy trained, ")
    with place.store.fetch_directory(by_job.policy) as directory:
        assert load_adapter(directory).rank == 4

    for path in place.store.list(f"{RUN}/stages/r1-improve") + place.store.list(f"{RUN}/trainings"):
        place.store.remove(path)
    adapters = AdapterCache(place.store, base=engine.base)
    trainings = Trainings(engine=engine, store=place.store, adapters=adapters)
    server = await start_server(
        [partial(trainer_svc.service.register, trainings=trainings, adapters=adapters, pace=FAST)],
        address=f"unix:{tmp_path}/trainer.sock",
    )
    async with ServiceClients(ServiceAddresses.all_at(server.address), place.settings) as clients:
        place.clients = clients
        by_service = await place.run(Stage.IMPROVE, round=1)
    await server.stop(0.0)
    assert by_service.policy == by_job.policy
    assert by_service.result_sha256 == by_job.result_sha256
    assert (by_service.tokens, by_service.outcomes) == (by_job.tokens, by_job.outcomes)


async def test_a_signal_leaves_a_checkpoint_and_the_next_attempt_goes_on_from_it(
    place: Workplace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals: Signals = asyncio.Queue()
    loop, steps = asyncio.get_running_loop(), []
    train = Engine.train

    def stopping(self: Engine, request: object, **arguments: object) -> object:
        tell = arguments["on_progress"]

        def told(progress: object) -> None:
            steps.append(progress.step)  # type: ignore[attr-defined]
            if len(steps) == 2:
                loop.call_soon_threadsafe(signals.put_nowait, signal.SIGTERM)
            tell(progress)  # type: ignore[operator]

        return train(self, request, **(arguments | {"on_progress": told}))  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "train", stopping)
    long = IMPROVE.optimizer.model_copy(update={"epochs": 60})
    manifest = place.spec.model_copy(
        update={"improve": IMPROVE.model_copy(update={"optimizer": long})}
    )
    await place.repin(manifest)
    with pytest.raises(Transient, match="suspended"):
        await run_improve(options(place), backend(engine, place.store), signals)
    assert len(place.store.list(f"{RUN}/checkpoints")) == 1
    done = len(steps)
    await run_improve(options(place, attempt=2), backend(engine, place.store), asyncio.Queue())
    summary = await place.files(Stage.IMPROVE, round=1).summary()
    assert summary is not None and summary.policy is not None and summary.attempt == 2
    assert steps[done] > 1, "it went on, it did not begin anew"
    assert place.store.list(f"{RUN}/checkpoints") == ()


async def test_a_signal_ends_a_job_that_keeps_no_checkpoints_at_once(
    place: Workplace, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = []

    def leave(exit_code: int) -> None:
        left.append(exit_code)
        raise asyncio.CancelledError

    monkeypatch.setattr(trainer_svc.improve, "leave", leave)
    signals: Signals = asyncio.Queue()
    signals.put_nowait(signal.SIGTERM)
    await place.repin(
        place.spec.model_copy(
            update={"improve": IMPROVE.model_copy(update={"checkpoint_every_seconds": 0.0})}
        )
    )
    with structlog.testing.capture_logs() as logs:
        await run_improve(options(place), backend(engine, place.store), signals)
    assert left == [STOPPED_AT_ONCE]
    said = [entry["event"] for entry in logs if "stopping" in entry["event"]]
    assert said == ["stopping at once: the run keeps no checkpoints"]


async def test_a_job_that_takes_shorter_rows_than_the_run_was_prepared_for_loses_no_kept_edit(
    place: Workplace, engine: Engine
) -> None:
    small = Engine(
        tiny_model(), EngineSettings(slots=1, dtype="float32", max_rank=8, max_row_tokens=64)
    )
    try:
        with pytest.raises(Conflict, match=r"rows of up to 2048 tokens.*maxRowTokens=2048"):
            await run_improve(options(place), backend(small, place.store), asyncio.Queue())
    finally:
        small.close()
    assert await place.files(Stage.IMPROVE, round=1).summary() is None
    await run_improve(options(place), backend(engine, place.store), asyncio.Queue())
    summary = await place.files(Stage.IMPROVE, round=1).summary()
    assert summary is not None and summary.policy is not None


async def test_a_job_of_an_older_controller_is_refused_and_a_finished_stage_is_not_done_again(
    place: Workplace, engine: Engine
) -> None:
    stand = backend(engine, place.store)
    await claim_stage(place.store, RUN, 1, Stage.IMPROVE, 3)
    with pytest.raises(Conflict, match="epoch 2"):
        await run_improve(options(place, epoch=2), stand, asyncio.Queue())
    await run_improve(options(place, epoch=3), stand, asyncio.Queue())
    place.store.write_bytes(f"{place.files(Stage.ROLLOUT, round=1).path}/records.jsonl", b"")
    await run_improve(options(place, epoch=3, attempt=2), stand, asyncio.Queue())


def test_its_help_names_the_options_and_exit_codes_and_loads_no_torch() -> None:
    code = "import sys, trainer_svc.improve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    ended = subprocess.run(
        [sys.executable, "-m", "trainer_svc.improve", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0
    for words in ("--run", "--round", "--policy-sha256", "--max-row-tokens", "43 worth a"):
        assert words in ended.stdout
    for words in ("--artifacts", "--offline", "--log-level", "--slots"):
        assert words in ended.stdout
    served = set(ServiceOptions.model_fields) - set(EngineOptions.model_fields)
    assert served >= {"address", "max_concurrent_calls", "unready_seconds", "metrics_port"}
    for name in served:
        assert "--" + name.replace("_", "-") not in ended.stdout, "a job serves nothing"
    assert "NOT_SERVING" not in ended.stdout.partition("options:")[0]


def test_a_job_that_fails_says_why_in_its_termination_message(tmp_path: Path) -> None:
    message = tmp_path / "termination-log"
    command = ["-m", "trainer_svc.improve", "--artifacts", str(tmp_path), "--run", "r"]
    ended = subprocess.run(
        [sys.executable, *command, "--round", "1", "--model", "/no/such"],
        cwd=ROOT,
        env=os.environ | {"SEAL_TERMINATION_MESSAGE": str(message)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = read_termination(message.read_text())
    assert said is not None
    assert (ended.returncode, said.exit_code, said.field) == (2, 2, "model")
    assert "/no/such" in said.message and said.permanent
