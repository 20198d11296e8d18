"""What the front door's tests share.

AdaptationService over adaptations of a laptop whose stages do no work: each is told to go on, and
leaves what a real one would, so that nothing here takes a model.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest
from fake_services import Fakes, serve_fakes

from controller_svc.api.service import register
from controller_svc.local import world
from controller_svc.local.adaptations import (
    AdaptationSettings,
    LocalAdaptations,
    local_adaptations,
)
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.progress import TaskProgress
from controller_svc.worker.settings import WorkerSettings
from seal.artifacts import ArtifactStore
from seal.outcomes import Outcome
from seal.records import (
    AdaptationCounts,
    AdaptationEvaluation,
    AdaptationResult,
    AdapterReference,
    GateReason,
    GateVerdict,
    Interval,
    ModelDifference,
    ModelScore,
    ScoreSum,
    ShardSummary,
    Stage,
)
from seal.rpc.client import open_channel
from seal.rpc.hops import Hop, current_hop
from seal.rpc.server import start_server
from seal.runs.shards import ShardStore, finish_shard
from seal.runs.task import ShardTask
from seal.settings import AdaptationSpec
from seal.v1 import adaptation_pb2, adaptation_pb2_grpc

MODEL = "fake-model"
TEXT = "The tower of Veldra stands on a hill. Nobody has counted its lamps since the flood."
IMPATIENT = WorkerSettings(retry_initial_seconds=0.001, retry_max_seconds=0.01)
SETTINGS = AdaptationSettings(worker=IMPATIENT)
_COUNTS = MappingProxyType(
    {
        Stage.PREPARE: AdaptationCounts(documents=1, passages=2, reward_questions=3),
        Stage.QUESTION: AdaptationCounts(
            questions_written=9, reward_questions=3, held_out_questions=2
        ),
    }
)


@dataclass
class Work:
    """What the stages' tasks do: nothing, when they are let."""

    calls: list[str] = field(default_factory=list)
    """Names of the tasks that began."""
    hops: dict[str, set[Hop]] = field(default_factory=dict)
    """Whose work it was, by run."""
    finished: list[str] = field(default_factory=list)
    """Names of those that ended."""
    hold: Callable[[ShardTask], bool] = lambda task: False
    """Whether a task waits for `go`."""
    fail: Callable[[ShardTask], Exception | None] = lambda task: None
    """What a task ends with instead."""
    gate: GateReason | None = None
    """Why the gate refuses."""
    at_once: int = 0
    """Runs that had a task at work at the same time, at most."""

    def __post_init__(self) -> None:
        self.go = asyncio.Event()
        self._called = asyncio.Event()
        self._running: set[str] = set()

    async def began(self, stage: Stage) -> None:
        """Wait until a task of a stage is at work."""
        async with asyncio.timeout(20):
            while not any(f"-r0-{stage}-" in name for name in self.calls):
                self._called.clear()
                await self._called.wait()

    async def run_task(
        self,
        task: ShardTask,
        *,
        spec: AdaptationSpec,
        store: ArtifactStore,
        clients: ServiceClients,
        settings: WorkerSettings,
        tell: Callable[[TaskProgress], None],
    ) -> ShardSummary:
        """In the place of the worker's."""
        self.calls.append(task.name)
        self.hops.setdefault(task.run, set()).add(current_hop())
        self._called.set()
        self._running.add(task.run)
        self.at_once = max(self.at_once, len(self._running))
        try:
            tell(TaskProgress(name=task.name, stage=task.stage, round=0, shard=0, edits_total=4))
            if self.hold(task):
                await self.go.wait()
            if (error := self.fail(task)) is not None:
                raise error
            summary = await finish_shard(task, store, partial(self._done, task, store))
            self.finished.append(task.name)
            return summary
        finally:
            self._running.discard(task.run)

    async def _done(self, task: ShardTask, store: ArtifactStore, files: ShardStore) -> ShardSummary:
        has_loops = task.stage is Stage.ROLLOUT
        result = await asyncio.to_thread(self._result, task, store)
        return ShardSummary(
            name=task.name,
            stage=task.stage,
            round=0,
            shard=task.shard,
            attempt=task.attempt,
            seconds=1.5,
            inner_loops_run=2 if has_loops else 0,
            inner_loops_resumed=0,
            outcomes={"ok": 2} if has_loops else {},
            tokens={"generate": 10},
            engine_seconds={"generate": 0.5, "train": 0.25},
            scores={name: ScoreSum(n=2, total=1.0) for name in ("baseline", "edit", "best")}
            if has_loops
            else {},
            counts=_COUNTS.get(task.stage),
            result=result,
        )

    def _result(self, task: ShardTask, store: ArtifactStore) -> AdaptationResult | None:
        if task.stage is not Stage.ADAPT:
            return None
        interval = Interval(mean=0.4, low=0.1, high=0.7, n=2)
        return AdaptationResult(
            adapter=publish(store, task.run, "adapter"),
            passages_adapter=publish(store, task.run, "passages"),
            outcomes={"adapter": Outcome.OK, "passages": Outcome.OK},
            rows={"edit": 7, "passage": 2},
            evaluation=AdaptationEvaluation(
                questions=2,
                self_made=True,
                scores=(ModelScore(model="adapter", measure="f1", value=interval),),
                differences=(
                    ModelDifference(model="adapter", against="base", measure="f1", value=interval),
                ),
            ),
            gate=GateVerdict(passed=self.gate is None, reason=self.gate, message="by 0.4"),
        )


def publish(store: ArtifactStore, run: str, content: str, *, size: int = 1) -> AdapterReference:
    """A directory with the files of an adapter."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "adapter_config.json").write_text("{}")
        (Path(directory) / "adapter_model.safetensors").write_text(content * size)
        return store.publish_directory(Path(directory), f"{run}/adapters")


@dataclass
class FrontDoor:
    """A server with AdaptationService and a client of it."""

    stub: adaptation_pb2_grpc.AdaptationServiceStub
    adaptations: LocalAdaptations
    store: ArtifactStore
    work: Work
    address: str


@asynccontextmanager
async def front_door(
    root: Path,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    *,
    model: str = MODEL,
    settings: AdaptationSettings = SETTINGS,
    max_positions: int = 0,
) -> AsyncIterator[FrontDoor]:
    """Serve the adaptations of a store, as often as a test likes."""
    monkeypatch.setattr(world, "run_task", work.run_task)
    store = ArtifactStore(str(root))
    async with (
        serve_fakes(Fakes()) as services,
        local_adaptations(store, model=model, services=services, settings=settings) as adaptations,
        _served(adaptations, store, max_positions) as address,
        open_channel(address) as channel,
    ):
        stub = adaptation_pb2_grpc.AdaptationServiceStub(channel)
        yield FrontDoor(stub, adaptations, store, work, address)


@asynccontextmanager
async def _served(
    adaptations: LocalAdaptations, store: ArtifactStore, max_positions: int
) -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory(prefix="seal-") as directory:
        running = await start_server(
            [partial(register, adaptations=adaptations, store=store, max_positions=max_positions)],
            address=f"unix:{directory}/socket",
        )
        try:
            yield running.address
        finally:
            adaptations.suspend()
            await running.stop(0.5)


def request(request_id: str = "one", **changes: object) -> adaptation_pb2.SubmitAdaptationRequest:
    """A good request; `changes` replace whole fields."""
    fields: dict[str, object] = {
        "request_id": request_id,
        "documents": [adaptation_pb2.Document(name="veldra.txt", content=TEXT.encode())],
    }
    return adaptation_pb2.SubmitAdaptationRequest(**{**fields, **changes})  # type: ignore[arg-type]


def pieces(
    content: bytes, *, sha256: str = "", size: int | None = None, piece: int = 1000
) -> list[adaptation_pb2.UploadDocumentRequest]:
    """An upload."""
    header = adaptation_pb2.UploadHeader(
        sha256=sha256 or hashlib.sha256(content).hexdigest(),
        size=len(content) if size is None else size,
    )
    return [
        adaptation_pb2.UploadDocumentRequest(header=header),
        *(
            adaptation_pb2.UploadDocumentRequest(data=content[at : at + piece])
            for at in range(0, len(content), piece)
        ),
    ]


async def ended(
    door: FrontDoor, name: str, *, namespace: str = "", seconds: float = 20.0
) -> adaptation_pb2.Adaptation:
    """An adaptation, once it has ended."""
    async with asyncio.timeout(seconds):
        call = door.stub.WatchAdaptation(
            adaptation_pb2.WatchAdaptationRequest(name=name, namespace=namespace)
        )
        async for _ in call:
            pass
    response = await door.stub.GetAdaptation(
        adaptation_pb2.GetAdaptationRequest(name=name, namespace=namespace)
    )
    return response.adaptation


def kinds(messages: Iterable[adaptation_pb2.WatchAdaptationResponse]) -> list[str]:
    """What was told, without progress."""
    names = [str(message.event.WhichOneof("event")) for message in messages]
    return [name for name in names if name != "progress"]
