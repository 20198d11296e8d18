"""How much work a run is, stage by stage: for `seal run --plan` and for the time that is left.

Counts of contexts, edits, trainings and answers are exact, but for what an edit that holds nothing
saves. Tokens and steps are not known before
the edits are written; what is assumed of them is in edit_work, and the time that follows is
right to within a factor of two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from controller_svc.cli.edit_work import (
    CHARACTERS_PER_TOKEN,
    CREDITED_SHARE,
    PROMPT_TOKENS,
    TOKENS_PER_EXAMPLE,
    answer_tokens,
    edit_work,
    learns_text,
    passage_tokens,
    question_tokens,
    tokens_in,
)
from controller_svc.core import is_warm_start, stages
from controller_svc.worker.bounds import (
    EQUAL_STEPS,
    GIVEN_EDITS,
    OPEN_BOOK,
    Bound,
    bound_training,
    bounds_of,
    given_edit,
    repeats_of,
    steps_of,
)
from controller_svc.worker.prepare import load_data
from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.domains.base import Context
from seal.records import Stage
from seal.resources import RestEMRun
from seal.restem.racing import rung_sizes
from seal.runs.store import in_thread, read_contexts, read_prepared
from seal.runs.warm_start import gold_rows
from seal.settings import OptimizerSettings, RunSpec

TRAIN_FLOP_PER_WEIGHT, READ_FLOP_PER_WEIGHT = 4.0, 2.0
"""Per token: forward and backward to the activations, as the base is frozen; and forward alone."""
TRAIN_SHARE_OF_PEAK, READ_SHARE_OF_PEAK, WRITE_SHARE_OF_PEAK = 0.6, 0.6, 0.2
"""Of the measured GEMM peak: training, reading prompts, and writing token by token."""
SLOWER_ALONE = 2.3
"""How much longer a token takes in an M-step, which trains one adapter alone (docs/benchmarks.md,
P2)."""


@dataclass(frozen=True, kw_only=True)
class StageWork:
    """The work of one stage."""

    round: int
    stage: Stage
    contexts: int = 0
    edits: int = 0
    trainings: int = 0
    """Inner loops; of an M-step the one training of the policy."""
    steps: int = 0
    """Optimiser steps, about."""
    answers: int = 0
    train_tokens: int = 0
    """Tokens trained on, about; every epoch counts."""
    edit_tokens: int = 0
    """Tokens of edits, about."""
    edit_prompt_tokens: int = 0
    answer_tokens: int = 0
    """Tokens of answers, about."""
    question_tokens: int = 0
    """Tokens of questions' prompts, about."""

    @property
    def costs(self) -> Mapping[str, float]:
        """What each kind of work costs, in tokens' reading: only ratios mean something."""
        write = READ_SHARE_OF_PEAK / WRITE_SHARE_OF_PEAK
        train = (
            TRAIN_FLOP_PER_WEIGHT
            / READ_FLOP_PER_WEIGHT
            * (READ_SHARE_OF_PEAK / TRAIN_SHARE_OF_PEAK)
            * (SLOWER_ALONE if self.stage is Stage.IMPROVE else 1.0)
        )
        return {
            "edits": self.edit_prompt_tokens + write * self.edit_tokens,
            "trainings": train * self.train_tokens,
            "answers": self.question_tokens + write * self.answer_tokens,
        }

    @property
    def cost(self) -> float:
        """All of them; at least a little, so that no stage takes no time."""
        return max(sum(self.costs.values()), 1.0)

    def seconds(self, *, weights: int, teraflops: float) -> float:
        """Estimated seconds on a model of so many weights and a machine of that GEMM peak."""
        return self.cost * READ_FLOP_PER_WEIGHT * weights / (READ_SHARE_OF_PEAK * teraflops * 1e12)


async def read_data(store: ArtifactStore, manifest: RestEMRun) -> Mapping[str, Sequence[Context]]:
    """The passages that a run is pinned to, or those that it would be pinned to.

    Raises:
        InvalidInput: a data file is refused.
        NotFound: there is no such file.
    """
    if await read_prepared(store, manifest.name) is None:
        return await in_thread(load_data, manifest.spec)
    return {
        name: await read_contexts(store, manifest.name, name)
        for name in ("train", "validation", "retained")
    }


def workload(spec: RunSpec, data: Mapping[str, Sequence[Context]]) -> tuple[StageWork, ...]:
    """The work of all stages of a run, in order; `data` is what `load_data` gives."""
    return tuple(_stage_work(spec, data, round, stage) for round, stage in stages(spec))


def _stage_work(
    spec: RunSpec, data: Mapping[str, Sequence[Context]], round: int, stage: Stage
) -> StageWork:
    writes = get_domain(spec.domain).writes_edits(spec.edit.family)
    before = _before(spec, data, round, stage)
    if stage is Stage.ROLLOUT:
        contexts = round_contexts(spec, data["train"])
        k = spec.edit.k if writes else 0
        survivors = spec.inner.racing if writes else ()
        trained = spec.trained_candidates if k else 0
        loops = sum(rung_sizes(trained, repeats=spec.inner.repeats, survivors=survivors))
        return _loops_work(spec, contexts, round, stage, k=k, loops=loops, before=before)
    if stage is Stage.VALIDATE:
        k = spec.validation.edits_per_context if writes else 0
        loops = k * spec.inner.repeats
        contexts = data["validation"]
        work = _loops_work(spec, contexts, round, stage, k=k, loops=loops, before=before)
        work = _with_bounds(spec, data["validation"], work) if round == 0 else work
        return _with_retained(spec, data["retained"], work)
    if is_warm_start(round, stage):
        return _warm_start_work(spec, data["train"])
    if stage is Stage.IMPROVE:
        return _improve_work(spec, round_contexts(spec, data["train"]), round)
    return StageWork(round=round, stage=stage)


def round_contexts(spec: RunSpec, train: Sequence[Context]) -> Sequence[Context]:
    """Of the training passages, those that a round takes."""
    taken = spec.data.train_contexts
    return train[:taken] if taken else train


def _before(
    spec: RunSpec, data: Mapping[str, Sequence[Context]], round: int, stage: Stage
) -> Sequence[Context]:
    """The passages whose baseline a stage measures: over the base model each one once in a run."""
    contexts = (
        data["validation"] if stage is Stage.VALIDATE else round_contexts(spec, data["train"])
    )
    if spec.inner.student == "policy" or (round, stage) == (0, Stage.VALIDATE):
        return contexts
    if stage is Stage.VALIDATE:
        return ()
    # The rounds go around the circle of all passages (`plan_round`): new ones until it closes
    return contexts[: max(0, len(data["train"]) - (round - 1) * len(contexts))]


def _loops_work(
    spec: RunSpec,
    contexts: Sequence[Context],
    round: int,
    stage: Stage,
    *,
    k: int,
    loops: int,
    before: Sequence[Context],
) -> StageWork:
    """Edits, trainings on them, and answers before and after."""
    number, edit = (
        len(contexts),
        edit_work(spec, contexts, k=k, trained=_trained(spec, round, stage)),
    )
    steps, tokens = _edit_training(spec, contexts, rows=edit.examples)
    answers = sum(len(context.queries) for context in before)
    answers += sum(len(context.queries) for context in contexts) * loops
    return StageWork(
        round=round,
        stage=stage,
        contexts=number,
        edits=number * k,
        trainings=number * loops,
        steps=number * loops * steps,
        answers=answers,
        train_tokens=number * loops * tokens,
        edit_tokens=number * k * edit.tokens,
        edit_prompt_tokens=number * edit.read_tokens if k else 0,
        answer_tokens=answers * spec.evaluation.votes * answer_tokens(spec, contexts),
        question_tokens=answers * spec.evaluation.votes * question_tokens(spec, contexts),
    )


def _edit_training(spec: RunSpec, contexts: Sequence[Context], *, rows: int) -> tuple[int, int]:
    """Steps and tokens of one training on an edit of so many rows, about.

    Where edits say how to train, they are taken to be like the one that the settings give.
    """
    if given_edit(spec, "fixed-edit") and contexts:
        return _given_training(spec, contexts, "fixed-edit")
    repeats = spec.inner.examples.passage_repeats if learns_text(spec) else 0
    return _training(
        spec.inner.optimizer,
        rows=rows + repeats,
        tokens=rows * _example_tokens(spec, contexts) + repeats * passage_tokens(contexts),
    )


def _given_training(spec: RunSpec, contexts: Sequence[Context], bound: Bound) -> tuple[int, int]:
    """Steps and tokens of one training on an edit of the settings, on average over contexts."""
    trainings = []
    for context in contexts:
        rows, optimizer = bound_training(
            get_domain(spec.domain), spec, context, bound, seed=0, passage_optimizer=None
        )
        row_tokens = tokens_in(spec, [row.prompt + row.completion for row in rows])
        trainings.append(_training(optimizer, rows=len(rows), tokens=len(rows) * row_tokens))
    steps, tokens = (math.ceil(sum(each) / len(contexts)) for each in zip(*trainings, strict=True))
    return steps, tokens


def _with_bounds(spec: RunSpec, contexts: Sequence[Context], work: StageWork) -> StageWork:
    """Round 0 also measures the bounds."""
    if not contexts:
        return work
    queries = sum(len(context.queries) for context in contexts)
    for bound in bounds_of(spec):
        loops = repeats_of(spec, bound)
        steps, tokens = _bound_training(spec, contexts, bound)
        answers = queries * loops
        question = spec.evaluation.votes * question_tokens(spec, contexts)
        question += passage_tokens(contexts) if bound == OPEN_BOOK else 0
        work = _plus(
            work,
            trainings=0 if bound == OPEN_BOOK else len(contexts) * loops,
            steps=len(contexts) * loops * steps,
            answers=answers,
            train_tokens=len(contexts) * loops * tokens,
            answer_tokens=answers * spec.evaluation.votes * answer_tokens(spec, contexts),
            question_tokens=answers * question,
        )
    return work


def _bound_training(spec: RunSpec, contexts: Sequence[Context], bound: Bound) -> tuple[int, int]:
    """Steps and tokens of one training of a bound, about."""
    optimizer, examples = spec.inner.optimizer, spec.inner.examples
    if bound == OPEN_BOOK:
        return 0, 0
    if bound in GIVEN_EDITS:
        return _given_training(spec, contexts, bound)
    if bound == "gold":
        gold = math.ceil(sum(len(context.queries) for context in contexts) / len(contexts))
        row_tokens = TOKENS_PER_EXAMPLE + _prompted_tokens(spec)
        return _training(optimizer, rows=gold, tokens=gold * row_tokens)
    rows = max(1, examples.passage_repeats)
    tokens = rows * passage_tokens(contexts)
    if bound == EQUAL_STEPS:
        edit_rows = edit_work(spec, contexts, k=1).examples + examples.passage_repeats
        epochs = math.ceil(steps_of(optimizer, edit_rows) / math.ceil(rows / optimizer.batch_size))
        optimizer = optimizer.model_copy(update={"epochs": epochs})
    else:
        optimizer = spec.validation.passage or optimizer
    return _training(optimizer, rows=rows, tokens=tokens)


def _with_retained(spec: RunSpec, retained: Sequence[Context], work: StageWork) -> StageWork:
    """Open-book questions of every adapted model, and all of them of the policy alone.

    After a warm start also of the base model, which is not the policy of round 0 then.
    """
    if not retained:
        return work
    available = sum(len(context.queries) for context in retained)
    window = min(spec.validation.retained_queries, available)
    alone = 2 if work.round == 0 and spec.improve.warm_start == "gold" else 1
    answers = work.trainings * window + alone * available
    return _plus(
        work,
        answers=answers,
        answer_tokens=answers * answer_tokens(spec, retained),
        question_tokens=answers
        * (PROMPT_TOKENS[spec.evaluation.question_format] + passage_tokens(retained)),
    )


def _trained(spec: RunSpec, round: int, stage: Stage) -> bool:
    """Whether the policy of a stage was trained in the run, if anything was kept."""
    if spec.improve.warm_start == "gold":
        return True
    return round > (0 if stage is Stage.VALIDATE else 1)


def _improve_work(spec: RunSpec, contexts: Sequence[Context], round: int) -> StageWork:
    """So many whole edits are kept as can be, and so many parts as usually have credit."""
    edit, improve = edit_work(spec, contexts, k=spec.edit.k, trained=True), spec.improve
    per_context = float(edit.learnt_rows * min(improve.keep_per_context, spec.edit.k))
    if improve.credit == "part":
        per_context = (1.0 + improve.abstain_share) * CREDITED_SHARE * edit.examples
    rows = min(math.ceil(len(contexts) * per_context), spec.learnt_rows_at_most(len(contexts)))
    steps, tokens = _training(improve.optimizer, rows=rows, tokens=rows * edit.row_tokens)
    return StageWork(
        round=round,
        stage=Stage.IMPROVE,
        contexts=len(contexts),
        trainings=1,
        steps=steps,
        train_tokens=tokens,
    )


def _warm_start_work(spec: RunSpec, train: Sequence[Context]) -> StageWork:
    """The supervised M-step on gold pairs; rows that are too long for the model count."""
    rows = gold_rows(spec, train)
    characters = sum(len(row.row.prompt) + len(row.row.completion) for row in rows)
    characters += sum(len(turn.content) for row in rows for turn in row.row.messages)
    tokens = math.ceil(characters / CHARACTERS_PER_TOKEN)
    steps, tokens = _training(spec.improve.optimizer, rows=len(rows), tokens=tokens)
    return StageWork(
        round=0,
        stage=Stage.IMPROVE,
        contexts=len({row.context_id for row in rows}),
        trainings=1,
        steps=steps,
        train_tokens=tokens,
    )


def _plus(work: StageWork, **more: int) -> StageWork:
    return replace(work, **{name: getattr(work, name) + value for name, value in more.items()})


def _training(optimizer: OptimizerSettings, *, rows: int, tokens: int) -> tuple[int, int]:
    """Steps and tokens of a training on so many rows, all epochs together."""
    padded = max(tokens, rows * optimizer.pad_to_tokens)
    return optimizer.epochs * math.ceil(rows / optimizer.batch_size), optimizer.epochs * padded


def _example_tokens(spec: RunSpec, contexts: Sequence[Context]) -> int:
    """Tokens of a row of an edit, on average: as long as a question with its answer, or a line."""
    if not learns_text(spec):
        return question_tokens(spec, contexts) + answer_tokens(spec, contexts)
    return TOKENS_PER_EXAMPLE + _prompted_tokens(spec)


def _prompted_tokens(spec: RunSpec) -> int:
    """What the question's prompt adds to an example."""
    if spec.inner.examples.question_answer == "document":
        return 5
    return PROMPT_TOKENS[spec.evaluation.question_format]
