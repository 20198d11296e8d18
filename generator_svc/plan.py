"""What one GenerateEdits request asks for, checked.

Every bound is refused by the name of its field before the engine sees anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, get_args

from seal.bases import BaseReference
from seal.domains import get_domain
from seal.domains.base import Domain, PartPrompt
from seal.errors import InvalidInput
from seal.limits import (
    MAX_EDIT_TOKENS,
    MAX_EDITS,
    MAX_PASSAGE_CHARACTERS,
    MAX_TEMPERATURE,
    MAX_TITLE_CHARACTERS,
    MIN_TOP_P,
)
from seal.records import AdapterReference
from seal.rpc import validation
from seal.rpc.convert import adapter_reference, base_reference
from seal.settings import PromptFamily, PromptFormat
from seal.v1 import generator_pb2

MAX_CONTEXTS = 1024
"""Contexts of one request."""


@dataclass(frozen=True)
class SampledAs:
    """How tokens are drawn, checked."""

    temperature: float
    top_p: float
    max_tokens: int


@dataclass(frozen=True)
class PlannedContext:
    """One context: how the parts of its edits are asked for, and the seeds of its candidates."""

    context_id: str
    parts: tuple[PartPrompt, ...]
    seeds: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Texts to sample: each part of each candidate."""
        return len(self.parts) * len(self.seeds)


@dataclass(frozen=True)
class GenerationPlan:
    """One checked request."""

    run: str
    base: BaseReference
    policy: AdapterReference | None
    sampled_as: SampledAs
    contexts: tuple[PlannedContext, ...]
    edit_schema: str = ""
    """JSON schema of an edit, for engines that can hold a model to it; empty for free text."""

    @property
    def edits(self) -> int:
        """Edits over all contexts."""
        return sum(len(context.seeds) for context in self.contexts)


def parse_generation(request: generator_pb2.GenerateEditsRequest) -> GenerationPlan:
    """Check a request. Raises InvalidInput naming the field."""
    validation.request_id(request.request_id)
    asked = _asked(request)
    return GenerationPlan(
        run=validation.run_name(request.run),
        base=base_reference(request.policy),
        policy=adapter_reference(request.policy.adapter, field="policy.adapter")
        if request.policy.HasField("adapter")
        else None,
        sampled_as=parse_sampling(request.sampling, max_tokens=MAX_EDIT_TOKENS),
        contexts=_contexts(request.contexts, asked),
        edit_schema=asked.domain.edit_schema(asked.family, asked.format) or "",
    )


def parse_sampling(sampling: generator_pb2.Sampling, *, max_tokens: int) -> SampledAs:
    """Check how tokens are to be drawn, at most `max_tokens`. Raises InvalidInput by field."""
    return SampledAs(
        temperature=validation.real_number(
            sampling.temperature,
            field="sampling.temperature",
            minimum=0.0,
            maximum=MAX_TEMPERATURE,
        ),
        top_p=validation.real_number(
            sampling.top_p, field="sampling.top_p", minimum=MIN_TOP_P, maximum=1.0
        ),
        max_tokens=validation.whole_number(
            sampling.max_tokens, field="sampling.max_tokens", minimum=1, maximum=max_tokens
        ),
    )


@dataclass(frozen=True)
class _Asked:
    """How the domain asks for edits."""

    domain: Domain
    family: PromptFamily
    format: PromptFormat
    trained: bool

    def parts(self, title: str, text: str) -> tuple[PartPrompt, ...]:
        return self.domain.edit_prompts(title, text, self.family, self.format, trained=self.trained)


def _asked(request: generator_pb2.GenerateEditsRequest) -> _Asked:
    domain, prompt = get_domain(request.domain), request.prompt
    family = cast(
        PromptFamily,
        validation.one_of(prompt.family, domain.options.families, field="prompt.family"),
    )
    if not domain.writes_edits(family):
        raise validation.refuse(
            "prompt.family",
            f"{family!r} has no self-edits",
            "train on the passage alone, or use another family",
        )
    format = cast(
        PromptFormat,
        validation.one_of(prompt.format, get_args(PromptFormat), field="prompt.format"),
    )
    return _Asked(domain, family, format, prompt.trained)


def _contexts(
    messages: Sequence[generator_pb2.EditContext], asked: _Asked
) -> tuple[PlannedContext, ...]:
    validation.count(messages, field="contexts", maximum=MAX_CONTEXTS, what="context")
    validation.unique(
        (message.context_id for message in messages), field="contexts[{index}].context_id"
    )
    if sum(len(message.seeds) for message in messages) > MAX_EDITS:
        raise _too_many(sum(len(message.seeds) for message in messages))
    contexts: list[PlannedContext] = []
    rows = 0
    for index, message in enumerate(messages):
        contexts.append(_context(message, f"contexts[{index}]", asked))
        rows += contexts[-1].rows
        if rows > MAX_EDITS:  # before the prompts of all the others are made
            raise _too_many(rows)
    return tuple(contexts)


def _too_many(rows: int) -> InvalidInput:
    return validation.refuse(
        "contexts",
        f"{rows} parts of edits or more are asked for, the limit is {MAX_EDITS}",
        "send several requests, or cut the passages",
    )


def _context(message: generator_pb2.EditContext, field: str, asked: _Asked) -> PlannedContext:
    validation.count(message.seeds, field=f"{field}.seeds", maximum=MAX_EDITS, what="seed")
    title = validation.optional_text(
        message.title, field=f"{field}.title", max_characters=MAX_TITLE_CHARACTERS
    )
    text = validation.text(
        message.text,
        field=f"{field}.text",
        max_characters=MAX_PASSAGE_CHARACTERS,
        remedy="give the passage",
    )
    return PlannedContext(
        context_id=validation.identifier(
            message.context_id, field=f"{field}.context_id", remedy="give each context its own id"
        ),
        parts=asked.parts(title, text),
        seeds=tuple(
            validation.seed(seed, field=f"{field}.seeds[{place}]")
            for place, seed in enumerate(message.seeds)
        ),
    )


FILLS = 8
"""Edits in parts: so many times the engine's rows go into one batch. A part is short, so that the
engine would soon stand half empty at the end of each batch."""


def cut_into_batches(
    contexts: Sequence[PlannedContext], *, max_edits: int
) -> tuple[tuple[PlannedContext, ...], ...]:
    """Cut contexts, in order, into batches of at most `max_edits` edits (or one context).

    That is what the engine samples at once; of edits in parts `FILLS` times as many rows.
    """
    batches: list[list[PlannedContext]] = []
    edits = rows = 0
    for context in contexts:
        edits, rows = edits + len(context.seeds), rows + context.rows
        if not batches or edits > max_edits or rows > FILLS * max_edits:
            batches.append([])
            edits, rows = len(context.seeds), context.rows
        batches[-1].append(context)
    return tuple(tuple(batch) for batch in batches)
