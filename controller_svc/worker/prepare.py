"""The first stage: read the data, check them against the model, and pin the run to both.

What can be known before the first costly step is refused here, by field and remedy: ranks, targets,
lengths that no row could have. A passage that the model cannot take is no reason to refuse the
others: it is named, and its work will have outcome `too_long`. What was read is written beside the
run with its digest; from then on a data file that changes changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import structlog

from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.demands import describe_model
from controller_svc.worker.domain_checks import (
    check_answers_fit,
    check_given_edits,
    check_single_tokens,
)
from controller_svc.worker.others import check_generator, describe_judge, describe_writer
from seal.artifacts import ArtifactStore
from seal.datasets import load_contexts
from seal.domains import get_domain
from seal.domains.base import Context, Domain, PartPrompt
from seal.errors import InvalidInput
from seal.limits import MAX_ASKS, MAX_EDITS, MAX_ROWS, MAX_STEPS
from seal.records import LongRow, ModelDescription, PreparedRecord
from seal.remedies import engine_setting
from seal.restem.leakage import check_ids, check_leakage
from seal.rpc.convert import chat_message_list
from seal.runs.rows import RowCounter, row_characters
from seal.runs.store import in_thread, pin_contexts, read_prepared
from seal.runs.warm_start import check_fits, check_warm_start
from seal.settings import BY_SENTENCE, DOMAIN_OPTIONS, LearningSpec, OptimizerSettings, RunSpec
from seal.v1 import trainer_pb2

log = structlog.get_logger(__name__)

Contexts = Mapping[str, tuple[Context, ...]]
PASSAGE, QUESTION, EDIT_PROMPT = "passage", "question", "edit prompt"
"""What rows of a context are called."""


def load_data(spec: RunSpec) -> dict[str, tuple[Context, ...]]:
    """The contexts of a run by name.

    Raises:
        InvalidInput: a bad row, an empty file, a passage on both the training and the validation
            side, two passages under one id, or more than one training may hold.
        SealError: a file cannot be read, as `DataFile.read_text`.

    """
    data, domain = spec.data, get_domain(spec.domain)
    contexts = {
        "train": load_contexts(data.train, domain=domain) if spec.learns else (),
        "validation": load_contexts(data.validation, domain=domain, limit=data.validation_contexts),
        "retained": load_contexts(data.retained, domain=domain) if data.retained else (),
    }
    check_leakage(contexts["train"], contexts["validation"], domain=domain)
    check_ids(chain.from_iterable(contexts.values()), domain=domain, where="the data")
    check_sizes(spec, train_contexts=len(contexts["train"]))
    check_parts(spec, contexts)
    check_asks(spec, contexts)
    check_given_edits(spec, contexts["validation"])
    if spec.improve.warm_start == "gold":
        rows = check_warm_start(spec, contexts["train"])
        check_rows(spec, rows, what="the warm start", or_else="set improve.warmStart to none")
    return contexts


def check_sizes(spec: RunSpec, *, train_contexts: int) -> None:
    """Refuse trainings that could hold more rows or steps than a trainer takes.

    `train_contexts` is the number of them in the data; a round may take fewer. An edit may give
    every example that it may, a round may keep every edit that it may.

    Raises:
        InvalidInput: naming the field.

    """
    examples = spec.inner.examples
    rows = examples.max_examples + examples.passage_repeats
    check_steps("inner.optimizer", spec.inner.optimizer, rows)
    if spec.validation.passage is not None:
        rows = max(1, examples.passage_repeats)
        check_steps("validation.passage", spec.validation.passage, rows)
    if not spec.rounds:
        return
    taken = min(spec.data.train_contexts or train_contexts, train_contexts)
    fewer = (
        "parts of each: improve.maxPartsPerContext"
        if spec.improve.credit == "part"
        else "edits of each"
    )
    check_rows(
        spec, spec.learnt_rows_at_most(taken), what="the M-step", or_else=f"keep fewer {fewer}"
    )


def check_rows(spec: RunSpec, rows: int, *, what: str, or_else: str) -> None:
    """Refuse a training of the policy on more rows or steps than a trainer takes.

    Raises:
        InvalidInput: naming the field.

    """
    if rows > MAX_ROWS:
        raise InvalidInput(
            f"{what} may come to {rows} rows, the trainer takes {MAX_ROWS}",
            field="spec.data.trainContexts",
            remedy=f"take fewer contexts a round, or {or_else}",
        )
    check_steps("improve.optimizer", spec.improve.optimizer, rows)


def check_parts(spec: RunSpec, contexts: Contexts) -> None:
    """Refuse so many candidates that their parts fit into no request, on any one passage.

    Raises:
        InvalidInput: naming the field.

    """
    if not get_domain(spec.domain).writes_edits(spec.edit.family):
        return
    wanted = {
        "train": ("edit.k", spec.edit.k),
        "validation": ("validation.editsPerContext", spec.validation.edits_per_context),
    }
    for name, (field, k) in wanted.items():
        parts = max((len(_parts(spec, context)) for context in contexts[name]), default=0)
        if k * parts > MAX_EDITS:
            raise InvalidInput(
                f"{k} edits of up to {parts} parts are asked for, {MAX_EDITS} parts fit into a "
                "request",
                field=f"spec.{field}",
                remedy=f"give {MAX_EDITS // parts} or less",
            )


def check_asks(spec: RunSpec, contexts: Contexts) -> None:
    """Refuse more ways to ask the questions of a context than one evaluation takes.

    Raises:
        InvalidInput: naming the field.

    """
    votes = spec.evaluation.votes
    for context in chain.from_iterable(contexts.values()):
        if len(context.queries) * votes > MAX_ASKS:
            raise InvalidInput(
                f"{len(context.queries)} questions of {context.title[:80]!r} in {votes} ways are "
                f"more than the {MAX_ASKS} prompts of one evaluation",
                field="spec.evaluation.votes",
                remedy=f"give {MAX_ASKS // len(context.queries)} or less",
            )


def check_steps(field: str, optimizer: OptimizerSettings, rows: int) -> None:
    """Refuse a training of more steps than a trainer takes. Raises InvalidInput."""
    steps = optimizer.epochs * -(-rows // optimizer.batch_size)
    if steps > MAX_STEPS:
        raise InvalidInput(
            f"{rows} rows may come to {steps} optimiser steps, the trainer takes {MAX_STEPS}",
            field=f"spec.{field}.epochs",
            remedy="take fewer epochs or larger batches",
        )


async def prepare(
    run: str, *, spec: RunSpec, store: ArtifactStore, clients: ServiceClients
) -> PreparedRecord:
    """Pin a run; what an earlier attempt has pinned stays.

    Raises:
        InvalidInput: as `load_data`; the services have another base model; a setting that the model
            or the trainer cannot take; not one passage of a file fits.
        SealError: as `load_data`.

    """
    if (before := await read_prepared(store, run)) is not None:
        # An attempt that died after it had pinned: the data files may have changed since
        return before
    contexts = await in_thread(load_data, spec)
    check_generator(spec, clients)
    model, writer = await describe_model(spec, clients), await describe_writer(spec, clients)
    judge = await describe_judge(spec, clients)
    await check_single_tokens(spec, clients.trainer)
    await check_answers_fit(spec, chain(contexts["train"], contexts["validation"]), clients.trainer)
    if spec.improve.warm_start == "gold":
        limit = (writer or model).max_row_tokens
        trainer = clients.policy_trainer
        await check_fits(spec, contexts["train"], max_row_tokens=limit, trainer=trainer)
    too_long = await find_long_rows(spec, contexts, model, clients, writer=writer)
    check_some_fit(contexts, too_long, domain=get_domain(spec.domain))
    if spec.rounds:
        await check_learnable(spec, contexts["train"], writer or model, clients.policy_trainer)
    prepared = await pin_contexts(
        store, run, contexts, model=model, too_long=too_long, writer=writer, judge=judge
    )
    log.info("data pinned", run=run, base_sha256=model.base_sha256, **prepared.contexts)
    return prepared


async def find_long_rows(
    spec: LearningSpec,
    contexts: Contexts,
    model: ModelDescription,
    clients: ServiceClients,
    *,
    writer: ModelDescription | None = None,
) -> tuple[LongRow, ...]:
    """Contexts of which a model cannot take a row, each with its longest.

    `writer`: the one that writes, if it is another. The retained set is only asked about.
    """
    asked = [
        (name, number, context, what, row, limit)
        for rows in (_passage_rows(spec, model), _edit_rows(spec, writer or model))
        for name in contexts
        if name != "retained"
        for number, context in enumerate(contexts[name], start=1)
        for what, row, limit in rows(context)
    ]
    read = [row for *_, what, row, _ in asked if what != EDIT_PROMPT]
    tokens = await clients.trainer.count_tokens(read)
    tokens += await clients.policy_trainer.count_tokens([row for *_, row, _ in asked[len(read) :]])
    found: dict[tuple[str, int], LongRow] = {}
    for (name, number, context, what, _, limit), count in zip(asked, tokens, strict=True):
        if count > limit and (name, number) not in found:
            found[name, number] = row = LongRow(
                data=name,
                number=number,
                title=context.title,
                what=what,
                tokens=count,
                limit=limit,
            )
            log.warning("passage too long for the model", **row.model_dump(exclude={"title"}))
    return tuple(found.values())


_RowsOf = Callable[[Context], Iterator[tuple[str, trainer_pb2.TrainingExample, int]]]
"""(what it is, row, most tokens that it may have) of what is known of a context beforehand."""


def _passage_rows(spec: LearningSpec, model: ModelDescription) -> _RowsOf:
    """What is learnt of a context: its passage or, without one, rows as long as its questions."""
    domain = get_domain(spec.domain)

    def rows(context: Context) -> Iterator[tuple[str, trainer_pb2.TrainingExample, int]]:
        passage = domain.passage_examples(context.title, context.text, spec.inner.examples)
        for example in passage[:1]:
            row = trainer_pb2.TrainingExample(prompt=example.prompt, completion=example.completion)
            yield PASSAGE, row, model.max_row_tokens
        if DOMAIN_OPTIONS[spec.domain].learns_text or not model.max_positions:
            return
        for query in context.queries[:1]:
            format = spec.evaluation.question_format
            asked, gold = domain.question_prompt(query, format), query.answers[0]
            row = trainer_pb2.TrainingExample(
                prompt=asked.text, completion=domain.answer_completion(gold, format)
            )
            yield QUESTION, row, min(model.max_row_tokens, model.max_positions)

    return rows


def _edit_rows(spec: LearningSpec, writer: ModelDescription) -> _RowsOf:
    """What edits are written on; of a model at an endpoint nobody knows what it takes."""
    domain = get_domain(spec.domain)
    learns = isinstance(spec, RunSpec) and spec.learns
    unknown = spec.edit.generator is not None and not learns

    def rows(context: Context) -> Iterator[tuple[str, trainer_pb2.TrainingExample, int]]:
        if not writer.max_positions or unknown or not domain.writes_edits(spec.edit.family):
            return
        longest = max((_prompt_row(part) for part in _parts(spec, context)), key=row_characters)
        yield EDIT_PROMPT, longest, writer.max_positions - spec.edit.max_tokens

    return rows


def _parts(
    spec: LearningSpec, context: Context, *, trained: bool = False
) -> tuple[PartPrompt, ...]:
    edit = spec.edit
    return get_domain(spec.domain).edit_prompts(
        context.title, context.text, edit.family, edit.format, trained=trained
    )


def _prompt_row(part: PartPrompt) -> trainer_pb2.TrainingExample:
    """What the model goes on from when it writes a part."""
    return trainer_pb2.TrainingExample(
        prompt=part.prompt.text + part.start, messages=chat_message_list(part.prompt.messages)
    )


async def check_learnable(
    spec: RunSpec, train: Sequence[Context], model: ModelDescription, trainer: RowCounter
) -> None:
    """Refuse M-steps that could learn nothing: no prompt of an edit leaves room in a row.

    Raises:
        InvalidInput: naming the field.

    """
    if not get_domain(spec.domain).writes_edits(spec.edit.family):
        return
    trained = spec.edit.trained_prompt == "short"
    rows = [
        min(map(_prompt_row, _parts(spec, context, trained=trained)), key=row_characters)
        for context in train
    ]
    tokens = min(await trainer.count_tokens(rows))
    if tokens >= model.max_row_tokens:
        shorter = "" if trained or spec.edit.family != BY_SENTENCE else "set it to short, or "
        raise InvalidInput(
            f"the policy could learn no edit: the shortest prompt has {tokens} tokens, and the "
            f"trainer takes rows of up to {model.max_row_tokens}",
            field="spec.edit.trainedPrompt" if shorter else "spec.edit.family",
            remedy=f"{shorter}raise {engine_setting('max_row_tokens')}",
        )


def check_some_fit(contexts: Contexts, too_long: Sequence[LongRow], *, domain: Domain) -> None:
    """Refuse data of which nothing would be left.

    Raises:
        InvalidInput: naming the first context.

    """
    for name, members in contexts.items():
        rows = [row for row in too_long if row.data == name]
        if members and len(rows) == len(members):
            one = domain.words.context
            shorter = "cut them into parts" if domain.options.learns_text else "take smaller ones"
            raise InvalidInput(
                f"every {one} is too long for the model: the first, {rows[0].title[:80]!r}, has "
                f"{rows[0].tokens} tokens of {rows[0].what}, at most {rows[0].limit} fit",
                field=f"spec.data.{name}",
                remedy=f"{shorter}, or raise {engine_setting('max_row_tokens')}",
            )
