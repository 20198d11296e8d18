"""The last stage of an adaptation: one adapter over all passages, measured, judged.

Each step is committed once and found again after a kill: what is learnt, both trainings, every
model's answers, and last the result, which is the publication if the gate let the adapter pass. The
base model is asked while the adapters are trained.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import structlog

from controller_svc.worker.adaptation_data import AdaptationData
from controller_svc.worker.adapter_training import (
    Trained,
    adapter_request,
    training_of,
    untrained,
)
from controller_svc.worker.asking import ask_in_parts
from controller_svc.worker.bench import Bench
from controller_svc.worker.loops import NOT_ADAPTED
from seal.adaptations.evaluation import evaluate_adapter
from seal.adaptations.lesson import Lesson, make_lesson, replay_rows
from seal.artifacts import ArtifactStore
from seal.domains.base import Query
from seal.outcomes import Outcome
from seal.records import (
    AdaptationResult,
    AdapterReference,
    ContextRecord,
    EvaluationRecord,
    ScoredModel,
    ShardSummary,
    Stage,
    TrainingRecord,
)
from seal.restem.gate import judge
from seal.runs.epochs import check_epoch
from seal.runs.improve import carried
from seal.runs.rows import fitting_rows
from seal.runs.store import in_thread, stage_path
from seal.runs.task import ShardTask
from seal.settings import AdaptationSpec

log = structlog.get_logger(__name__)

LESSON, TRAININGS, HELD_OUT, RETAINED, RESULT = (
    "lesson",
    "trainings",
    "held-out",
    "retained",
    "result",
)
"""Folders of the stage's records."""


async def adapt(
    task: ShardTask,
    bench: Bench,
    *,
    spec: AdaptationSpec,
    data: AdaptationData,
    records: Mapping[str, ContextRecord],
    store: ArtifactStore,
    max_row_tokens: int,
) -> ShardSummary:
    """Train, measure and judge what is not yet; the summary, not yet committed.

    `records` are the rollout's by passage. `max_row_tokens`: the longest row of a training.

    Raises:
        Superseded: a newer controller has started the stage.
        SealError: from the services, maybe in an ExceptionGroup; what is committed stays.

    """
    work = _Adapting(task=task, bench=bench, spec=spec, data=data, store=store)
    lesson = await work.lesson(records, max_row_tokens)
    await work.find_done(lesson)
    async with asyncio.TaskGroup() as group:
        group.create_task(work.ask("base", None))
        group.create_task(work.train_and_ask("passages", lesson))
        group.create_task(work.train_and_ask("adapter", lesson))
    bench.meter.tell(now=True)
    result = await work.judged(lesson)
    return work.summary(lesson, result)


@dataclass(frozen=True, kw_only=True)
class _Adapting:
    """The stage at work."""

    task: ShardTask
    bench: Bench
    spec: AdaptationSpec
    data: AdaptationData
    store: ArtifactStore
    trainings: dict[str, TrainingRecord] = field(default_factory=dict)
    held_out: dict[str, EvaluationRecord] = field(default_factory=dict)
    retained: dict[str, EvaluationRecord] = field(default_factory=dict)

    async def lesson(self, records: Mapping[str, ContextRecord], max_row_tokens: int) -> Lesson:
        """What is learnt, decided once."""
        before = (await self.bench.files.committed(LESSON, Lesson)).get("rows")
        if before is not None:
            return before
        replayed = replay_rows(
            self.data.retained.replayed,
            self.spec.adapter.replay_rows,
            domain=self.bench.domain,
            evaluation=self.spec.evaluation,
        )
        made = await in_thread(
            make_lesson,
            self.data.train,
            records,
            domain=self.bench.domain,
            examples=self.spec.inner.examples,
            held_out=[query.question for query in self.data.held_out],
            replay=replayed,
        )
        fits = await fitting_rows(made.rows, max_row_tokens, self.bench.clients.trainer)
        fitting = iter(fits)
        lesson = made.only(lambda row: next(fitting))
        await check_epoch(self.store, self.task.run, self.task.round, Stage.ADAPT, self.task.epoch)
        lesson = await self.bench.files.commit(LESSON, "rows", lesson)
        log.info("rows chosen", **lesson.counts, left_out=lesson.left_out, dropped=lesson.dropped)
        return lesson

    async def find_done(self, lesson: Lesson) -> None:
        """What earlier attempts committed, and what there is to do in all."""
        files = self.bench.files
        self.trainings.update(await files.committed(TRAININGS, TrainingRecord))
        self.held_out.update(await files.committed(HELD_OUT, EvaluationRecord))
        self.retained.update(await files.committed(RETAINED, EvaluationRecord))
        asked, kept = len(self.data.held_out), len(self.data.retained.queries)
        self.bench.meter.plan(edits=0, trainings=2, queries=3 * asked + 2 * kept, inner_loops=0)
        self.bench.meter.found(
            trainings=len(self.trainings),
            queries=asked * len(self.held_out) + kept * len(self.retained),
        )

    async def train_and_ask(self, model: Trained, lesson: Lesson) -> None:
        """One adapter and its answers. One that could not be trained has none."""
        if model not in self.trainings:
            await self._train(model, lesson)
        adapter = self.trainings[model].adapter
        if adapter is None:
            log.warning("adapter not trained", model=model, **self._why(model))
            return
        await self.ask(model, adapter)

    def _why(self, model: Trained) -> dict[str, str]:
        return {"outcome": str(self.trainings[model].outcome)}

    async def _train(self, model: Trained, lesson: Lesson) -> None:
        rows, optimizer = training_of(model, lesson, self.spec.adapter.optimizer)
        if not rows:
            record = untrained(Outcome.TOO_LONG)
        else:
            request = adapter_request(
                model,
                rows,
                optimizer,
                run=self.task.run,
                spec=self.spec,
                base_sha256=self.bench.requests.base_sha256,
            )
            request = await carried(
                request,
                store=self.store,
                path=f"{stage_path(self.task.run, self.task.round, Stage.ADAPT)}/{model}.binpb",
                limit=self.bench.clients.max_request_bytes,
            )
            meter = self.bench.meter
            record = await self.bench.clients.trainer.train(
                request,
                lambda step, total: meter.training(model, step=step, total_steps=total),
                lambda step: meter.training_resumed(model, step=step),
            )
            meter.trained(model, steps=record.steps)
        self.trainings[model] = await self.bench.files.commit(TRAININGS, model, record)
        await self.bench.clock.tick()

    async def ask(self, model: ScoredModel, adapter: AdapterReference | None) -> None:
        """A model on the test, and on the retained set unless it is the passages' adapter."""
        if model not in self.held_out:
            queries = self.data.held_out
            await self._ask(self.held_out, HELD_OUT, model, adapter, queries)
        gone = model in self.held_out and self.held_out[model].outcome in NOT_ADAPTED
        if model != "passages" and model not in self.retained and not gone:
            queries = self.data.retained.queries
            await self._ask(self.retained, RETAINED, model, adapter, queries)

    async def _ask(
        self,
        into: dict[str, EvaluationRecord],
        folder: str,
        model: ScoredModel,
        adapter: AdapterReference | None,
        queries: Sequence[Query],
    ) -> None:
        if queries:
            record = await ask_in_parts(self.bench, f"{folder}/{model}", adapter, queries)
            into[model] = await self.bench.files.commit(folder, model, record)
            await self.bench.clock.tick()

    async def judged(self, lesson: Lesson) -> AdaptationResult:
        """The result, committed; the one that counts."""
        evaluation = evaluate_adapter(
            self._by_model(self.held_out),
            self._by_model(self.retained),
            self_made=self.spec.questions.source == "self-made",
            seed=self.spec.seed,
        )
        gate = judge(
            self.spec.gate, gain=evaluation.gain, retained_change=evaluation.retained_change
        )
        result = AdaptationResult(
            adapter=self.trainings["adapter"].adapter,
            passages_adapter=self.trainings["passages"].adapter,
            outcomes={
                "passages": self.trainings["passages"].outcome,
                "adapter": self.trainings["adapter"].outcome,
            },
            rows=lesson.counts,
            left_out=lesson.left_out,
            evaluation=evaluation,
            gate=gate,
        )
        log.info("adapter judged", passed=gate.passed, reason=str(gate.reason or ""))
        await check_epoch(self.store, self.task.run, self.task.round, Stage.ADAPT, self.task.epoch)
        return await self.bench.files.commit(RESULT, "result", result)

    @staticmethod
    def _by_model(records: Mapping[str, EvaluationRecord]) -> dict[ScoredModel, EvaluationRecord]:
        models: tuple[ScoredModel, ...] = ("base", "passages", "adapter")
        return {model: records[model] for model in models if model in records}

    def summary(self, lesson: Lesson, result: AdaptationResult) -> ShardSummary:
        """What the stage reports."""
        answers = list(chain(self.held_out.values(), self.retained.values()))
        trainings = self.trainings.values()
        return self.task.summary(
            seconds=self.bench.clock.seconds,
            result_sha256=lesson.sha256,
            outcomes={str(self.trainings["adapter"].outcome): 1},
            tokens={
                "train": sum(record.tokens for record in trainings),
                "evaluate": sum(record.tokens for record in answers),
            },
            engine_seconds={
                "train": sum(record.engine_seconds for record in trainings),
                "evaluate": sum(record.engine_seconds for record in answers),
            },
            result=result,
        )
