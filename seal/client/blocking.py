"""The client for plain scripts and notebooks: blocking calls over gRPC's blocking stubs.

It needs no event loop and starts none, so that it works beside one, and Ctrl-C ends any wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import grpc

from seal.client import calls, convert, transfers
from seal.client.calls import Attempts, ClientOptions, WatchPlace
from seal.client.events import Event
from seal.client.types import (
    Adaptation,
    Document,
    Options,
    Question,
    State,
    StoredFile,
    Submission,
)
from seal.errors import NotFound, Retryable
from seal.records import AdapterReference
from seal.rpc.client import ClientSettings, blocking_rpc_errors, open_blocking_channel
from seal.v1 import adaptation_pb2, adaptation_pb2_grpc

Request = TypeVar("Request")
Response = TypeVar("Response")


class Client:
    """Adaptations of one server; thread-safe. A context manager, or `close` it.

    Every call raises the SealError that the server answered with (`field`, `remedy`), and Transient
    if the server is away for longer than the options allow.
    """

    def __init__(
        self,
        address: str = "",
        *,
        options: ClientOptions | None = None,
        channel: ClientSettings | None = None,
    ) -> None:
        """`address`: host:port or unix:/path; empty is `SEAL_SERVER`, else localhost:50051."""
        self.address = calls.address_of(address)
        self._options = options or ClientOptions()
        self._channel = open_blocking_channel(self.address, settings=channel)
        self._stub = adaptation_pb2_grpc.AdaptationServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; adaptations go on."""
        self._channel.close()

    def submit(
        self,
        documents: Iterable[Document | str | Path],
        *,
        questions: Iterable[Question] = (),
        name: str = "",
        request_id: str = "",
        options: Options | None = None,
    ) -> Submission:
        """Hand in documents, or paths of them; answers at once, the adaptation runs on its own.

        The same `request_id` with the same content is the same adaptation, whoever's connection was
        lost meanwhile; empty takes a new one. What is too large for a message is uploaded first.
        """
        given = calls.as_documents(documents)
        request = partial(
            calls.submit_request,
            namespace=self._options.namespace,
            name=name,
            request_id=request_id or calls.new_request_id(),
            questions=tuple(questions),
            options=options or Options(),
        )
        too_large = transfers.too_large_together(given, request(calls.without_content(given)))

        def uploaded() -> adaptation_pb2.SubmitAdaptationRequest:
            files = {one.name: self.upload(one.content) for one in given if one.name in too_large}
            return request(calls.with_files(given, files))

        try:
            response = self._submit(uploaded())
        except NotFound as error:
            if not too_large or not error.field.startswith("documents"):
                raise
            # An adaptation of the same document was deleted, and the document with it
            response = self._submit(uploaded())
        return convert.submission(response)

    def get(self, name: str) -> Adaptation:
        """Where an adaptation is."""
        return self._again_and_again(lambda: self._get(name))

    def list(self, *, states: Iterable[State] = (), name_prefix: str = "") -> Iterator[Adaptation]:
        """All adaptations of the namespace by name, page by page."""
        token, wanted = "", tuple(states)
        while True:
            request = calls.list_request(
                namespace=self._options.namespace,
                states=wanted,
                name_prefix=name_prefix,
                page_token=token,
            )
            page = self._call(self._stub.ListAdaptations, request)
            yield from map(convert.adaptation, page.adaptations)
            if not (token := page.next_page_token):
                return

    def watch(
        self, name: str, *, after: int = 0, timeout_seconds: float | None = None
    ) -> Generator[Event]:
        """What happens to an adaptation after event `after`, until its end.

        A lost connection is made again, and no event is missed or told twice. Raises Transient if
        the server stays away, or once `timeout_seconds` are over.
        """
        place = WatchPlace(
            namespace=self._options.namespace,
            name=name,
            after=after,
            timeout_seconds=timeout_seconds,
        )
        attempts = Attempts(self._options.retry_seconds, on_retry=self._options.on_retry)
        while not place.ended:
            try:
                with self._connection(place) as messages:
                    for message in messages:
                        attempts.allow(self._options.reconnect_seconds)
                        if (event := place.take(message)) is not None:
                            yield event
                if not place.ended:
                    place.check_ended(self._get(name))
            except Retryable as error:
                place.seconds_left()
                time.sleep(attempts.pause_seconds(error))

    def wait(
        self,
        name: str,
        *,
        on_event: Callable[[Event], None] | None = None,
        after: int = 0,
        timeout_seconds: float | None = None,
    ) -> Adaptation:
        """The adaptation once it has ended; `on_event` hears what happens. Raises like `watch`."""
        last = after
        for event in self.watch(name, after=after, timeout_seconds=timeout_seconds):
            last = event.sequence
            if on_event is not None:
                on_event(event)

        def get_ended() -> Adaptation:
            return calls.check_recent(self._get(name), last)

        return self._again_and_again(get_ended)

    def cancel(self, name: str) -> Adaptation:
        """Stop an adaptation; it may take a moment. One that has ended stays as it is."""
        request = adaptation_pb2.CancelAdaptationRequest(
            namespace=self._options.namespace, name=name
        )
        return convert.adaptation(self._call(self._stub.CancelAdaptation, request).adaptation)

    def delete(self, name: str, *, uid: str = "", keep_adapters: bool = False) -> None:
        """Remove an adaptation and its adapters; one at work is cancelled first.

        `uid`: only if it still is that one.
        """
        request = adaptation_pb2.DeleteAdaptationRequest(
            namespace=self._options.namespace, name=name, uid=uid, keep_adapters=keep_adapters
        )
        tries = 0

        def delete() -> None:
            nonlocal tries
            tries += 1
            try:
                self._send(self._stub.DeleteAdaptation, request)
            except NotFound:
                if tries == 1:  # else it was deleted, and only the answer was lost
                    raise

        self._again_and_again(delete)

    def upload(self, content: bytes) -> StoredFile:
        """Store the content of a document; the same content again is the same file."""

        def upload() -> adaptation_pb2.UploadDocumentResponse:
            with blocking_rpc_errors():
                return self._stub.UploadDocument(
                    transfers.upload_messages(content),
                    timeout=self._options.transfer_seconds,
                    metadata=self._options.metadata,
                )

        return convert.stored_file(self._again_and_again(upload).file)

    def download(self, adapter: AdapterReference, directory: str | Path) -> Path:
        """Write an adapter (a PEFT directory) into a new directory, every byte checked.

        Raises Conflict if the directory exists, Internal if the files are not the adapter's.
        """
        request = transfers.download_request(adapter)
        target = Path(directory)
        transfers.check_new(target)

        def download() -> None:
            with (
                transfers.new_directory(target) as temporary,
                closing(transfers.AdapterFiles(temporary)) as files,
                blocking_rpc_errors(),
            ):
                for message in self._stub.DownloadAdapter(
                    request,
                    timeout=self._options.transfer_seconds,
                    metadata=self._options.metadata,
                ):
                    files.take(message)
                files.end(adapter)

        self._again_and_again(download)
        return target

    @contextmanager
    def _connection(
        self, place: WatchPlace
    ) -> Iterator[Iterator[adaptation_pb2.WatchAdaptationResponse]]:
        """The messages of one connection; left early, the call is cancelled."""
        with blocking_rpc_errors():
            call = self._stub.WatchAdaptation(
                place.request, timeout=place.seconds_left(), metadata=self._options.metadata
            )
            try:
                yield call
            finally:
                call.cancel()

    def _submit(
        self, request: adaptation_pb2.SubmitAdaptationRequest
    ) -> adaptation_pb2.SubmitAdaptationResponse:
        """The server's answer, once it has read all documents."""
        send, seconds = self._stub.SubmitAdaptation, self._options.transfer_seconds
        return self._again_and_again(lambda: self._send(send, request, seconds=seconds))

    def _call(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request
    ) -> Response:
        return self._again_and_again(lambda: self._send(method, request))

    def _get(self, name: str) -> Adaptation:
        request = adaptation_pb2.GetAdaptationRequest(namespace=self._options.namespace, name=name)
        return convert.adaptation(self._send(self._stub.GetAdaptation, request).adaptation)

    def _send(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        seconds: float | None = None,
    ) -> Response:
        with blocking_rpc_errors():
            return method(
                request,
                timeout=seconds or self._options.call_seconds,
                metadata=self._options.metadata,
            )

    def _again_and_again(self, call: Callable[[], Response]) -> Response:
        """What a call answers, made again while the server cannot take it."""
        attempts = Attempts(self._options.retry_seconds, on_retry=self._options.on_retry)
        while True:
            try:
                return call()
            except Retryable as error:
                time.sleep(attempts.pause_seconds(error))
