"""How a serving process ends: one signal, two signals, a broken engine."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seal.errors import Transient
from seal.rpc import lifecycle
from seal.rpc.client import open_channel, rpc_errors
from seal.rpc.lifecycle import Serving, Signals, serve_until_signal
from seal.rpc.server import RunningServer
from seal.rpc.settings import ServerSettings
from seal.v1 import trainer_pb2, trainer_pb2_grpc

TRAINER = "seal.v1.TrainerService"
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Trainer(trainer_pb2_grpc.TrainerServiceServicer):
    """GetTraining answers at once, TrainAdapter says one thing and goes on for so many seconds."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    async def GetTraining(self, request: Any, context: Any) -> trainer_pb2.GetTrainingResponse:
        return trainer_pb2.GetTrainingResponse()

    async def TrainAdapter(self, request: Any, context: Any) -> Any:
        yield trainer_pb2.TrainAdapterResponse()
        await asyncio.sleep(self.seconds)

    def register(self, server: grpc.aio.Server) -> str:
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(self, server)
        return TRAINER


class Process:
    """`serve_until_signal` as a task, with what a test does to it."""

    def __init__(
        self,
        trainer: Trainer,
        *,
        unready_seconds: float = 0.0,
        grace_seconds: float = 5.0,
        drain: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self.signals: Signals = asyncio.Queue()
        self.events: list[str] = []
        self.reason: str | None = None
        self.drained_seconds: list[float] = []
        self._started = asyncio.Event()
        self.server: RunningServer

        async def note(seconds: float) -> None:
            self.drained_seconds.append(seconds)
            await (asyncio.sleep(0) if drain is None else drain(seconds))

        self.task = asyncio.create_task(
            serve_until_signal(
                Serving(
                    trainer.register, suspend=lambda: self.events.append("suspend"), drain=note
                ),
                address="127.0.0.1:0",
                signals=self.signals,
                settings=ServerSettings(unready_seconds=unready_seconds),
                grace_seconds=grace_seconds,
                broken=lambda: self.reason,
                on_started=self._on_started,
            )
        )

    def _on_started(self, server: RunningServer) -> None:
        self.server = server
        self._started.set()

    async def channel(self) -> grpc.aio.Channel:
        await asyncio.wait_for(self._started.wait(), 5)
        return open_channel(self.server.address)

    def send(self) -> None:
        self.signals.put_nowait(signal.SIGTERM)


async def test_after_the_signal_health_says_not_serving_and_calls_are_accepted_for_the_pause() -> (
    None
):
    process = Process(Trainer(), unready_seconds=0.5)
    async with await process.channel() as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=TRAINER))
        await watch.read()
        process.send()
        assert (await watch.read()).status == NOT_SERVING
        asked = health_pb2.HealthCheckRequest(service=TRAINER)
        assert (await health.Check(asked)).status == NOT_SERVING
        await stub.GetTraining(trainer_pb2.GetTrainingRequest())
        assert process.events == []
        assert await process.task
        assert process.events == ["suspend"]
        with pytest.raises(Transient), rpc_errors():
            await stub.GetTraining(trainer_pb2.GetTrainingRequest(), timeout=0.5)


async def test_calls_and_drain_share_one_grace() -> None:
    process = Process(Trainer(seconds=0.6), grace_seconds=1.0)
    async with await process.channel() as channel:
        call = trainer_pb2_grpc.TrainerServiceStub(channel).TrainAdapter(
            trainer_pb2.TrainAdapterRequest()
        )
        await anext(aiter(call))
        process.send()
        assert await process.task
    assert 0.1 < process.drained_seconds[0] < 0.5


async def test_what_the_calls_have_used_up_is_not_there_for_the_drain() -> None:
    process = Process(Trainer(seconds=30.0), grace_seconds=0.3)
    async with await process.channel() as channel:
        call = trainer_pb2_grpc.TrainerServiceStub(channel).TrainAdapter(
            trainer_pb2.TrainAdapterRequest()
        )
        await anext(aiter(call))
        started = time.monotonic()
        process.send()
        assert await process.task
    assert process.drained_seconds == [0.0]
    assert time.monotonic() - started < 3


async def _long(seconds: float) -> None:
    await asyncio.sleep(30)


@pytest.mark.parametrize("how", [{"unready_seconds": 30.0}, {"drain": _long}])
async def test_a_second_signal_ends_at_once_also_in_the_pause_and_in_the_drain(
    how: dict[str, Any],
) -> None:
    process = Process(Trainer(), **how)
    async with await process.channel():
        process.send()
        await asyncio.sleep(0.2)
        assert not process.task.done()
        process.send()
        assert await asyncio.wait_for(process.task, 1.0) is False
    await process.server._server.stop(0)  # here the process goes on


async def test_a_broken_engine_is_not_serving_and_ends_the_process_with_an_error_worth_a_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifecycle, "WATCH_SECONDS", 0.02)
    process = Process(Trainer(), unready_seconds=0.3)
    async with await process.channel() as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=TRAINER))
        await watch.read()
        process.reason = "the engine's thread has ended"
        assert (await watch.read()).status == NOT_SERVING
        with pytest.raises(Transient, match="the engine's thread has ended"):
            await process.task
    assert process.drained_seconds == []
