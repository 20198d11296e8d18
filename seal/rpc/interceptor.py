"""What every call of every service has in common.

SealErrors become rich statuses, calls are counted, timed and logged. An error that nobody expected
is logged with its traceback and answered as Internal without its text, which may hold data. A call
that the client left is no error. Health checks and reflection are logged at debug level only:
probes come every few seconds.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf import descriptor_pool
from pydantic import ValidationError

from seal.errors import Exhausted, Internal, SealError, Transient, error_class
from seal.metrics import Metrics
from seal.rpc.errors import STATUS_KEY, from_validation_error, to_status
from seal.rpc.hops import Span, hop_of, within
from seal.rpc.parsing import never_failing, well_formed
from seal.rpc.tracing import tracing

log = structlog.get_logger(__name__)

NO_TRANSPORT_RETRY = ("grpc-retry-pushback-ms", "-1")
"""Tells the client's channel to hand the error up: the channel retries lost connections, the caller
retries what a service refused."""

RETRY_AFTER_SECONDS = 5.0
"""When a caller who met too many calls may ask again."""

WATCH_SHARE = 0.75
"""Of the places for calls: so many may be watches, which last as long as their clients like."""

FAULTS = ("Internal", "Unknown", "DataLoss")
"""Codes, as metrics spell them, that a healthy service never answers. The alert on them asks for
their rate, and a counter that is first seen at 1 has none."""

_TYPES = {
    (False, False): "unary",
    (False, True): "server_stream",
    (True, False): "client_stream",
    (True, True): "bidi_stream",
}
"""Of a method, by whether its requests and its responses are streams."""
_WORDS = {False: "unary", True: "stream"}

_QUIET_SERVICES = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
_CALLERS_FAULT = ("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "CANCELLED", "UNAUTHENTICATED")
"""Codes of what a caller did, who is told of it: no warnings, as in go-grpc-middleware."""
_LOGGED_CHARACTERS = 500


@dataclass(frozen=True)
class _Method:
    """One RPC method, as metrics and logs name it."""

    service: str
    name: str
    type: str
    """unary, server_stream, client_stream or bidi_stream."""

    @property
    def path(self) -> str:
        """`package.Service/Method`."""
        return f"{self.service}/{self.name}"

    @property
    def is_watch(self) -> bool:
        """Whether it tells of what others do, without end; streams of work end by themselves."""
        return self.type == "server_stream" and self.name.startswith("Watch")

    @property
    def labels(self) -> dict[str, str]:
        return {"grpc_type": self.type, "grpc_service": self.service, "grpc_method": self.name}


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler and knows which calls run.

    Those of the services, and those of health and reflection apart from them: a probe is never
    refused for the number of calls, or a busy server would be killed for being busy.
    """

    def __init__(self, metrics: Metrics, *, max_calls: int) -> None:
        """`max_calls`: calls of the services that may run at once; more end with Exhausted.

        Of them `WATCH_SHARE` may be watches, so that these keep nobody from other calls.
        """
        self._metrics = metrics
        self._max_calls, self._max_watches = max_calls, max(1, int(WATCH_SHARE * max_calls))
        self._running = self._watching = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._watches: set[asyncio.Task[Any]] = set()
        self._ending = False

    def expect(self, service: str) -> None:
        """Show a service's faults before there are any, each of its methods with each code at 0.

        Raises KeyError for a service that no imported proto has.
        """
        described = descriptor_pool.Default().FindServiceByName(service)
        for one in described.methods:
            kind = _TYPES[one.client_streaming, one.server_streaming]
            for code in FAULTS:
                labels = _Method(service, one.name, kind).labels
                self._metrics.grpc_handled.labels(**labels, grpc_code=code)

    async def wait_idle(self) -> None:
        """Wait until no call of a service runs."""
        await self._idle.wait()

    def end_watches(self) -> None:
        """End health and reflection streams with UNAVAILABLE; by themselves they never end."""
        self._ending = True
        for task in self._watches:
            task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Replace the handler's function by the observed one.

        An unknown method has no handler and stays gRPC's own error.
        """
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        _, service, name = handler_call_details.method.split("/", 2)
        shape = (bool(handler.request_streaming), bool(handler.response_streaming))
        kind = f"{_WORDS[shape[0]]}_{_WORDS[shape[1]]}"
        behavior = getattr(handler, kind)
        observed = self._observed(_Method(service, name, _TYPES[shape]), behavior)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(
            observed,
            request_deserializer=never_failing(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _observed(
        self, method: _Method, behavior: Callable[[Any, Any], Any]
    ) -> Callable[[Any, Any], Any]:
        """Same shape as `behavior` (generator or coroutine): gRPC chooses by it how to send."""
        if inspect.isasyncgenfunction(behavior):

            async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
                async with (
                    self._call(method, request, context),
                    aclosing(behavior(well_formed(request), context)) as messages,
                ):
                    async for message in messages:
                        yield message

            return stream

        async def single(request: Any, context: Any) -> Any:
            async with self._call(method, request, context):
                return await behavior(well_formed(request), context)

        return single

    @asynccontextmanager
    async def _call(self, method: _Method, request: Any, context: Any) -> AsyncIterator[None]:
        quiet = method.service in _QUIET_SERVICES
        hop = hop_of(context.invocation_metadata())
        span = Span(hop) if quiet else tracing().span(method.path, hop, answers=True)
        with within(span.hop):
            async with self._counted(method, request, context, span, quiet=quiet):
                yield

    @asynccontextmanager
    async def _counted(
        self, method: _Method, request: Any, context: Any, span: Span, *, quiet: bool
    ) -> AsyncIterator[None]:
        started = time.monotonic()
        watch = asyncio.current_task() if quiet else None
        self._metrics.grpc_started.labels(**method.labels).inc()
        if watch is None and (refused := self._refused(method)) is not None:
            self._record(method, "OK", refused, span, seconds=time.monotonic() - started)
            await abort(context, refused)
        self._enter(method, watch)
        code, unserved = "OK", False
        failure: SealError | None = None
        try:
            with structlog.contextvars.bound_contextvars(**_identity(request)):
                try:
                    yield
                    code = _set_code(context)
                except (asyncio.CancelledError, GeneratorExit):
                    code = "DEADLINE_EXCEEDED" if _deadline_passed(context) else "CANCELLED"
                    if watch is None or not self._ending or watch.uncancel():
                        raise
                    failure = Transient("the server is stopping")
                except grpc.aio.AbortError:
                    code = _set_code(context)
                    raise
                except Exception as error:  # noqa: BLE001 - the boundary of a call: whatever happened, the client gets a status
                    code = _set_code(context)
                    unserved = _is_unserved(error, code)
                    failure = None if unserved else _failure(error, method)
                finally:
                    self._record(method, code, failure, span, seconds=time.monotonic() - started)
            if failure is not None:
                await abort(context, failure)
            if unserved:
                details = f"{method.path} is not served here"
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, details, (NO_TRANSPORT_RETRY,))
        finally:
            self._leave(method, watch)

    def _refused(self, method: _Method) -> Exhausted | None:
        """Why no place is left for a call."""
        if method.is_watch and self._watching >= self._max_watches:
            taken = f"{self._watching} watches"
        elif self._running >= self._max_calls:
            taken = f"{self._running} calls"
        else:
            return None
        return Exhausted(
            f"{taken} run already",
            remedy="try again later or add servers",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )

    def _enter(self, method: _Method, watch: asyncio.Task[Any] | None) -> None:
        if watch is not None:
            self._watches.add(watch)
        else:
            self._running += 1
            self._watching += method.is_watch
            self._idle.clear()

    def _leave(self, method: _Method, watch: asyncio.Task[Any] | None) -> None:
        if watch is not None:
            self._watches.discard(watch)
            return
        self._running -= 1
        self._watching -= method.is_watch
        if not self._running:
            self._idle.set()

    def _record(
        self, method: _Method, code: str, failure: SealError | None, span: Span, *, seconds: float
    ) -> None:
        """Count, log and trace the end of a call, before the client hears of a failure.

        A failure has its own code.
        """
        facts: dict[str, object] = {
            "service": method.service,
            "method": method.name,
            "code": code,
            "seconds": round(seconds, 4),
        }
        if failure is not None:
            row = error_class(failure)
            facts |= {
                "code": row.grpc_code,
                "reason": row.reason,
                "error": str(failure)[:_LOGGED_CHARACTERS],
            }
        self._metrics.grpc_handled.labels(
            **method.labels, grpc_code=_metric_code(str(facts["code"]))
        ).inc()
        self._metrics.grpc_handling_seconds.labels(**method.labels).observe(seconds)
        getattr(log, _level(method, failure))("call ended", **facts)
        if span.end is not None:
            span.end(str(facts["code"]))


def _level(method: _Method, failure: SealError | None) -> str:
    """How loud the line of a call's end is."""
    if method.service in _QUIET_SERVICES:
        return "debug"
    if failure is None or error_class(failure).grpc_code in _CALLERS_FAULT:
        return "info"
    return "warning"


def _is_unserved(error: Exception, code: str) -> bool:
    """Whether a call ended as gRPC's generated code ends that of a method nobody has written."""
    return isinstance(error, NotImplementedError) and code == "UNIMPLEMENTED"


def _failure(error: Exception, method: _Method) -> SealError:
    """What the client is told."""
    if isinstance(error, SealError):
        return error
    if isinstance(error, ValidationError):
        return from_validation_error(error)
    log.exception("call failed unexpectedly", service=method.service, method=method.name)
    return Internal(
        f"unexpected {type(error).__name__} in {method.service}/{method.name}",
        remedy="see the service's log and report the traceback",
    )


async def abort(context: Any, failure: SealError) -> None:
    """End the call with the rich status. Raises AbortError."""
    status = to_status(failure)
    code = grpc.StatusCode[error_class(failure).grpc_code]
    await context.abort(
        code, status.message, ((STATUS_KEY, status.SerializeToString()), NO_TRANSPORT_RETRY)
    )


def _set_code(context: Any) -> str:
    """Code that the handler set by itself; gRPC gives 0 or None while none was set."""
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else "OK"


def _deadline_passed(context: Any) -> bool:
    remaining = context.time_remaining()
    return remaining is not None and remaining <= 0


def _identity(request: Any) -> dict[str, str]:
    """Run and request of a message that has them."""
    values = {name: getattr(request, name, "") for name in ("run", "request_id")}
    return {name: value[:100] for name, value in values.items() if isinstance(value, str) and value}


def _metric_code(code: str) -> str:
    """Spell a code as gRPC for Go does and dashboards expect: OK, NotFound, Canceled."""
    if code == "OK":
        return code
    return (
        "Canceled"
        if code == "CANCELLED"
        else "".join(part.capitalize() for part in code.split("_"))
    )
