"""Documents on their way up, adapters on their way down: cut, hashed, checked."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from seal.client.types import Document
from seal.errors import Conflict, Internal, InvalidInput
from seal.files import file_errors, temporary_sibling
from seal.manifest import MANIFEST_FILE, FileEntry, Manifest
from seal.records import AdapterReference
from seal.rpc.convert import adapter_message
from seal.v1 import adaptation_pb2

PIECE_BYTES = 512 * 1024
"""Content of one message of an upload."""
MAX_REQUEST_BYTES = 3_500_000
"""A request with all that travels in it: a server takes 4 MiB."""
_REFERENCE_BYTES = 256
"""What stands in a request in the place of a document that was uploaded."""
_AGAIN = "ask for the adapter again; if it stays so, the server's copy is damaged"


def too_large_together(
    documents: Collection[Document], bare: adaptation_pb2.SubmitAdaptationRequest
) -> frozenset[str]:
    """Names of the documents to upload before the rest fits into one request: the largest.

    `bare`: the request without their content. Raises InvalidInput if that alone is too large.
    """
    room = MAX_REQUEST_BYTES - bare.ByteSize() - _REFERENCE_BYTES * len(documents)
    if room < 0:
        raise InvalidInput(
            f"the request takes {bare.ByteSize()} bytes without the content of its documents, "
            f"{MAX_REQUEST_BYTES} fit",
            field="questions",
            remedy="give fewer questions, or hand them in as rows of a document",
        )
    inline = sorted(
        (document for document in documents if document.file is None),
        key=lambda document: len(document.content),
    )
    left, uploaded = sum(len(document.content) for document in inline), set()
    while left > room:
        largest = inline.pop()
        left -= len(largest.content)
        uploaded.add(largest.name)
    return frozenset(uploaded)


def upload_messages(content: bytes) -> Iterator[adaptation_pb2.UploadDocumentRequest]:
    """The header, then the content in pieces."""
    header = adaptation_pb2.UploadHeader(
        sha256=hashlib.sha256(content).hexdigest(), size=len(content)
    )
    yield adaptation_pb2.UploadDocumentRequest(header=header)
    for start in range(0, len(content), PIECE_BYTES):
        yield adaptation_pb2.UploadDocumentRequest(data=content[start : start + PIECE_BYTES])


def download_request(adapter: AdapterReference) -> adaptation_pb2.DownloadAdapterRequest:
    """Asks for the files of an adapter."""
    return adaptation_pb2.DownloadAdapterRequest(adapter=adapter_message(adapter))


class AdapterFiles:
    """The files of an adapter as they come, in a directory that nobody else looks at."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._announced: adaptation_pb2.AdapterFile | None = None
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._size = 0
        self._entries: dict[str, FileEntry] = {}

    def take(self, message: adaptation_pb2.DownloadAdapterResponse) -> None:
        """The header of the next file, or the next bytes of this one.

        Raises Internal naming the file that is not what was announced.
        """
        if message.WhichOneof("part") == "file":
            self._end_file()
            self._begin(message.file)
            return
        if self._file is None:
            raise Internal("the server sends bytes of no file", remedy=_AGAIN)
        with file_errors(self._directory):
            self._file.write(message.data)
        self._digest.update(message.data)
        self._size += len(message.data)

    def end(self, reference: AdapterReference) -> None:
        """All has come: compare it with the digest that the adapter is known by.

        Raises Internal if these are not the adapter's files.
        """
        self._end_file()
        own = {name: entry for name, entry in self._entries.items() if name != MANIFEST_FILE}
        if Manifest(files=own).sha256 != reference.sha256:
            raise Internal(
                f"the files that the server sent are not those of {reference.path}", remedy=_AGAIN
            )

    def close(self) -> None:
        """Leave the file that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self, announced: adaptation_pb2.AdapterFile) -> None:
        name = announced.name
        if name != Path(name).name or name in ("", ".", ".."):
            raise Internal(f"the server sends a file named {name[:80]!r}", remedy=_AGAIN)
        with file_errors(self._directory / name):
            self._file = (self._directory / name).open("xb")
        self._announced, self._digest, self._size = announced, hashlib.sha256(), 0

    def _end_file(self) -> None:
        announced, self._announced = self._announced, None
        self.close()
        if announced is None:
            return
        if self._size != announced.size or self._digest.hexdigest() != announced.sha256:
            raise Internal(
                f"{announced.name} did not come whole: {self._size} of {announced.size} bytes, or "
                "another digest",
                remedy=_AGAIN,
            )
        self._entries[announced.name] = FileEntry(sha256=announced.sha256, bytes=self._size)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory to fill that gets its name at the end of the block, or vanishes with an error.

    Raises Conflict if there is something of this name.
    """
    check_new(path)
    temporary = temporary_sibling(path)
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
    try:
        yield temporary
        with file_errors(path):
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new(path: Path) -> None:
    """Raise Conflict if there is something of this name."""
    with file_errors(path):
        if path.exists() or path.is_symlink():
            raise Conflict(
                f"{path} exists", field="directory", remedy="name a directory that does not exist"
            )
