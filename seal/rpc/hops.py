"""What a call brings along through all hops: which call came first, and the trace it belongs to.

`x-request-id` names the call with which everything began; `traceparent` and `tracestate` are those
of the W3C (https://www.w3.org/TR/trace-context/). A service reads them from the metadata of a call,
has them on every log line, and hands them on with every call that it makes meanwhile. Whoever
begins makes a request id; a trace begins only where spans are exported (`seal.rpc.tracing`).
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass

import structlog

REQUEST_ID_KEY = "x-request-id"
TRACEPARENT_KEY = "traceparent"
TRACESTATE_KEY = "tracestate"
KEYS = (REQUEST_ID_KEY, TRACEPARENT_KEY, TRACESTATE_KEY)
TRACE_VARIABLES = {
    "SEAL_REQUEST_ID": REQUEST_ID_KEY,
    "TRACEPARENT": TRACEPARENT_KEY,
    "TRACESTATE": TRACESTATE_KEY,
}
"""Environment variables of a Job's pods that stand for the headers of a call."""

Metadata = tuple[tuple[str, str], ...]
Facts = Mapping[str, str | int]
"""What a span says of its work, by name: `run`, `stage`, `round`, `shard`."""

_MAX_CHARACTERS = 128
_MAX_STATE_CHARACTERS = 512
_PLAIN = re.compile(r"[\x21-\x7e]+")
_STATE = re.compile(r"[\x20-\x7e]+")
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


@dataclass(frozen=True)
class Hop:
    """What the calls of one piece of work have in common."""

    request_id: str
    """Not the idempotency key of a message: that names the work, this the call that asked."""
    traceparent: str = ""
    """Empty without a trace."""
    tracestate: str = ""

    @property
    def trace_id(self) -> str:
        """32 hex digits; empty without a trace."""
        found = _TRACEPARENT.fullmatch(self.traceparent)
        return found[1] if found is not None else ""

    @property
    def metadata(self) -> Metadata:
        """As a call carries it."""
        values = (self.request_id, self.traceparent, self.tracestate)
        return tuple((key, value) for key, value in zip(KEYS, values, strict=True) if value)

    @property
    def facts(self) -> Mapping[str, str]:
        """As log lines have it."""
        facts = {"x_request_id": self.request_id}
        return facts | {"trace_id": self.trace_id} if self.trace_id else facts


@dataclass(frozen=True)
class Span:
    """A call that is being made or answered, or work that is being done."""

    hop: Hop
    """What those further on are told: this span is their parent."""
    end: Callable[[str], None] | None = None
    """To be called once, with the name of the status code; None where nobody sees the span."""


_current: ContextVar[Hop | None] = ContextVar("seal_hop", default=None)


def new_hop() -> Hop:
    """The beginning of something."""
    return Hop(uuid.uuid4().hex)


def current_hop() -> Hop:
    """That of the call which is being answered; a new one where none is."""
    return _current.get() or new_hop()


def hop_of_environment() -> Hop:
    """What a pod is told about the call that its work goes back to."""
    return hop_of((key, os.environ.get(name, "")) for name, key in TRACE_VARIABLES.items())


def hop_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> Hop:
    """What a caller sent.

    What is malformed counts as not sent: it is no reason to refuse a call.
    """
    sent = {key: value for key, value in metadata or () if isinstance(value, str)}
    request_id = sent.get(REQUEST_ID_KEY, "")
    if len(request_id) > _MAX_CHARACTERS or not _PLAIN.fullmatch(request_id):
        request_id = new_hop().request_id
    traceparent = sent.get(TRACEPARENT_KEY, "")
    if not _TRACEPARENT.fullmatch(traceparent):
        return Hop(request_id)
    state = sent.get(TRACESTATE_KEY, "")
    usable = len(state) <= _MAX_STATE_CHARACTERS and _STATE.fullmatch(state)
    return Hop(request_id, traceparent, state if usable else "")


@contextmanager
def within(hop: Hop) -> Iterator[None]:
    """Answer a call, or do its work: log lines and calls of the block belong to it."""
    token = _current.set(hop)
    try:
        with structlog.contextvars.bound_contextvars(**hop.facts):
            yield
    finally:
        # A stream that its caller left is closed by the event loop, which has a context of its own
        with suppress(ValueError):
            _current.reset(token)
