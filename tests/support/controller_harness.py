"""What the controller's tests share.

A small data set, a small spec, and one worker task on fake services.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from fake_services import Fakes, serve_fakes

from controller_svc.core import shards
from controller_svc.local.observer import SILENT
from controller_svc.runs import open_run
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.progress import TaskProgress
from controller_svc.worker.settings import ServiceAddresses, WorkerSettings
from controller_svc.worker.task import run_task
from seal.artifacts import ArtifactStore
from seal.errors import SealError
from seal.records import AdapterReference, ContextRecord, ShardSummary, Stage
from seal.resources import RestEMRun
from seal.runs.shards import ShardStore
from seal.runs.store import manifest_path
from seal.runs.task import ShardTask
from seal.settings import (
    DataSettings,
    EditSettings,
    InnerLoopSettings,
    OptimizerSettings,
    RunSpec,
    ValidationSettings,
)

IMPATIENT = WorkerSettings(
    retry_initial_seconds=0.001,
    retry_max_seconds=0.002,
    patience_seconds=20.0,
    call_timeout_seconds=20,
)
RUN = "demo"
"""Name of the run."""
POLICY = AdapterReference(path="fake/policy", sha256="a" * 64)


def write_passages(path: Path, titles: list[str], *, questions: int = 3) -> str:
    """A file of passages that no other title has."""
    rows = [
        {
            "title": title,
            "context": f"The {title} lies beyond the hills. It was built of {title} stone and "
            f"holds nine {title} lamps.",
            "questions": [
                {"question": f"What is {title} number {n}?", "answer": f"{title} lamp {n}"}
                for n in range(questions)
            ],
        }
        for title in titles
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def small_spec(
    directory: Path, *, passages: tuple[int, int, int] = (3, 2, 2), **changes: object
) -> RunSpec:
    """Two rounds on a handful of passages: so many for training, validation and retention."""
    train, validation, retained = passages
    data = DataSettings(
        train=write_passages(directory / "train.jsonl", [f"Tower {n}" for n in range(train)]),
        validation=write_passages(
            directory / "validation.jsonl", [f"Valley {n}" for n in range(validation)]
        ),
        retained=write_passages(
            directory / "retained.jsonl", [f"River {n}" for n in range(retained)]
        )
        if retained
        else "",
    )
    values: dict[str, object] = {
        "rounds": 2,
        "data": data,
        "edit": EditSettings(k=3),
        "inner": InnerLoopSettings(repeats=2, optimizer=OptimizerSettings(epochs=2)),
        "validation": ValidationSettings(edits_per_context=2, retained_queries=2),
        "max_unscored_share": 1.0,  # so few edits may all be bad by chance
    }
    return RunSpec.model_validate(values | changes)


def start(
    spec: RunSpec,
    stage: Stage,
    *,
    round: int,
    shard: int = 0,
    policy: AdapterReference | None = None,
    epoch: int = 1,
) -> ShardTask:
    """One shard of the first attempt of a stage."""
    return ShardTask(
        run=RUN,
        stage=stage,
        round=round,
        shard=shard,
        shards=shards(spec, stage),
        attempt=1,
        epoch=epoch,
        policy=policy,
    )


@dataclass
class Workplace:
    """A pinned run and fake services."""

    spec: RunSpec
    store: ArtifactStore
    clients: ServiceClients
    fakes: Fakes
    settings: WorkerSettings

    async def run(
        self,
        stage: Stage,
        *,
        round: int,
        shard: int = 0,
        policy: AdapterReference | None = None,
        epoch: int = 1,
        tell: Callable[[TaskProgress], None] = SILENT.on_progress,
    ) -> ShardSummary:
        """One task to its end."""
        task = start(self.spec, stage, round=round, shard=shard, policy=policy, epoch=epoch)
        return await run_task(
            task,
            spec=self.spec,
            store=self.store,
            clients=self.clients,
            settings=self.settings,
            tell=tell,
        )

    async def rollout_again(self, tell: Callable[[TaskProgress], None]) -> tuple[ShardSummary, int]:
        """A rollout whose second repeats fail to train, and its next attempt.

        What the second one comes to, and how many inner loops the first one left it.
        """
        self.fakes.fail = lambda kind, name, call: (
            grpc.StatusCode.INTERNAL if kind == "train" and name.endswith("/1") else None
        )
        with pytest.raises(SealError):
            await self.run(Stage.ROLLOUT, round=1)
        done = len(await self.files(Stage.ROLLOUT, round=1).inner_loops())
        self.fakes.fail = lambda kind, name, call: None
        return await self.run(Stage.ROLLOUT, round=1, tell=tell), done

    async def repin(self, spec: RunSpec) -> None:
        """Give the run another spec, as if it had begun with it."""
        self.spec = spec
        manifest = RestEMRun.of(RUN, spec)
        await asyncio.to_thread(self.store.write_json, manifest_path(RUN), manifest)

    async def records(
        self, stage: Stage, *, round: int, shard: int = 0
    ) -> tuple[ContextRecord, ...]:
        """The records of a finished shard."""
        return (await self.files(stage, round=round, shard=shard).read_records())[0]

    def files(self, stage: Stage, *, round: int, shard: int = 0) -> ShardStore:
        """The files of a shard."""
        return ShardStore(self.store, run=RUN, round=round, stage=stage, shard=shard)

    def asked(self, kind: str) -> list[str]:
        """Request ids that were asked for, in order of first arrival."""
        return [name for what, name in self.fakes.calls if what == kind]


@asynccontextmanager
async def serve_all(
    fakes: Fakes, *, writer: Fakes | None = None, edit_generator: Fakes | None = None
) -> AsyncIterator[ServiceAddresses]:
    """Fakes, and those of other models beside them."""
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(serve_fakes(fakes))
        if writer is not None:
            at = await stack.enter_async_context(serve_fakes(writer))
            update = {"generator": at.generator, "writer_trainer": at.trainer}
            addresses = addresses.model_copy(update=update)
        if edit_generator is not None:
            at = await stack.enter_async_context(serve_fakes(edit_generator))
            addresses = addresses.model_copy(update={"edit_generator": at.generator})
        yield addresses


@asynccontextmanager
async def workplace(
    directory: Path,
    *,
    fakes: Fakes | None = None,
    settings: WorkerSettings = IMPATIENT,
    spec: RunSpec | None = None,
    writer: Fakes | None = None,
    edit_generator: Fakes | None = None,
) -> AsyncIterator[Workplace]:
    """Pin a small run and serve fakes for it.

    `writer`: the services of another base model, which writes; `edit_generator`: those of a model
    at an endpoint.
    """
    fakes, spec, store = (
        fakes or Fakes(),
        spec or small_spec(directory),
        ArtifactStore(str(directory / "artifacts")),
    )
    await open_run(store, RestEMRun.of(RUN, spec), resume=False)
    async with (
        serve_all(fakes, writer=writer, edit_generator=edit_generator) as addresses,
        ServiceClients(addresses, settings) as clients,
    ):
        place = Workplace(spec=spec, store=store, clients=clients, fakes=fakes, settings=settings)
        await place.run(Stage.PREPARE, round=0)
        yield place
