"""`python -m controller_svc.worker`: one index of a stage as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from adaptation_harness import RUN as ADAPTATION
from adaptation_harness import adaptation_spec
from controller_harness import POLICY, RUN, serve_all, small_spec, workplace
from fake_services import Fakes, serve_fakes
from spans import otlp_receiver

from controller_svc.core import StartStage
from controller_svc.local.world import shard_task
from controller_svc.worker import __main__ as worker
from controller_svc.worker.settings import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.errors import SUPERSEDED, AccessDenied, SealError, error_class
from seal.records import Stage
from seal.resources import Adaptation, ObjectMeta
from seal.runs.epochs import claim_stage
from seal.runs.shards import ShardStore
from seal.runs.store import manifest_path
from seal.termination import MAX_BYTES, Termination, read_termination

ROOT = Path(__file__).parents[2]
TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"


@dataclass
class Pod:
    """How a process of a pod is started, and what it left."""

    directory: Path
    addresses: ServiceAddresses
    environment: Mapping[str, str]

    @property
    def message(self) -> Path:
        return self.directory / "termination-log"

    @property
    def said(self) -> Termination:
        text = self.message.read_text()
        assert len(text.encode()) <= MAX_BYTES and len(text.splitlines()) == 1
        read = read_termination(text)
        assert read is not None
        return read

    async def start(self, stage: Stage, **changes: str) -> asyncio.subprocess.Process:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "SEAL_ARTIFACTS": str(self.directory / "artifacts"),
            "SEAL_RUN": RUN,
            "SEAL_STAGE": stage,
            "SEAL_ROUND": "1",
            "SEAL_GENERATOR": self.addresses.generator,
            "SEAL_TRAINER": self.addresses.trainer,
            "SEAL_EVALUATOR": self.addresses.evaluator,
            "SEAL_LOG_FORMAT": "json",
            "SEAL_RETRY_INITIAL_SECONDS": "0.01",
            "SEAL_PATIENCE_SECONDS": "0.05",
            "SEAL_TERMINATION_MESSAGE": str(self.message),
            **self.environment,
            **changes,
        }
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "controller_svc.worker",
            env=environment,
            cwd=self.directory,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, stage: Stage, **changes: str) -> tuple[int, list[dict[str, object]]]:
        """Exit code and log lines."""
        process = await self.start(stage, **changes)
        _, lines = await process.communicate()
        assert process.returncode is not None
        return process.returncode, [json.loads(line) for line in lines.decode().splitlines()]


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


async def test_an_index_of_a_stage_leaves_the_summary_that_a_task_of_local_mode_leaves(
    tmp_path: Path, fakes: Fakes
) -> None:
    spec = small_spec(tmp_path).model_copy(update={"shards": 2})
    async with workplace(tmp_path, fakes=fakes, spec=spec) as place, serve_fakes(fakes) as at:
        here = await place.run(Stage.ROLLOUT, round=1, shard=1, policy=POLICY)
        for path in place.store.list(f"{RUN}/stages/r1-rollout"):
            place.store.remove(path)
        pod = Pod(tmp_path, at, {"SEAL_POLICY_PATH": POLICY.path})
        code, lines = await pod.run(
            Stage.ROLLOUT,
            SEAL_SHARDS="2",
            SEAL_SHARD="1",
            SEAL_POLICY_SHA256=POLICY.sha256,
            TRACEPARENT=TRACEPARENT,
            SEAL_REQUEST_ID="mine",
        )
        there = await place.files(Stage.ROLLOUT, round=1, shard=1).summary()
    assert code == 0 and there is not None
    assert there.result_sha256 == here.result_sha256
    assert pod.said.outcome == "done" and pod.said.result_sha256 == here.result_sha256
    action = StartStage(
        name=f"{RUN}-r1-rollout-a1", run=RUN, stage=Stage.ROLLOUT, round=1, shards=2, attempt=1,
        epoch=1, policy=POLICY,
    )  # fmt: skip
    assert pod.said.name == there.name == shard_task(action, 1).name
    last = lines[-1]
    assert last["event"] == "shard done"
    assert "rollout of round 1, shard 2 of 2: 6 inner loops (" in str(last["said"])
    started = next(line for line in lines if line["event"] == "task started")
    for line in (started, last):
        assert (line["trace_id"], line["x_request_id"]) == ("a" * 32, "mine")


async def test_the_spans_of_a_pod_and_its_calls_are_in_the_trace_that_its_job_was_told(
    tmp_path: Path, fakes: Fakes
) -> None:
    spec = small_spec(tmp_path)
    async with (
        workplace(tmp_path, fakes=fakes, spec=spec),
        serve_fakes(fakes) as at,
        otlp_receiver() as receiver,
    ):
        pod = Pod(tmp_path, at, {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint})
        code, _ = await pod.run(Stage.ROLLOUT, TRACEPARENT=TRACEPARENT, SEAL_REQUEST_ID="mine")
    assert code == 0
    (shard,) = (span for span in receiver.spans if span.kind == "INTERNAL")
    assert (shard.name, shard.parent_id, shard.code) == ("rollout shard", "b" * 16, "OK")
    assert shard.facts == {"run": RUN, "round": 1, "stage": "rollout", "shard": 0}
    calls = [span for span in receiver.spans if span.kind == "CLIENT"]
    assert {span.name.rpartition("/")[2] for span in calls} >= {
        "GenerateEdits",
        "TrainAdapter",
        "Evaluate",
    }
    assert {span.trace_id for span in receiver.spans} == {"a" * 32}
    assert {span.request_id for span in receiver.spans} == {"mine"}


async def test_an_index_of_an_adaptation_finds_its_manifest_too(
    tmp_path: Path, fakes: Fakes
) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"))
    manifest = Adaptation(metadata=ObjectMeta(name="notes"), spec=adaptation_spec(tmp_path, store))
    store.write_json(manifest_path(ADAPTATION), manifest)
    async with serve_fakes(fakes) as at:
        pod = Pod(tmp_path, at, {"SEAL_RUN": ADAPTATION, "SEAL_ROUND": "0"})
        code, _ = await pod.run(Stage.PREPARE)
    assert code == 0
    files = ShardStore(store, run=ADAPTATION, round=0, stage=Stage.PREPARE, shard=0)
    summary = await files.summary()
    assert summary is not None and summary.result_sha256 == pod.said.result_sha256


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 2, "InvalidInput"),
        (grpc.StatusCode.FAILED_PRECONDITION, 42, "PreconditionFailed"),
        (grpc.StatusCode.UNAVAILABLE, 43, "Transient"),
    ],
)
async def test_the_exit_code_and_the_termination_message_say_whether_another_attempt_is_worth_it(
    tmp_path: Path, status: grpc.StatusCode, code: int, reason: str
) -> None:
    fakes = Fakes()
    async with workplace(tmp_path, fakes=fakes), serve_all(fakes) as at:
        fakes.fail = lambda kind, name, call: status if kind == "generate" else None
        ended, lines = await Pod(tmp_path, at, {}).run(Stage.ROLLOUT)
    said = Pod(tmp_path, at, {}).said
    assert (ended, said.exit_code, said.reason) == (code, code, reason)
    assert said.outcome == "failed" and said.permanent == (code != 43)
    assert "as the test wants it" in said.message
    assert lines[-1]["reason"] == reason, "a log says the same"


@pytest.mark.parametrize(
    ("denied", "code", "reason"), [("read_spec", 2, "InvalidInput"), ("run_task", 43, "Transient")]
)
async def test_a_key_that_is_changed_under_a_worker_is_worth_another_pod_and_a_wrong_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, denied: str, code: int, reason: str
) -> None:
    async def deny(*_: object, **__: object) -> None:
        raise AccessDenied("s3://bucket: access was denied (403)", remedy="set AWS_ACCESS_KEY_ID")

    message = tmp_path / "termination-log"
    monkeypatch.setenv("SEAL_TERMINATION_MESSAGE", str(message))
    monkeypatch.setattr(worker, denied, deny)
    options = worker.WorkerOptions(
        **ServiceAddresses.all_at(f"unix:{tmp_path}/nobody").model_dump(),
        artifacts=str(tmp_path / "artifacts"),
        run=RUN,
        stage=Stage.ROLLOUT,
    )
    async with workplace(tmp_path):
        with pytest.raises(SealError) as caught:
            await worker.run_worker(options)
    said = read_termination(message.read_text())
    assert said is not None and (said.exit_code, said.reason) == (code, reason)
    assert error_class(caught.value).exit_code == code
    assert "AWS_ACCESS_KEY_ID" in said.message


async def test_a_worker_whose_services_are_not_there_ends_with_43_and_names_them(
    tmp_path: Path, fakes: Fakes
) -> None:
    async with workplace(tmp_path, fakes=fakes) as place, serve_fakes(fakes) as at:
        addresses = at.model_copy(update={"trainer": f"unix:{tmp_path}/nobody"})
        pod = Pod(tmp_path, addresses, {"SEAL_PATIENCE_SECONDS": "0.1"})
        code, lines = await pod.run(Stage.ROLLOUT)
        assert await place.files(Stage.ROLLOUT, round=1).summary() is None
    assert (code, pod.said.exit_code, pod.said.reason) == (43, 43, "Transient")
    assert f"not reachable within 0.1 s: the trainer at {addresses.trainer} (" in pod.said.message
    assert "the generator" not in pod.said.message
    assert "see whether their pods run and are ready" in pod.said.message
    assert lines[-1]["reason"] == "Transient"
    assert not fakes.calls, "no work was sent to the others"


async def test_a_finished_shard_needs_no_service(tmp_path: Path, fakes: Fakes) -> None:
    async with workplace(tmp_path, fakes=fakes) as place:
        await place.run(Stage.ROLLOUT, round=1, policy=POLICY)
        nowhere = ServiceAddresses.all_at(f"unix:{tmp_path}/nobody")
        pod = Pod(tmp_path, nowhere, {"SEAL_PATIENCE_SECONDS": "0.1"})
        code, _ = await pod.run(Stage.ROLLOUT)
    assert code == 0 and pod.said.outcome == "done"


async def test_a_worker_of_an_older_controller_is_refused_but_its_stage_is_not(
    tmp_path: Path, fakes: Fakes
) -> None:
    async with workplace(tmp_path, fakes=fakes) as place, serve_fakes(fakes) as at:
        await claim_stage(place.store, RUN, 1, Stage.ROLLOUT, 3)
        pod = Pod(tmp_path, at, {})
        code, _ = await pod.run(Stage.ROLLOUT, SEAL_EPOCH="2")
        assert await place.files(Stage.ROLLOUT, round=1).summary() is None
    assert code == 2 and pod.said.reason == SUPERSEDED and not pod.said.permanent


async def test_a_signal_ends_a_worker_with_43_and_the_next_one_repeats_nothing(
    tmp_path: Path,
) -> None:
    log = tmp_path / "calls.log"
    fakes = Fakes(log=log)
    async with workplace(tmp_path, fakes=fakes) as place, serve_fakes(fakes) as at:
        pod = Pod(tmp_path, at, {"SEAL_CONCURRENCY": "1"})
        fakes.delay_seconds = 0.05
        process = await pod.start(Stage.ROLLOUT)
        files = place.files(Stage.ROLLOUT, round=1)
        while len(await files.inner_loops()) < 2:  # noqa: ASYNC110 - another process commits
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, lines = await process.communicate()
        assert process.returncode == 43, lines.decode()
        assert pod.said.reason == "Transient" and "SIGTERM" in pod.said.message
        done = len(await files.inner_loops())
        assert await files.summary() is None
        fakes.delay_seconds = 0.0
        code, _ = await pod.run(Stage.ROLLOUT, SEAL_ATTEMPT="2")
        summary = await files.summary()
    assert code == 0 and summary is not None
    assert (summary.inner_loops_resumed, summary.attempt) == (done, 2)
    assert summary.inner_loops_run + done == 18


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"SEAL_STAGE": "dance"}, "--stage"),
        ({"SEAL_SHARD": "2", "SEAL_SHARDS": "2"}, "no shard 2 of 2"),
        ({"SEAL_SHARD": "-1"}, "--shard"),
        ({"SEAL_RUN": "nobody"}, "nobody/run.json"),
    ],
)
async def test_a_wrong_task_is_refused_with_2_and_named(
    tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    pod = Pod(tmp_path, ServiceAddresses.all_at("unix:/nowhere"), {})
    code, lines = await pod.run(Stage.ROLLOUT, **changes)
    assert code == 2
    last = json.dumps(lines[-1])
    assert words in last
    read = read_termination(last)
    assert read is not None and read.permanent, "what Kubernetes takes from the log is enough"
