"""One trace from the call that asks for work, through all who do it, to the last service."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from controller_harness import IMPATIENT, RUN, small_spec
from controller_office import Office, small_run
from fake_services import FakeEvaluator, FakeGenerator, Fakes, FakeTrainer
from front_door_harness import Work, ended, front_door, request
from spans import Recorder, SpanSeen, recorded_spans

from controller_svc.k8s.api import JOBS
from controller_svc.k8s.hops import hop_annotations
from controller_svc.local.world import run_local
from controller_svc.worker.settings import ServiceAddresses
from seal.errors import NotFound, Transient
from seal.resources import RestEMRun
from seal.rpc.client import blocking_rpc_errors, open_blocking_channel
from seal.rpc.hops import Hop, current_hop, hop_of
from seal.rpc.server import start_server
from seal.rpc.tracing import Untraced, tracing, working
from seal.v1 import (
    adaptation_pb2,
    adaptation_pb2_grpc,
    evaluator_pb2_grpc,
    generator_pb2_grpc,
    trainer_pb2_grpc,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HOP = Hop("mine-1", f"00-{TRACE}-{'0f' * 8}-01")


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with recorded_spans() as recorder:
        yield recorder


@asynccontextmanager
async def traced_services(fakes: Fakes) -> AsyncIterator[ServiceAddresses]:
    """The fakes behind what every server of the project has."""

    def generator(server: grpc.aio.Server) -> str:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(FakeGenerator(fakes), server)
        return "seal.v1.GeneratorService"

    def trainer(server: grpc.aio.Server) -> str:
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(FakeTrainer(fakes), server)
        return "seal.v1.TrainerService"

    def evaluator(server: grpc.aio.Server) -> str:
        evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(FakeEvaluator(fakes), server)
        return "seal.v1.EvaluatorService"

    with tempfile.TemporaryDirectory(prefix="seal-") as directory:
        address = f"unix:{directory}/socket"
        running = await start_server([generator, trainer, evaluator], address=address)
        try:
            yield ServiceAddresses.all_at(running.address)
        finally:
            await running.stop(0.0)


def chain(spans: list[SpanSeen], last: SpanSeen) -> list[str]:
    """Names of the spans from the first one down to this."""
    by_id = {span.span_id: span for span in spans}
    names = [last.name]
    while last.parent_id in by_id:
        last = by_id[last.parent_id]
        names.insert(0, last.name)
    return names


async def test_a_local_run_is_one_trace_down_to_every_call_of_a_service(
    tmp_path: Path, recorder: Recorder
) -> None:
    spec = small_spec(tmp_path, rounds=1)
    async with traced_services(Fakes()) as services:
        await run_local(
            RestEMRun.of(RUN, spec),
            root=tmp_path / "artifacts",
            services=services,
            settings=IMPATIENT,
        )
    spans = await recorder.settled()
    root = next(span for span in spans if span.name == "run")
    of_run = [span for span in spans if span.trace_id == root.trace_id]
    shards = {span.name for span in of_run if span.kind == "INTERNAL"} - {"run"}
    assert shards == {f"{name} shard" for name in ("prepare", "rollout", "improve", "validate")}
    assert all(
        span.facts == {"run": RUN, "round": span.facts["round"], "stage": stage, "shard": 0}
        for span in of_run
        if (stage := span.name.removesuffix(" shard")) != span.name
    )
    answered = [span for span in of_run if span.kind == "SERVER"]
    assert {span.name for span in answered} >= {
        "seal.v1.GeneratorService/GenerateEdits",
        "seal.v1.TrainerService/TrainAdapter",
        "seal.v1.EvaluatorService/Evaluate",
    }
    trained = [span for span in answered if span.name == "seal.v1.TrainerService/TrainAdapter"]
    assert {tuple(chain(of_run, span)) for span in trained} == {
        ("run", f"{stage} shard", trained[0].name, trained[0].name)
        for stage in ("rollout", "improve", "validate")
    }
    assert {span.code for span in of_run if span.kind != "CLIENT"} == {"OK"}
    assert {span.trace_id for span in spans} == {root.trace_id}


@pytest.mark.parametrize("blocking", [False, True])
async def test_the_work_on_an_adaptation_is_in_the_trace_of_the_submit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorder: Recorder, blocking: bool
) -> None:
    work = Work()
    async with front_door(tmp_path, work, monkeypatch) as door:
        if blocking:
            await asyncio.to_thread(submit, door.address)
        else:
            await door.stub.SubmitAdaptation(request(name="veldra"))
        await ended(door, "veldra")
    name = "seal.v1.AdaptationService/SubmitAdaptation"
    asked, answered = (span for span in await recorder.settled() if span.name == name)
    assert (asked.kind, answered.kind) == ("CLIENT", "SERVER")
    assert answered.parent_id == asked.span_id and asked.parent_id == ""
    (hops,) = work.hops.values()
    assert {hop.trace_id for hop in hops} == {asked.trace_id}
    assert {hop.traceparent.split("-")[2] for hop in hops} == {answered.span_id}


def submit(address: str) -> None:
    with open_blocking_channel(address) as channel:
        stub = adaptation_pb2_grpc.AdaptationServiceStub(channel)
        stub.SubmitAdaptation(request(name="veldra"))


async def test_a_blocking_call_that_fails_and_a_stream_are_spans_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    async with front_door(tmp_path, Work(), monkeypatch) as door:
        await door.stub.SubmitAdaptation(request(name="veldra"))

        def ask() -> None:
            with open_blocking_channel(door.address) as channel:
                stub = adaptation_pb2_grpc.AdaptationServiceStub(channel)
                with pytest.raises(NotFound), blocking_rpc_errors():
                    stub.GetAdaptation(adaptation_pb2.GetAdaptationRequest(name="none"))
                watch = adaptation_pb2.WatchAdaptationRequest(name="veldra")
                assert list(stub.WatchAdaptation(watch))

        await asyncio.to_thread(ask)
    seen = {
        span.name.rpartition("/")[2]: span.code
        for span in await recorder.settled()
        if span.kind == "CLIENT"
    }
    assert seen["GetAdaptation"] == "NOT_FOUND" and seen["WatchAdaptation"] == "OK"


def told(office: Office) -> dict[str, Hop]:
    """What the pods of each Job are told."""
    hops: dict[str, Hop] = {}
    for (kind, _, name), job in office.api.objects.items():
        if kind == JOBS:
            container = job["spec"]["template"]["spec"]["containers"][0]
            values = {one["name"]: one.get("value", "") for one in container["env"]}
            hops[name] = hop_of(
                [
                    ("x-request-id", values["SEAL_REQUEST_ID"]),
                    ("traceparent", values["TRACEPARENT"]),
                ]
            )
    return hops


async def test_the_pods_of_every_stage_are_told_the_span_that_started_them(
    tmp_path: Path, recorder: Recorder
) -> None:
    office = Office(tmp_path / "store")
    body = small_run()
    body["metadata"]["annotations"] = hop_annotations(HOP)
    key = office.submit(body)
    await office.to_the_end(key)
    started = [span for span in recorder.spans if span.name.startswith("start ")]
    assert [span.name for span in started] == [
        f"start {stage}" for stage in ("prepare", "validate", "rollout", "improve", "validate")
    ]
    assert {(span.trace_id, span.parent_id) for span in started} == {(TRACE, "0f" * 8)}
    hops = told(office).values()
    assert {hop.traceparent for hop in hops} == {
        f"00-{TRACE}-{span.span_id}-01" for span in started
    }
    assert {hop.request_id for hop in hops} == {"mine-1"}


async def test_an_object_that_nobody_called_for_has_one_trace_whichever_controller_goes_on(
    tmp_path: Path,
) -> None:
    office = Office(tmp_path / "store")
    one, other = office.submit(small_run("one")), office.submit(small_run("other"))
    for _ in range(3):
        for key in (one, other):
            await office.look(key)
        await office.cluster.step()
        office.restart()
    hops = told(office)
    traces = {
        name: {hop.traceparent for job, hop in hops.items() if job.startswith(name)}
        for name in ("one", "other")
    }
    assert len(hops) >= 4 and all(hop.trace_id for hop in hops.values())
    assert [len(found) for found in traces.values()] == [1, 1]
    assert traces["one"] != traces["other"]


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (lambda: Transient("away"), "UNAVAILABLE"),
        (asyncio.CancelledError, "CANCELLED"),
        (lambda: ValueError("a defect"), "INTERNAL"),
    ],
)
def test_work_that_fails_is_a_span_with_its_code(
    recorder: Recorder, raised: Callable[[], BaseException], code: str
) -> None:
    error = raised()

    def work() -> None:
        with working("piece", HOP, run="demo"):
            assert current_hop().trace_id == TRACE and current_hop().traceparent != HOP.traceparent
            raise error

    with pytest.raises(type(error)):
        work()
    (span,) = recorder.spans
    assert (span.name, span.parent_id, span.code) == ("piece", "0f" * 8, code)


ENDS = """
import atexit, sys, time
sys.path[:0] = {path!r}
from seal.rpc.hops import new_hop
from seal.rpc.tracing import configure_tracing, working
ended = []
atexit.register(lambda: print(time.monotonic() - ended[0]))  # after those of what is configured now
configure_tracing("seal-test")
with working("piece", new_hop(), run="demo"):
    pass
ended.append(time.monotonic())
"""


def test_a_collector_that_does_not_answer_delays_no_end_and_fails_nothing() -> None:
    spans = pytest.importorskip("seal.rpc.spans", reason="the extra otel is not installed")
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()  # connections are taken, and nothing is ever said
        endpoint = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", ENDS.format(path=sys.path)],
            env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < spans.LAST_SPANS_SECONDS + 1.0


def test_where_nothing_is_traced_work_hands_the_hop_on_as_it_came() -> None:
    assert isinstance(tracing(), Untraced)
    with working("piece", HOP, run="demo") as hop:
        assert hop == HOP == current_hop()
    tracing().flush()
