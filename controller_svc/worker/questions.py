"""Questions that the base model makes itself, where nobody gave any.

It writes question-answer pairs on each sentence. Kept are those that it answers the same way again
with the sentence before it and not without it: of what it knows already nothing could be learnt.
One record per passage, written once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from controller_svc.worker.asking import ask_in_parts
from controller_svc.worker.bench import Bench
from controller_svc.worker.edits import groups, write_edits
from controller_svc.worker.requests import Requests
from seal.adaptations.self_made import (
    MadeQuestion,
    MadeQuestions,
    keep_questions,
    with_a_test,
)
from seal.artifacts import ArtifactStore
from seal.documents.places import question_key
from seal.domains.base import Context, Query
from seal.domains.by_sentence import STARTS, part_texts
from seal.errors import Internal
from seal.outcomes import Outcome
from seal.records import (
    AdaptationCounts,
    ContextEditsRecord,
    EvaluationRecord,
    ExampleRecord,
    KeptQuestion,
    QuestionRole,
    QuestionsRecord,
    ShardSummary,
    Stage,
)
from seal.restem.seeds import derive_seed
from seal.runs.shards import ShardStore
from seal.runs.store import key_of
from seal.runs.task import ShardTask
from seal.settings import BY_SENTENCE, AdaptationSpec, ExampleSettings
from seal.sums import add

FOLDER = "questions"
SAMPLES = 2
"""How often the model is let write on a passage: few of a small model's questions are good."""
MAX_PAIR_TOKENS = 64
"""New tokens of one question with its answer."""


def question_requests(run: str, spec: AdaptationSpec, *, base_sha256: str) -> Requests:
    """Requests of the stage: the base model writes a pair for each sentence and question word."""
    edit = spec.edit.model_copy(
        update={
            "model": "",
            "generator": None,
            "family": BY_SENTENCE,
            "trained_prompt": "worked",
            "max_tokens": min(spec.edit.max_tokens, MAX_PAIR_TOKENS),
        }
    )
    examples = ExampleSettings(
        passage_repeats=0, grounded_answers=True, shared_word=True, max_per_answer=1
    )
    inner = spec.inner.model_copy(update={"examples": examples})
    evaluation = spec.evaluation
    if evaluation.question_format == "few-shot":
        # A small model that is to read has to be shown that it is, or it answers from memory
        evaluation = evaluation.model_copy(update={"question_format": "reading"})
    own = spec.model_copy(update={"edit": edit, "inner": inner, "evaluation": evaluation})
    return Requests(
        run=run, spec=own, stage=Stage.QUESTION, round=0, policy=None, base_sha256=base_sha256
    )


async def make_questions(
    task: ShardTask, bench: Bench, spec: AdaptationSpec, contexts: Sequence[tuple[int, Context]]
) -> ShardSummary:
    """The questions of a shard's passages; what is committed is not made again.

    Raises:
        SealError: in an ExceptionGroup; what is committed stays, the rest is cancelled.

    """
    work = _Making(
        bench=bench,
        spec=spec,
        edits=await bench.files.edits(),
        done=await bench.files.committed(FOLDER, QuestionsRecord),
    )
    bench.meter.plan(edits=SAMPLES * len(contexts), trainings=0, queries=0, inner_loops=0)
    bench.meter.found(edits=SAMPLES * len(work.edits))
    async with asyncio.TaskGroup() as group:
        for together in groups(bench, contexts, k=SAMPLES):
            group.create_task(work.make([context for _, context in together]))
    bench.meter.tell(now=True)
    records = sorted(
        (work.done[key_of(context.context_id)] for _, context in contexts),
        key=lambda record: record.context_id,
    )
    parted = with_a_test(records)
    return task.summary(
        seconds=bench.clock.seconds,
        result_sha256=records_digest(records),
        tokens=add(*(record.tokens for record in records)),
        engine_seconds=add(*(record.engine_seconds for record in records)),
        counts=AdaptationCounts(
            reward_questions=_number(parted, "reward"),
            held_out_questions=_number(parted, "held-out"),
            questions_written=sum(record.written for record in records),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Making:
    """A shard's questions in the making."""

    bench: Bench
    spec: AdaptationSpec
    edits: dict[str, ContextEditsRecord]
    """What the model wrote, by the passage's key."""
    done: dict[str, QuestionsRecord]

    async def make(self, contexts: Sequence[Context]) -> None:
        """The questions of passages that are written on together."""
        missing = [one for one in contexts if key_of(one.context_id) not in self.done]
        if not missing:
            return
        if any(key_of(one.context_id) not in self.edits for one in missing):
            # The same request as ever: that of the whole group
            written = await write_edits(self.bench, contexts, k=SAMPLES)
            self.edits.update({key_of(record.context_id): record for record in written})
        async with asyncio.TaskGroup() as group:
            for context in missing:
                group.create_task(self._check(context))

    async def _check(self, context: Context) -> None:
        """Ask the model its own questions, and commit those that are kept."""
        key = key_of(context.context_id)
        written = self.edits[key]
        pairs = written_pairs(written)
        queries = [
            Query(f"{context.context_id}/{number}", one.question, (one.answer,))
            for number, one in enumerate(pairs)
        ]
        self.bench.meter.more(queries=2 * len(queries))
        again, closed = await self._answers(context, pairs, queries)
        made = keep_questions(
            [
                MadeQuestion(
                    one.question, one.answer, _answer(again, place), _answer(closed, place)
                )
                for place, one in enumerate(pairs)
            ],
            most=self.spec.questions.per_passage,
            held_out_share=self.spec.questions.held_out_share,
            seed=derive_seed(self.spec.seed, "self-made", context.context_id),
        )
        record = _record(context, written, made, pairs=len(pairs), asked=(again, closed))
        self.done[key] = await self.bench.files.commit(FOLDER, key, record)
        await self.bench.clock.tick()

    async def _answers(
        self, context: Context, pairs: Sequence[ExampleRecord], queries: Sequence[Query]
    ) -> tuple[EvaluationRecord | None, EvaluationRecord | None]:
        """The base model's answers with its text before it and without; none to no question.

        That text is the sentence: a small model does not find it in a whole passage.
        """
        if not queries:
            return None, None
        key = key_of(context.context_id)
        texts = part_texts(context.text)
        shown = [
            replace(query, context=texts[one.part // len(STARTS)])
            for query, one in zip(queries, pairs, strict=True)
        ]
        async with asyncio.TaskGroup() as group:
            again = group.create_task(ask_in_parts(self.bench, f"{key}/open", None, shown))
            closed = group.create_task(ask_in_parts(self.bench, f"{key}/closed", None, queries))
        return again.result(), closed.result()


def written_pairs(written: ContextEditsRecord) -> tuple[ExampleRecord, ...]:
    """The pairs of all samples, in the order of the passage, each question once."""
    pairs = sorted(
        (example for edit in written.edits for example in edit.examples),
        key=lambda example: example.part,
    )
    first: dict[str, ExampleRecord] = {}
    for example in pairs:
        first.setdefault(question_key(example.question), example)
    return tuple(first.values())


def _record(
    context: Context,
    written: ContextEditsRecord,
    made: MadeQuestions,
    *,
    pairs: int,
    asked: Iterable[EvaluationRecord | None],
) -> QuestionsRecord:
    """What there is to keep of a passage's questions, with what they have cost."""
    evaluations = [record for record in asked if record is not None]
    return QuestionsRecord(
        context_id=context.context_id,
        kept=tuple(
            KeptQuestion(
                query_id=f"{context.context_id}/{number}",
                question=one.question,
                answers=(one.answer,),
                role=role,
            )
            for number, (one, role) in enumerate(made.kept)
        ),
        written=pairs,
        dropped=made.dropped,
        outcome=written.outcome,
        tokens={
            "generate": sum(edit.tokens for edit in written.edits),
            "evaluate": sum(record.tokens for record in evaluations),
        },
        engine_seconds={
            "generate": written.engine_seconds,
            "evaluate": sum(record.engine_seconds for record in evaluations),
        },
    )


def _answer(record: EvaluationRecord | None, place: int) -> str | None:
    """An answer that could be graded."""
    if record is None or place >= len(record.answers):
        return None
    answer = record.answers[place]
    return answer.answer if answer.outcome is Outcome.OK else None


def _number(records: Iterable[QuestionsRecord], role: QuestionRole) -> int:
    return sum(one.role == role for record in records for one in record.kept)


def records_digest(records: Iterable[QuestionsRecord]) -> str:
    """Digest of a shard's questions, ordered by passage."""
    lines = (record.model_dump_json().encode() + b"\n" for record in records)
    return hashlib.sha256(b"".join(lines)).hexdigest()


async def read_questions_made(
    store: ArtifactStore, run: str, *, shards: int
) -> dict[str, QuestionsRecord]:
    """The questions of all shards, by passage, parted as its summary counts them.

    Raises:
        Internal: a shard's records are not those of its summary.

    """
    found: dict[str, QuestionsRecord] = {}
    for shard in range(shards):
        files = ShardStore(store, run=run, round=0, stage=Stage.QUESTION, shard=shard)
        summary = await files.summary()
        by_key = await files.committed(FOLDER, QuestionsRecord)
        records = sorted(by_key.values(), key=lambda record: record.context_id)
        if summary is None or records_digest(records) != summary.result_sha256:
            raise Internal(
                f"{files.path}/{FOLDER} is not what its summary says",
                remedy="begin another adaptation",
            )
        found |= {record.context_id: record for record in with_a_test(records)}
    return found
