"""GeneratorService.

Prompts by the domain, samples by the engine, one message per context in the order of the request. A
request is cut into parts of as many edits as the engine samples at once. Parts run one after
another, so the first contexts are out while later ones wait, and other callers get their turn in
between. The cut depends on the request alone: a retry gives the same edits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
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
from seal.errors import UnfitItem
from seal.rpc.convert import OUTCOME_TO_WIRE, chat_message_list
from seal.rpc.engine_calls import Newest, Pace, engine_call, sample, shows_life
from seal.rpc.line import Line, TimeLeft
from seal.v1 import common_pb2, generator_pb2, generator_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from seal.adapters import AdapterCache
    from seal.engine import Adapter, Engine

log = structlog.get_logger(__name__)


def register(
    server: grpc.aio.Server,
    *,
    engine: Engine,
    adapters: AdapterCache,
    pace: Pace | None = None,
) -> str:
    """Add the service to `server`; returns its full name for health checks."""
    service = GeneratorService(engine=engine, adapters=adapters, pace=pace or Pace())
    generator_pb2_grpc.add_GeneratorServiceServicer_to_server(service, server)
    return generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name


class GeneratorService(generator_pb2_grpc.GeneratorServiceServicer):
    """Serves GenerateEdits."""

    def __init__(self, *, engine: Engine, adapters: AdapterCache, pace: Pace) -> None:
        self._engine, self._adapters, self._pace = engine, adapters, pace
        self._line = Line("generate")

    async def GenerateEdits(
        self,
        request: generator_pb2.GenerateEditsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[generator_pb2.GenerateEditsResponse]:
        """Stream progress and finished contexts.

        A cancelled call or a passed deadline stops the work; a retry gives the same edits.
        """
        plan = parse_generation(request, limits=GenerationLimits())
        self._adapters.check_base(plan.base)
        policy = (
            None
            if plan.policy is None
            else await self._adapters.get(plan.policy, field="policy.adapter")
        )
        counted = _Counted(plan.edits)
        for part in cut_into_parts(plan.contexts, max_edits=self._engine.settings.generation_rows):
            async with aclosing(
                self._sample_part(plan, policy, part, counted, context.time_remaining)
            ) as responses:
                async for response in responses:
                    yield response
        log.info(
            "edits generated",
            run=plan.run,
            request_id=request.request_id,
            contexts=len(plan.contexts),
            edits=counted.edits,
            tokens=counted.tokens,
        )

    async def _sample_part(
        self,
        plan: GenerationPlan,
        policy: Adapter | None,
        part: tuple[PlannedContext, ...],
        counted: _Counted,
        time_left: TimeLeft,
    ) -> AsyncGenerator[generator_pb2.GenerateEditsResponse, None]:
        """Sample one part: its progress, then its contexts.

        A context that is at fault gets an outcome and the others are asked without it; where only
        the request as a whole is at fault, each is asked alone.
        """
        prompts = [
            plan.domain.edit_prompts(context.title, context.text, plan.family, plan.format)[
                0
            ].prompt
            for context in part
        ]
        stop = tuple(dict.fromkeys(stop for prompt in prompts for stop in prompt.stop))
        ended: dict[int, generator_pb2.ContextEdits] = {}
        groups = deque([list(range(len(part)))])
        while groups:
            asked = groups.popleft()
            request = GenerationRequest(
                run=plan.run,
                policy=policy,
                prompts=tuple(prompts[place] for place in asked),
                seeds=tuple(part[place].seeds for place in asked),
                temperature=plan.temperature,
                top_p=plan.top_p,
                max_tokens=plan.max_tokens,
                stop=stop,
            )
            try:
                async with aclosing(self._sample(request, counted, time_left)) as events:
                    async for event in events:
                        if isinstance(event, GenerationResult):
                            for index, place in enumerate(asked):
                                ended[place] = _context_edits(event, index)
                        else:
                            yield generator_pb2.GenerateEditsResponse(progress=event)
            except UnfitItem as error:
                for place in _leave_out(error, asked, groups):
                    ended[place] = generator_pb2.ContextEdits(
                        outcome=OUTCOME_TO_WIRE[error.outcome]
                    )
        for place, context in enumerate(part):
            edits = ended[place]
            edits.context_id = context.context_id
            edits.parts.add(
                prompt=prompts[place].text, messages=chat_message_list(prompts[place].messages)
            )
            yield generator_pb2.GenerateEditsResponse(context_edits=edits)

    async def _sample(
        self, request: GenerationRequest, counted: _Counted, time_left: TimeLeft
    ) -> AsyncGenerator[generator_pb2.GenerateProgress | GenerationResult, None]:
        """Progress of one request to the engine, then its result, which is counted."""
        state = common_pb2.TASK_STATE_RUNNING if counted.edits else common_pb2.TASK_STATE_QUEUED
        progress = Newest(counted.progress(state, 0, 0))

        def on_progress(edits: int, tokens: int) -> None:
            progress.set(counted.progress(common_pb2.TASK_STATE_RUNNING, edits, tokens))

        async with engine_call(
            lambda: self._engine.generate(request, on_progress=on_progress),
            line=self._line,
            time_left=time_left,
        ) as finished:
            async for news in sample(
                progress, finished, pace=self._pace, alive=lambda: shows_life(self._engine)
            ):
                yield news
            result = finished.result()
        counted.add(result)
        yield result


@dataclass
class _Counted:
    """What a call has written so far."""

    total: int
    """Edits asked for."""
    edits: int = 0
    tokens: int = 0

    def progress(
        self, state: common_pb2.TaskState.ValueType, edits: int, tokens: int
    ) -> generator_pb2.GenerateProgress:
        """Progress with so many more edits and tokens."""
        return generator_pb2.GenerateProgress(
            state=state,
            edits_done=self.edits + edits,
            edits_total=self.total,
            tokens=self.tokens + tokens,
        )

    def add(self, result: GenerationResult) -> None:
        """Count what the engine has finished."""
        self.edits += sum(map(len, result.samples))
        self.tokens += sum(sample.tokens for samples in result.samples for sample in samples)


def _leave_out(error: UnfitItem, asked: list[int], groups: deque[list[int]]) -> list[int]:
    """The contexts that are at fault; the others go back to `groups`.

    Where the error names none of several, none is, and each is asked alone.
    """
    unfit = [asked[place] for place in error.places] or (asked if len(asked) == 1 else [])
    log.warning("context unfit", outcome=error.outcome.value, reason=str(error))
    others = [place for place in asked if place not in unfit]
    groups.extend([others] if unfit and others else [[alone] for alone in others])
    return unfit


def _context_edits(generated: GenerationResult, index: int) -> generator_pb2.ContextEdits:
    """The edits of one of the contexts that were asked."""
    return generator_pb2.ContextEdits(
        outcome=common_pb2.OUTCOME_OK,
        edits=[
            generator_pb2.Edit(
                seed=sampled.seed,
                parts=[
                    generator_pb2.EditPart(
                        text=sampled.text, tokens=sampled.tokens, truncated=sampled.truncated
                    )
                ],
            )
            for sampled in generated.samples[index]
        ],
        engine_seconds=generated.engine_seconds[index],
    )
