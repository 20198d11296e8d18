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
from dataclasses import dataclass
from typing import Literal

from controller_svc.worker.loops import (
    Bench,
    run_baseline,
    run_inner_loop,
    run_retained,
    write_edits,
)
from controller_svc.worker.requests import NOTHING_RETAINED, LoopKey, RetainedSet
from seal.domains.base import Context, Example, Query
from seal.limits import MAX_EDITS
from seal.outcomes import Outcome
from seal.records import (
    ContextEditsRecord,
    ContextRecord,
    EvaluationRecord,
    InnerLoopKind,
    InnerLoopRecord,
)
from seal.restem.racing import advance, rung_sizes
from seal.restem.rollout import runner_of
from seal.runs.store import key_of

Bound = Literal["passage", "gold"]


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """The work of one shard."""

    contexts: tuple[tuple[int, Context], ...]
    """(index in the stage, context)."""
    k: int
    """Edits per context; 0 for a prompt family without edits."""
    survivors: tuple[int, ...] = ()
    """Edits of a context that get the second, third, ... repeat, the best first; empty: all get all
    (seal.restem.racing)."""
    bounds: tuple[Bound, ...] = ()
    """What is trained on beside the edits."""
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
    resumed = len(shard.loops)
    shard.measure()
    async with asyncio.TaskGroup() as group:
        shard.start(group)
    bench.meter.tell(now=True)
    records = tuple(shard.record(context) for _, context in plan.contexts)
    return ShardResult(
        records=records,
        retained=shard.retained,
        inner_loops_run=len(shard.loops) - resumed,
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

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start all that is missing and does not wait for edits."""
        contexts, size = self.plan.contexts, self.bench.settings.contexts_per_request
        size = min(size, MAX_EDITS // max(self.plan.k, 1))
        for first in range(0, len(contexts) if self.plan.k else 0, size):
            group.create_task(self._edit_and_learn(contexts[first : first + size], group))
        for index, context in contexts:
            if key_of(context.context_id) not in self.baselines:
                group.create_task(self._baseline(context))
            for bound in self.plan.bounds:
                self._start_loops(
                    group, index, context, bound, 0, self._bound_examples(context, bound)
                )
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
        for index, context in contexts:
            if self.plan.survivors:
                group.create_task(self._race(index, context))
                continue
            for candidate in range(self.plan.k):
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
            return range(self.plan.k)
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
    ) -> None:
        """All repeats of one candidate."""
        for repeat in range(self._repeats):
            self._start_loop(
                group, index, context, self._key(context, kind, candidate, repeat), examples
            )

    def _start_loop(
        self,
        group: asyncio.TaskGroup,
        index: int,
        context: Context,
        key: LoopKey,
        examples: tuple[Example, ...],
    ) -> None:
        """One inner loop, unless it is done."""
        if key.file not in self.loops:
            group.create_task(
                self._loop(key, context, examples, self._window(index, key.candidate, key.repeat))
            )

    async def _loop(
        self,
        key: LoopKey,
        context: Context,
        examples: tuple[Example, ...],
        retained: tuple[Query, ...],
    ) -> None:
        edits = self.edits.get(key_of(context.context_id)) if key.kind == "edit" else None
        fault = edits is not None and edits.outcome is not Outcome.OK
        self.loops[key.file] = await run_inner_loop(
            self.bench,
            key,
            context,
            examples,
            retained,
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

    def _bound_examples(self, context: Context, bound: Bound) -> tuple[Example, ...]:
        """What a bound is trained on: the passage alone, at least once, or the gold pairs."""
        spec = self.bench.requests.spec
        settings = spec.inner.examples
        if bound == "gold":
            return self.bench.domain.gold_examples(
                context, settings, spec.evaluation.question_format
            )
        passage = settings.model_copy(update={"passage_repeats": max(1, settings.passage_repeats)})
        return self.bench.domain.passage_examples(context.title, context.text, passage)

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
            yield from (self._key(context, bound, 0, repeat) for repeat in range(self._repeats))

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

    def measure(self) -> None:
        """Tell the meter what there is to do and what is done."""
        plan, meter = self.plan, self.bench.meter
        loops = (
            sum(rung_sizes(plan.k, repeats=self._repeats, survivors=plan.survivors))
            + len(plan.bounds) * self._repeats
        )
        window = len(plan.retained.window(model=0, size=plan.retained_per_model))
        of_policy = len(plan.retained.queries) if plan.retained_of_policy else 0
        queries = {context.context_id: len(context.queries) for _, context in plan.contexts}
        meter.plan(
            edits=plan.k * len(plan.contexts),
            trainings=loops * len(plan.contexts),
            queries=sum(n + loops * (n + window) for n in queries.values()) + of_policy,
            inner_loops=loops * len(plan.contexts),
        )
        answered = sum(len(record.answers) for record in self.baselines.values()) + (
            of_policy if self.retained else 0
        )
        meter.found(
            edits=sum(len(record.edits) for record in self.edits.values()),
            trainings=len(self.loops),
            queries=answered
            + sum(queries[loop.context_id] + window for loop in self.loops.values()),
            inner_loops=len(self.loops),
        )
