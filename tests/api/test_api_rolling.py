"""Each service process is stopped and started again under load: no request is lost.

A tiny random model and two adaptations at work at any time by default.
`SEAL_ROLLING_MODEL=smollm2-135m` takes another model, `SEAL_ROLLING_ROUNDS=3` rolls so often.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tiny_model import save_tiny_model

from seal.client import (
    Adaptation,
    Advanced,
    AsyncClient,
    ClientOptions,
    Document,
    Options,
    Question,
    State,
)
from seal.errors import Transient
from seal.rpc.client import open_channel, rpc_errors

ROOT = Path(__file__).parents[2]
MODEL = os.environ.get("SEAL_ROLLING_MODEL", "")
ROUNDS = int(os.environ.get("SEAL_ROLLING_ROUNDS", "1"))
LIMIT_SECONDS = 3600 if MODEL else 480
START_SECONDS = 120.0
AT_ONCE = 2
"""Adaptations that are always at work."""
SERVICES = {
    "generator": "seal.v1.GeneratorService",
    "trainer": "seal.v1.TrainerService",
    "evaluator": "seal.v1.EvaluatorService",
    "api": "seal.v1.AdaptationService",
}
PATIENT = ClientOptions(retry_seconds=START_SECONDS)
"""As long as a process takes from its end to its next start."""
NOTE = """# {name}

The lighthouse of {name} was built by Ama Torrin in 1907. Its lamp burns seal oil.

## Keepers

The keeper of {name} is the youngest member of the fishers' guild, which has forty members.
"""
QUESTIONS = (
    Question(question="Who built the lighthouse?", answers=("Ama Torrin",)),
    Question(question="When was it built?", answers=("1907",)),
    Question(question="What does the lamp burn?", answers=("seal oil",)),
    Question(question="How many members has the guild?", answers=("forty",)),
)


@dataclass
class Processes:
    """The four processes in one directory, each on a socket of its name."""

    directory: Path
    model: str
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    def target(self, name: str) -> str:
        return f"unix:{self.directory}/{name}"

    async def start(self, name: str) -> None:
        """Start a process, and wait until it serves."""
        options = ["--model", self.model, "--artifacts", str(self.directory / "store")]
        options += ["--address", self.target(name), "--log-format", "json"]
        options += ["--unready-seconds", "0.2", "--grace-seconds", "2", "--metrics-port", "0"]
        if name == "api":
            options += ["--max-running", str(AT_ONCE)]
            for other in ("generator", "trainer", "evaluator"):
                options += [f"--{other}", self.target(other)]
        else:
            options += ["--dtype", "float32", "--threads", "1"]
        if name == "trainer":
            options += ["--slots", "4", "--lease-seconds", "1"]
        module = "controller_svc.api" if name == "api" else f"{name}_svc"
        with (self.directory / f"{name}.log").open("ab") as log:
            self.running[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, *options,
                cwd=self.directory, env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=log, stderr=log,
            )  # fmt: skip
        await self._serving(name)

    async def _serving(self, name: str) -> None:
        request = health_pb2.HealthCheckRequest(service=SERVICES[name])
        async with asyncio.timeout(START_SECONDS), open_channel(self.target(name)) as channel:
            while True:
                assert self.running[name].returncode is None, self.log(name)
                try:
                    with rpc_errors():
                        answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
                    assert answer.status == health_pb2.HealthCheckResponse.SERVING
                except Transient:
                    await asyncio.sleep(0.1)
                    continue
                return

    async def stop(self, name: str) -> int:
        """SIGTERM, and how it ended."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(START_SECONDS):
            return await process.wait()

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()


@asynccontextmanager
async def processes(directory: Path, model: str) -> AsyncIterator[Processes]:
    """All four, killed at the end if they still live."""
    all_four = Processes(directory, model)
    try:
        async with asyncio.TaskGroup() as group:
            for name in SERVICES:
                group.create_task(all_four.start(name))
        yield all_four
    finally:
        for process in all_four.running.values():
            if process.returncode is None:
                process.kill()
                await process.wait()


@dataclass
class Load:
    """Adaptations that are submitted and watched, one after another, until it is enough."""

    address: str
    enough: bool = False
    ended: list[Adaptation] = field(default_factory=list)
    numbers: list[list[int]] = field(default_factory=list)
    """Numbers of the events that each watch told, progress left out."""

    async def go_on(self, who: int) -> None:
        """A client that comes back with the next documents as soon as it has its adapter."""
        async with AsyncClient(self.address, options=PATIENT) as client:
            number = 0
            while not self.enough:
                number += 1
                await self._adapt(client, f"veldra-{who}-{number}")

    async def _adapt(self, client: AsyncClient, name: str) -> None:
        document = Document(name="note.md", content=NOTE.format(name=name).encode())
        submission = await client.submit(
            [document],
            questions=QUESTIONS,
            name=name,
            request_id=name,
            options=Options(candidates=2),
        )
        assert submission.adaptation.name == name
        told = [
            event.sequence
            async for event in client.watch(name)
            if not isinstance(event.what, Advanced)
        ]
        self.numbers.append(told)
        self.ended.append(await client.get(name))


@pytest.mark.timeout(LIMIT_SECONDS)
async def test_a_rolling_restart_of_each_process_under_load_loses_no_request(
    tmp_path: Path,
) -> None:
    model = MODEL or str(save_tiny_model(tmp_path / "model"))
    async with processes(tmp_path, model) as running:
        load = Load(running.target("api"))
        clients = [asyncio.create_task(load.go_on(who)) for who in range(AT_ONCE + 1)]
        for name in [*SERVICES] * ROUNDS:
            await _until_at_work(load)
            assert await running.stop(name) == 0, running.log(name)
            await running.start(name)
            _raise_failures(clients)
        load.enough = True
        await asyncio.gather(*clients)
        for name in SERVICES:
            assert await running.stop(name) == 0, running.log(name)
    assert len(load.ended) > AT_ONCE
    for adaptation, numbers in zip(load.ended, load.numbers, strict=True):
        assert adaptation.state in (State.PUBLISHED, State.REFUSED), adaptation.conditions
        assert adaptation.adapter is not None and adaptation.evaluation is not None
        assert adaptation.evaluation.questions == 2
        assert numbers == list(range(1, len(numbers) + 1))  # each event once, none missed
    names = [adaptation.name for adaptation in load.ended]
    assert len(names) == len(set(names))
    for name in SERVICES:
        events = [json.loads(line) for line in running.log(name).splitlines()]
        assert not [one for one in events if one.get("level") in ("error", "critical")], name


async def _until_at_work(load: Load) -> None:
    """Wait until some adaptation is at work."""
    async with asyncio.timeout(START_SECONDS), AsyncClient(load.address) as client:
        while True:
            if [one async for one in client.list(states=[State.RUNNING])]:
                return
            await asyncio.sleep(0.02)


def _raise_failures(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()
