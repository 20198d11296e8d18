"""A run made up from a seed, as the workers would have left it.

What the report and the command line are tested on. The rewards follow a plausible model (the better
the policy, the more of its edits help), the texts come from the embedded corpus.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, TypeAdapter

from seal.artifacts import ArtifactStore
from seal.datasets import load_contexts
from seal.domains import get_domain
from seal.domains.base import Context
from seal.domains.graders import grade
from seal.outcomes import Outcome
from seal.part_prompts import PartPromptRecord
from seal.records import (
    WARM_START,
    AdapterReference,
    AnswerRecord,
    ContextRecord,
    EditRecord,
    EvaluationRecord,
    ExampleRecord,
    InnerLoopKind,
    InnerLoopRecord,
    ModelDescription,
    PartRecord,
    PreparedRecord,
    Record,
    SelectionRecord,
    ShardSummary,
    TrainingRecord,
)
from seal.report.numbers.model import Machine
from seal.resources import RestEMRun
from seal.restem.part_selection import select_parts
from seal.restem.parts import credits_of
from seal.restem.racing import advance
from seal.restem.rollout import control_seed_of, runner_of, select_records
from seal.runs.store import contexts_path, prepared_path
from seal.settings import (
    ALL_PROJECTIONS,
    ArtifactSettings,
    EditSettings,
    EvaluationSettings,
    ImproveSettings,
    InnerLoopSettings,
    RunSpec,
    ValidationSettings,
)

MACHINE = Machine(
    system="Linux x86_64",
    processor="Imaginary 3000",
    cores=2,
    memory_gib=15.6,
    device="cpu",
    versions={"seal": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
    dtype="bfloat16",
    gemm_teraflops=0.42,
)

MODEL = ModelDescription(
    base_model="smollm2-135m",
    base_sha256="b" * 64,
    max_positions=2048,
    max_row_tokens=2048,
    max_rank=128,
    target_modules=ALL_PROJECTIONS,
    dtype="bfloat16",
)


class Status(Record):
    """The part of status.json that a report reads, and another owner's field to leave alone."""

    phase: str
    conditions: tuple[dict[str, str], ...] = ()
    started_seconds: float = 1_700_000_000.0
    finished_seconds: float | None = 1_700_000_660.0
    counters: dict[str, int] = Field(default={"tasks_started": 7})


@dataclass(kw_only=True)
class Recipe:
    """What kind of run to make up."""

    seed: int = 7
    passages: int = 16
    train_passages: int = 12
    grader: str = "f1"
    rounds: int = 2
    """Rounds that the spec asks for."""
    stages_done: int = 99
    """Stages that are finished, counted in their order."""
    repeats: int = 1
    racing: tuple[int, ...] = ()
    """Survivors of a rollout's candidates after each repeat but the last."""
    k: int = 4
    credit: Literal["edit", "part"] = "edit"
    """Whether whole edits are learnt or, here each one part, parts with credit."""
    selection: Literal["reward", "random"] = "reward"
    keep: int = 1
    """Edits of a passage that are learnt."""
    warm: bool = False
    """A warm start on gold pairs."""
    shards: int = 1
    gold: bool = True
    bounds: bool = False
    """Also the passage with the edits' steps, and open book."""
    retained: bool = True
    invalid: float = 0.08
    """Share of edits that parse to nothing."""
    diverged: float = 0.02
    """Share of edits whose training ends with `failure`."""
    failure: Outcome = Outcome.DIVERGED
    long_rows: int = 0
    """Edits of each round that are chosen first, and too long for the M-step."""
    ungraded: float = 0.0
    """Share of answers without a grade."""
    gain: float = 0.12
    """How much better an edit's answers are than those of the passage alone, written by the policy
    of round 1."""
    learnt: float = 0.5
    """Share of `gain` that each round adds; negative where policies get worse."""
    edits: bool = True
    """False: the prompt family `none`, which trains on the passage alone."""
    perfect_before: bool = False
    """The policy answers everything right before any training: no edit can gain."""
    keep_inner_adapters: bool = False
    truncated: float = 0.1
    """Share of edits that are cut off."""
    by_sentence: bool = False
    """Edits in parts: a third used, a third filtered, a third abstaining."""
    hostile: bool = False
    """Texts that try to break out of the page."""


HOSTILE = (
    "</pre><script>alert(1)</script><img src=x onerror='alert(2)'> & "
    "\x00\x1b[31m \ud800 ｟日本語｠ ]]> -->"
)


RUN = "demo"
"""Name of the run."""


class Maker:
    """Makes one run."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.random = recipe, random.Random(recipe.seed)
        self.spec = RunSpec(
            seed=recipe.seed,
            rounds=recipe.rounds,
            shards=recipe.shards,
            edit=EditSettings(
                family="self-qa-by-sentence" if recipe.by_sentence else "self-qa",
                k=recipe.k,
                temperature=0.7,
            ),
            inner=InnerLoopSettings(repeats=recipe.repeats, racing=recipe.racing),
            improve=ImproveSettings(
                credit=recipe.credit,
                selection=recipe.selection,
                keep_per_context=recipe.keep,
                warm_start="gold" if recipe.warm else "none",
            ),
            artifacts=ArtifactSettings(keep_inner_adapters=recipe.keep_inner_adapters),
            evaluation=EvaluationSettings.model_validate(
                {"question_format": "few-shot", "grader": recipe.grader, "max_tokens": 16}
            ),
            validation=ValidationSettings(
                gold_bound=recipe.gold,
                equal_steps=recipe.bounds,
                open_book=recipe.bounds,
                retained_queries=4 if recipe.retained else 0,
            ),
        )
        self.validation = load_contexts("corpus://validation")[: recipe.passages]
        self.train = load_contexts("corpus://train")[: recipe.train_passages]
        self.retained = load_contexts("corpus://retained") if recipe.retained else ()

    def write(self, store: ArtifactStore) -> str:
        """Write the run; its name."""
        recipe, run = self.recipe, RUN
        stages: list[tuple[str, int]] = [("validate", 0)]
        stages += [
            (stage, number)
            for number in range(1, recipe.rounds + 1)
            for stage in ("rollout", "improve", "validate")
        ]
        store.write_json(f"{run}/run.json", RestEMRun.of(run, self.spec))
        store.write_json(f"{run}/machine.json", MACHINE)
        complete = recipe.stages_done >= len(stages)
        status = (
            Status(phase="Complete") if complete else Status(phase="Running", finished_seconds=None)
        )
        store.write_json(f"{run}/status.json", status)
        self._pin(store)
        kept: Sequence[ContextRecord] = ()
        if recipe.warm:
            self._write_warm_start(store)
        for stage, number in stages[: recipe.stages_done]:
            if stage == "improve":
                self._write_improve(store, number, self._selection(kept, number))
            else:
                kept = self._write_stage(store, stage, number)
        return run

    def _pin(self, store: ArtifactStore) -> None:
        data = {"train": self.train, "validation": self.validation, "retained": self.retained}
        digests = {}
        for name, contexts in data.items():
            lines = b"".join(_context_json(context) + b"\n" for context in contexts)
            digests[name] = hashlib.sha256(lines).hexdigest()
            store.write_bytes(contexts_path(RUN, name, digests[name]), lines)
        prepared = PreparedRecord(
            contexts_sha256=digests,
            contexts={name: len(contexts) for name, contexts in data.items()},
            model=MODEL,
            too_long=(),
        )
        store.write_json(prepared_path(RUN), prepared)

    def _write_stage(
        self, store: ArtifactStore, stage: str, number: int
    ) -> tuple[ContextRecord, ...]:
        policy = number if stage == "validate" else number - 1
        contexts = self.validation if stage == "validate" else self.train
        records = tuple(self.context(context, stage, policy) for context in contexts)
        for shard in range(self.recipe.shards):
            part = records[shard :: self.recipe.shards]
            path = f"{RUN}/stages/r{number}-{stage}/shard-{shard:04d}"
            lines = b"".join(record.model_dump_json().encode() + b"\n" for record in part)
            store.write_bytes(f"{path}/records.jsonl", lines)
            if stage == "validate" and shard == 0 and self.retained:
                store.write_json(
                    f"{path}/retained.json", self.evaluate(self.retained, 0.62, with_passage=True)
                )
            loops = [loop for record in part for loop in record.inner_loops]
            summary = ShardSummary.model_validate(
                {
                    "name": f"demo-r{number}-{stage}-{shard}-a1",
                    "stage": stage,
                    "round": number,
                    "shard": shard,
                    "attempt": 1,
                    "seconds": 1.7 * len(loops),
                    "inner_loops_run": len(loops) - len(loops) // 3,
                    "inner_loops_resumed": len(loops) // 3,
                    "outcomes": dict(Counter(str(loop.outcome) for loop in loops)),
                    "tokens": {
                        "generate": 100 * len(part),
                        "train": 900 * len(loops),
                        "evaluate": 60 * len(loops),
                    },
                    "engine_seconds": {
                        "generate": 0.9 * len(part),
                        "train": 1.1 * len(loops),
                        "evaluate": 0.3 * len(loops),
                    },
                    "stored_bytes": {"records": len(lines), "adapters": 5_000_000},
                    "result_sha256": hashlib.sha256(lines).hexdigest(),
                }
            )
            store.write_json(f"{path}/summary.json", summary)
        return records

    def _selection(self, records: Sequence[ContextRecord], number: int) -> SelectionRecord:
        if self.spec.improve.credit == "edit":
            return self._without_long_rows(records, number)
        return select_parts(
            records,
            round=number,
            spec=self.spec,
            credits=credits_of(records, get_domain(self.spec.domain)),
        )

    def _without_long_rows(self, records: Sequence[ContextRecord], number: int) -> SelectionRecord:
        """The M-step's own way: it chooses again while what it has chosen is too long."""
        too_long: set[tuple[str, int]] = set()
        while True:
            selection = select_records(
                records,
                round=number,
                keep_per_context=self.recipe.keep,
                too_long=too_long,
                control_seed=control_seed_of(self.spec, number),
            )
            if len(too_long) >= self.recipe.long_rows or not selection.kept:
                return selection
            too_long.add((selection.kept[0].context_id, selection.kept[0].candidate))

    def _write_warm_start(self, store: ArtifactStore) -> None:
        summary = ShardSummary(
            name="demo-r0-improve-a1",
            stage="improve",
            round=0,
            shard=0,
            attempt=1,
            seconds=9.0,
            inner_loops_run=0,
            inner_loops_resumed=0,
            outcomes={"ok": 1},
            tokens={"improve": 2000},
            engine_seconds={"improve": 8.0},
            policy=AdapterReference(path="adapter", sha256="c" * 64),
            kept_parts=40,
            label=WARM_START,
        )
        store.write_json(f"{RUN}/stages/r0-improve/shard-0000/summary.json", summary)

    def _write_improve(self, store: ArtifactStore, number: int, selection: SelectionRecord) -> None:
        path = f"{RUN}/stages/r{number}-improve"
        store.write_json(f"{path}/selection.json", selection)
        policy = AdapterReference(path="adapter", sha256="a" * 64) if selection.kept else None
        summary = ShardSummary(
            name=f"demo-r{number}-improve-a1",
            stage="improve",
            round=number,
            shard=0,
            attempt=1,
            seconds=21.0,
            inner_loops_run=0,
            inner_loops_resumed=0,
            outcomes={"ok": 1} if policy else {},
            tokens={"improve": 5000} if policy else {},
            engine_seconds={"improve": 20.0} if policy else {},
            stored_bytes={"policy": 3_000_000} if policy else {},
            policy=policy,
            kept=len(selection.kept),
            kept_parts=sum(len(edit.rows) for edit in selection.kept),
            label=selection.label,
            result_sha256=selection.sha256,
        )
        store.write_json(f"{path}/shard-0000/summary.json", summary)

    def context(self, context: Context, stage: str, policy: int) -> ContextRecord:
        """One passage of a stage."""
        k = (
            (self.recipe.k if stage == "rollout" else self.spec.validation.edits_per_context)
            if self.recipe.edits
            else 0
        )
        edits = tuple(self.edit(context, candidate, policy) for candidate in range(k))
        ease = self.random.uniform(-0.1, 0.1)
        plan: list[tuple[InnerLoopKind, int, float]] = [
            (
                "edit",
                edit.candidate,
                0.12 + ease + self.gain(policy) * self.random.uniform(-0.5, 2),
            )
            for edit in edits
        ]
        if stage == "validate" and policy == 0:
            plan += [("passage", 0, 0.12 + ease)] + (
                [("gold", 0, 0.93)] if self.recipe.gold else []
            )
            if self.recipe.bounds:
                plan += [("passage-equal-steps", 0, 0.16 + ease), ("open-book", 0, 0.7)]
        loops = [
            self.loop(
                context, edits, kind, candidate, repeat, right, ask_retained=stage == "validate"
            )
            for kind, candidate, right in plan
            for repeat in range(self.recipe.repeats)
        ]
        running = set(range(k))
        for repeat, survivors in enumerate(
            self.recipe.racing if stage == "rollout" else (), start=1
        ):
            so_far = [loop for loop in loops if loop.repeat < repeat]
            running = set(
                advance([runner_of(edits[candidate], so_far) for candidate in running], survivors)
            )
            loops = [loop for loop in loops if loop.repeat < repeat or loop.candidate in running]
        return ContextRecord(
            context_id=context.context_id,
            title=context.title,
            parts=self.part_prompts(context),
            baseline=self.evaluate(
                [context], 1.0 if self.recipe.perfect_before else 0.03 + 0.02 * policy
            ),
            edits=edits,
            inner_loops=tuple(loops),
            engine_seconds_generate=0.9,
        )

    def gain(self, policy: int) -> float:
        """What the edits of a policy add to the share of right answers, on average."""
        return self.recipe.gain * (1 + self.recipe.learnt * (policy - 1))

    def part_prompts(self, context: Context) -> tuple[PartPromptRecord, ...]:
        """How the edits of a passage were asked for."""
        if not self.recipe.by_sentence:
            return (PartPromptRecord(prompt=f"Passage: {context.text}\n"),)
        asked = get_domain("knowledge").edit_prompts(
            context.title, context.text, self.spec.edit.family, "base"
        )
        return tuple(PartPromptRecord(prompt=each.prompt.text, start=each.start) for each in asked)

    def edit_in_parts(self, context: Context, candidate: int) -> EditRecord:
        """One self-edit by sentence."""
        parts, examples = [], []
        for place, asked in enumerate(self.part_prompts(context)):
            fate = place % 3
            text = (f" is part {place} & more? lamp {place}", f" of <b>{place}</b>", " -")[fate]
            parts.append(
                PartRecord(text=text, tokens=8, truncated=fate == 1, logprob=-0.1 * fate - 0.25)
            )
            if fate == 0:
                question = f"{asked.start} is part {place} & more?"
                examples.append(
                    ExampleRecord(
                        prompt=f"Question: {question}\nAnswer:",
                        completion=f" lamp {place}",
                        part=place,
                        question=question,
                        answer=f"lamp {place}",
                    )
                )
        return EditRecord(
            context_id=context.context_id,
            candidate=candidate,
            seed=self.random.randrange(2**60),
            parts=tuple(parts),
            examples=tuple(examples),
        )

    def edit(self, context: Context, candidate: int, policy: int) -> EditRecord:
        """One self-edit: question-answer pairs from the passage."""
        if self.recipe.by_sentence:
            return self.edit_in_parts(context, candidate)
        seed = self.random.randrange(2**60)
        if self.random.random() < self.recipe.invalid:
            text, examples = (
                self.random.choice(["", "the the the the the", "Question: Question: Question:"]),
                (),
            )
        else:
            pairs = self.random.sample(context.queries, k=min(3 + policy, len(context.queries)))
            texts = [
                (
                    query.question,
                    query.answers[0] if self.random.random() < 0.6 else "a kind of lamp",
                )
                for query in pairs
            ]
            text = "\n".join(
                f"Question: {question}\nAnswer: {answer}" for question, answer in texts
            )
            examples = tuple(
                ExampleRecord(
                    prompt=f"Question: {question}\nAnswer:",
                    completion=f" {answer}",
                    question=question,
                    answer=answer,
                )
                for question, answer in texts
            )
        if self.recipe.hostile:
            text, examples = (
                HOSTILE,
                tuple(ExampleRecord(prompt=HOSTILE, completion=HOSTILE) for _ in examples),
            )
        return EditRecord(
            context_id=context.context_id,
            candidate=candidate,
            seed=seed,
            parts=(
                PartRecord(
                    text=_storable(text),
                    tokens=len(text) // 4,
                    truncated=self.random.random() < self.recipe.truncated,
                ),
            ),
            examples=tuple(
                ExampleRecord(
                    prompt=_storable(each.prompt),
                    completion=_storable(each.completion),
                    question=_storable(each.prompt).removeprefix("Question: ").split("\n")[0],
                    answer=_storable(each.completion).strip(),
                )
                for each in examples
            ),
        )

    def loop(
        self,
        context: Context,
        edits: Sequence[EditRecord],
        kind: InnerLoopKind,
        candidate: int,
        repeat: int,
        right: float,
        *,
        ask_retained: bool,
    ) -> InnerLoopRecord:
        """One inner loop."""
        values = {
            "kind": kind,
            "context_id": context.context_id,
            "candidate": candidate,
            "repeat": repeat,
        }
        nothing = {"training": None, "evaluation": None, "retained": None}
        if kind == "edit" and not edits[candidate].examples:
            return InnerLoopRecord.model_validate({**values, **nothing, "outcome": Outcome.INVALID})
        adapter = AdapterReference(path="adapter", sha256="b" * 64)
        training = TrainingRecord(
            outcome=Outcome.OK,
            adapter=adapter,
            steps=60,
            final_loss=0.4,
            tokens=900,
            seconds=1.4,
            engine_seconds=1.1,
        )
        if kind == "edit" and self.random.random() < self.recipe.diverged:
            outcome = self.recipe.failure
            failed = training.model_copy(update={"outcome": outcome, "adapter": None})
            return InnerLoopRecord.model_validate(
                {**values, **nothing, "training": failed, "outcome": outcome}
            )
        evaluation = self.evaluate([context], right)
        window = self.random.sample(self.retained, k=2) if ask_retained and self.retained else []
        retained = self.evaluate(window, 0.55, with_passage=True) if window else None
        rest = {"training": training, "evaluation": evaluation, "retained": retained}
        return InnerLoopRecord.model_validate({**values, **rest, "outcome": evaluation.outcome})

    def evaluate(
        self, contexts: Sequence[Context], right: float, *, with_passage: bool = False
    ) -> EvaluationRecord:
        """Answers of which about `right` are right."""
        answers = tuple(
            self.answer(
                query_id=f"{context.context_id}/{index}",
                question=query.question,
                golds=query.answers,
                right=right,
            )
            for context in contexts
            for index, query in enumerate(context.queries)
        )
        scores = [answer.score for answer in answers if answer.score is not None]
        return EvaluationRecord(
            outcome=Outcome.OK if scores else Outcome.UNGRADED,
            reward=sum(scores) / len(scores) if scores else None,
            answers=answers,
            ungraded=len(answers) - len(scores),
            max_logit_difference=0.0 if with_passage else 2.5,
            tokens=60,
            engine_seconds=0.3,
        )

    def answer(
        self, *, query_id: str, question: str, golds: tuple[str, ...], right: float
    ) -> AnswerRecord:
        """One answer."""
        gold = golds[0]
        said = (
            gold
            if self.random.random() < right
            else self.random.choice(["", "in the year 1850", "a lighthouse keeper", f"{gold} lamp"])
        )
        if self.recipe.hostile:
            said = _storable(HOSTILE)
        logprob = -self.random.uniform(0.2, 5)
        grades: dict[str, float] = {
            name: grade(name, said, golds, logprob) or 0.0
            for name in ("exact", "contains", "f1", "logprob")
        }  # type: ignore[arg-type]
        ungraded = self.random.random() < self.recipe.ungraded
        return AnswerRecord(
            query_id=query_id,
            question=question,
            golds=golds,
            answer=said,
            outcome=Outcome.UNGRADED if ungraded else Outcome.OK,
            score=None if ungraded else grades[self.recipe.grader],
            measures={name: grades[name] for name in ("contains", "exact", "f1")},
            logprob=grades["logprob"],
        )


def _context_json(context: Context) -> bytes:
    return TypeAdapter(Context).dump_json(context)


def _storable(text: str) -> str:
    """Without lone surrogates, which no JSON file holds."""
    return text.encode("utf-8", "replace").decode()


def make_run(
    store: ArtifactStore, change: Callable[[Maker], None] | None = None, **recipe: object
) -> str:
    """Make up a run in a store; its name."""
    maker = Maker(Recipe(**recipe))  # type: ignore[arg-type]
    if change:
        change(maker)
    return maker.write(store)
