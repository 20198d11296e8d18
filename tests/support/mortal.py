"""A controller's side effects, numbered, and the one at which it dies or is failed.

Every request to the API server and every file that it writes has two moments: before, when it has
not been carried out, and after, when it has and the one who asked has not heard of it. What comes
right after a reply is the moment before the next side effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from memory_api import Killed

from controller_svc.k8s.api import ClusterApi, Resource
from seal.artifacts import ArtifactStore
from seal.yaml_files import Tree

T = TypeVar("T")
Fault = Callable[[int, str], BaseException | None]
"""Of (number, effect): what happens there."""


def dies_at(number: int) -> Fault:
    """SIGKILL at that moment."""
    return lambda at, effect: Killed() if at == number else None


@dataclass
class Life:
    """One controller's, from its start to its death."""

    fault: Fault = lambda number, effect: None
    seen: list[str] = field(default_factory=list)
    """Its moments, in order: `before create jobs`, `after create jobs`."""
    done: list[str] = field(default_factory=list)
    """Requests to the API server that were carried out, in order."""
    struck: int = 0
    leads: bool = True
    """By its own clock."""
    dead: bool = False
    pause: Callable[[str], Awaitable[None]] | None = None
    """Awaited before each request: another's may come between."""

    def at(self, effect: str) -> None:
        """A moment; the dead have none."""
        if self.dead:
            raise Killed
        number = len(self.seen)
        self.seen.append(effect)
        error = self.fault(number, effect)
        if error is not None:
            self.struck += 1
            self.dead = isinstance(error, Killed)
            raise error


class Sleeper:
    """Parks a controller before one of its requests, until it is woken."""

    def __init__(self, number: int) -> None:
        self.number, self.asked = number, 0
        self.request = ""
        """Before which it sleeps."""
        self.asleep, self.woken = asyncio.Event(), asyncio.Event()

    async def __call__(self, request: str) -> None:
        self.asked += 1
        if self.asked == self.number:
            self.request = request
            self.asleep.set()
            await self.woken.wait()


class MortalApi:
    """A `ClusterApi` that somebody asks while he lives."""

    def __init__(self, api: ClusterApi, life: Life) -> None:
        self._api, self._life = api, life

    async def get(self, kind: Resource, namespace: str, name: str) -> Tree:
        return await self._ask(f"get {kind.plural}", self._api.get(kind, namespace, name))

    async def list(
        self, kind: Resource, namespace: str, *, labels: str = "", fields: str = ""
    ) -> list[Tree]:
        asked = self._api.list(kind, namespace, labels=labels, fields=fields)
        return await self._ask(f"list {kind.plural}", asked)

    async def pages(self, kind: Resource, namespace: str) -> AsyncIterator[Sequence[Tree]]:
        yield await self.list(kind, namespace)

    async def create(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        return await self._ask(f"create {kind.plural}", self._api.create(kind, namespace, body))

    async def replace(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        return await self._ask(f"replace {kind.plural}", self._api.replace(kind, namespace, body))

    async def replace_status(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        asked = self._api.replace_status(kind, namespace, body)
        return await self._ask(f"replace_status {kind.plural}", asked)

    async def delete(self, kind: Resource, namespace: str, name: str, *, uid: str) -> None:
        asked = self._api.delete(kind, namespace, name, uid=uid)
        await self._ask(f"delete {kind.plural}", asked)

    async def _ask(self, request: str, asked: Awaitable[T]) -> T:
        try:
            if self._life.pause is not None:
                await self._life.pause(request)
            self._life.at(f"before {request}")
        except BaseException:
            asked.close()  # type: ignore[attr-defined]  # never sent
            raise
        try:
            reply = await asked
            self._life.done.append(request)
            return reply
        finally:
            self._life.at(f"after {request}")  # a refusal is a reply, too, that may be lost


class MortalStore(ArtifactStore):
    """A store in which somebody writes while he lives."""

    life: Life

    @classmethod
    def of(cls, root: str, life: Life) -> MortalStore:
        """The store at a root."""
        store = cls(root)
        store.life = life
        return store

    def create_bytes(self, path: str, content: bytes) -> bytes:
        what = f"create {path.split('/', 1)[-1]}"
        self.life.at(f"before {what}")
        counted = super().create_bytes(path, content)
        self.life.at(f"after {what}")
        return counted

    def write_bytes(self, path: str, content: bytes) -> None:
        what = f"write {path.split('/', 1)[-1]}"
        self.life.at(f"before {what}")
        super().write_bytes(path, content)
        self.life.at(f"after {what}")
