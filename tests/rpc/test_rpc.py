"""gRPC in common: errors cross the wire whole, calls are counted, servers end cleanly.

Channels retry only lost connections.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from eventually import until
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from seal.errors import (
    Conflict,
    Exhausted,
    Internal,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    SealError,
    Transient,
    UnfitItem,
)
from seal.metrics import Metrics
from seal.outcomes import Outcome
from seal.rpc.client import ClientSettings, open_channel, rpc_errors
from seal.rpc.errors import from_rpc_error, from_status, to_status
from seal.rpc.interceptor import FAULTS
from seal.rpc.server import RunningServer, check_address, start_server
from seal.rpc.settings import ServerSettings
from seal.v1 import adaptation_pb2, adaptation_pb2_grpc, trainer_pb2, trainer_pb2_grpc

TRAINER = "seal.v1.TrainerService"
Get = Callable[[trainer_pb2.GetTrainingRequest], trainer_pb2.GetTrainingResponse]


class Unwritten(trainer_pb2_grpc.TrainerServiceServicer):
    """A servicer of which nothing is written."""

    def register(self, server: grpc.aio.Server) -> str:
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(self, server)
        return TRAINER


class Trainer(Unwritten):
    """A servicer whose behaviour each test sets."""

    def __init__(
        self, get: Callable[[], object] | None = None, delay_seconds: float = 0.0, steps: int = 3
    ) -> None:
        self.get = get or trainer_pb2.GetTrainingResponse
        self.delay_seconds, self.steps = delay_seconds, steps
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancelled = asyncio.Event()
        self.streaming = asyncio.Event()

    async def GetTraining(self, request, context):  # type: ignore[no-untyped-def]
        self.calls += 1
        await asyncio.sleep(self.delay_seconds)
        await self.gate.wait()
        return self.get()

    async def TrainAdapter(self, request, context):  # type: ignore[no-untyped-def]
        self.calls += 1
        try:
            for step in range(self.steps):
                yield trainer_pb2.TrainAdapterResponse(
                    progress=trainer_pb2.TrainingProgress(step=step)
                )
                self.streaming.set()
                await asyncio.sleep(self.delay_seconds)
            self.get()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def CancelTraining(self, request, context):  # type: ignore[no-untyped-def]
        await context.abort(grpc.StatusCode.CANCELLED, "not now")


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> object:
        raise error

    return act


@asynccontextmanager
async def serving(
    trainer: Unwritten | Watched,
    *,
    settings: ServerSettings | None = None,
    metrics: Metrics | None = None,
    client: ClientSettings | None = None,
) -> AsyncIterator[tuple[RunningServer, grpc.aio.Channel]]:
    server = await start_server(
        [trainer.register],
        address="127.0.0.1:0",
        settings=settings,
        metrics=metrics or Metrics(CollectorRegistry()),
    )
    async with open_channel(server.address, settings=client) as channel:
        try:
            yield server, channel
        finally:
            await server.stop(0)


async def get(
    channel: grpc.aio.Channel,
    timeout: float | None = None,  # noqa: ASYNC109 - gRPC sends it
) -> trainer_pb2.GetTrainingResponse:
    with rpc_errors():
        request = trainer_pb2.GetTrainingRequest(request_id="r-1", run="demo")
        return await trainer_pb2_grpc.TrainerServiceStub(channel).GetTraining(
            request, timeout=timeout
        )


# Errors


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "kind", [InvalidInput, NotFound, Conflict, PreconditionFailed, Exhausted, Transient, Internal]
)
@pytest.mark.parametrize("streaming", [False, True])
async def test_an_error_arrives_as_it_was_raised(kind: type[SealError], streaming: bool) -> None:
    options = {"retry_after_seconds": 2.5} if kind in (Exhausted, Transient) else {}
    raised = kind(
        "lora.rank: 64 does not fit; slots hold 32",
        remedy="ask for ≤ 32",
        field="lora.rank",
        run="demo",
        **options,
    )  # type: ignore[arg-type]
    trainer = Trainer(raising(raised))
    async with serving(trainer) as (_, channel):
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        with pytest.raises(kind) as caught:
            await (
                _steps(stub.TrainAdapter(trainer_pb2.TrainAdapterRequest()))
                if streaming
                else get(channel)
            )
    arrived = caught.value
    assert type(arrived) is kind and str(arrived) == str(raised)
    assert (arrived.message, arrived.remedy, arrived.field) == (
        raised.message,
        raised.remedy,
        raised.field,
    )
    assert (arrived.details, arrived.retry_after_seconds) == (
        {"run": "demo"},
        raised.retry_after_seconds,
    )
    assert trainer.calls == 1  # what a service refused is not sent again by the channel


@pytest.mark.asyncio
async def test_any_client_sees_code_words_and_standard_details() -> None:
    error = InvalidInput("edit.k: 0 is too small", remedy="give at least 1", field="edit.k")
    async with serving(Trainer(raising(error))) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await trainer_pb2_grpc.TrainerServiceStub(channel).GetTraining(
                trainer_pb2.GetTrainingRequest()
            )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "edit.k: 0 is too small; give at least 1"
    status = status_pb2.Status.FromString(
        caught.value.trailing_metadata()["grpc-status-details-bin"]
    )
    info, violation = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info) and (info.domain, info.reason) == (
        "seal.dev",
        "InvalidInput",
    )
    assert status.details[1].Unpack(violation) and violation.field_violations[0].field == "edit.k"


def test_the_longest_error_still_fits_into_the_headers() -> None:
    details = {f"detail_{index}": "d" * 10_000 for index in range(50)}
    status = to_status(
        InvalidInput("ü" * 100_000, remedy="r" * 100_000, field="f" * 100_000, **details)
    )
    assert len(status.SerializeToString()) * 4 / 3 + 3 * len(status.message.encode()) < 8000
    assert isinstance(from_status(status), InvalidInput)


@pytest.mark.asyncio
async def test_the_longest_error_arrives() -> None:
    error = InvalidInput(
        "ü" * 100_000,
        remedy="ü" * 100_000,
        field="f" * 1000,
        **{f"d{index}": "ü" * 1000 for index in range(20)},
    )
    async with serving(Trainer(raising(error))) as (_, channel):
        with pytest.raises(InvalidInput, match=r"ü{100}"):
            await get(channel)


@pytest.mark.asyncio
async def test_an_unexpected_error_is_internal_tells_no_data_and_is_logged_with_its_traceback() -> (
    None
):
    with structlog.testing.capture_logs() as logs:
        async with serving(Trainer(raising(ZeroDivisionError("the secret passage")))) as (
            _,
            channel,
        ):
            with pytest.raises(
                Internal, match=rf"unexpected ZeroDivisionError in {TRAINER}/GetTraining"
            ) as caught:
                await get(channel)
    assert "secret" not in str(caught.value)
    assert [
        line for line in logs if line["event"] == "call failed unexpectedly" and line["exc_info"]
    ]


@pytest.mark.asyncio
async def test_a_validation_error_is_invalid_input_by_field_without_the_value() -> None:
    class Row(BaseModel):
        answer: int

    async with serving(Trainer(lambda: Row.model_validate({"answer": "the secret passage"}))) as (
        _,
        channel,
    ):
        with pytest.raises(InvalidInput) as caught:
            await get(channel)
    assert caught.value.field == "answer" and "secret" not in str(caught.value)


@pytest.mark.asyncio
async def test_unknown_methods_missed_deadlines_and_dead_addresses_have_a_class_and_a_remedy() -> (
    None
):
    async with serving(Trainer(delay_seconds=5.0)) as (_, channel):
        with pytest.raises(Transient, match="longer deadline"):
            await get(channel, timeout=0.05)
        with pytest.raises(InvalidInput, match="same version"), rpc_errors():
            await channel.unary_unary("/seal.v1.TrainerService/NoSuch")(b"")  # type: ignore[arg-type]
    async with open_channel(
        "127.0.0.1:1", settings=ClientSettings(connection_attempts=2)
    ) as nowhere:
        with pytest.raises(Transient, match="check that the service runs"):
            await get(nowhere, timeout=10)


@pytest.mark.asyncio
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_method_that_a_service_does_not_serve_is_unimplemented_and_no_defect_of_it(
    streaming: bool,
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving(Unwritten()) as (_, channel):
            stub = trainer_pb2_grpc.TrainerServiceStub(channel)
            call: Awaitable[object] = (
                anext(aiter(stub.TrainAdapter(trainer_pb2.TrainAdapterRequest())))
                if streaming
                else stub.GetTraining(trainer_pb2.GetTrainingRequest())
            )
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await call
    assert ended.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert isinstance(from_rpc_error(ended.value), InvalidInput)
    assert not [line for line in logs if line["event"] == "call failed unexpectedly"]
    assert [line["code"] for line in logs if line["event"] == "call ended"] == ["UNIMPLEMENTED"]


@pytest.mark.asyncio
async def test_what_a_handler_has_not_written_is_a_defect_of_it() -> None:
    async with serving(Trainer(raising(NotImplementedError("later")))) as (_, channel):
        with pytest.raises(Internal, match="unexpected NotImplementedError"):
            await get(channel)


def test_a_status_of_another_server_takes_the_class_of_its_code() -> None:
    for code, kind in (
        (grpc.StatusCode.PERMISSION_DENIED, PreconditionFailed),
        (grpc.StatusCode.UNKNOWN, Internal),
    ):
        assert type(from_status(status_pb2.Status(code=code.value[0], message="no"))) is kind


@pytest.mark.parametrize(
    "trailing", [b"\xff\xff", status_pb2.Status(code=5, message="other code").SerializeToString()]
)
def test_a_status_that_is_broken_or_of_another_code_is_ignored(trailing: bytes) -> None:
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", trailing))
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.ALREADY_EXISTS, grpc.aio.Metadata(), metadata, details="what the code says"
    )
    arrived = from_rpc_error(error)
    assert type(arrived) is Conflict and arrived.message == "what the code says"


# Cancelling


@pytest.mark.asyncio
async def test_a_client_that_leaves_cancels_the_handler_and_is_counted_so() -> None:
    trainer, metrics = Trainer(delay_seconds=5.0), Metrics(CollectorRegistry())
    async with serving(trainer, metrics=metrics) as (_, channel):
        call = trainer_pb2_grpc.TrainerServiceStub(channel).TrainAdapter(
            trainer_pb2.TrainAdapterRequest()
        )
        assert (await anext(aiter(call))).progress.step == 0
        call.cancel()
        await asyncio.wait_for(trainer.cancelled.wait(), 5)
        labels = {
            "grpc_type": "server_stream",
            "grpc_service": TRAINER,
            "grpc_method": "TrainAdapter",
            "grpc_code": "Canceled",
        }
        async with asyncio.timeout(5):
            while metrics.registry.get_sample_value("grpc_server_handled_total", labels) != 1:  # noqa: ASYNC110 - a metric has no event
                await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_a_call_that_the_server_cancels_is_transient_and_not_the_end_of_the_client() -> None:
    async with serving(Trainer()) as (_, channel):
        with pytest.raises(Transient), rpc_errors():
            await trainer_pb2_grpc.TrainerServiceStub(channel).CancelTraining(
                trainer_pb2.CancelTrainingRequest()
            )


@pytest.mark.asyncio
async def test_a_client_that_is_cancelled_stays_cancelled() -> None:
    async with serving(Trainer(delay_seconds=5.0)) as (_, channel):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(get(channel), 0.05)


# Metrics and logs


@pytest.mark.asyncio
async def test_calls_are_counted_and_timed_by_the_ecosystem_names() -> None:
    metrics = Metrics(CollectorRegistry())
    trainer = Trainer()
    async with serving(trainer, metrics=metrics) as (_, channel):
        await get(channel)
        trainer.get = raising(NotFound("no training"))
        with pytest.raises(NotFound):
            await get(channel)
    labels = {"grpc_type": "unary", "grpc_service": TRAINER, "grpc_method": "GetTraining"}
    value = metrics.registry.get_sample_value
    assert value("grpc_server_started_total", labels) == 2
    assert value("grpc_server_handled_total", {**labels, "grpc_code": "OK"}) == 1
    assert value("grpc_server_handled_total", {**labels, "grpc_code": "NotFound"}) == 1
    assert value("grpc_server_handling_seconds_count", labels) == 2


@pytest.mark.asyncio
async def test_faults_are_shown_at_zero_from_the_start_on_so_that_the_first_is_a_rise() -> None:
    metrics, trainer = Metrics(CollectorRegistry()), Trainer(raising(RuntimeError("a defect")))

    def handled() -> dict[tuple[str, str, str], float]:
        return {
            (found.labels["grpc_type"], found.labels["grpc_method"], code): found.value
            for family in metrics.registry.collect()
            for found in family.samples
            if found.name == "grpc_server_handled_total"
            and (code := found.labels["grpc_code"]) in FAULTS
        }

    async with serving(trainer, metrics=metrics) as (_, channel):
        before = handled()
        with pytest.raises(Internal):
            await get(channel)
    methods = trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].methods
    assert set(before.values()) == {0.0} and len(before) == len(FAULTS) * len(methods)
    assert ("server_stream", "TrainAdapter", "DataLoss") in before
    assert handled() == before | {("unary", "GetTraining", "Internal"): 1.0}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "code", "level"),
    [
        (NotFound("no training", remedy="start it"), "NOT_FOUND", "info"),
        (PreconditionFailed("no training", remedy="start it"), "FAILED_PRECONDITION", "warning"),
    ],
)
async def test_a_call_is_one_log_line_with_its_outcome(
    error: SealError, code: str, level: str
) -> None:
    """What the caller got wrong is the caller's to hear, and no warning to who serves."""
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as logs:
        async with serving(Trainer(raising(error))) as (_, channel):
            with pytest.raises(type(error)):
                await get(channel)
    (line,) = [line for line in logs if line["event"] == "call ended"]
    assert (line["service"], line["method"], line["code"], line["reason"]) == (
        TRAINER,
        "GetTraining",
        code,
        type(error).__name__,
    )
    assert (line["run"], line["request_id"], line["log_level"]) == ("demo", "r-1", level)
    assert line["error"] == "no training; start it"


# Server


@pytest.mark.asyncio
async def test_a_port_in_use_is_refused_by_address_with_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InvalidInput, match=f"{address} is in use") as caught:
            await start_server([], address=address)
    assert caught.value.field == "address" and "--address" in caught.value.remedy


@pytest.mark.asyncio
async def test_two_servers_never_share_an_address(tmp_path: Path) -> None:
    for address in ("127.0.0.1:0", f"unix:{tmp_path}/seal.sock"):
        first = await start_server([Trainer().register], address=address)
        with pytest.raises(InvalidInput, match="is in use"):
            await start_server([Trainer().register], address=first.address)
        async with open_channel(first.address) as channel:
            await get(channel)
        await first.stop(0)


@pytest.mark.asyncio
async def test_a_socket_that_a_killed_server_left_is_taken_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/seal.sock")
    server = await start_server([Trainer().register], address=f"unix:{tmp_path}/seal.sock")
    async with open_channel(server.address) as channel:
        await get(channel)
    await server.stop(0)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "address",
    [
        "localhost",
        "localhost:",
        ":50051",
        "host:http",
        "0.0.0.0:70000",
        "unix:",
        f"unix:/tmp/{'x' * 120}",
        "unix:/no/such/a.sock",
        "",
    ],
)
async def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await start_server([], address=address)
    assert caught.value.field == "address" and caught.value.remedy


@pytest.mark.asyncio
async def test_a_plain_file_is_never_replaced_by_a_socket(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(InvalidInput, match="is no socket"):
        await start_server([], address=f"unix:{tmp_path}/notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "keep me"


@pytest.mark.asyncio
async def test_a_message_over_the_limit_is_refused_and_the_server_lives() -> None:
    async with serving(Trainer(), settings=ServerSettings(max_message_bytes=2048)) as (_, channel):
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        with pytest.raises(UnfitItem, match=r"larger than max") as caught, rpc_errors():
            await stub.GetTraining(trainer_pb2.GetTrainingRequest(request_id="x" * 5000))
        assert caught.value.outcome is Outcome.TOO_LONG, "no full queue: waiting does not help"
        await get(channel)


@pytest.mark.asyncio
@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x01\xff"], ids=["noise", "no-utf-8"])
@pytest.mark.parametrize("method", ["GetTraining", "TrainAdapter"])
async def test_what_is_no_message_is_invalid_input(method: str, data: bytes) -> None:
    trainer = Trainer()
    async with serving(trainer) as (_, channel):
        open_call = channel.unary_unary if method == "GetTraining" else channel.unary_stream
        call = open_call(f"/{TRAINER}/{method}")(data)
        with pytest.raises(InvalidInput, match="no message of this method") as caught, rpc_errors():
            await (call if method == "GetTraining" else call.read())
        assert caught.value.remedy
        await get(channel)
    assert trainer.calls == 1


@pytest.mark.asyncio
async def test_what_is_no_message_ends_a_stream_of_requests_as_invalid_input() -> None:
    async with serving(Trainer()) as (_, channel):
        method = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        reflect = channel.stream_stream(f"/{method}")
        with pytest.raises(InvalidInput, match="no message of this method"), rpc_errors():
            await reflect([b"\xff\xff\xff"], timeout=5).read()


@pytest.mark.asyncio
async def test_calls_over_the_limit_are_refused() -> None:
    trainer = Trainer()
    trainer.gate.clear()
    async with serving(trainer, settings=ServerSettings(max_concurrent_calls=1)) as (_, channel):
        taken = asyncio.create_task(get(channel))
        await until(lambda: trainer.calls == 1)
        for _ in range(2):
            with pytest.raises(Exhausted):
                await get(channel)
        trainer.gate.set()
        await taken


class Watched(adaptation_pb2_grpc.AdaptationServiceServicer):
    """Watches that last, and calls that do not."""

    def register(self, server: grpc.aio.Server) -> str:
        adaptation_pb2_grpc.add_AdaptationServiceServicer_to_server(self, server)
        return "seal.v1.AdaptationService"

    async def WatchAdaptation(self, request, context):  # type: ignore[no-untyped-def]
        yield adaptation_pb2.WatchAdaptationResponse()
        await asyncio.Event().wait()

    async def GetAdaptation(self, request, context):  # type: ignore[no-untyped-def]
        return adaptation_pb2.GetAdaptationResponse()


@pytest.mark.asyncio
async def test_watches_leave_places_to_all_other_calls() -> None:
    async with serving(Watched(), settings=ServerSettings(max_concurrent_calls=4)) as (_, channel):
        stub = adaptation_pb2_grpc.AdaptationServiceStub(channel)
        asked = adaptation_pb2.WatchAdaptationRequest()
        watches = [stub.WatchAdaptation(asked) for _ in range(3)]
        for watch in watches:
            await watch.read()
        with pytest.raises(Exhausted, match="3 watches run already") as refused, rpc_errors():
            await stub.WatchAdaptation(asked).read()
        assert refused.value.remedy and refused.value.retry_after_seconds
        with rpc_errors():
            await stub.GetAdaptation(adaptation_pb2.GetAdaptationRequest())
        watches[0].cancel()

        async def watched() -> bool:
            with suppress(Exhausted), rpc_errors():
                return await stub.WatchAdaptation(asked).read() is not grpc.aio.EOF
            return False

        async with asyncio.timeout(10):
            while not await watched():  # noqa: ASYNC110 - the server says when, by what it answers
                await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_streams_of_work_take_every_place() -> None:
    trainer = Trainer(delay_seconds=30)
    async with serving(trainer, settings=ServerSettings(max_concurrent_calls=4)) as (_, channel):
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        calls = [stub.TrainAdapter(trainer_pb2.TrainAdapterRequest()) for _ in range(4)]
        for call in calls:
            assert (await call.read()).progress.step == 0


@pytest.mark.asyncio
async def test_health_checks_are_answered_when_no_more_calls_are_taken() -> None:
    trainer = Trainer()
    trainer.gate.clear()
    async with serving(trainer, settings=ServerSettings(max_concurrent_calls=1)) as (_, channel):
        running = asyncio.create_task(get(channel))
        await until(lambda: trainer.calls == 1)
        health: Any = health_pb2_grpc.HealthStub(channel)
        checks = [health.Check(health_pb2.HealthCheckRequest(service=TRAINER)) for _ in range(20)]
        for check in checks:
            assert (await check).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(Exhausted) as caught:
            await get(channel)
        assert caught.value.retry_after_seconds
        trainer.gate.set()
        await running


@pytest.mark.asyncio
async def test_an_address_can_be_looked_at_before_anything_listens_there(tmp_path: Path) -> None:
    server = await start_server([Trainer().register], address="127.0.0.1:0")
    for taken in (server.address, "127.0.0.1:http", f"unix:{tmp_path}/no/such.sock", "192.0.2.1:1"):
        with pytest.raises(InvalidInput) as caught:
            check_address(taken)
        assert caught.value.field == "address" and caught.value.remedy
    address = server.address
    await server.stop(0)
    check_address(address)


@pytest.mark.asyncio
async def test_health_knows_the_process_and_each_service_and_reflection_lists_them() -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    async with serving(Trainer()) as (server, channel):
        health: Any = health_pb2_grpc.HealthStub(channel)

        async def status(service: str) -> int:
            return int((await health.Check(health_pb2.HealthCheckRequest(service=service))).status)

        serving_value = health_pb2.HealthCheckResponse.SERVING
        assert await status("") == await status(TRAINER) == serving_value
        await server.set_ready(TRAINER, False)
        assert await status("") == serving_value and await status(TRAINER) != serving_value
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        stub: Any = reflection_pb2_grpc.ServerReflectionStub
        stream = stub(channel).ServerReflectionInfo(iter([asked]))
        async for reply in stream:
            listed = {service.name for service in reply.list_services_response.service}
    assert TRAINER in listed and "grpc.health.v1.Health" in listed


@pytest.mark.asyncio
async def test_a_stop_lets_running_calls_end_and_refuses_new_ones() -> None:
    trainer = Trainer(delay_seconds=0.1)
    async with serving(trainer) as (server, channel):
        call = trainer_pb2_grpc.TrainerServiceStub(channel).TrainAdapter(
            trainer_pb2.TrainAdapterRequest()
        )
        running = asyncio.create_task(_steps(call))
        await trainer.streaming.wait()
        stopping = asyncio.create_task(server.stop(10))
        await asyncio.sleep(0.05)
        with pytest.raises(Transient):
            await get(channel, timeout=0.5)
        assert await running == [0, 1, 2]
        await stopping


async def _steps(
    call: grpc.aio.UnaryStreamCall[
        trainer_pb2.TrainAdapterRequest, trainer_pb2.TrainAdapterResponse
    ],
) -> list[int]:
    with rpc_errors():
        return [message.progress.step async for message in call]


@pytest.mark.asyncio
async def test_a_stop_cancels_what_outlives_the_grace_and_may_be_called_twice() -> None:
    trainer = Trainer(delay_seconds=30)
    async with serving(trainer) as (server, channel):
        running = asyncio.create_task(
            _steps(
                trainer_pb2_grpc.TrainerServiceStub(channel).TrainAdapter(
                    trainer_pb2.TrainAdapterRequest()
                )
            )
        )
        await trainer.streaming.wait()
        started = time.monotonic()
        await asyncio.gather(server.stop(0.2), server.stop(0.2))
        assert 0.1 < time.monotonic() - started < 5
        with pytest.raises(Transient):
            await running
        assert trainer.cancelled.is_set()


@pytest.mark.asyncio
async def test_a_stop_waits_for_the_handlers_that_it_has_cancelled() -> None:
    """A loop that closes over one has grpc print a traceback of its own on stderr."""

    class Slow(Trainer):
        ended = False

        async def GetTraining(self, request, context):  # type: ignore[no-untyped-def]
            self.streaming.set()
            try:
                await asyncio.sleep(30)
            finally:
                await asyncio.sleep(0.3)
                self.ended = True

    trainer = Slow()
    async with serving(trainer) as (server, channel):
        running = asyncio.create_task(get(channel, timeout=20))
        await trainer.streaming.wait()
        await server.stop(0.0)
        assert trainer.ended
        with pytest.raises(Transient):
            await running


@pytest.mark.asyncio
async def test_a_health_watch_sees_the_end_and_does_not_delay_it() -> None:
    async with serving(Trainer(), settings=ServerSettings(unready_seconds=0.1)) as (
        server,
        channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=TRAINER))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        started = time.monotonic()
        stopping = asyncio.create_task(server.stop(30))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await stopping
        assert 0.1 <= time.monotonic() - started < 5


# Client


@pytest.mark.asyncio
async def test_a_call_sent_before_the_server_listens_finds_it(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/late.sock"
    async with open_channel(address) as channel:
        waiting = asyncio.create_task(get(channel, timeout=10))
        await asyncio.sleep(0.1)
        server = await start_server([Trainer().register], address=address)
        await waiting
        await server.stop(0)


@pytest.mark.asyncio
async def test_a_call_without_a_deadline_gets_one() -> None:
    async with serving(
        Trainer(delay_seconds=5.0), client=ClientSettings(default_deadline_seconds=0.1)
    ) as (_, channel):
        started = time.monotonic()
        with pytest.raises(Transient, match=r"[Dd]eadline"):
            await get(channel)
        assert time.monotonic() - started < 2
