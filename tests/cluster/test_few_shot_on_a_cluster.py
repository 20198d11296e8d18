"""A few-shot run through the controller, its Jobs and its workers, on real services.

It ends as the same manifest ends on a laptop: to the same digests. Nothing of the cluster knows
what a grid is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster_objects import run as run_object
from controller_harness import IMPATIENT, RUN
from engine_services import ENGINE
from fault_site import NAMESPACE, Site
from few_shot import few_shot_spec
from few_shot_edits import settings_edit
from openai_server import MODEL, Call, Reply, openai_server, says
from tiny_model import save_tiny_model

from controller_svc.core import Phase, RunStatus
from controller_svc.local.services import OtherModels, local_services
from controller_svc.local.world import run_local
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.settings import ServiceAddresses
from controller_svc.worker.task import run_task
from seal.artifacts import ArtifactStore
from seal.records import ShardSummary, Stage
from seal.resources import RestEMRun
from seal.runs.manifest import read_spec
from seal.runs.shards import ShardStore
from seal.runs.store import read_selection
from seal.runs.task import ShardTask
from seal.settings import RunSpec

ALONE = ENGINE.model_copy(update={"slots": 1, "evaluation_rows": 1})
"""Nobody shares a batch, on which the last bits depend."""
STAGES = ((0, Stage.VALIDATE), (1, Stage.ROLLOUT), (1, Stage.VALIDATE))


def written(call: Call) -> Reply:
    """An edit by the seed that it is asked with, whoever asks; some are none."""
    seed = int(call.body.get("seed", 1))
    return says("turn it around" if seed % 4 == 0 else settings_edit(seed), tokens=95)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))


def spec_of(directory: Path, model: str, base_url: str) -> RunSpec:
    """A random model solves nothing, so that the reward is how likely it finds the gold grid."""
    return few_shot_spec(
        directory,
        profile="arc",
        model=model,
        edit={
            "family": "train-settings",
            "format": "chat",
            "k": 2,
            "max_tokens": 112,
            "generator": {"base_url": base_url, "model": MODEL},
        },
        evaluation={"question_format": "digits", "grader": "logprob", "max_tokens": 6},
    )


@asynccontextmanager
async def services(spec: RunSpec, root: Path) -> AsyncIterator[ServiceAddresses]:
    """Generator, trainer and evaluator with one engine, as processes of a cluster would serve."""
    others = OtherModels.of(spec, judge=None)
    async with local_services(spec.model, root=root, engine=ALONE, others=others) as running:
        yield running.addresses


@dataclass
class PodWork:
    """What a worker's pod does: its task, as a client of the services."""

    addresses: ServiceAddresses

    async def __call__(self, task: ShardTask, store: ArtifactStore) -> ShardSummary:
        spec = await read_spec(store, task.run)
        async with ServiceClients(self.addresses, IMPATIENT) as clients:
            return await run_task(task, spec=spec, store=store, clients=clients)


async def on_a_laptop(spec: RunSpec, root: Path) -> RunStatus:
    async with services(spec, root) as addresses:
        return await run_local(
            RestEMRun.of(RUN, spec), root=root, services=addresses, settings=IMPATIENT
        )


async def on_a_cluster(spec: RunSpec, root: Path) -> RunStatus:
    async with services(spec, root) as addresses:
        site = Site(root, work=PodWork(addresses))
        body = run_object(RUN, **spec.model_dump(mode="json", by_alias=True))
        body["metadata"]["namespace"] = NAMESPACE
        key = site.submit(body)
        await site.to_the_end()
        assert any(told == ("Normal", "AllRoundsDone") for told in site.told()[RUN])
        return site.status(key)


async def outcomes_of(store: ArtifactStore, run: str) -> list[object]:
    """Edits, training sets, adapters, answers and rewards of all inner loops."""
    found: list[object] = []
    for round, stage in STAGES:
        files = ShardStore(store, run=run, round=round, stage=stage, shard=0)
        records, _ = await files.read_records()
        for record in records:
            found += [(edit.parts, edit.examples, edit.optimizer) for edit in record.edits]
            found += [
                (
                    loop.kind,
                    loop.outcome,
                    loop.training and loop.training.adapter and loop.training.adapter.sha256,
                    loop.evaluation and (loop.evaluation.answers, loop.evaluation.reward),
                )
                for loop in record.inner_loops
            ]
    return found


@pytest.mark.timeout(600)
async def test_a_few_shot_run_of_jobs_ends_with_the_digests_of_a_run_on_a_laptop(
    tmp_path: Path, model: str
) -> None:
    async with openai_server(written) as server:
        spec = spec_of(tmp_path, model, server.base_url)
        laptop = await on_a_laptop(spec, tmp_path / "laptop")
        cluster = await on_a_cluster(spec, tmp_path / "cluster")
    assert laptop.phase is cluster.phase is Phase.COMPLETE, cluster.condition("Failed")
    stores = [ArtifactStore(str(tmp_path / name)) for name in ("laptop", "cluster")]
    ours, theirs = [
        await outcomes_of(store, status.run)
        for store, status in zip(stores, (laptop, cluster), strict=True)
    ]
    assert ours == theirs
    selections = [
        await read_selection(store, status.run, 1)
        for store, status in zip(stores, (laptop, cluster), strict=True)
    ]
    assert selections[0] is not None and selections[1] is not None
    assert selections[0].kept and selections[0].sha256 == selections[1].sha256
    policies = [status.policies[1].adapter for status in (laptop, cluster)]
    assert policies[0] is not None and policies[1] is not None
    assert policies[0].sha256 == policies[1].sha256
