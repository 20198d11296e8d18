"""What a shard has so far, and what follows from it alone: a restarted shard decides the same.

Which edits of a race run their next repeat, what an edit is trained on, how much there is to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from controller_svc.worker.bench import Bench
from controller_svc.worker.bounds import EQUAL_STEPS, OPEN_BOOK, repeats_of
from controller_svc.worker.rating import best_rated
from controller_svc.worker.requests import LoopKey
from controller_svc.worker.shard_plan import ShardPlan
from seal.domains.base import Context, Example, Query
from seal.outcomes import Outcome
from seal.records import (
    ContextEditsRecord,
    ContextRecord,
    EvaluationRecord,
    InnerLoopKind,
    InnerLoopRecord,
    RatingsRecord,
)
from seal.restem.preselect import preselect
from seal.restem.racing import advance, rung_sizes
from seal.restem.rollout import runner_of
from seal.runs.shards import Alone
from seal.runs.store import key_of
from seal.settings import OptimizerSettings

UNASKED = EvaluationRecord(
    outcome=Outcome.UNGRADED,
    reward=None,
    answers=(),
    ungraded=0,
    max_logit_difference=0.0,
    tokens=0,
    engine_seconds=0.0,
)
"""The baseline of a context without queries."""


@dataclass(kw_only=True)
class Committed:
    """The results of a shard so far, by key; it grows while the shard is at work."""

    bench: Bench
    plan: ShardPlan
    baselines: dict[str, EvaluationRecord]
    edits: dict[str, ContextEditsRecord]
    loops: dict[str, InnerLoopRecord]
    retained: dict[Alone, EvaluationRecord]
    """Models alone on the whole retained set."""
    ratings: dict[str, RatingsRecord] = field(default_factory=dict)
    """By context, where the rubric says which edits get inner loops."""
    preselected: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Edits that get inner loops, where not all do."""

    @property
    def repeats(self) -> int:
        """Inner loops of one candidate, and of a bound that is trained."""
        return self.bench.requests.spec.inner.repeats

    @staticmethod
    def key(context: Context, kind: InnerLoopKind, candidate: int, repeat: int) -> LoopKey:
        """The key of one inner loop."""
        return LoopKey(kind=kind, context_id=context.context_id, candidate=candidate, repeat=repeat)

    def rung(self, context: Context, repeat: int) -> Sequence[int]:
        """Edits that run a repeat.

        In a race all inner loops of the repeat before have to be there, and the baseline: a race is
        run by what its end is judged by.
        """
        if repeat == 0 or not self.plan.survivors or not context.queries:
            return self.trained_on(context)
        name = key_of(context.context_id)
        edits, baseline = self.edits[name].edits, self.baselines[name]
        runners = [
            runner_of(
                edits[candidate],
                [
                    self.loops[self.key(context, "edit", candidate, earlier).file]
                    for earlier in range(repeat)
                ],
                baseline=baseline,
                first_rung=self.bench.requests.spec.inner.racing_score,
            )
            for candidate in self.rung(context, repeat - 1)
        ]
        return advance(runners, self.plan.survivors[repeat - 1])

    @property
    def by_rubric(self) -> bool:
        """Whether the rubric says which edits get inner loops."""
        by = self.bench.requests.spec.inner.preselect_by
        return self.plan.preselect > 0 and by == "rubric"

    def trained_on(self, context: Context) -> Sequence[int]:
        """Edits that get inner loops; it follows from the committed edits alone."""
        if not context.queries:
            return ()
        if not self.plan.preselect:
            return range(self.plan.k)
        key = key_of(context.context_id)
        if key not in self.preselected and self.by_rubric:
            self.preselected[key] = best_rated(
                self.edits[key], self.ratings[key].ratings, count=self.plan.preselect
            )
        elif key not in self.preselected:
            self.preselected[key] = preselect(
                self.edits[key].edits,
                context=context,
                domain=self.bench.domain,
                count=self.plan.preselect,
            )
        return self.preselected[key]

    def has_steps(self, context: Context) -> bool:
        """Whether the first edit is trained on, as far as it is written."""
        written = self.edits.get(key_of(context.context_id))
        return written is None or bool(self.edit_examples(context, 0))

    def window(self, index: int, candidate: int, repeat: int) -> tuple[Query, ...]:
        """Retained questions of one adapted model, the same in every round.

        Bounds are asked those of the first candidate.
        """
        model = (index * self.plan.k + candidate) * self.repeats + repeat
        return self.plan.retained.window(model=model, size=self.plan.retained_per_model)

    def edit_examples(self, context: Context, candidate: int) -> tuple[Example, ...]:
        """What an edit is trained on: its own examples and the passage.

        An edit without any is invalid, unless it is measured as the passage alone.
        """
        written = self.edits[key_of(context.context_id)]
        own = tuple(
            Example(prompt=example.prompt, completion=example.completion)
            for example in written.edits[candidate].examples
        )
        settings = self.bench.requests.spec.inner.examples
        passage = self.bench.domain.passage_examples(context.title, context.text, settings)
        alone = self.plan.passage_if_empty and written.outcome is Outcome.OK
        return (*own, *passage) if own or alone else ()

    def edit_optimizer(self, context: Context, candidate: int) -> OptimizerSettings | None:
        """How an edit wants to be trained on; None for as the run's inner loops are.

        One that counts as the passage alone is trained as that is.
        """
        edit = self.edits[key_of(context.context_id)].edits[candidate]
        if self.plan.passage_if_empty and not edit.examples:
            return self.plan.passage_optimizer
        choice = edit.optimizer
        if choice is None:
            return None
        return self.bench.requests.spec.inner.optimizer.model_copy(
            update={"learning_rate": choice.learning_rate, "epochs": choice.epochs}
        )

    def takes_baseline(self, context: Context, candidate: int) -> bool:
        """Whether an edit is measured as what the student answers without any training."""
        written = self.edits[key_of(context.context_id)]
        own = written.edits[candidate].examples
        return self.plan.baseline_if_empty and not own and written.outcome is Outcome.OK

    def loop_keys(self, context: Context) -> Iterator[LoopKey]:
        """All inner loops of a finished context, in the order of its record."""
        rungs = [self.rung(context, repeat) for repeat in range(self.repeats)]
        for candidate in range(self.plan.edits_of(context)):
            yield from (
                self.key(context, "edit", candidate, repeat)
                for repeat, rung in enumerate(rungs)
                if candidate in rung
            )
        for bound in self.plan.bounds:
            if bound == EQUAL_STEPS and not self.has_steps(context):
                continue
            repeats = repeats_of(self.bench.requests.spec, bound)
            yield from (self.key(context, bound, 0, repeat) for repeat in range(repeats))

    def record(self, context: Context) -> ContextRecord:
        """All that the finished shard knows of one context."""
        written = self.edits.get(key_of(context.context_id))
        return ContextRecord(
            context_id=context.context_id,
            title=context.title,
            parts=written.parts if written else (),
            baseline=self.baselines[key_of(context.context_id)] if context.queries else UNASKED,
            edits=written.edits if written else (),
            inner_loops=tuple(self.loops[key.file] for key in self.loop_keys(context)),
            engine_seconds_generate=written.engine_seconds if written else 0.0,
        )

    @property
    def loops_done(self) -> int:
        """Inner loops that are committed."""
        return sum(loop.kind != OPEN_BOOK for loop in self.loops.values())

    @property
    def window_size(self) -> int:
        """Retained questions that each adapted model is asked."""
        return len(self.plan.retained.window(model=0, size=self.plan.retained_per_model))

    def measure(self) -> None:
        """Tell the meter what there is to do and what is done."""
        plan, meter, window = self.plan, self.bench.meter, self.window_size
        of_edits = sum(
            rung_sizes(plan.preselect or plan.k, repeats=self.repeats, survivors=plan.survivors)
        )
        trained = sum(bound != OPEN_BOOK for bound in plan.bounds)
        open_book = len(plan.bounds) - trained
        loops, asked = 0, len(plan.retained_alone) * len(plan.retained.queries)
        answered = len(self.retained) * len(plan.retained.queries)
        queries = {context.context_id: len(context.queries) for _, context in plan.contexts}
        for _, context in plan.contexts:
            without = EQUAL_STEPS in plan.bounds and not self.has_steps(context)
            own = of_edits + (trained - without) * self.repeats if context.queries else 0
            loops += own
            asked += queries[context.context_id] * (1 + open_book) + own * (
                queries[context.context_id] + window
            )
        edits = sum(plan.edits_of(context) for _, context in plan.contexts)
        meter.plan(edits=edits, trainings=loops, queries=asked, inner_loops=loops)
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
