"""GeneratorService.

Prompts by the domain, samples by the engine, one message per context in the order of the request. A
request is cut into batches of about as many edits as the engine samples at once. Batches run one
after another, so the first contexts are out while later ones wait, and other callers get their turn
in between. The cut depends on the request alone: a retry gives the same edits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from generator_svc.parts import context_edits, engine_request, prompt_bytes
from generator_svc.plan import (
    GenerationPlan,
    PlannedContext,
    cut_into_batches,
    parse_generation,
)
from generator_svc.text import TextWriter
from seal.engine import GenerationResult
from seal.errors import UnfitItem
from seal.limits import MAX_CONTEXT_EDITS_BYTES
from seal.outcomes import Outcome
from seal.rpc.convert import OUTCOME_TO_WIRE, base_reference
from seal.rpc.engine_calls import Newest, Pace, engine_call, sample, shows_life
from seal.rpc.line import Line, TimeLeft
from seal.v1 import common_pb2, generator_pb2, generator_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from seal.adapters import AdapterCache
    from seal.backends import Writer
    from seal.engine import Adapter

log = structlog.get_logger(__name__)


def register(
    server: grpc.aio.Server,
    *,
    engine: Writer,
    adapters: AdapterCache,
    pace: Pace | None = None,
) -> str:
    """Add the service to `server`; returns its full name for health checks."""
    service = GeneratorService(engine=engine, adapters=adapters, pace=pace or Pace())
    generator_pb2_grpc.add_GeneratorServiceServicer_to_server(service, server)
    return generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name


class GeneratorService(generator_pb2_grpc.GeneratorServiceServicer):
    """Serves GenerateEdits and, by `generator_svc.text`, GenerateText."""

    def __init__(self, *, engine: Writer, adapters: AdapterCache, pace: Pace) -> None:
        self._engine, self._adapters, self._pace = engine, adapters, pace
        self._line = Line("generate")
        self._texts = TextWriter(engine=engine, adapters=adapters, pace=pace, line=self._line)

    async def GenerateText(
        self,
        request: generator_pb2.GenerateTextRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[generator_pb2.GenerateTextResponse]:
        """Stream one text in pieces, then its result.

        A cancelled call or a passed deadline stops the work; a retry gives the same text.
        """
        async with aclosing(self._texts.write(request, context.time_remaining)) as responses:
            async for response in responses:
                yield response

    async def GenerateEdits(
        self,
        request: generator_pb2.GenerateEditsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[generator_pb2.GenerateEditsResponse]:
        """Stream progress and finished contexts.

        A cancelled call or a passed deadline stops the work; a retry gives the same edits.
        """
        plan = await asyncio.to_thread(parse_generation, request)
        self._adapters.check_base(plan.base)
        policy = (
            None
            if plan.policy is None
            else await self._adapters.get(plan.policy, field="policy.adapter")
        )
        if plan.edit_schema and not self._engine.holds_to_schema:
            log.info("edits are not held to their schema: no structured decoding", run=plan.run)
        counted = _Counted(plan.edits)
        batches = cut_into_batches(plan.contexts, max_edits=self._engine.settings.generation_rows)
        for batch in batches:
            async with aclosing(
                self._sample_batch(plan, policy, batch, counted, context.time_remaining)
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

    async def DescribeGenerator(
        self,
        request: generator_pb2.DescribeGeneratorRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> generator_pb2.DescribeGeneratorResponse:
        """What the loaded base model can be asked with, if it is the one that the caller means."""
        self._adapters.check_base(base_reference(request.policy))
        return generator_pb2.DescribeGeneratorResponse(max_rank=self._engine.max_lora_rank)

    async def _sample_batch(
        self,
        plan: GenerationPlan,
        policy: Adapter | None,
        batch: tuple[PlannedContext, ...],
        counted: _Counted,
        time_left: TimeLeft,
    ) -> AsyncGenerator[generator_pb2.GenerateEditsResponse, None]:
        """Sample one batch: its progress, then its contexts.

        A context that is at fault gets an outcome and the others are asked without it; where only
        the request as a whole is at fault, each is asked alone.
        """
        ended = {
            place: _without_edits(Outcome.TOO_LONG)
            for place, context in enumerate(batch)
            if prompt_bytes(context) > MAX_CONTEXT_EDITS_BYTES
        }
        groups = deque([[place for place in range(len(batch)) if place not in ended]])
        while groups:
            if not (asked := groups.popleft()):
                continue
            members = [batch[place] for place in asked]
            try:
                async with aclosing(
                    self._sample(plan, policy, members, counted, time_left)
                ) as events:
                    async for event in events:
                        if isinstance(event, GenerationResult):
                            ended |= dict(zip(asked, context_edits(members, event), strict=True))
                        else:
                            yield generator_pb2.GenerateEditsResponse(progress=event)
            except UnfitItem as error:
                for place in _leave_out(error, asked, members, groups):
                    ended[place] = _without_edits(error.outcome)
        for place, context in enumerate(batch):
            ended[place].context_id = context.context_id
            yield generator_pb2.GenerateEditsResponse(context_edits=ended[place])

    async def _sample(
        self,
        plan: GenerationPlan,
        policy: Adapter | None,
        contexts: Sequence[PlannedContext],
        counted: _Counted,
        time_left: TimeLeft,
    ) -> AsyncGenerator[generator_pb2.GenerateProgress | GenerationResult, None]:
        """Progress of one request to the engine, then its result, which is counted."""
        schema = self._engine.holds_to_schema
        request = engine_request(plan, policy, contexts, by_schema=schema)
        state = common_pb2.TASK_STATE_RUNNING if counted.edits else common_pb2.TASK_STATE_QUEUED
        progress = Newest(counted.progress(state, 0, 0))
        edits, rows = _edits(contexts), sum(context.rows for context in contexts)

        def on_progress(rows_done: int, tokens: int) -> None:
            done = edits * rows_done // rows
            progress.set(counted.progress(common_pb2.TASK_STATE_RUNNING, done, tokens))

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
        counted.edits += edits
        counted.tokens += sum(sample.tokens for samples in result.samples for sample in samples)
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


def _edits(contexts: Sequence[PlannedContext]) -> int:
    return sum(len(context.seeds) for context in contexts)


def _leave_out(
    error: UnfitItem,
    asked: list[int],
    members: Sequence[PlannedContext],
    groups: deque[list[int]],
) -> list[int]:
    """The contexts of which a prompt is at fault; the others go back to `groups`.

    Where the error names none of several, none is, and each is asked alone.
    """
    of_prompt = [
        place for place, context in zip(asked, members, strict=True) for _ in context.parts
    ]
    unfit = list(dict.fromkeys(of_prompt[prompt] for prompt in error.places))
    if not unfit and len(asked) == 1:
        unfit = asked
    log.warning("context unfit", outcome=error.outcome.value, reason=str(error))
    others = [place for place in asked if place not in unfit]
    groups.extend([others] if unfit else [[alone] for alone in others])
    return unfit


def _without_edits(outcome: Outcome) -> generator_pb2.ContextEdits:
    return generator_pb2.ContextEdits(outcome=OUTCOME_TO_WIRE[outcome])
