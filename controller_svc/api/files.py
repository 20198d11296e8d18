"""Documents on their way in: what is too large for a request comes in pieces.

A document is stored under its digest, so that it is there once however often it is sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from io import BytesIO

from controller_svc.adaptations import FILES
from controller_svc.api.places import Places
from seal.artifacts import ArtifactStore
from seal.errors import Exhausted, InvalidInput, NotFound, Transient
from seal.limits import MAX_DOCUMENT_BYTES
from seal.rpc import validation
from seal.runs.store import in_thread
from seal.settings import FileReference
from seal.v1 import adaptation_pb2

MAX_UPLOADS = 4
"""Documents that are received at once; more wait. Each may take `MAX_DOCUMENT_BYTES` of memory."""
WAITING_UPLOADS = 512
"""Uploads that may wait for their turn; more are refused, as each takes a place of all calls."""
SILENCE_SECONDS = 60.0
"""An upload that sends nothing for so long is given up: it holds memory."""
LEAST_BYTES = 1024 * 1024
"""An upload that brings less in `SILENCE_SECONDS`, and is not at its end, is given up, too: small
pieces keep a place as silence does."""
UPLOAD_SECONDS = 900.0
"""An upload that keeps its place for longer is given up: others wait for it."""
LISTED_SECONDS = 60.0
"""So old may the size of all documents be as the store has listed it; what this process has stored
since is added to it."""
REFUSED_SECONDS = 10.0
"""How long a refused upload may go on sending before it is cut off."""


class Files:
    """The documents of one store; belongs to one event loop."""

    def __init__(
        self,
        store: ArtifactStore,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        stored_bytes: int = 0,
    ) -> None:
        """`stored_bytes`: of all documents in the store, at most; 0 for any number."""
        self.store = store
        self._silence_seconds, self._stored_bytes = silence_seconds, stored_bytes
        self._places = Places(MAX_UPLOADS, waiting=WAITING_UPLOADS, what="uploads")
        self._stored, self._listed = 0, -math.inf
        """Bytes of all documents, and when the store has listed them."""

    async def receive(
        self, requests: AsyncIterator[adaptation_pb2.UploadDocumentRequest]
    ) -> FileReference:
        """Store a document that comes in pieces.

        Raises:
            InvalidInput: what comes is not what its header says, or is too large.
            Transient: nothing came for a while, or too little, or it took too long.
            Exhausted: there are as many documents as there may be, or the store is full, or too
                many uploads wait.

        """
        if (first := await self._next(requests)) is None:
            raise _no_header()
        try:
            header = _header(first)
            async with self._places.place():
                await self._check_room(header.size, header.sha256)
                content = await self._whole(requests, header)
                _check_whole(content, header)
                return await self.keep(content)
        except (InvalidInput, Exhausted):
            await self._let_finish(requests)
            raise

    async def keep(self, content: bytes) -> FileReference:
        """Store a document; one that is there is as new, and waits for its adaptation anew.

        Raises:
            Exhausted: there are as many documents as there may be, or the store is full.

        """
        sha256 = await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())
        await self._check_room(len(content), sha256)
        self._stored += len(content)
        await in_thread(self.store.write_bytes, path_of(sha256), content)
        return FileReference(path=path_of(sha256), sha256=sha256)

    async def read(self, path: str, sha256: str, *, field: str) -> bytes:
        """A document that was stored; one that is too large is not loaded.

        Raises:
            NotFound: it is not there.
            InvalidInput: the path is none, or what is there is too large or another file.

        """
        try:
            content = await in_thread(_load, self.store, path)
        except NotFound as error:
            raise NotFound(
                f"{field}: there is no such file in the artifact store",
                field=f"{field}.path",
                remedy="upload it with UploadDocument, and give the reference that this returns",
            ) from error
        except InvalidInput as error:
            raise InvalidInput(error.message, field=f"{field}.path", remedy=error.remedy) from error
        if await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest()) != sha256:
            raise validation.refuse(
                f"{field}.sha256",
                "is not that of the file",
                "give the reference as UploadDocument returned it",
            )
        return content

    async def _let_finish(
        self, requests: AsyncIterator[adaptation_pb2.UploadDocumentRequest]
    ) -> None:
        """Hear a refused upload out, within bounds.

        A call that ends while its client still sends is reset, and now and then the client sees
        the reset in the place of the refusal.
        """
        rest = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(REFUSED_SECONDS):
                while (
                    rest < MAX_DOCUMENT_BYTES
                    and (message := await anext(requests, None)) is not None
                ):
                    rest += len(message.data)

    async def _next(
        self, requests: AsyncIterator[adaptation_pb2.UploadDocumentRequest]
    ) -> adaptation_pb2.UploadDocumentRequest | None:
        """The next message; None at the end of the stream."""
        try:
            async with asyncio.timeout(self._silence_seconds):
                return await anext(requests, None)
        except TimeoutError as error:
            raise Transient(
                f"the upload sent nothing for {self._silence_seconds:g} s",
                remedy="send it again",
            ) from error

    async def _check_room(self, size: int, sha256: str) -> None:
        """Refuse a document that would take the room which runs need, unless it is there."""
        if not self._stored_bytes:
            return
        is_old = time.monotonic() - self._listed > LISTED_SECONDS
        # Before a refusal in any case: some may have gone
        if is_old or self._stored + size > self._stored_bytes:
            self._stored = await in_thread(self.store.bytes_under, FILES)
            self._listed = time.monotonic()
        is_too_much = self._stored + size > self._stored_bytes
        if is_too_much and not await in_thread(self.store.exists, path_of(sha256)):
            raise Exhausted(
                f"{self._stored} bytes of documents are in the store, the limit is "
                f"{self._stored_bytes}",
                remedy="delete adaptations, or wait until uploads that none was given are a day"
                " old; whoever runs the server may allow more (SEAL_STORED_BYTES)",
            )

    async def _whole(
        self,
        requests: AsyncIterator[adaptation_pb2.UploadDocumentRequest],
        header: adaptation_pb2.UploadHeader,
    ) -> bytes:
        """All pieces up to the end of the stream."""
        received = BytesIO()
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                while await self._more(requests, received, header):
                    pass
        except TimeoutError as error:
            raise Transient(
                f"the upload sent {received.tell()} of {header.size} bytes in {UPLOAD_SECONDS:g} s",
                remedy="send it again over a faster connection",
            ) from error
        return received.getvalue()  # no copy

    async def _more(
        self,
        requests: AsyncIterator[adaptation_pb2.UploadDocumentRequest],
        received: BytesIO,
        header: adaptation_pb2.UploadHeader,
    ) -> bool:
        """Receive the next `LEAST_BYTES`; False at the end of the stream."""
        begun = received.tell()
        try:
            async with asyncio.timeout(self._silence_seconds):
                while (message := await anext(requests, None)) is not None:
                    _append(received, message, header)
                    if received.tell() - begun >= LEAST_BYTES:
                        return True
                return False
        except TimeoutError as error:
            raise Transient(
                f"the upload sent {received.tell() - begun} bytes in {self._silence_seconds:g} s",
                remedy="send it again, and end it once all is sent",
            ) from error


def path_of(sha256: str) -> str:
    """Where a document of this digest lies in the store."""
    return f"{FILES}/{sha256}"


def _load(store: ArtifactStore, path: str) -> bytes:
    """A file that is no larger than a document: of others not a byte is read."""
    if (size := store.size_bytes(path)) > MAX_DOCUMENT_BYTES:
        raise _too_large(size, field="path")
    return store.read_bytes(path)


def _no_header() -> InvalidInput:
    return validation.refuse(
        "header", "is missing", "send the header in the first message, then the content"
    )


def _header(message: adaptation_pb2.UploadDocumentRequest) -> adaptation_pb2.UploadHeader:
    if message.WhichOneof("part") != "header":
        raise _no_header()
    header = message.header
    validation.sha256(header.sha256, field="header.sha256")
    if not header.size:
        raise validation.refuse("header.size", "is 0", "leave empty documents out")
    if header.size > MAX_DOCUMENT_BYTES:
        raise _too_large(header.size, field="header.size")
    return header


def _append(
    received: BytesIO,
    message: adaptation_pb2.UploadDocumentRequest,
    header: adaptation_pb2.UploadHeader,
) -> None:
    if message.WhichOneof("part") != "data":
        raise validation.refuse(
            "data", "is missing", "send nothing but pieces of content after the header"
        )
    if received.tell() + len(message.data) > header.size:
        raise validation.refuse(
            "data", f"is more than the {header.size} bytes of the header", "send the file again"
        )
    received.write(message.data)


def _check_whole(content: bytes, header: adaptation_pb2.UploadHeader) -> None:
    if len(content) < header.size:
        raise validation.refuse(
            "data",
            f"ends after {len(content)} of {header.size} bytes",
            "send the whole file; nothing of it was stored",
        )
    if hashlib.sha256(content).hexdigest() != header.sha256:
        raise validation.refuse(
            "header.sha256",
            "is not that of the content that came",
            "send the file again; nothing of it was stored",
        )


def _too_large(size: int, *, field: str) -> InvalidInput:
    return validation.refuse(
        field,
        f"{size} bytes are more than a document may have, {MAX_DOCUMENT_BYTES}",
        "cut it into several",
    )
