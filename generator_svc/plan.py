"""What one GenerateEdits request asks for, checked.

Every bound is refused by the name of its field before the engine sees anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, get_args

from seal.bases import BaseReference
from seal.domains import get_domain
from seal.domains.base import Domain
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


@dataclass(frozen=True)
class GenerationLimits:
    """Bounds of one request."""

    max_contexts: int = 1024
    """Contexts."""
    max_edits: int = MAX_EDITS
    """Edits over all contexts."""
    max_title_characters: int = MAX_TITLE_CHARACTERS
    """One title."""
    max_text_characters: int = MAX_PASSAGE_CHARACTERS
    """One passage."""
    max_tokens: int = MAX_EDIT_TOKENS
    """New tokens per edit."""
    max_temperature: float = MAX_TEMPERATURE
    """Softmax temperature."""
    min_top_p: float = MIN_TOP_P
    """Nucleus mass."""


@dataclass(frozen=True)
class PlannedContext:
    """One context and the seeds of its candidates."""

    context_id: str
    title: str
    text: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class GenerationPlan:
    """One checked request."""

    run: str
    base: BaseReference
    policy: AdapterReference | None
    domain: Domain
    family: PromptFamily
    format: PromptFormat
    temperature: float
    top_p: float
    max_tokens: int
    contexts: tuple[PlannedContext, ...]

    @property
    def edits(self) -> int:
        """Edits over all contexts."""
        return sum(len(context.seeds) for context in self.contexts)


def parse_generation(
    request: generator_pb2.GenerateEditsRequest, *, limits: GenerationLimits
) -> GenerationPlan:
    """Check a request. Raises InvalidInput naming the field."""
    validation.request_id(request.request_id)
    sampling, domain = request.sampling, get_domain(request.domain)
    family = cast(
        PromptFamily,
        validation.one_of(request.prompt.family, get_args(PromptFamily), field="prompt.family"),
    )
    if not domain.writes_edits(family):
        raise validation.refuse(
            "prompt.family",
            f"{family!r} has no self-edits",
            "train on the passage alone, or use another family",
        )
    return GenerationPlan(
        run=validation.run_name(request.run),
        base=base_reference(request.policy),
        policy=adapter_reference(request.policy.adapter, field="policy.adapter")
        if request.policy.HasField("adapter")
        else None,
        domain=domain,
        family=family,
        format=cast(
            PromptFormat,
            validation.one_of(request.prompt.format, get_args(PromptFormat), field="prompt.format"),
        ),
        temperature=validation.real_number(
            sampling.temperature,
            field="sampling.temperature",
            minimum=0.0,
            maximum=limits.max_temperature,
        ),
        top_p=validation.real_number(
            sampling.top_p, field="sampling.top_p", minimum=limits.min_top_p, maximum=1.0
        ),
        max_tokens=validation.whole_number(
            sampling.max_tokens, field="sampling.max_tokens", minimum=1, maximum=limits.max_tokens
        ),
        contexts=_contexts(request.contexts, limits),
    )


def _contexts(
    messages: Sequence[generator_pb2.EditContext], limits: GenerationLimits
) -> tuple[PlannedContext, ...]:
    validation.count(messages, field="contexts", maximum=limits.max_contexts, what="context")
    validation.unique(
        (message.context_id for message in messages), field="contexts[{index}].context_id"
    )
    edits = sum(len(message.seeds) for message in messages)
    if edits > limits.max_edits:
        raise validation.refuse(
            "contexts",
            f"{edits} edits are asked for, the limit is {limits.max_edits}",
            "send several requests",
        )
    return tuple(
        _context(message, f"contexts[{index}]", limits) for index, message in enumerate(messages)
    )


def _context(
    message: generator_pb2.EditContext, field: str, limits: GenerationLimits
) -> PlannedContext:
    validation.count(message.seeds, field=f"{field}.seeds", maximum=limits.max_edits, what="seed")
    return PlannedContext(
        context_id=validation.identifier(
            message.context_id, field=f"{field}.context_id", remedy="give each context its own id"
        ),
        title=validation.optional_text(
            message.title, field=f"{field}.title", max_characters=limits.max_title_characters
        ),
        text=validation.text(
            message.text,
            field=f"{field}.text",
            max_characters=limits.max_text_characters,
            remedy="give the passage",
        ),
        seeds=tuple(
            validation.seed(seed, field=f"{field}.seeds[{place}]")
            for place, seed in enumerate(message.seeds)
        ),
    )


def cut_into_parts(
    contexts: Sequence[PlannedContext], *, max_edits: int
) -> tuple[tuple[PlannedContext, ...], ...]:
    """Cut contexts, in order, into parts of at most `max_edits` edits (or one context).

    What the engine samples at once.
    """
    parts: list[list[PlannedContext]] = []
    room = 0
    for context in contexts:
        if not parts or room < len(context.seeds):
            parts.append([])
            room = max_edits
        parts[-1].append(context)
        room -= len(context.seeds)
    return tuple(tuple(part) for part in parts)
