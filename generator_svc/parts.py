"""Edits in parts: what the engine is asked for them, and how its samples become edits.

The engine gets one prompt per part with one seed per candidate. Prompts of a context follow one
another in the order of its parts: neighbours begin alike, and what they share is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from generator_svc.plan import GenerationPlan, PlannedContext
from seal.domains.base import PartPrompt
from seal.engine import GenerationRequest, GenerationResult, Sample
from seal.limits import MAX_CONTEXT_EDITS_BYTES
from seal.outcomes import Outcome
from seal.prompts import Prompt
from seal.restem.seeds import part_seed
from seal.rpc.convert import OUTCOME_TO_WIRE, chat_message_list
from seal.v1 import generator_pb2

if TYPE_CHECKING:
    from seal.engine import Adapter


def engine_request(
    plan: GenerationPlan,
    policy: Adapter | None,
    contexts: Sequence[PlannedContext],
    *,
    by_schema: bool,
) -> GenerationRequest:
    """All parts of all candidates of some contexts, held to the domain's schema if it can be."""
    prompts = [(context, number) for context in contexts for number in range(len(context.parts))]
    parts = [context.parts[number] for context, number in prompts]
    return GenerationRequest(
        run=plan.run,
        policy=policy,
        prompts=tuple(started(part) for part in parts),
        seeds=tuple(
            tuple(part_seed(seed, number, parts=len(context.parts)) for seed in context.seeds)
            for context, number in prompts
        ),
        temperature=plan.sampled_as.temperature,
        top_p=plan.sampled_as.top_p,
        max_tokens=plan.sampled_as.max_tokens,
        stop=tuple(dict.fromkeys(stop for part in parts for stop in part.prompt.stop)),
        json_schema=plan.edit_schema if by_schema else "",
    )


def started(part: PartPrompt) -> Prompt:
    """What the model goes on from: the prompt and the words that are written for it."""
    return replace(part.prompt, text=part.prompt.text + part.start)


def prompt_bytes(context: PlannedContext) -> int:
    """Size of a context's prompts in its message, its texts not yet counted."""
    return sum(message.ByteSize() for message in _part_prompts(context))


def context_edits(
    contexts: Sequence[PlannedContext], result: GenerationResult
) -> Iterator[generator_pb2.ContextEdits]:
    """The edits of each of the contexts that were asked for together.

    One whose edits do not fit into a message has none, and the outcome that says so.
    """
    first = 0
    for context in contexts:
        own = slice(first, first := first + len(context.parts))
        edits = generator_pb2.ContextEdits(
            outcome=OUTCOME_TO_WIRE[Outcome.OK],
            parts=_part_prompts(context),
            edits=[
                _edit(seed, [samples[candidate] for samples in result.samples[own]])
                for candidate, seed in enumerate(context.seeds)
            ],
        )
        if edits.ByteSize() > MAX_CONTEXT_EDITS_BYTES:
            edits = generator_pb2.ContextEdits(outcome=OUTCOME_TO_WIRE[Outcome.TOO_LONG])
        edits.engine_seconds = sum(result.engine_seconds[own])
        yield edits


def _part_prompts(context: PlannedContext) -> list[generator_pb2.PartPrompt]:
    return [
        generator_pb2.PartPrompt(
            prompt=part.prompt.text,
            messages=chat_message_list(part.prompt.messages),
            start=part.start,
        )
        for part in context.parts
    ]


def _edit(seed: int, samples: Sequence[Sample]) -> generator_pb2.Edit:
    return generator_pb2.Edit(
        seed=seed,
        parts=[
            generator_pb2.EditPart(
                text=sample.text,
                tokens=sample.tokens,
                truncated=sample.truncated,
                logprob=sample.logprob if sample.tokens else None,
            )
            for sample in samples
        ],
    )
