"""What a worker asks of the services, as pure functions of the spec.

The same work always gives the same request, byte for byte. Ids and seeds derive from (run, stage,
round, context, candidate, repeat, kind). Seeds of initial weights and row order derive from
(context, repeat) alone: all candidates, rounds and bounds of a context share them (common random
numbers).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from seal.domains.base import Context, Example, Query
from seal.records import AdapterReference, InnerLoopKind, PreparedRecord, Stage
from seal.restem.seeds import derive_seed
from seal.rpc.convert import (
    GRADER_TO_WIRE,
    adapter_message,
    lora_message,
    optimizer_message,
    policy_message,
)
from seal.runs.improve import OTHERS_ROWS
from seal.runs.shards import Alone
from seal.runs.store import key_of
from seal.runs.task import ShardTask
from seal.settings import DOMAIN_OPTIONS, GraderName, LearningSpec, OptimizerSettings
from seal.v1 import common_pb2, evaluator_pb2, generator_pb2, trainer_pb2

_ROWS_NOTES: Mapping[InnerLoopKind, str] = MappingProxyType(
    {
        "passage": "the text of a passage",
        "passage-equal-steps": "the text of a passage",
        "gold": "gold question-answer pairs of a passage (supervised)",
        "fixed-edit": "demonstrations of a task, augmented as the run's settings say",
        "oracle-edit": "demonstrations of a task, augmented as the run's settings say",
    }
)
"""What the card of an adapter says of rows that no model wrote."""
_CHOSEN_ROWS = "demonstrations of a task, augmented as a language model chose"
"""The same where an edit is no text to learn but how to train on what is there."""


@dataclass(frozen=True, kw_only=True)
class LoopKey:
    """One inner loop of a stage."""

    kind: InnerLoopKind
    context_id: str
    candidate: int
    repeat: int

    @property
    def file(self) -> str:
        """Its name among the shard's inner loops."""
        return f"{key_of(self.context_id)}.{self.kind}-{self.candidate}-{self.repeat}"


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Requests of one stage of one run or adaptation.

    The policy writes; what learns and is asked is the student: the policy, or the base model.
    """

    run: str
    """Its name in the store."""
    spec: LearningSpec
    stage: Stage
    round: int
    policy: AdapterReference | None
    base_sha256: str = ""
    """Digest of the base model that the run is pinned to; services refuse another."""
    writer_sha256: str = ""
    """The same of the model that writes, where it is another one."""
    judge: str = ""
    """Name of the model that the run is judged by, if it is; an evaluator refuses another."""

    @classmethod
    def of(cls, task: ShardTask, spec: LearningSpec, prepared: PreparedRecord) -> Requests:
        """Those of one task of what is pinned."""
        return cls(
            run=task.run,
            spec=spec,
            stage=task.stage,
            round=task.round,
            policy=task.policy,
            base_sha256=prepared.model.base_sha256,
            writer_sha256=prepared.policy_model.base_sha256,
            judge=prepared.judge,
        )

    @property
    def by_endpoint(self) -> bool:
        """Whether a model at an endpoint writes: as long as the run has no policy of its own."""
        return self.spec.edit.generator is not None and self.policy is None

    def _writer(self) -> common_pb2.PolicyRef:
        """What writes edits."""
        generator = self.spec.edit.generator
        if generator is not None and self.policy is None:
            return policy_message(generator.model, None)
        sha256 = self.writer_sha256 if self.spec.cross_model else self.base_sha256
        return policy_message(self.spec.writer, self.policy, base_sha256=sha256)

    @property
    def one_baseline(self) -> bool:
        """Whether a context's baseline is the same in every round of the run."""
        return self.spec.inner.student == "base"

    def student(self, kind: InnerLoopKind | Literal["baseline"]) -> AdapterReference | None:
        """The adapter of the model that is trained and asked; None for the base model alone.

        The baseline and the bounds of round 0 are those of the base model, whatever its policy is:
        they are what the edits of all rounds are compared with.
        """
        of_base = self.stage is Stage.VALIDATE and self.round == 0 and kind != "edit"
        return None if self.one_baseline or of_base else self.policy

    @property
    def asks_trained(self) -> bool:
        """Whether edits are asked for as of a policy that has learnt to write them."""
        return self.spec.edit.trained_prompt == "short" and self.policy is not None

    def sample_seed(self, context_id: str, candidate: int) -> int:
        """Seed of one edit."""
        return derive_seed(
            self.spec.seed, "sample", str(self.stage), self.round, context_id, candidate
        )

    def examples_seed(self, context_id: str) -> int:
        """Seed of what a context's edits draw to become examples; all rounds share it."""
        return derive_seed(self.spec.seed, "examples", context_id)

    def generate(
        self, contexts: Sequence[Context], *, k: int
    ) -> generator_pb2.GenerateEditsRequest:
        """K edits for each of some contexts."""
        edit = self.spec.edit
        together = hashlib.sha256(
            "\n".join(context.context_id for context in contexts).encode()
        ).hexdigest()[:16]
        return generator_pb2.GenerateEditsRequest(
            request_id=self._id("edits", together),
            run=self.run,
            policy=self._writer(),
            domain=self.spec.domain,
            prompt=generator_pb2.EditPrompt(
                family=edit.family, format=edit.format, trained=self.asks_trained
            ),
            sampling=generator_pb2.Sampling(
                temperature=edit.temperature, top_p=edit.top_p, max_tokens=edit.max_tokens
            ),
            contexts=[
                generator_pb2.EditContext(
                    context_id=context.context_id,
                    title=context.title,
                    text=context.text,
                    seeds=[
                        self.sample_seed(context.context_id, candidate) for candidate in range(k)
                    ],
                )
                for context in contexts
            ],
        )

    def rate(
        self, context: Context, edits: Sequence[tuple[int, str]]
    ) -> evaluator_pb2.RateEditsRequest:
        """How good edits of a context look: (candidate, text) of each."""
        return evaluator_pb2.RateEditsRequest(
            request_id=self._id("rating", key_of(context.context_id)),
            run=self.run,
            title=context.title,
            text=context.text,
            edits=[
                evaluator_pb2.EditToRate(edit_id=str(candidate), text=text)
                for candidate, text in edits
            ],
            judge=self.judge,
        )

    def train(
        self,
        key: LoopKey,
        examples: Sequence[Example],
        optimizer: OptimizerSettings | None = None,
    ) -> trainer_pb2.TrainAdapterRequest:
        """The training of one inner loop, on top of the student; by `inner.optimizer` if none."""
        return trainer_pb2.TrainAdapterRequest(
            request_id=self.loop_id(key),
            run=self.run,
            policy=self._policy(self.student(key.kind)),
            examples=[
                trainer_pb2.TrainingExample(prompt=example.prompt, completion=example.completion)
                for example in examples
            ],
            lora=lora_message(self.spec.inner.lora),
            optimizer=optimizer_message(optimizer or self.spec.inner.optimizer),
            init_seed=derive_seed(self.spec.seed, "init", key.context_id, key.repeat),
            order_seed=derive_seed(self.spec.seed, "order", key.context_id, key.repeat),
            export_mode=trainer_pb2.EXPORT_MODE_ADAPTER,
            rows_note=self._rows_note(key.kind),
        )

    def _rows_note(self, kind: InnerLoopKind) -> str:
        """What the adapter's card says of its rows; empty for text that its own model wrote."""
        if kind != "edit":
            return _ROWS_NOTES[kind]
        if not DOMAIN_OPTIONS[self.spec.domain].learns_text:
            return _CHOSEN_ROWS
        return OTHERS_ROWS if self.by_endpoint or self.spec.cross_model else ""

    def baseline(self, context: Context) -> evaluator_pb2.EvaluateRequest:
        """The student alone on a context's queries; of the base the same request in all rounds."""
        key = key_of(context.context_id)
        name = f"{self.run}/baseline/{key}" if self.one_baseline else self._id("baseline", key)
        return self._evaluate(name, None, context.queries, over=self.student("baseline"))

    def evaluate(
        self, key: LoopKey, adapter: AdapterReference, queries: Sequence[Query]
    ) -> evaluator_pb2.EvaluateRequest:
        """The adapted model on the context's queries, without the context."""
        return self._evaluate(self.loop_id(key), adapter, queries, over=self.student(key.kind))

    def open_book(self, key: LoopKey, context: Context) -> evaluator_pb2.EvaluateRequest:
        """The student, not adapted, on the context's queries with the context in view."""
        queries = [replace(query, context=context.text) for query in context.queries]
        return self._evaluate(self.loop_id(key), None, queries, over=self.student(key.kind))

    def retained(
        self, key: LoopKey, adapter: AdapterReference, queries: Sequence[Query]
    ) -> evaluator_pb2.EvaluateRequest:
        """The adapted model on open-book questions of other passages."""
        name = f"{self.loop_id(key)}/retained"
        return self._evaluate(name, adapter, queries, over=self.student(key.kind))

    def retained_alone(
        self, alone: Alone, part: int, queries: Sequence[Query]
    ) -> evaluator_pb2.EvaluateRequest:
        """The policy, or the base model, alone on one part of the retained set.

        A policy of another base model answers nothing: there the base model is asked.
        """
        over = self.policy if alone == "policy" and not self.spec.cross_model else None
        name = "retained" if alone == "policy" else "retained-base"
        return self._evaluate(self._id(name, part), None, queries, over=over)

    def ask(
        self, name: str, part: int, adapter: AdapterReference | None, queries: Sequence[Query]
    ) -> evaluator_pb2.EvaluateRequest:
        """The base model, or an adapter on it, on one part of some questions.

        What is made of the answers are their measures, which each has whatever grades it: nobody
        asks a judge, and none that is away leaves an answer out.
        """
        return self._evaluate(self._id(name, part), adapter, queries, over=None, grader="f1")

    def loop_id(self, key: LoopKey) -> str:
        """Request id of an inner loop's training and of its evaluation."""
        return self._id(key.kind, key_of(key.context_id), key.candidate, key.repeat)

    def _evaluate(
        self,
        name: str,
        adapter: AdapterReference | None,
        queries: Sequence[Query],
        *,
        over: AdapterReference | None,
        grader: GraderName | None = None,
    ) -> evaluator_pb2.EvaluateRequest:
        """`adapter` on top of the model that `over` makes of the base; graded as the run's."""
        settings = self.spec.evaluation
        grader = grader or settings.grader
        return evaluator_pb2.EvaluateRequest(
            request_id=name,
            run=self.run,
            policy=self._policy(over),
            adapter=None if adapter is None else adapter_message(adapter),
            domain=self.spec.domain,
            question_format=settings.question_format,
            queries=[
                evaluator_pb2.Query(
                    query_id=query.query_id,
                    question=query.question,
                    answers=query.answers,
                    context=query.context,
                )
                for query in queries
            ],
            grader=GRADER_TO_WIRE[grader],
            max_tokens=settings.max_tokens,
            votes=settings.votes,
            view_seed=derive_seed(self.spec.seed, "views") if settings.votes > 1 else 0,
            judge=self.judge if grader == "judge" else "",
        )

    def _policy(self, adapter: AdapterReference | None) -> common_pb2.PolicyRef:
        return policy_message(self.spec.model, adapter, base_sha256=self.base_sha256)

    def _id(self, *parts: str | int) -> str:
        return "/".join(str(part) for part in (self.run, f"r{self.round}", self.stage, *parts))


@dataclass(frozen=True)
class RetainedSet:
    """Open-book questions on passages that no adapter has seen."""

    queries: tuple[Query, ...] = ()

    @classmethod
    def of(cls, contexts: Sequence[Context]) -> RetainedSet:
        """All queries of the contexts, each with its passage."""
        return cls(
            tuple(
                Query(
                    query_id=f"{key_of(context.context_id)}/{index}",
                    question=query.question,
                    answers=query.answers,
                    context=context.text,
                )
                for context in contexts
                for index, query in enumerate(context.queries)
            )
        )

    def window(self, *, model: int, size: int) -> tuple[Query, ...]:
        """The questions for the `model`-th adapted model.

        Windows rotate over the set, so that few questions a model cover all of it.
        """
        if not self.queries:
            return ()
        start = model * size
        return tuple(
            self.queries[(start + offset) % len(self.queries)]
            for offset in range(min(size, len(self.queries)))
        )


NOTHING_RETAINED = RetainedSet()
