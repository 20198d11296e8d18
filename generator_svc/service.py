"""GeneratorService.

Prompts by the domain, samples by the engine, one message per context in the order of the request. A
request is cut into parts of as many edits as the engine samples at once. Parts run one after
another, so the first contexts are out while later ones wait, and other callers get their turn in
between. The cut depends on the request alone: a retry gives the same edits.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import structlog

from generator_svc.plan import (
    GenerationLimits,
    GenerationPlan,
    PlannedContext,
    cut_into_parts,
    parse_generation,
)
from seal.engine import GenerationRequest, GenerationResult
from seal.rpc.engine_calls import Newest, Pace, engine_call, result_of, sample
from seal.v1 import common_pb2, generator_pb2, generator_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from seal.adapters import AdapterCache
    from seal.engine import Adapter, Engine

log = structlog.get_logger(__name__)


class GeneratorService(generator_pb2_grpc.GeneratorServiceServicer):
    """Serves GenerateEdits."""

    def __init__(
        self, *, engine: Engine, adapters: AdapterCache, limits: GenerationLimits, pace: Pace
    ) -> None:
        self._engine, self._adapters, self._limits, self._pace = engine, adapters, limits, pace

    async def GenerateEdits(
        self,
        request: generator_pb2.GenerateEditsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[generator_pb2.GenerateEditsResponse]:
        """Stream progress and finished contexts.

        A cancelled call or a passed deadline stops the work; a retry gives the same edits.
        """
        plan = parse_generation(request, limits=self._limits)
        self._adapters.check_base_model(plan.base_model)
        policy = (
            None
            if plan.policy is None
            else await self._adapters.get(plan.policy, field="policy.adapter")
        )
        edits, tokens = 0, 0
        for part in cut_into_parts(plan.contexts, max_edits=self._engine.settings.generation_rows):
            async with aclosing(
                self._sample_part(plan, policy, part, edits_before=edits, tokens_before=tokens)
            ) as responses:
                async for response in responses:
                    if response.HasField("context_edits"):
                        edits += len(response.context_edits.edits)
                        tokens += sum(edit.tokens for edit in response.context_edits.edits)
                    yield response
        log.info(
            "edits generated",
            run=plan.run,
            request_id=request.request_id,
            contexts=len(plan.contexts),
            edits=edits,
            tokens=tokens,
        )

    async def _sample_part(
        self,
        plan: GenerationPlan,
        policy: Adapter | None,
        part: tuple[PlannedContext, ...],
        *,
        edits_before: int,
        tokens_before: int,
    ) -> AsyncGenerator[generator_pb2.GenerateEditsResponse, None]:
        """Sample one part: its progress, then its contexts."""

        def progress_after(
            state: common_pb2.TaskState.ValueType, edits: int, tokens: int
        ) -> generator_pb2.GenerateProgress:
            return generator_pb2.GenerateProgress(
                state=state,
                edits_done=edits_before + edits,
                edits_total=plan.edits,
                tokens=tokens_before + tokens,
            )

        def on_progress(edits: int, tokens: int) -> None:
            progress.set(progress_after(common_pb2.TASK_STATE_RUNNING, edits, tokens))

        first = common_pb2.TASK_STATE_RUNNING if edits_before else common_pb2.TASK_STATE_QUEUED
        progress = Newest(progress_after(first, 0, 0))
        engine_request = self._engine_request(plan, policy, part)
        async with engine_call(
            lambda: self._engine.generate(engine_request, on_progress=on_progress)
        ) as finished:
            async for news in sample(progress, finished, pace=self._pace):
                yield generator_pb2.GenerateEditsResponse(progress=news)
            generated = result_of(finished)
        for index, planned in enumerate(part):
            edits = _context_edits(
                planned.context_id, engine_request.prompts[index], generated, index
            )
            yield generator_pb2.GenerateEditsResponse(context_edits=edits)

    def _engine_request(
        self, plan: GenerationPlan, policy: Adapter | None, part: tuple[PlannedContext, ...]
    ) -> GenerationRequest:
        prompts = [
            plan.domain.edit_prompt(context.title, context.text, plan.family, plan.format)
            for context in part
        ]
        return GenerationRequest(
            run=plan.run,
            policy=policy,
            prompts=tuple(self._engine.render(prompt) for prompt in prompts),
            seeds=tuple(context.seeds for context in part),
            temperature=plan.temperature,
            top_p=plan.top_p,
            max_tokens=plan.max_tokens,
            stop=tuple(dict.fromkeys(stop for prompt in prompts for stop in prompt.stop)),
        )


def _context_edits(
    context_id: str, prompt: str, generated: GenerationResult, index: int
) -> generator_pb2.ContextEdits:
    return generator_pb2.ContextEdits(
        context_id=context_id,
        prompt=prompt,
        edits=[
            generator_pb2.Edit(
                text=sampled.text,
                seed=sampled.seed,
                tokens=sampled.tokens,
                truncated=sampled.truncated,
            )
            for sampled in generated.samples[index]
        ],
        engine_seconds=generated.engine_seconds[index],
    )
