"""The front door as a process: killed at any moment, it comes back and ends the same."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fake_services import Fakes, serve_fakes
from front_door_harness import TEXT, kinds, request

from controller_svc.worker.settings import ServiceAddresses
from seal.errors import Transient
from seal.rpc.client import open_channel, rpc_errors
from seal.v1 import adaptation_pb2, adaptation_pb2_grpc

ROOT = Path(__file__).parents[2]
EVENTS = ["accepted", "prepared", "rewarded", "trained", "judged", "ended"]
START_SECONDS = 120.0
"""A bound for what takes a second where nothing else is at work."""
NAMES = ("one", "two", "three")
QUESTIONS = [
    adaptation_pb2.Question(question="Where does the tower stand?", answers=["hill"]),
    adaptation_pb2.Question(question="What has nobody counted?", answers=["lamps"]),
    adaptation_pb2.Question(question="Since when?", answers=["the flood"]),
    adaptation_pb2.Question(question="What is it called?", answers=["Veldra"]),
]


@asynccontextmanager
async def process(
    directory: Path, services: ServiceAddresses
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command over services of this process."""
    command = [
        sys.executable, "-m", "controller_svc.api", "--artifacts", str(directory / "store"),
        "--address", f"unix:{directory}/front.sock", "--metrics-port", "0",
        "--generator", services.generator, "--trainer", services.trainer,
        "--evaluator", services.evaluator, "--unready-seconds", "0", "--log-format", "json",
    ]  # fmt: skip
    with (directory / "log").open("ab") as log:
        running = await asyncio.create_subprocess_exec(
            *command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=log, stdout=log
        )
    try:
        await listening(directory / "front.sock", running)
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def listening(socket: Path, running: asyncio.subprocess.Process) -> None:
    """Wait until the process can be reached: a loaded machine takes long to start one."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            assert running.returncode is None, "the front door has ended"
            try:
                _, writer = await asyncio.open_unix_connection(socket)
            except (FileNotFoundError, ConnectionRefusedError):  # none yet, or a killed one's
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return


async def submitted(stub: adaptation_pb2_grpc.AdaptationServiceStub, name: str) -> bool:
    """Submit as a client does that may meet a server which is not there yet."""
    while True:
        try:
            with rpc_errors():
                answer = await stub.SubmitAdaptation(
                    request(name, name=name, questions=QUESTIONS), timeout=START_SECONDS
                )
        except Transient:
            await asyncio.sleep(0.1)
            continue
        return answer.created


async def watched(stub: adaptation_pb2_grpc.AdaptationServiceStub, name: str) -> list[str]:
    """Every event once, over whatever happens to the server."""
    told: list[adaptation_pb2.WatchAdaptationResponse] = []
    while "ended" not in kinds(told):
        after = max((message.event.sequence for message in told), default=0)
        try:
            with rpc_errors():
                async for message in stub.WatchAdaptation(
                    adaptation_pb2.WatchAdaptationRequest(name=name, after_sequence=after)
                ):
                    told.append(message)  # noqa: PERF401 - the call may end with an error
        except Transient:
            await asyncio.sleep(0.1)
    return kinds(told)


async def results(stub: adaptation_pb2_grpc.AdaptationServiceStub) -> list[bytes]:
    """What all adaptations came to, without times."""
    page = await stub.ListAdaptations(
        adaptation_pb2.ListAdaptationsRequest(),
        wait_for_ready=True,  # a channel that met no server tries again only after a pause
    )
    return [
        b"".join(
            part.SerializeToString(deterministic=True)
            for part in (one.base, one.adapter, one.passages_adapter, one.evaluation, one.gate)
        )
        for one in page.adaptations
    ]


async def test_a_front_door_killed_and_stopped_midway_loses_no_request_and_ends_the_same(
    tmp_path: Path,
) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for directory in (calm, rough):
        directory.mkdir()
    async with (
        serve_fakes(Fakes()) as services,
        process(calm, services),
        open_channel(f"unix:{calm}/front.sock") as channel,
    ):
        stub = adaptation_pb2_grpc.AdaptationServiceStub(channel)
        assert [await submitted(stub, name) for name in NAMES] == [True] * 3
        expected_events = [await watched(stub, name) for name in NAMES]
        assert expected_events == [EVENTS] * 3
        expected = await results(stub)
        get = adaptation_pb2.GetAdaptationRequest(name="one")
        assert (await stub.GetAdaptation(get)).adaptation.base.base_sha256
    fakes = Fakes(delay_seconds=0.2)
    async with (
        serve_fakes(fakes) as services,
        open_channel(f"unix:{rough}/front.sock") as channel,
    ):
        stub = adaptation_pb2_grpc.AdaptationServiceStub(channel)
        async with process(rough, services) as first:
            assert [await submitted(stub, name) for name in NAMES] == [True] * 3
            watching = [asyncio.create_task(watched(stub, name)) for name in NAMES]
            await asyncio.sleep(0.5)
            first.kill()
            await first.wait()
        async with process(rough, services) as second:
            assert [await submitted(stub, name) for name in NAMES] == [False] * 3
            await asyncio.sleep(0.3)
            second.send_signal(signal.SIGTERM)
            assert await second.wait() == 0
        fakes.delay_seconds = 0.0
        async with process(rough, services):
            events = await asyncio.gather(*watching)
            assert events == expected_events
            assert await results(stub) == expected
    assert TEXT not in (rough / "log").read_text()
