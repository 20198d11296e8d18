"""The chart's test of an installation: which services serve, and which do not."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import pytest

from seal.rpc.probe import ALL_SERVE, ONE_DOES_NOT, main, probe
from seal.rpc.server import RunningServer, start_server
from seal.v1 import trainer_pb2

SERVICE = trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name


@asynccontextmanager
async def server() -> AsyncIterator[RunningServer]:
    with tempfile.TemporaryDirectory(prefix="seal-") as directory:
        running = await start_server([lambda _: SERVICE], address=f"unix:{directory}/socket")
        try:
            yield running
        finally:
            await running.stop(0.0)


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Its lines; the server's log is among them, as it is in this process."""
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("seal.v1.")]


async def test_a_service_that_serves_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    async with server() as running:
        await running.set_ready(SERVICE, True)
        code = await probe([(running.address, SERVICE)], within_seconds=5)
    assert code == ALL_SERVE
    assert told(capsys) == [f"{SERVICE} at {running.address} serves"]


async def test_a_service_that_becomes_ready_in_time_serves() -> None:
    async with server() as running:
        await running.set_ready(SERVICE, False)
        asked = asyncio.create_task(probe([(running.address, SERVICE)], within_seconds=20))
        await asyncio.sleep(0.2)
        assert not asked.done()
        await running.set_ready(SERVICE, True)
        assert await asked == ALL_SERVE


async def test_one_that_does_not_serve_fails_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    async with server() as running:
        await running.set_ready(SERVICE, True)
        targets = [(running.address, SERVICE), (running.address, "seal.v1.Another")]
        targets.append(("unix:/nowhere/socket", SERVICE))
        assert await probe(targets, within_seconds=0) == ONE_DOES_NOT
    serves, another, nowhere = told(capsys)
    assert serves.endswith(" serves")
    assert "does not serve: it has no seal.v1.Another" in another
    assert "unix:/nowhere/socket does not serve: " in nowhere


async def test_a_server_that_cannot_be_asked_does_not_serve() -> None:
    bare = grpc.aio.server()  # has no health
    port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    try:
        assert await probe([(f"127.0.0.1:{port}", SERVICE)], within_seconds=0) == ONE_DOES_NOT
    finally:
        await bare.stop(grace=None)


def test_an_argument_without_a_service_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["localhost:50051"])
    assert ended.value.code == 2
    assert "ADDRESS=SERVICE" in capsys.readouterr().err
