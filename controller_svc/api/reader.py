"""Who reads the documents of a request: a thread, or a process that can be stopped.

A PDF of a kilobyte can take hours to read, and a page of HTML many times its size of memory. What
may be so is read by a child, `python -m controller_svc.api.reader`, which has bounds of time and
memory and goes with its caller; it can do neither harm nor keep others waiting for long.

    to the child on its stdin                              from it on its stdout
    a line of JSON for each document, then its content     a line of JSON each: what was found
    a line of JSON with the questions                      a line of JSON
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import BinaryIO, Protocol, cast

from pydantic import BaseModel, ConfigDict

from controller_svc.api.reading import Reading, Unread
from seal.documents import GivenQuestion
from seal.documents.source import Source
from seal.errors import Internal, InvalidInput
from seal.runs.store import in_thread

READ_SECONDS = 300.0
"""How long the documents of one request may take to read; waiting for the store does not count."""
READ_BYTES = 512 * 1024 * 1024
"""Address space of the child; a page with as many tags as may be takes 300 MiB."""
TOO_MUCH = 3
"""Exit status of a child whose memory was not enough."""
COMMAND = (sys.executable, "-P", "-W", "ignore", "-m", "controller_svc.api.reader")
"""Its warnings may hold document text. `-P`: no module is taken from the working directory."""
_PIECE_BYTES = 256 * 1024
_MAX_ANSWER_BYTES = 1024 * 1024


class Reader(Protocol):
    """Reads the documents of one request, and raises as `Reading`."""

    async def add(self, unread: Unread) -> bool:
        """Read a document; whether it brings questions."""

    async def check(self, questions: Sequence[GivenQuestion], *, passage_tokens: int) -> None:
        """Refuse questions that no document is about."""


class ReaderThread:
    """Reads in a thread, which nobody can stop: for what is small and of a plain format."""

    def __init__(self) -> None:
        self._reading = Reading()

    async def add(self, unread: Unread) -> bool:
        """Read a document; whether it brings questions."""
        return await in_thread(self._reading.add, unread)

    async def check(self, questions: Sequence[GivenQuestion], *, passage_tokens: int) -> None:
        """Refuse questions that no document is about."""
        await in_thread(self._reading.check, questions, passage_tokens=passage_tokens)


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Document(_Message):
    """A document whose content follows."""

    name: str
    media_type: str
    field: str
    size: int
    """Bytes of its content."""


class _Questions(_Message):
    questions: tuple[GivenQuestion, ...]
    passage_tokens: int


class _Ask(_Message):
    """One of the two."""

    document: _Document | None = None
    questions: _Questions | None = None


class _Refusal(_Message):
    message: str
    remedy: str
    field: str


class _Answer(_Message):
    brings_questions: bool = False
    refusal: _Refusal | None = None


class _TooMuchError(Exception):
    """The child has not come to an end within its bounds."""


class ReaderProcess:
    """Reads in a child; `reader_process` starts it.

    What takes too much is refused by InvalidInput, too; Internal says that the child is broken.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)
        self._seconds_left = READ_SECONDS

    async def add(self, unread: Unread) -> bool:
        """Read a document; whether it brings questions."""
        name, field, content = unread.name, unread.field, unread.content
        document = _Document(
            name=name, media_type=unread.media_type, field=field, size=len(content)
        )
        try:
            return (await self._ask(_Ask(document=document), content)).brings_questions
        except _TooMuchError:
            raise Source(name, b"", field).refuse(
                "takes too much time or memory to read",
                "save it again with another program, hand in its text, or cut it into several",
            ) from None

    async def check(self, questions: Sequence[GivenQuestion], *, passage_tokens: int) -> None:
        """Refuse questions that no document is about."""
        asked = _Questions(questions=tuple(questions), passage_tokens=passage_tokens)
        try:
            await self._ask(_Ask(questions=asked))
        except _TooMuchError:
            raise InvalidInput(
                "the questions take too much time or memory to be looked for in the documents",
                field="questions",
                remedy="give fewer, or fewer documents",
            ) from None

    async def _ask(self, ask: _Ask, content: bytes = b"") -> _Answer:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds_left):
                with suppress(ConnectionError):  # it has died: so its answer ends
                    await self._send(ask, content)
                line = await self._stdout.readline()
        except TimeoutError as error:
            raise _TooMuchError from error
        self._seconds_left -= time.monotonic() - begun
        if not line.endswith(b"\n"):
            status = await self._process.wait()
            if status < 0 or status == TOO_MUCH:
                raise _TooMuchError
            raise Internal(
                f"the process that reads documents ended with {status}",
                remedy="report what it wrote to the log",
            )
        answer = _Answer.model_validate_json(line)
        if (refusal := answer.refusal) is not None:
            raise InvalidInput(refusal.message, field=refusal.field, remedy=refusal.remedy)
        return answer

    async def _send(self, ask: _Ask, content: bytes) -> None:
        self._stdin.write(ask.model_dump_json().encode() + b"\n")
        for start in range(0, len(content), _PIECE_BYTES):
            self._stdin.write(content[start : start + _PIECE_BYTES])
            await self._stdin.drain()  # a pipe's buffer would hold all of it once more
        await self._stdin.drain()


@asynccontextmanager
async def reader_process() -> AsyncIterator[ReaderProcess]:
    """A child that reads until the end of the block, and is killed there, whatever it does."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_MAX_ANSWER_BYTES,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        start_new_session=True,  # Ctrl-C is for this process, which ends the child
    )
    try:
        yield ReaderProcess(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """The child: answer each request, up to the end of them."""
    reading = Reading()
    while line := requests.readline():
        answer = _answer(reading, _Ask.model_validate_json(line), requests)
        answers.write(answer.model_dump_json().encode() + b"\n")
        answers.flush()


def _answer(reading: Reading, ask: _Ask, requests: BinaryIO) -> _Answer:
    try:
        if (asked := ask.questions) is not None:
            reading.check(asked.questions, passage_tokens=asked.passage_tokens)
        if (one := ask.document) is not None:
            content = requests.read(one.size)
            brings = reading.add(Unread(one.name, one.media_type, content, one.field))
            return _Answer(brings_questions=brings)
    except InvalidInput as error:
        refusal = _Refusal(message=error.message, remedy=error.remedy, field=error.field)
        return _Answer(refusal=refusal)
    return _Answer()


def _bound() -> None:
    """Bound what this process may take; its caller keeps the time, unless that was killed."""
    seconds = round(READ_SECONDS)
    for what, limit in ((resource.RLIMIT_AS, READ_BYTES), (resource.RLIMIT_CPU, seconds)):
        with suppress(ValueError, OSError):  # macOS has no bound of the address space
            resource.setrlimit(what, (limit, limit))


if __name__ == "__main__":
    _bound()
    try:
        _serve(sys.stdin.buffer, sys.stdout.buffer)
    except MemoryError:
        sys.exit(TOO_MUCH)
