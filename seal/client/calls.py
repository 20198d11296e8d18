"""What the blocking and the asynchronous client share: requests, patience, a watch's place.

Nothing here waits or connects.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seal.client import convert, to_wire
from seal.client.events import Ended, Event
from seal.client.files import read_documents
from seal.client.types import Adaptation, Document, Options, Question, State, StoredFile
from seal.errors import Retryable, Transient
from seal.rpc.settings import DEFAULT_ADDRESS
from seal.v1 import adaptation_pb2

SERVER_VARIABLE = "SEAL_SERVER"
"""Variable that names the server where no address is given."""
CALLER_KEY = "x-seal-caller"
"""Metadata key of who calls; request ids are scoped to it."""
PAGE_SIZE = 100

OnRetry = Callable[[Retryable], None]
"""Hears of an error before the call is made again; what it raises ends the call."""


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """How a client behaves."""

    namespace: str = ""
    """Of all calls; empty is the server's default."""
    caller: str = ""
    """Who calls: request ids of two callers are not compared."""
    call_seconds: float = 60.0
    """Deadline of a call that answers at once."""
    transfer_seconds: float = 1800.0
    """Deadline of an upload, a download, or a submission: the server reads all documents, of which
    the largest take minutes, before it answers."""
    retry_seconds: float = 15.0
    """How long a call that the server could not take is made again, with the same request id."""
    reconnect_seconds: float = 300.0
    """How long a watch that had begun looks for a server that is away."""
    on_retry: OnRetry | None = None
    """Hears of an error before the call is made again."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return ((CALLER_KEY, self.caller),) if self.caller else ()


def address_of(address: str) -> str:
    """The given address, else that of `SEAL_SERVER`, else this machine's usual one."""
    return address or os.environ.get(SERVER_VARIABLE, "") or DEFAULT_ADDRESS


class Attempts:
    """How long a call is made again, and after which pauses."""

    FIRST_PAUSE_SECONDS = 0.2
    LONGEST_PAUSE_SECONDS = 5.0

    def __init__(
        self,
        seconds: float,
        *,
        on_retry: OnRetry | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_retry, self._clock = on_retry, clock
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        """The call got on, for however long: from its next failure on it may fail for so long."""
        self._seconds, self._pause = seconds, self.FIRST_PAUSE_SECONDS
        self._until: float | None = None
        """From the first failure on: before it a call may have worked for half an hour."""

    def pause_seconds(self, error: Retryable) -> float:
        """How long to wait before the call is made again.

        Raises the error itself once there is no time left.
        """
        if self._until is None:
            self._until = self._clock() + self._seconds
        pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
        self._pause = min(2 * self._pause, self.LONGEST_PAUSE_SECONDS)
        pause = max(pause, error.retry_after_seconds or 0.0)
        if self._clock() + pause > self._until:
            raise error
        if self._on_retry is not None:
            self._on_retry(error)
        return pause


def check_recent(adaptation: Adaptation, sequence: int) -> Adaptation:
    """The adaptation, unless the server that answered has not heard of this event yet.

    Raises Transient: of several replicas one may know more than the next.
    """
    if adaptation.sequence < sequence:
        raise Transient(
            f"the server does not know yet how {adaptation.name} ended", remedy="ask it again"
        )
    return adaptation


class WatchPlace:
    """How far a watch has come, over all its connections, and how long it may go on."""

    def __init__(
        self,
        *,
        namespace: str,
        name: str,
        after: int,
        timeout_seconds: float | None,
    ) -> None:
        self._namespace, self._name, self._after = namespace, name, after
        self._until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self.ended = False
        """The event of the end has come, or was known before."""

    def seconds_left(self) -> float | None:
        """How long the next connection may last; None: as long as it takes.

        Raises Transient once the time is used up.
        """
        if self._until is None:
            return None
        left = self._until - time.monotonic()
        if left <= 0:
            raise Transient(
                f"{self._name} has not ended in time; it goes on", remedy="watch it again"
            )
        return left

    def check_ended(self, adaptation: Adaptation) -> None:
        """The connection has ended without the event of the end: that was known before it began.

        Raises Transient if that event is still to come.
        """
        self.ended = adaptation.state.final and adaptation.sequence <= self._after
        if not self.ended:
            raise Transient("the server ended the watch before the adaptation ended")

    @property
    def request(self) -> adaptation_pb2.WatchAdaptationRequest:
        """Asks for what has not come yet."""
        return adaptation_pb2.WatchAdaptationRequest(
            namespace=self._namespace, name=self._name, after_sequence=self._after
        )

    def take(self, message: adaptation_pb2.WatchAdaptationResponse) -> Event | None:
        """The event of a message; None for one that is known already, or of an unknown kind."""
        kept = message.event.WhichOneof("event") != "progress"
        if kept and message.event.sequence <= self._after:
            return None
        self._after = max(self._after, message.event.sequence)
        event = convert.event(message.event)
        self.ended = event is not None and isinstance(event.what, Ended)
        return event


def as_documents(documents: Iterable[Document | str | Path]) -> tuple[Document, ...]:
    """Documents as they are, then those of files, directories and globs.

    These are read together, so that a file of two of them is taken once.
    Raises as `read_documents`.
    """
    given = tuple(documents)
    ready = [one for one in given if isinstance(one, Document)]
    return (*ready, *read_documents(one for one in given if not isinstance(one, Document)))


def without_content(documents: Iterable[Document]) -> tuple[Document, ...]:
    """All else of documents."""
    return tuple(replace(document, content=b"") for document in documents)


def with_files(documents: Sequence[Document], files: dict[str, StoredFile]) -> tuple[Document, ...]:
    """Uploaded documents refer to their files."""
    return tuple(
        replace(document, content=b"", file=files[document.name])
        if document.name in files
        else document
        for document in documents
    )


def new_request_id() -> str:
    """For an adaptation that no other call is to find."""
    return uuid.uuid4().hex


def submit_request(
    documents: Sequence[Document],
    *,
    namespace: str,
    name: str,
    request_id: str,
    questions: Iterable[Question],
    options: Options,
) -> adaptation_pb2.SubmitAdaptationRequest:
    """All of a submission in one message."""
    return adaptation_pb2.SubmitAdaptationRequest(
        request_id=request_id,
        namespace=namespace,
        name=name,
        documents=[to_wire.document_message(document) for document in documents],
        questions=[to_wire.question_message(question) for question in questions],
        options=to_wire.options_message(options),
    )


def list_request(
    *, namespace: str, states: Iterable[State], name_prefix: str, page_token: str
) -> adaptation_pb2.ListAdaptationsRequest:
    """One page of a list."""
    return adaptation_pb2.ListAdaptationsRequest(
        namespace=namespace,
        page_size=PAGE_SIZE,
        page_token=page_token,
        states=[to_wire.STATE_TO_WIRE[state] for state in states],
        name_prefix=name_prefix,
    )
