"""The worker's client of the generator: edits, checked to be those that were asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import grpc.aio

from controller_svc.worker.calls import UNARY_TIMEOUT_SECONDS, Calls
from seal.errors import Internal, Transient
from seal.outcomes import Outcome
from seal.rpc.convert import OUTCOME_TO_WIRE
from seal.v1 import common_pb2, generator_pb2, generator_pb2_grpc

OnGenerate = Callable[[int, int], None]
"""(edits done, tokens) of a generation."""
_NO_EDITS = frozenset(
    wire for outcome, wire in OUTCOME_TO_WIRE.items() if outcome is not Outcome.OK
)


class GeneratorClient:
    """Calls the generator, and the one of a model at an endpoint where there is one."""

    def __init__(
        self, calls: Calls, channel: grpc.aio.Channel, *, endpoint: grpc.aio.Channel | None
    ) -> None:
        """`endpoint`: the channel of the generator that asks a model at an endpoint."""
        self._calls = calls
        self._stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        self._endpoint = (
            generator_pb2_grpc.GeneratorServiceStub(endpoint) if endpoint is not None else None
        )

    @property
    def has_endpoint(self) -> bool:
        """Whether a model at an endpoint can write edits."""
        return self._endpoint is not None

    async def generate(
        self,
        request: generator_pb2.GenerateEditsRequest,
        on_progress: OnGenerate,
        *,
        by_endpoint: bool = False,
    ) -> tuple[generator_pb2.ContextEdits, ...]:
        """One ContextEdits per context of the request, in its order, with one edit per seed.

        `by_endpoint`: written by the model at an endpoint.

        Raises:
            SealError: what the service answered, after the retries; Internal if it delivered other
                contexts or seeds.

        """
        stub = self._stub
        if by_endpoint:
            if self._endpoint is None:
                raise Internal("no generator for a model at an endpoint is known")
            stub = self._endpoint

        async def once() -> tuple[generator_pb2.ContextEdits, ...]:
            results = []
            call = stub.GenerateEdits(
                self._calls.sized(request), timeout=self._calls.timeout_seconds
            )
            async with aclosing(self._calls.events(call)) as events:
                async for response in events:
                    if response.HasField("context_edits"):
                        results.append(response.context_edits)
                    else:
                        on_progress(response.progress.edits_done, response.progress.tokens)
            _check_edits(request, results)
            return tuple(results)

        return await self._calls.retried(once)

    async def max_rank(self, policy: common_pb2.PolicyRef) -> int:
        """Largest LoRA that it writes with, if it has the base model of `policy`.

        0 is a generator without such a bound.

        Raises:
            InvalidInput: it has another base model.
            SealError: what the service answered, after the retries.

        """
        request = generator_pb2.DescribeGeneratorRequest(policy=policy)
        described = await self._calls.answered(
            lambda: self._stub.DescribeGenerator(request, timeout=UNARY_TIMEOUT_SECONDS)
        )
        return described.max_rank


def _check_edits(
    request: generator_pb2.GenerateEditsRequest, results: list[generator_pb2.ContextEdits]
) -> None:
    """Refuse mixed up contexts or seeds, which would train the wrong thing and not show."""
    asked = [(context.context_id, list(context.seeds)) for context in request.contexts]
    given = [(result.context_id, _seeds(request, result)) for result in results]
    if len(given) < len(asked) and given == asked[: len(given)]:
        raise Transient(
            f"generation {request.request_id} ended before its last context",
            remedy="is the generator being restarted?",
        )
    if given != asked:
        raise Internal(
            f"generation {request.request_id} delivered other contexts or seeds than it was asked "
            "for"
        )
    for result in results:
        if any(len(edit.parts) != len(result.parts) for edit in result.edits):
            raise Internal(
                f"generation {request.request_id} delivered edits of {result.context_id!r} with "
                "other parts than were asked for"
            )


def _seeds(
    request: generator_pb2.GenerateEditsRequest, result: generator_pb2.ContextEdits
) -> list[int]:
    """The seeds of a context's edits; those that were asked for if its outcome is to have none."""
    if not result.edits and result.outcome in _NO_EDITS:
        return [
            seed
            for context in request.contexts
            if context.context_id == result.context_id
            for seed in context.seeds
        ]
    return [edit.seed for edit in result.edits]
