"""What one task does: one shard of one stage of a run or an adaptation.

It is an asyncio task of this process, and could be a Job's pod. A worker is a client of the three
services and of the artifact store, and knows nothing of the controller: it gets a task and returns
the shard's summary. It may be killed at any moment and started again; what is committed it does not
repeat, and a shard that has its summary it does not touch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from controller_svc.worker.adaptation import AdaptationTask
from controller_svc.worker.bench import Bench
from controller_svc.worker.bounds import bounds_of
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.contexts_task import run_contexts
from controller_svc.worker.prepare import prepare
from controller_svc.worker.progress import Meter, TaskProgress
from controller_svc.worker.requests import Requests, RetainedSet
from controller_svc.worker.settings import DEFAULT_SETTINGS, WorkerSettings
from controller_svc.worker.shard_plan import ShardPlan, shard_of
from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.errors import principal_error
from seal.records import ShardSummary, Stage
from seal.restem.plan import plan_round
from seal.rpc.hops import current_hop
from seal.rpc.tracing import working
from seal.runs.cleanup import inner_adapters, remove_adapters
from seal.runs.clock import ShardClock
from seal.runs.improve import improve
from seal.runs.shards import Alone, ShardStore, finish_shard
from seal.runs.store import pinned, read_contexts
from seal.runs.task import ShardTask
from seal.settings import AdaptationSpec, LearningSpec, RunSpec, Spec

log = structlog.get_logger(__name__)

POLICY = "policy"
"""What the meter calls the M-step's training."""


def _to_nobody(progress: TaskProgress) -> None:
    """The default of `tell`."""


async def _at_once() -> None:
    """The default of `ready`."""


async def run_task(
    task: ShardTask,
    *,
    spec: Spec,
    store: ArtifactStore,
    clients: ServiceClients,
    settings: WorkerSettings = DEFAULT_SETTINGS,
    tell: Callable[[TaskProgress], None] = _to_nobody,
    ready: Callable[[], Awaitable[None]] = _at_once,
) -> ShardSummary:
    """Do one task to its end, or what is left of it; the summary is in the store when it returns.

    `ready`: waited for before the first work, if there is any; may raise.

    Raises:
        SealError: transient ones (`seal.errors.Retryable`) after the retries of the single calls;
            nothing committed is lost.

    """
    with (
        working(f"{task.stage} shard", current_hop(), **task.facts),
        structlog.contextvars.bound_contextvars(**task.facts),
    ):

        async def work(files: ShardStore) -> ShardSummary:
            log.info("task started", task=task.name)
            await ready()
            return await _do(task, spec, store, clients, settings, files, Meter(task, tell))

        async def clean(files: ShardStore) -> None:
            if task.stage in (Stage.ROLLOUT, Stage.VALIDATE):
                await _clean(files, spec, store)

        summary = await finish_shard(task, store, work, after=clean)
        log.info(
            "task finished",
            task=task.name,
            inner_loops=summary.inner_loops_run,
            resumed=summary.inner_loops_resumed,
        )
        return summary


async def _do(
    task: ShardTask,
    spec: Spec,
    store: ArtifactStore,
    clients: ServiceClients,
    settings: WorkerSettings,
    files: ShardStore,
    meter: Meter,
) -> ShardSummary:
    """The work of the task's stage; its summary, not yet committed."""
    clock = await files.clock()
    if isinstance(spec, AdaptationSpec):
        return await AdaptationTask(
            task=task,
            spec=spec,
            store=store,
            clients=clients,
            settings=settings,
            files=files,
            clock=clock,
            meter=meter,
        ).work()
    if task.stage is Stage.PREPARE:
        return await _prepare(task, spec, store, clients, clock)
    if task.stage is Stage.IMPROVE:
        return await _improve(task, spec, store, clients, clock, meter)
    prepared = await pinned(store, task.run)
    bench = Bench(
        requests=Requests.of(task, spec, prepared),
        clients=clients,
        files=files,
        clock=clock,
        meter=meter,
        settings=settings,
    )
    plan = rollout_plan if task.stage is Stage.ROLLOUT else validate_plan
    try:
        return await run_contexts(task, store, bench, await plan(task, spec, store))
    except BaseExceptionGroup as group:
        raise principal_error(group) from group


async def _improve(
    task: ShardTask,
    spec: RunSpec,
    store: ArtifactStore,
    clients: ServiceClients,
    clock: ShardClock,
    meter: Meter,
) -> ShardSummary:
    """The M-step through the trainer service; as a job it has an engine of its own."""
    steps = 0

    def stepped(step: int, total: int) -> None:
        nonlocal steps
        steps = total
        meter.training(POLICY, step=step, total_steps=total)

    def resumed(step: int) -> None:
        log.info("training of the policy resumed", step=step)
        meter.training_resumed(POLICY, step=step)

    meter.plan(edits=0, trainings=1, queries=0, inner_loops=0)
    summary = await improve(
        task,
        spec=spec,
        store=store,
        trainer=clients.policy_trainer,
        clock=clock,
        on_step=stepped,
        on_resumed=resumed,
    )
    if summary.outcomes:
        meter.trained(POLICY, steps=steps)
    meter.tell(now=True)
    return summary


async def _prepare(
    task: ShardTask,
    spec: RunSpec,
    store: ArtifactStore,
    clients: ServiceClients,
    clock: ShardClock,
) -> ShardSummary:
    prepared = await prepare(task.run, spec=spec, store=store, clients=clients)
    return task.summary(
        seconds=clock.seconds, result_sha256=prepared.sha256, device=prepared.model.device
    )


async def rollout_plan(task: ShardTask, spec: RunSpec, store: ArtifactStore) -> ShardPlan:
    """E-step: k edits for each training context of the round."""
    contexts = {
        context.context_id: context for context in await read_contexts(store, task.run, "train")
    }
    chosen = plan_round(spec.seed, tuple(contexts), task.round, spec.data.train_contexts)
    k = _candidates(spec, spec.edit.k)
    return ShardPlan(
        contexts=shard_of([contexts[name] for name in chosen], task),
        k=k,
        preselect=spec.inner.preselect if k else 0,
        survivors=spec.inner.racing if k else (),
    )


async def validate_plan(task: ShardTask, spec: RunSpec, store: ArtifactStore) -> ShardPlan:
    """Validate the policy on the held-out contexts, with the retained set.

    Round 0 also measures the bounds, which do not depend on the policy.
    """
    contexts = await read_contexts(store, task.run, "validation")
    retained = RetainedSet.of(await read_contexts(store, task.run, "retained"))
    warmed = task.round == 0 and task.policy is not None  # elsewhere round 0 is the base model
    alone: tuple[Alone, ...] = ("policy", "base") if warmed else ("policy",)
    if spec.cross_model:  # the policy only writes: what answers is the base model, in every round
        alone = ("policy",) if task.round == 0 else ()
    return ShardPlan(
        contexts=shard_of(contexts, task),
        k=_candidates(spec, spec.validation.edits_per_context),
        bounds=bounds_of(spec) if task.round == 0 else (),
        passage_optimizer=spec.validation.passage,
        passage_if_empty=spec.validation.empty_edit == "passage",
        baseline_if_empty=spec.validation.empty_edit == "baseline",
        retained=retained,
        retained_per_model=spec.validation.retained_queries,
        retained_alone=alone if task.shard == 0 and retained.queries else (),
    )


def _candidates(spec: RunSpec, k: int) -> int:
    """k, or 0 if the run's prompt family has no edits and only the passage is learnt."""
    return k if get_domain(spec.domain).writes_edits(spec.edit.family) else 0


async def _clean(files: ShardStore, spec: LearningSpec, store: ArtifactStore) -> None:
    """The inner adapters have done their work: their answers are in the records."""
    if spec.artifacts.keep_inner_adapters:
        return
    records, _ = await files.read_records()
    await remove_adapters(store, inner_adapters(records))
