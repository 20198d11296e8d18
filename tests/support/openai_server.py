"""An OpenAI-compatible endpoint on this machine that answers, limits, fails, hangs and lies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

MODEL = "great-model"
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Call:
    """One request that came in."""

    number: int
    """From 0."""
    path: str
    headers: Mapping[str, str]
    body: dict[str, object]

    @property
    def asked(self) -> str:
        """The last turn of a chat, or the prompt."""
        messages = self.body.get("messages")
        if isinstance(messages, list):
            return str(messages[-1]["content"])
        return str(self.body["prompt"])


@dataclass(frozen=True)
class Reply:
    """What the endpoint does about a request."""

    status: int = 200
    body: object = field(default_factory=dict)
    """JSON, or bytes as they are."""
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False
    """Says nothing for as long as the client stays."""
    cuts: bool = False
    """Ends the connection in the middle of the answer."""
    seconds: float = 0.0
    """Time that it takes."""


def says(
    text: str | None, *, model: str = MODEL, tokens: int = 3, finish: str = "stop", **more: object
) -> Reply:
    """A text, for a chat and for a completion alike; `more` goes into the choice."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "text": text}
    return Reply(
        body={
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [{**choice, "finish_reason": finish, **more}],
            "usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens},
        }
    )


def fails(
    status: int,
    *,
    message: str = "no",
    code: str | int | None = None,
    param: str | None = None,
    **headers: str,
) -> Reply:
    """An error as OpenAI words it; `retry_after` among `headers` is Retry-After."""
    return Reply(
        status=status,
        body={"error": {"message": message, "type": "error", "code": code, "param": param}},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


HANGS = Reply(hangs=True)
CUTS = Reply(cuts=True)
MALFORMED = Reply(body=b'{"choices": [{"mess')


@dataclass
class OpenAIServer:
    """The endpoint; its behaviour is `answer`."""

    answer: Callable[[Call], Reply]
    base_url: str = ""
    calls: list[Call] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    left: int = 0
    """Clients that left while it was silent."""

    async def until(self, condition: Callable[[OpenAIServer], bool]) -> None:
        """Wait for something that a client brings about."""
        async with asyncio.timeout(10):
            while not condition(self):  # noqa: ASYNC110 - many things change it
                await asyncio.sleep(0.005)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while (call := await self._read(reader)) is not None:
                self.calls.append(call)
                self.running += 1
                self.most_running = max(self.most_running, self.running)
                try:
                    await self._reply(self.answer(call), reader, writer)
                finally:
                    self.running -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Call | None:
        try:
            head = (await reader.readuntil(_HEAD_END)).decode()
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.strip().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Call(len(self.calls), first.split()[1], headers, json.loads(body or b"{}"))

    async def _reply(
        self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if reply.hangs:
            await reader.read(1)  # ends when the client does
            self.left += 1
            raise ConnectionError
        await asyncio.sleep(reply.seconds)
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body) + (100 if reply.cuts else 0)),
            **reply.headers,
        }
        head = f"HTTP/1.1 {reply.status} X\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in headers.items()
        )
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()
        if reply.cuts:
            raise ConnectionError


@asynccontextmanager
async def openai_server(
    answer: Callable[[Call], Reply] | list[Reply] | Reply,
) -> AsyncIterator[OpenAIServer]:
    """Serve. A list is said in its order, its last entry from then on."""
    if isinstance(answer, Reply):
        answer = [answer]
    if isinstance(answer, list):
        replies = answer
        answer = lambda call: replies[min(call.number, len(replies) - 1)]  # noqa: E731
    endpoint = OpenAIServer(answer)
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            connections.add(task)
            task.add_done_callback(connections.discard)
        await endpoint.serve(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    endpoint.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield endpoint
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
