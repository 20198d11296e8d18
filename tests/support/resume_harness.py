"""Kills a local run at a chosen side effect and takes it up again.

Independent of what the services are. Side effects are every write to the artifact store and every
call to a service. A run of the child process (`python resume_harness.py CONFIG.json`) can be killed
before, during or after any of them with SIGKILL. The services come from a factory named
`module:function` with the signature `(spec, root, log) -> async context manager of
ServiceAddresses`; it appends a line `pid train REQUEST_ID` to `log` for every training that it
executes. In one process, `crashing` does the same by an exception that nothing catches.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NoReturn, TypeVar
from unittest import mock

from controller_harness import RUN

import controller_svc.local.world
from controller_svc.core import RunStatus
from controller_svc.worker import clients
from controller_svc.worker.evaluator_client import EvaluatorClient
from controller_svc.worker.generator_client import GeneratorClient
from controller_svc.worker.requests import LoopKey, Requests
from controller_svc.worker.settings import DEFAULT_SETTINGS, ServiceAddresses, WorkerSettings
from controller_svc.worker.trainer_client import TrainerClient
from seal.artifacts import ArtifactStore
from seal.files import TEMPORARY_PREFIX
from seal.records import (
    EvaluationRecord,
    InnerLoopRecord,
    SelectionRecord,
    Stage,
    TrainingRecord,
)
from seal.resources import RestEMRun
from seal.runs.store import selection_path, status_path
from seal.settings import RunSpec
from seal.v1 import evaluator_pb2, generator_pb2, trainer_pb2

Effect = Literal["write", "create", "remove", "generate", "train", "evaluate", "save", "act"]
When = Literal["before", "during", "after"]
ServiceFactory = Callable[[RunSpec, str, Path], AbstractAsyncContextManager[ServiceAddresses]]
T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class KillPoint:
    """One moment of a run."""

    nth: int
    """The how-manieth matching effect, from 1."""
    when: When = "before"
    effect: Effect | None = None
    """None matches every kind."""
    match: str = ""
    """Part of the path or request id."""


class Crash(BaseException):
    """Death of the process, where the process must live on for the test."""


def kill() -> NoReturn:
    """Die here and now, with nothing flushed or closed."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL cannot be survived")


def crash() -> NoReturn:
    """Die in the way of `Crash`."""
    raise Crash


@dataclass
class Effects:
    """Side effects in order, and the one at which to die."""

    point: KillPoint | None = None
    die: Callable[[], NoReturn] = kill
    seen: list[tuple[Effect, str]] = field(default_factory=list)
    hits: int = 0
    dead: bool = False

    def at(self, effect: Effect, name: str, when: When) -> None:
        """Called around every effect."""
        if self.dead:
            self.die()
        if when == "before":
            self.seen.append((effect, name))
        point = self.point
        if (
            point is None
            or when != point.when
            or point.effect not in (None, effect)
            or point.match not in name
        ):
            return
        self.hits += 1
        if self.hits == point.nth:
            self.dead = True
            self.die()

    async def around(self, effect: Effect, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """Do an effect between its two moments."""
        self.at(effect, name, "before")
        result = await call()
        self.at(effect, name, "after")
        return result


def _any(nth: int, name: str) -> bool:
    """The default of `chosen`."""
    return True


def kill_points(calm: Effects, *, chosen: Callable[[int, str], bool] = _any) -> Iterator[KillPoint]:
    """The chosen side effects of an undisturbed run, each in every moment that it has.

    `chosen` gets its number, from 1, and its name. "During" are calls of services alone, so a point
    there counts those alone.
    """
    calls = 0
    for nth, (effect, name) in enumerate(calm.seen, start=1):
        calls += (is_call := effect in ("generate", "train", "evaluate"))
        if not chosen(nth, name):
            continue
        yield KillPoint(nth=nth, when="before")
        if is_call:
            yield KillPoint(nth=calls, when="during")
        yield KillPoint(nth=nth, when="after")


@contextmanager
def watched(effects: Effects) -> Iterator[None]:
    """Let `run_local` work with a store and with clients whose effects are watched."""

    class WatchedStore(ArtifactStore):
        def write_bytes(self, path: str, content: bytes) -> None:
            effects.at("write", path, "before")
            super().write_bytes(path, content)
            effects.at("write", path, "after")

        def create_bytes(self, path: str, content: bytes) -> bytes:
            effects.at("write", path, "before")
            counted = super().create_bytes(path, content)
            effects.at("write", path, "after")
            return counted

    class WatchedGenerator(GeneratorClient):
        async def generate(
            self,
            request: generator_pb2.GenerateEditsRequest,
            on_progress: Callable[[int, int], None],
            *,
            by_endpoint: bool = False,
        ) -> tuple[generator_pb2.ContextEdits, ...]:
            def progress(edits: int, tokens: int) -> None:
                effects.at("generate", request.request_id, "during")
                on_progress(edits, tokens)

            call = super().generate
            return await effects.around(
                "generate",
                request.request_id,
                lambda: call(request, progress, by_endpoint=by_endpoint),
            )

    class WatchedTrainer(TrainerClient):
        async def train(
            self,
            request: trainer_pb2.TrainAdapterRequest,
            on_progress: Callable[[int, int], None],
            on_resumed: Callable[[int], None] | None = None,
        ) -> TrainingRecord:
            def progress(step: int, total: int) -> None:
                effects.at("train", request.request_id, "during")
                on_progress(step, total)

            call = super().train
            return await effects.around(
                "train", request.request_id, lambda: call(request, progress, on_resumed)
            )

    class WatchedEvaluator(EvaluatorClient):
        async def evaluate(
            self, request: evaluator_pb2.EvaluateRequest, on_progress: Callable[[int], None]
        ) -> EvaluationRecord:
            def progress(done: int) -> None:
                effects.at("evaluate", request.request_id, "during")
                on_progress(done)

            call = super().evaluate
            return await effects.around(
                "evaluate", request.request_id, lambda: call(request, progress)
            )

    with (
        mock.patch.object(controller_svc.local.world, "ArtifactStore", WatchedStore),
        mock.patch.object(clients, "GeneratorClient", WatchedGenerator),
        mock.patch.object(clients, "TrainerClient", WatchedTrainer),
        mock.patch.object(clients, "EvaluatorClient", WatchedEvaluator),
    ):
        yield


@dataclass(frozen=True)
class Scene:
    """One run directory with its spec, its services and its log."""

    spec: RunSpec
    directory: Path
    services: str = "fake_services:resume_services"
    settings: WorkerSettings = DEFAULT_SETTINGS

    @property
    def root(self) -> str:
        """The artifact root."""
        return str(self.directory / "artifacts")

    @property
    def log(self) -> Path:
        """Executed calls of all processes."""
        return self.directory / "executed.log"

    def executed(self, kind: str = "train") -> list[tuple[int, str]]:
        """(pid, request id) of the calls of that kind that were executed, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        split = [line.split(" ", 2) for line in lines]
        return [(int(pid), name) for pid, what, name in split if what == kind]

    def finished_loops(self) -> dict[str, InnerLoopRecord]:
        """Committed inner loops by request id."""
        loops = {}
        store = ArtifactStore(self.root)
        for path in store.list(f"{RUN}/stages"):
            if "/inner/" not in path:
                continue
            record = store.read_json(path, InnerLoopRecord)
            round, stage = path.split("/")[2].split("-")
            requests = Requests(
                run=RUN, spec=self.spec, stage=Stage(stage), round=int(round[1:]), policy=None
            )
            key = LoopKey(
                kind=record.kind,
                context_id=record.context_id,
                candidate=record.candidate,
                repeat=record.repeat,
            )
            loops[requests.loop_id(key)] = record
        return loops

    def status(self) -> RunStatus:
        """The saved status."""
        return ArtifactStore(self.root).read_json(status_path(RUN), RunStatus)

    def selections(self) -> dict[int, SelectionRecord]:
        """What each round kept."""
        store = ArtifactStore(self.root)
        rounds = range(1, self.spec.rounds + 1)
        return {
            round: store.read_json(selection_path(RUN, round), SelectionRecord) for round in rounds
        }

    def final(self) -> object:
        """What must be the same however often the run was killed.

        Selections, policies, scores, outcomes, tokens.
        """
        status = self.status()
        rounds = [
            (r.round, r.kept, r.rollout, r.validation, r.outcomes, r.tokens, r.selection_sha256)
            for r in status.rounds
        ]
        loops = sum(r.inner_loops_run + r.inner_loops_resumed for r in status.rounds)
        return (
            str(status.phase),
            [policy.adapter for policy in status.policies],
            rounds,
            self.selections(),
            loops,
        )

    def leftovers(self) -> list[Path]:
        """Unfinished files of killed writers."""
        return list(Path(self.root).rglob(f"{TEMPORARY_PREFIX}*"))

    async def run(self, *, resume: bool, effects: Effects) -> RunStatus:
        """Run in this process."""
        module, _, function = self.services.partition(":")
        factory: ServiceFactory = getattr(importlib.import_module(module), function)
        with watched(effects):
            async with factory(self.spec, self.root, self.log) as addresses:
                return await controller_svc.local.world.run_local(
                    RestEMRun.of(RUN, self.spec),
                    root=self.root,
                    services=addresses,
                    resume=resume,
                    settings=self.settings,
                )

    def run_child(self, *, resume: bool, point: KillPoint | None = None) -> int:
        """Run in a process of its own; its exit status, -9 if it was killed.

        Raises:
            AssertionError: it died of something else; with what it printed.
        """
        config = {
            "spec": self.spec.model_dump(mode="json"),
            "directory": str(self.directory),
            "services": self.services,
            "settings": self.settings.model_dump(mode="json"),
            "resume": resume,
            "point": asdict(point) if point else None,
        }
        path = self.directory / "child.json"
        path.write_text(json.dumps(config))
        environment = os.environ | {
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        }
        command = [sys.executable, str(Path(__file__).resolve()), str(path)]
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        if ended.returncode not in (0, -signal.SIGKILL):
            raise AssertionError(
                f"child ended with {ended.returncode}:\n"
                f"{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"
            )
        return ended.returncode


def main(path: str) -> None:
    """The child process."""
    config = json.loads(Path(path).read_text())
    scene = Scene(
        spec=RunSpec.model_validate(config["spec"]),
        directory=Path(config["directory"]),
        services=config["services"],
        settings=WorkerSettings.model_validate(config["settings"]),
    )
    point = KillPoint(**config["point"]) if config["point"] else None
    status = asyncio.run(scene.run(resume=config["resume"], effects=Effects(point=point)))
    if status.phase != "Complete":
        raise SystemExit(f"run ended as {status.phase}: {status.conditions}")


if __name__ == "__main__":
    main(sys.argv[1])
