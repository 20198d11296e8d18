"""Edits of some contexts: asked for together, parsed, committed.

A context whose edits no service can give has an outcome in their place; nobody else pays for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog

from controller_svc.worker.asking import fault_of_item
from controller_svc.worker.bench import Bench
from seal.domains.base import Context
from seal.errors import InvalidInput
from seal.limits import MAX_EDITS
from seal.outcomes import Outcome
from seal.part_prompts import PartPromptRecord
from seal.records import (
    ContextEditsRecord,
    EditRecord,
    ExampleRecord,
    OptimizerChoice,
    part_texts,
)
from seal.rpc.convert import OUTCOME_FROM_WIRE, OUTCOME_TO_WIRE, part_prompt_record, part_record
from seal.runs.store import key_of
from seal.v1 import generator_pb2

log = structlog.get_logger(__name__)


def groups(
    bench: Bench, contexts: Sequence[tuple[int, Context]], *, k: int
) -> Iterator[tuple[tuple[int, Context], ...]]:
    """Contexts, in order, in the groups whose edits are asked for together.

    The settings bound the contexts of a request, and a service the parts of all its edits; one that
    has too many alone is asked for alone. The same contexts are always grouped alike.
    """
    edit, rows = bench.requests.spec.edit, 0
    group: list[tuple[int, Context]] = []
    for index, context in contexts:
        prompts = bench.domain.edit_prompts(context.title, context.text, edit.family, edit.format)
        own = k * len(prompts)
        if group and (len(group) == bench.settings.contexts_per_request or rows + own > MAX_EDITS):
            yield tuple(group)
            group, rows = [], 0
        group.append((index, context))
        rows += own
    if group:
        yield tuple(group)


async def write_edits(
    bench: Bench, contexts: Sequence[Context], *, k: int
) -> list[ContextEditsRecord]:
    """Let the policy write k edits for each context; parse and commit them.

    Contexts that one request cannot carry together are asked for in two.
    """
    request = bench.requests.generate(contexts, k=k)
    try:
        async with bench.writers:
            written = await bench.clients.generator.generate(
                request,
                lambda edits, tokens: bench.meter.generating(
                    request.request_id, edits=edits, tokens=tokens
                ),
                by_endpoint=bench.requests.by_endpoint,
            )
    except InvalidInput as error:
        if (outcome := fault_of_item(error, "contexts")) is None:
            raise
        if len(contexts) > 1:
            half = len(contexts) // 2
            first = await write_edits(bench, contexts[:half], k=k)
            return first + await write_edits(bench, contexts[half:], k=k)
        log.warning("passage refused", context=contexts[0].context_id, reason=error.message)
        written = (_no_edits(contexts[0], outcome),)
    tokens = sum(part.tokens for result in written for edit in result.edits for part in edit.parts)
    bench.meter.generating(request.request_id, edits=k * len(contexts), tokens=tokens)
    records = [
        _edits_record(bench, context, result, k)
        for context, result in zip(contexts, written, strict=True)
    ]
    committed = [
        await bench.files.commit("edits", key_of(record.context_id), record) for record in records
    ]
    await bench.clock.tick()
    return committed


def _edits_record(
    bench: Bench, context: Context, written: generator_pb2.ContextEdits, k: int
) -> ContextEditsRecord:
    outcome = OUTCOME_FROM_WIRE.get(written.outcome, Outcome.OK)
    seeds = [bench.requests.sample_seed(context.context_id, candidate) for candidate in range(k)]
    of_model = written.edits or [generator_pb2.Edit(seed=seed) for seed in seeds]
    prompts = tuple(part_prompt_record(part) for part in written.parts)
    edits = tuple(
        _edit_record(bench, context, prompts, candidate, edit)
        for candidate, edit in enumerate(of_model)
    )
    return ContextEditsRecord(
        context_id=context.context_id,
        parts=prompts,
        edits=edits,
        engine_seconds=written.engine_seconds,
        outcome=outcome,
    )


def _edit_record(
    bench: Bench,
    context: Context,
    prompts: tuple[PartPromptRecord, ...],
    candidate: int,
    written: generator_pb2.Edit,
) -> EditRecord:
    """An edit with its own training examples; none if it is invalid or was not written."""
    edit = EditRecord(
        context_id=context.context_id,
        candidate=candidate,
        seed=written.seed,
        parts=tuple(part_record(part) for part in written.parts),
        examples=(),
    )
    if not edit.parts:
        return edit
    spec, texts = bench.requests.spec, part_texts(prompts, edit)
    parsed = bench.domain.parse_parts(
        texts,
        context=context,
        family=spec.edit.family,
        settings=spec.inner.examples,
        question_format=spec.evaluation.question_format,
        seed=bench.requests.examples_seed(context.context_id),
    )
    examples = tuple(
        ExampleRecord(
            prompt=found.example.prompt,
            completion=found.example.completion,
            part=found.part,
            question=found.question,
            answer=found.answer,
        )
        for found in parsed
    )
    base = spec.inner.optimizer
    wanted = bench.domain.optimizer(texts, base) if parsed else base
    choice = (
        None
        if wanted == base
        else OptimizerChoice(learning_rate=wanted.learning_rate, epochs=wanted.epochs)
    )
    return edit.model_copy(update={"examples": examples, "optimizer": choice})


def _no_edits(context: Context, outcome: Outcome) -> generator_pb2.ContextEdits:
    return generator_pb2.ContextEdits(
        context_id=context.context_id, outcome=OUTCOME_TO_WIRE[outcome]
    )
