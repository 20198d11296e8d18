"""One shard of a rollout or a validation.

It makes whatever baselines, edits and inner loops of its contexts are not yet committed. All of it
runs at once, as far as `WorkerSettings.concurrency` allows: the engine batches what is outstanding.
Edits are asked for in fixed groups of contexts and, after a restart, for a whole group again if one
of its contexts lacks them: the same request again. In a race the repeats of a context's candidates
follow one another, while the races of different contexts run side by side; who runs the next repeat
follows from the committed inner loops alone, so that a restarted race goes on as it would have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controller_svc.worker.bench import Bench
from controller_svc.worker.bounds import (
    EQUAL_STEPS,
    OPEN_BOOK,
    Bound,
    bound_training,
)
from controller_svc.worker.committed import Committed
from controller_svc.worker.edits import groups, write_edits
from controller_svc.worker.loops import (
    run_baseline,
    run_inner_loop,
    run_open_book,
    run_retained,
    take_baseline,
)
from controller_svc.worker.rating import FOLDER, rate_edits
from controller_svc.worker.requests import LoopKey
from controller_svc.worker.shard_plan import ShardPlan
from seal.domains.base import Context, Example, Query
from seal.outcomes import Outcome
from seal.records import (
    ContextRecord,
    EvaluationRecord,
    InnerLoopKind,
    InnerLoopRecord,
    RatingsRecord,
)
from seal.runs.shards import Alone
from seal.runs.store import key_of
from seal.settings import OptimizerSettings


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """What a shard has in the end."""

    records: tuple[ContextRecord, ...]
    """In the order of the plan."""
    retained: Mapping[Alone, EvaluationRecord]
    """Models alone on the whole retained set."""
    inner_loops_run: int
    """Without open-book answers, which are none."""
    inner_loops_resumed: int


async def run_shard(bench: Bench, plan: ShardPlan) -> ShardResult:
    """Do what is not done yet.

    Raises:
        SealError: in an ExceptionGroup; what is committed stays, the rest is cancelled.

    """
    files = bench.files
    done = Committed(
        bench=bench,
        plan=plan,
        baselines=await _baselines(bench, plan),
        edits=await files.edits(),
        loops=await files.inner_loops(),
        retained={
            alone: record
            for alone in plan.retained_alone
            if (record := await files.retained(alone)) is not None
        },
        ratings=await files.committed(FOLDER, RatingsRecord),
    )
    resumed = done.loops_done
    done.measure()
    async with asyncio.TaskGroup() as group:
        _Shard(bench=bench, plan=plan, done=done).start(group)
    bench.meter.tell(now=True)
    records = tuple(done.record(context) for _, context in plan.contexts)
    return ShardResult(
        records=records,
        retained=done.retained,
        inner_loops_run=done.loops_done - resumed,
        inner_loops_resumed=resumed,
    )


async def _baselines(bench: Bench, plan: ShardPlan) -> dict[str, EvaluationRecord]:
    """What is measured already: by this shard or, where all rounds have the same, by any."""
    if bench.requests.one_baseline:
        keys = [key_of(context.context_id) for _, context in plan.contexts]
        return await bench.files.run_baselines(keys)
    return await bench.files.baselines()


@dataclass(frozen=True, kw_only=True)
class _Shard:
    """The shard at work: what is started when."""

    bench: Bench
    plan: ShardPlan
    done: Committed
    baselines: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """Baselines that are being measured, by context."""

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start all that is missing and does not wait for edits."""
        for k, contexts in self.plan.by_edits():
            for together in groups(self.bench, contexts, k=k):
                group.create_task(self._edit_and_learn(together, group, k=k))
        for index, context in self.plan.contexts:
            if not context.queries:
                continue
            if key_of(context.context_id) not in self.done.baselines:
                task = group.create_task(self._baseline(context))
                self.baselines[key_of(context.context_id)] = task
            for bound in self.plan.bounds:
                if bound != EQUAL_STEPS:  # that one waits for the edits
                    self._start_bound(group, index, context, bound)
        for alone in self.plan.retained_alone:
            if alone not in self.done.retained:
                group.create_task(self._retained(alone))

    async def _baseline(self, context: Context) -> None:
        self.done.baselines[key_of(context.context_id)] = await run_baseline(self.bench, context)

    async def _retained(self, alone: Alone) -> None:
        queries = self.plan.retained.queries
        self.done.retained[alone] = await run_retained(self.bench, alone, queries)

    async def _edit_and_learn(
        self, contexts: Sequence[tuple[int, Context]], group: asyncio.TaskGroup, *, k: int
    ) -> None:
        """The edits of a group of contexts, then an inner loop on each."""
        edits = self.done.edits
        missing = [context for _, context in contexts if key_of(context.context_id) not in edits]
        if missing:
            written = await write_edits(self.bench, [context for _, context in contexts], k=k)
            edits.update({key_of(record.context_id): record for record in written})
            self._drop_without_steps(missing)  # the others are not in the plan
        tried = [(index, context) for index, context in contexts if context.queries]
        if self.done.by_rubric:
            await self._rate([context for _, context in tried])
        for index, context in tried:
            if EQUAL_STEPS in self.plan.bounds:
                self._start_bound(group, index, context, EQUAL_STEPS)
            if self.plan.survivors:
                group.create_task(self._race(index, context))
                continue
            for candidate in self.done.trained_on(context):
                self._start_loops(
                    group,
                    index,
                    context,
                    "edit",
                    candidate,
                    self.done.edit_examples(context, candidate),
                    self.done.edit_optimizer(context, candidate),
                )

    async def _rate(self, contexts: Sequence[Context]) -> None:
        """Ratings of the contexts that have none yet."""
        unrated = {
            key: context
            for context in contexts
            if (key := key_of(context.context_id)) not in self.done.ratings
        }
        rated = await asyncio.gather(
            *(
                rate_edits(self.bench, context, self.done.edits[key])
                for key, context in unrated.items()
            )
        )
        self.done.ratings |= dict(zip(unrated, rated, strict=True))

    async def _race(self, index: int, context: Context) -> None:
        """Repeat after repeat of a context's edits, each of the best of the one before."""
        for repeat in range(self.done.repeats):
            if repeat:  # the first one is run by all
                await self._measured_baseline(context)
            async with asyncio.TaskGroup() as rung:
                for candidate in self.done.rung(context, repeat):
                    examples = self.done.edit_examples(context, candidate)
                    self._start_loop(
                        rung,
                        index,
                        context,
                        self.done.key(context, "edit", candidate, repeat),
                        examples,
                        self.done.edit_optimizer(context, candidate),
                    )

    def _start_loops(
        self,
        group: asyncio.TaskGroup,
        index: int,
        context: Context,
        kind: InnerLoopKind,
        candidate: int,
        examples: tuple[Example, ...],
        optimizer: OptimizerSettings | None = None,
    ) -> None:
        """All repeats of one candidate."""
        for repeat in range(self.done.repeats):
            key = self.done.key(context, kind, candidate, repeat)
            self._start_loop(group, index, context, key, examples, optimizer)

    def _start_bound(
        self, group: asyncio.TaskGroup, index: int, context: Context, bound: Bound
    ) -> None:
        """All inner loops of a bound, each unless it is done."""
        if bound == OPEN_BOOK:
            key = self.done.key(context, bound, 0, 0)
            if key.file not in self.done.loops:
                group.create_task(self._open_book(key, context))
            return
        steps_of_edit = bound == EQUAL_STEPS
        if steps_of_edit and not self.done.has_steps(context):
            return
        examples, optimizer = bound_training(
            self.bench.domain,
            self.bench.requests.spec,
            context,
            bound,
            seed=self.bench.requests.examples_seed(context.context_id),
            passage_optimizer=self.plan.passage_optimizer,
            edit_rows=len(self.done.edit_examples(context, 0)) if steps_of_edit else 0,
        )
        self._start_loops(group, index, context, bound, 0, examples, optimizer)

    async def _open_book(self, key: LoopKey, context: Context) -> None:
        self.done.loops[key.file] = await run_open_book(self.bench, key, context)

    def _drop_without_steps(self, written: Sequence[Context]) -> None:
        """An edit that is not trained on has no steps that its passage could be given."""
        if EQUAL_STEPS not in self.plan.bounds:
            return
        for context in written:
            if not self.done.has_steps(context):
                self.bench.meter.dropped(
                    trainings=self.done.repeats,
                    queries=self.done.repeats * (len(context.queries) + self.done.window_size),
                )

    def _start_loop(
        self,
        group: asyncio.TaskGroup,
        index: int,
        context: Context,
        key: LoopKey,
        examples: tuple[Example, ...],
        optimizer: OptimizerSettings | None = None,
    ) -> None:
        """One inner loop, unless it is done."""
        if key.file not in self.done.loops:
            retained = self.done.window(index, key.candidate, key.repeat)
            group.create_task(self._loop(key, context, examples, retained, optimizer))

    async def _loop(
        self,
        key: LoopKey,
        context: Context,
        examples: tuple[Example, ...],
        retained: tuple[Query, ...],
        optimizer: OptimizerSettings | None,
    ) -> None:
        if key.kind == "edit" and self.done.takes_baseline(context, key.candidate):
            self.done.loops[key.file] = await self._untrained(key, context)
            return
        edits = self.done.edits.get(key_of(context.context_id)) if key.kind == "edit" else None
        fault = edits is not None and edits.outcome is not Outcome.OK
        self.done.loops[key.file] = await run_inner_loop(
            self.bench,
            key,
            context,
            examples,
            retained,
            optimizer=optimizer,
            without_examples=edits.outcome if edits and fault else Outcome.INVALID,
        )

    async def _untrained(self, key: LoopKey, context: Context) -> InnerLoopRecord:
        """The inner loop of an edit that comes to no training: the answers of the baseline."""
        baseline = await self._measured_baseline(context)
        queries = len(context.queries) + self.done.window_size
        return await take_baseline(self.bench, key, baseline, unasked=queries)

    async def _measured_baseline(self, context: Context) -> EvaluationRecord:
        """What the student alone answers, once it is measured."""
        name = key_of(context.context_id)
        if name in self.baselines:
            await self.baselines[name]
        return self.done.baselines[name]
