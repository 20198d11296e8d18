"""The stages of an adaptation: what a task of one of them does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from controller_svc.worker.adapt import adapt
from controller_svc.worker.adaptation_data import read_data
from controller_svc.worker.bench import Bench
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.contexts_task import run_contexts
from controller_svc.worker.documents import TRAIN, prepare_adaptation
from controller_svc.worker.progress import Meter
from controller_svc.worker.questions import make_questions, question_requests
from controller_svc.worker.requests import Requests
from controller_svc.worker.settings import WorkerSettings
from controller_svc.worker.shard_plan import ShardPlan, shard_of
from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.errors import principal_error
from seal.records import ContextRecord, PreparedRecord, ShardSummary, Stage
from seal.runs.clock import ShardClock
from seal.runs.selection import rollout_records
from seal.runs.shards import ShardStore
from seal.runs.store import pinned, read_contexts
from seal.runs.task import ShardTask
from seal.settings import AdaptationSpec


@dataclass(frozen=True, kw_only=True)
class AdaptationTask:
    """One task of an adaptation, with what it works with."""

    task: ShardTask
    spec: AdaptationSpec
    store: ArtifactStore
    clients: ServiceClients
    settings: WorkerSettings
    files: ShardStore
    clock: ShardClock
    meter: Meter

    async def work(self) -> ShardSummary:
        """Do what is left of it; its summary, not yet committed.

        Raises:
            SealError: from the data, the services or the store; what is committed stays.

        """
        if self.task.stage is Stage.PREPARE:
            return await self._prepare()
        prepared = await pinned(self.store, self.task.run)
        try:
            if self.task.stage is Stage.QUESTION:
                return await self._question(prepared)
            if self.task.stage is Stage.ROLLOUT:
                return await self._rollout(prepared)
            return await self._adapt(prepared)
        except BaseExceptionGroup as group:
            raise principal_error(group) from group

    async def _prepare(self) -> ShardSummary:
        prepared = await prepare_adaptation(
            self.task.run, spec=self.spec, store=self.store, clients=self.clients
        )
        return self.task.summary(
            seconds=self.clock.seconds,
            result_sha256=prepared.sha256,
            counts=prepared.counts,
            device=prepared.model.device,
        )

    async def _question(self, prepared: PreparedRecord) -> ShardSummary:
        requests = question_requests(
            self.task.run, self.spec, base_sha256=prepared.model.base_sha256
        )
        contexts = await read_contexts(self.store, self.task.run, TRAIN)
        bench = self._bench(requests)
        return await make_questions(self.task, bench, self.spec, shard_of(contexts, self.task))

    async def _rollout(self, prepared: PreparedRecord) -> ShardSummary:
        data = await read_data(self.store, self.task.run, self.spec)
        writes = get_domain(self.spec.domain).writes_edits(self.spec.edit.family)
        plan = ShardPlan(
            contexts=shard_of(data.train, self.task),
            k=self.spec.edit.k if writes else 0,
            preselect=self.spec.inner.preselect if writes else 0,
            survivors=self.spec.inner.racing if writes else (),
        )
        bench = self._bench(Requests.of(self.task, self.spec, prepared))
        return await run_contexts(self.task, self.store, bench, plan)

    async def _adapt(self, prepared: PreparedRecord) -> ShardSummary:
        data, records = await asyncio.gather(
            read_data(self.store, self.task.run, self.spec),
            rollout_records(self.store, self.task.run, self.spec, 0),
        )
        by_id: dict[str, ContextRecord] = {record.context_id: record for record in records}
        return await adapt(
            self.task,
            self._bench(Requests.of(self.task, self.spec, prepared)),
            spec=self.spec,
            data=data,
            records=by_id,
            store=self.store,
            max_row_tokens=prepared.model.max_row_tokens,
        )

    def _bench(self, requests: Requests) -> Bench:
        return Bench(
            requests=requests,
            clients=self.clients,
            files=self.files,
            clock=self.clock,
            meter=self.meter,
            settings=self.settings,
        )
