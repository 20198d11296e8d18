"""Adapters on their way out: in pieces, so many at once, and to clients that take them.

Of a bucket's adapter a download holds a copy on this pod's disk for as long as it lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

from controller_svc.api.places import Places
from seal.artifacts import ArtifactStore
from seal.errors import InvalidInput, NotFound, Transient
from seal.files import file_errors
from seal.manifest import MANIFEST_FILE, read_manifest
from seal.records import AdapterReference
from seal.runs.store import in_thread
from seal.v1 import adaptation_pb2

MAX_DOWNLOADS = 8
"""Adapters that are sent at once; more wait."""
WAITING = 64
"""Downloads that may wait for their turn; more are refused."""
SILENCE_SECONDS = 60.0
"""A download that takes less than `LEAST_BYTES` in so long is given up: others wait for its place.
"""
LEAST_BYTES = 1024 * 1024
"""See `SILENCE_SECONDS`."""
DOWNLOAD_SECONDS = 1800.0
"""A download that keeps its place for longer is given up; so are clients' usual deadlines."""
CHUNK_BYTES = 256 * 1024
"""Bytes of an adapter in one message."""

Write = Callable[[adaptation_pb2.DownloadAdapterResponse], Awaitable[None]]
"""Sends a message; waits while the client takes none."""


class Downloads:
    """The downloads of one process; belongs to one event loop."""

    def __init__(self, store: ArtifactStore, *, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._store, self._silence_seconds = store, silence_seconds
        self._places = Places(MAX_DOWNLOADS, waiting=WAITING, what="downloads")

    async def send(self, adapter: AdapterReference, write: Write) -> None:
        """Write the files of an adapter, each with its header first, all digests checked before.

        Raises:
            NotFound: nothing is published there, or it was deleted meanwhile.
            InvalidInput: the path is none.
            Internal: the adapter is damaged.
            Exhausted: too many wait for their turn.
            Transient: the client took too little for a while.

        """
        async with self._places.place():
            await self._send(adapter, write)

    async def _send(self, adapter: AdapterReference, write: Write) -> None:
        fetched = self._store.fetch_directory(adapter)
        try:
            directory = await in_thread(fetched.__enter__)
        except (NotFound, InvalidInput) as error:
            raise type(error)(error.message, field="adapter.path", remedy=error.remedy) from error
        try:
            async with aclosing(_messages(directory, adapter)) as messages:
                await self._write(messages, write)
        except TimeoutError as error:
            raise Transient(
                f"the download took less than {LEAST_BYTES} bytes in {self._silence_seconds:g} s, "
                f"or more than {DOWNLOAD_SECONDS:g} s in all",
                remedy="ask for the adapter again, over a faster connection",
            ) from error
        finally:
            await in_thread(fetched.__exit__, None, None, None)

    async def _write(
        self, messages: AsyncIterator[adaptation_pb2.DownloadAdapterResponse], write: Write
    ) -> None:
        """Write all; TimeoutError if the client takes too little for a while, or too long."""
        loop, taken = asyncio.get_running_loop(), 0
        async with (
            asyncio.timeout(DOWNLOAD_SECONDS),
            asyncio.timeout(self._silence_seconds) as patience,
        ):
            async for message in messages:
                await write(message)
                taken += len(message.data)
                if taken >= LEAST_BYTES:
                    taken = 0
                    patience.reschedule(loop.time() + self._silence_seconds)


async def _messages(
    directory: Path, adapter: AdapterReference
) -> AsyncGenerator[adaptation_pb2.DownloadAdapterResponse, None]:
    """The files of an adapter as they are sent."""
    with file_errors(adapter.path):  # it may be deleted meanwhile
        manifest = await in_thread(
            read_manifest,
            (directory / MANIFEST_FILE).read_bytes,
            uri=adapter.path,
            sha256=adapter.sha256,
        )
        for name, entry in sorted(manifest.files.items()):
            header = adaptation_pb2.AdapterFile(name=name, size=entry.bytes, sha256=entry.sha256)
            yield adaptation_pb2.DownloadAdapterResponse(file=header)
            with await in_thread((directory / name).open, "rb") as file:
                while data := await in_thread(file.read, CHUNK_BYTES):
                    yield adaptation_pb2.DownloadAdapterResponse(data=data)
