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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from controller_svc.worker.bounds import (
    EQUAL_STEPS,
    OPEN_BOOK,
    Bound,
    bound_training,
    repeats_of,
)
from controller_svc.worker.edits import groups, write_edits
from controller_svc.worker.loops import (
    Bench,
    run_baseline,
    run_inner_loop,
    run_open_book,
    run_retained,
)
from controller_svc.worker.requests import NOTHING_RETAINED, LoopKey, RetainedSet
from seal.domains.base import Context, Example, Query
from seal.outcomes import Outcome
from seal.records import (
    ContextEditsRecord,
    ContextRecord,
    EvaluationRecord,
    InnerLoopKind,
    InnerLoopRecord,
)
from seal.restem.preselect import preselect
from seal.restem.racing import advance, rung_sizes
from seal.restem.rollout import runner_of
from seal.runs.store import key_of
from seal.settings import OptimizerSettings


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """The work of one shard."""

    contexts: tuple[tuple[int, Context], ...]
    """(index in the stage, context)."""
    k: int
    """Edits per context; 0 for a prompt family without edits."""
    preselect: int = 0
    """Edits of a context that get inner loops (seal.restem.preselect); 0 gives them to all. It
    looks at gold answers: for training contexts alone."""
    survivors: tuple[int, ...] = ()
    """Edits of a context that get the second, third, ... repeat, the best first; empty: all get all
    (seal.restem.racing)."""
    bounds: tuple[Bound, ...] = ()
    """What is measured beside the edits."""
    retained: RetainedSet = NOTHING_RETAINED
    """Questions on other passages; empty for none."""
    retained_per_model: int = 0
    """Of these, asked of each adapted model."""
    retained_of_policy: bool = False
    """Ask the policy alone all of them; one shard of a stage does."""


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """What a shard has in the end."""

    records: tuple[ContextRecord, ...]
    """In the order of the plan."""
    retained: EvaluationRecord | None
    """The policy alone on the whole retained set."""
    inner_loops_run: int
    """Without open-book answers, which are none."""
    inner_loops_resumed: int


async def run_shard(bench: Bench, plan: ShardPlan) -> ShardResult:
    """Do what is not done yet.

    Raises:
        SealError: in an ExceptionGroup; what is committed stays, the rest is cancelled.

    """
    files = bench.files
    shard = _Shard(
        bench=bench,
        plan=plan,
        baselines=await _baselines(bench, plan),
        edits=await files.edits(),
        loops=await files.inner_loops(),
        retained=await files.retained(),
    )
    resumed = shard.loops_done
    shard.measure()
    async with asyncio.TaskGroup() as group:
        shard.start(group)
    bench.meter.tell(now=True)
    records = tuple(shard.record(context) for _, context in plan.contexts)
    return ShardResult(
        records=records,
        retained=shard.retained,
        inner_loops_run=shard.loops_done - resumed,
        inner_loops_resumed=resumed,
    )


async def _baselines(bench: Bench, plan: ShardPlan) -> dict[str, EvaluationRecord]:
    """What is measured already: by this shard or, where all rounds have the same, by any."""
    if bench.requests.one_baseline:
        keys = [key_of(context.context_id) for _, context in plan.contexts]
        return await bench.files.run_baselines(keys)
    return await bench.files.baselines()


@dataclass(kw_only=True)
class _Shard:
    """The shard at work: what is committed so far, by key."""

    bench: Bench
    plan: ShardPlan
    baselines: dict[str, EvaluationRecord]
    edits: dict[str, ContextEditsRecord]
    loops: dict[str, InnerLoopRecord]
    retained: EvaluationRecord | None
    preselected: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Edits that get inner loops, where not all do."""

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start all that is missing and does not wait for edits."""
        if self.plan.k:
            for together in groups(self.bench, self.plan.contexts, k=self.plan.k):
                group.create_task(self._edit_and_learn(together, group))
        for index, context in self.plan.contexts:
            if key_of(context.context_id) not in self.baselines:
                group.create_task(self._baseline(context))
            for bound in self.plan.bounds:
                if bound != EQUAL_STEPS:  # that one waits for the edits
                    self._start_bound(group, index, context, bound)
        if self.plan.retained_of_policy and self.plan.retained.queries and self.retained is None:
            group.create_task(self._retained())

    async def _baseline(self, context: Context) -> None:
        self.baselines[key_of(context.context_id)] = await run_baseline(self.bench, context)

    async def _retained(self) -> None:
        self.retained = await run_retained(self.bench, self.plan.retained.queries)

    async def _edit_and_learn(
        self, contexts: Sequence[tuple[int, Context]], group: asyncio.TaskGroup
    ) -> None:
        """The edits of a group of contexts, then an inner loop on each."""
        if any(key_of(context.context_id) not in self.edits for _, context in contexts):
            written = await write_edits(
                self.bench, [context for _, context in contexts], k=self.plan.k
            )
            self.edits |= {key_of(record.context_id): record for record in written}
            self._drop_without_steps([context for _, context in contexts])
        for index, context in contexts:
            if EQUAL_STEPS in self.plan.bounds:
                self._start_bound(group, index, context, EQUAL_STEPS)
            if self.plan.survivors:
                group.create_task(self._race(index, context))
                continue
            for candidate in self._trained_on(context):
                self._start_loops(
                    group,
                    index,
                    context,
                    "edit",
                    candidate,
                    self._edit_examples(context, candidate),
                )

    async def _race(self, index: int, context: Context) -> None:
        """Repeat after repeat of a context's edits, each of the best of the one before."""
        for repeat in range(self._repeats):
            async with asyncio.TaskGroup() as rung:
                for candidate in self._rung(context, repeat):
                    examples = self._edit_examples(context, candidate)
                    self._start_loop(
                        rung,
                        index,
                        context,
                        self._key(context, "edit", candidate, repeat),
                        examples,
                    )

    def _rung(self, context: Context, repeat: int) -> Sequence[int]:
        """Edits that run a repeat.

        In a race all inner loops of the repeat before have to be there.
        """
        if repeat == 0 or not self.plan.survivors:
            return self._trained_on(context)
        edits = self.edits[key_of(context.context_id)].edits
        runners = [
            runner_of(
                edits[candidate],
                [
                    self.loops[self._key(context, "edit", candidate, earlier).file]
                    for earlier in range(repeat)
                ],
                first_rung=self.bench.requests.spec.inner.racing_score,
            )
            for candidate in self._rung(context, repeat - 1)
        ]
        return advance(runners, self.plan.survivors[repeat - 1])

    def _trained_on(self, context: Context) -> Sequence[int]:
        """Edits that get inner loops; it follows from the committed edits alone."""
        if not self.plan.preselect:
            return range(self.plan.k)
        key = key_of(context.context_id)
        if key not in self.preselected:
            self.preselected[key] = preselect(
                self.edits[key].edits,
                context=context,
                domain=self.bench.domain,
                count=self.plan.preselect,
            )
        return self.preselected[key]

    @property
    def _repeats(self) -> int:
        return self.bench.requests.spec.inner.repeats

    @staticmethod
    def _key(context: Context, kind: InnerLoopKind, candidate: int, repeat: int) -> LoopKey:
        return LoopKey(kind=kind, context_id=context.context_id, candidate=candidate, repeat=repeat)

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
        for repeat in range(self._repeats):
            key = self._key(context, kind, candidate, repeat)
            self._start_loop(group, index, context, key, examples, optimizer)

    def _start_bound(
        self, group: asyncio.TaskGroup, index: int, context: Context, bound: Bound
    ) -> None:
        """All inner loops of a bound, each unless it is done."""
        if bound == OPEN_BOOK:
            key = self._key(context, bound, 0, 0)
            if key.file not in self.loops:
                group.create_task(self._open_book(key, context))
            return
        steps_of_edit = bound == EQUAL_STEPS
        if steps_of_edit and not self._has_steps(context):
            return
        examples, optimizer = bound_training(
            self.bench.domain,
            self.bench.requests.spec,
            context,
            bound,
            edit_rows=len(self._edit_examples(context, 0)) if steps_of_edit else 0,
        )
        self._start_loops(group, index, context, bound, 0, examples, optimizer)

    async def _open_book(self, key: LoopKey, context: Context) -> None:
        self.loops[key.file] = await run_open_book(self.bench, key, context)

    def _has_steps(self, context: Context) -> bool:
        """Whether the first edit is trained on, as far as it is written."""
        written = self.edits.get(key_of(context.context_id))
        return written is None or bool(written.edits[0].examples)

    def _drop_without_steps(self, written: Sequence[Context]) -> None:
        """An edit that is not trained on has no steps that its passage could be given."""
        if EQUAL_STEPS not in self.plan.bounds:
            return
        for context in written:
            if not self._has_steps(context):
                self.bench.meter.dropped(
                    trainings=self._repeats,
                    queries=self._repeats * (len(context.queries) + self._window_size),
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
        if key.file not in self.loops:
            retained = self._window(index, key.candidate, key.repeat)
            group.create_task(self._loop(key, context, examples, retained, optimizer))

    async def _loop(
        self,
        key: LoopKey,
        context: Context,
        examples: tuple[Example, ...],
        retained: tuple[Query, ...],
        optimizer: OptimizerSettings | None,
    ) -> None:
        edits = self.edits.get(key_of(context.context_id)) if key.kind == "edit" else None
        fault = edits is not None and edits.outcome is not Outcome.OK
        self.loops[key.file] = await run_inner_loop(
            self.bench,
            key,
            context,
            examples,
            retained,
            optimizer=optimizer,
            without_examples=edits.outcome if edits and fault else Outcome.INVALID,
        )

    def _window(self, index: int, candidate: int, repeat: int) -> tuple[Query, ...]:
        """Retained questions of one adapted model, the same in every round.

        Bounds are asked those of the first candidate.
        """
        model = (index * self.plan.k + candidate) * self._repeats + repeat
        return self.plan.retained.window(model=model, size=self.plan.retained_per_model)

    def _edit_examples(self, context: Context, candidate: int) -> tuple[Example, ...]:
        """What an edit is trained on: its own examples and the passage; nothing without any."""
        edit = self.edits[key_of(context.context_id)].edits[candidate]
        own = tuple(
            Example(prompt=example.prompt, completion=example.completion)
            for example in edit.examples
        )
        passage = self.bench.domain.passage_examples(
            context.title, context.text, self.bench.requests.spec.inner.examples
        )
        return (*own, *passage) if own else ()

    def _loop_keys(self, context: Context) -> Iterator[LoopKey]:
        """All inner loops of a finished context, in the order of its record."""
        rungs = [self._rung(context, repeat) for repeat in range(self._repeats)]
        for candidate in range(self.plan.k):
            yield from (
                self._key(context, "edit", candidate, repeat)
                for repeat, rung in enumerate(rungs)
                if candidate in rung
            )
        for bound in self.plan.bounds:
            if bound == EQUAL_STEPS and not self._has_steps(context):
                continue
            repeats = repeats_of(self.bench.requests.spec, bound)
            yield from (self._key(context, bound, 0, repeat) for repeat in range(repeats))

    def record(self, context: Context) -> ContextRecord:
        """All that the finished shard knows of one context."""
        written = self.edits.get(key_of(context.context_id))
        return ContextRecord(
            context_id=context.context_id,
            title=context.title,
            parts=written.parts if written else (),
            baseline=self.baselines[key_of(context.context_id)],
            edits=written.edits if written else (),
            inner_loops=tuple(self.loops[key.file] for key in self._loop_keys(context)),
            engine_seconds_generate=written.engine_seconds if written else 0.0,
        )

    @property
    def loops_done(self) -> int:
        """Inner loops that are committed."""
        return sum(loop.kind != OPEN_BOOK for loop in self.loops.values())

    @property
    def _window_size(self) -> int:
        """Retained questions that each adapted model is asked."""
        return len(self.plan.retained.window(model=0, size=self.plan.retained_per_model))

    def measure(self) -> None:
        """Tell the meter what there is to do and what is done."""
        plan, meter, window = self.plan, self.bench.meter, self._window_size
        of_edits = sum(
            rung_sizes(plan.preselect or plan.k, repeats=self._repeats, survivors=plan.survivors)
        )
        trained = sum(bound != OPEN_BOOK for bound in plan.bounds)
        open_book = len(plan.bounds) - trained
        loops, asked = 0, len(plan.retained.queries) if plan.retained_of_policy else 0
        answered = asked if self.retained else 0
        queries = {context.context_id: len(context.queries) for _, context in plan.contexts}
        for _, context in plan.contexts:
            without = EQUAL_STEPS in plan.bounds and not self._has_steps(context)
            own = of_edits + (trained - without) * self._repeats
            loops += own
            asked += queries[context.context_id] * (1 + open_book) + own * (
                queries[context.context_id] + window
            )
        meter.plan(
            edits=plan.k * len(plan.contexts), trainings=loops, queries=asked, inner_loops=loops
        )
        answered += sum(len(record.answers) for record in self.baselines.values())
        answered += sum(
            queries[loop.context_id] + (window if loop.kind != OPEN_BOOK else 0)
            for loop in self.loops.values()
        )
        meter.found(
            edits=sum(len(record.edits) for record in self.edits.values()),
            trainings=self.loops_done,
            queries=answered,
            inner_loops=self.loops_done,
        )
