"""An API server in memory: versions, uids, statuses apart, deletion that waits for what is owned.

Whoever watches is told of each change at once; `watch` has the signature of the real one.

`fault` is asked at each request, before it is carried out and after: what it raises there is what
the one who asks sees. A crash is a fault that is no `SealError`.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

from controller_svc.k8s.api import JOBS, Resource, name_of
from controller_svc.k8s.source import EventKind, Seen, Watched
from seal.errors import Conflict, NotFound
from seal.yaml_files import Tree

Key = tuple[Resource, str, str]
PAGE_OBJECTS = 2
Fault = Callable[[str, bool], None]
"""Of (request, whether it has been carried out)."""


class Killed(BaseException):
    """The controller dies here."""


class MemoryApi:
    """A `ClusterApi`."""

    def __init__(self) -> None:
        self.objects: dict[Key, Any] = {}
        self.requests: list[str] = []
        self.fault: Fault = lambda request, done: None
        self.watches: list[Callable[[Seen], None]] = []
        """What is told of each change, in order."""
        self._numbers = itertools.count(1)

    def put(self, kind: Resource, body: Tree, namespace: str = "team") -> Any:
        """Place an object without a request."""
        made: Any = _copied(body)
        number = next(self._numbers)
        made["metadata"].setdefault("uid", f"uid-{number}")
        made["metadata"] |= {"namespace": namespace, "resourceVersion": str(number)}
        made["metadata"].setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        self.objects[(kind, namespace, name_of(body))] = made
        self._tell("ADDED", kind, made)
        return made

    def change(self, kind: Resource, name: str, namespace: str = "team", **fields: object) -> None:
        """Change an object as its own controller does."""
        found = self.objects[(kind, namespace, name)]
        found |= _copied(fields)
        self._changed(kind, found)

    def gone(self, kind: Resource, name: str, namespace: str = "team") -> None:
        """What was deleted has gone, and all that it owned."""
        assert self.objects[(kind, namespace, name)]["metadata"]["deletionTimestamp"]
        self.remove((kind, namespace, name))

    def remove(self, key: Key) -> None:
        """An object has gone, whyever."""
        found = self.objects.pop(key)
        found["metadata"]["resourceVersion"] = str(next(self._numbers))
        self._tell("DELETED", key[0], found)

    def going(self, key: Key, *, since: str) -> None:
        """An object is deleted, and goes once what it owns has gone."""
        found = self.objects[key]
        if "deletionTimestamp" not in found["metadata"]:
            found["metadata"]["deletionTimestamp"] = since
            self._changed(key[0], found)

    async def watch(
        self,
        resources: Sequence[Watched],
        namespaces: Sequence[str],
        on_event: Callable[[Seen], None],
        *,
        ready: asyncio.Event,
        on_listed: Callable[[str], None] = lambda namespace: None,
    ) -> None:
        """In the place of `controller_svc.k8s.source.watch`."""
        watched = {(one.resource, namespace): one for one in resources for namespace in namespaces}

        def told(seen: Seen) -> None:
            metadata = cast("Any", seen.body)["metadata"]
            one = watched.get((seen.resource, metadata["namespace"]))
            if one is not None and _fits(one.labels, metadata.get("labels", {}).get):
                on_event(seen)

        for (kind, _, _), found in list(self.objects.items()):
            told(Seen(resource=kind, kind="LISTED", body=_copied(found)))
        self.watches.append(told)
        for namespace in namespaces:
            on_listed(namespace)
        ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.watches.remove(told)

    def jobs(self) -> dict[str, Any]:
        """All Jobs by name."""
        return {key[2]: found for key, found in self.objects.items() if key[0] == JOBS}

    async def get(self, kind: Resource, namespace: str, name: str) -> Tree:
        return self._asked(f"get {kind.plural}", lambda: self._found(kind, namespace, name))

    async def list(
        self, kind: Resource, namespace: str, *, labels: str = "", fields: str = ""
    ) -> list[Tree]:
        def chosen() -> list[Tree]:
            return [
                found
                for found in self._all(kind, namespace)
                if _fits(labels, found["metadata"].get("labels", {}).get)
                and _fits(fields, functools.partial(_at, found))
            ]

        return self._asked(f"list {kind.plural}", chosen)

    async def pages(self, kind: Resource, namespace: str) -> AsyncIterator[Sequence[Tree]]:
        objects = self._asked(f"list {kind.plural}", lambda: self._all(kind, namespace))
        for start in range(0, max(len(objects), 1), PAGE_OBJECTS):
            yield objects[start : start + PAGE_OBJECTS]

    async def create(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        def create() -> Tree:
            if (kind, namespace, name_of(body)) in self.objects:
                raise Conflict(f"{name_of(body)} already exists")
            return self.put(kind, body, namespace)

        return self._asked(f"create {kind.plural}", create)

    async def replace(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        return self._asked(
            f"replace {kind.plural}", lambda: self._replaced(kind, namespace, body, "spec")
        )

    async def replace_status(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        return self._asked(
            f"replace_status {kind.plural}",
            lambda: self._replaced(kind, namespace, body, "status"),
        )

    async def delete(self, kind: Resource, namespace: str, name: str, *, uid: str) -> None:
        def delete() -> None:
            metadata = self._found(kind, namespace, name)["metadata"]
            if metadata["uid"] != uid:
                raise Conflict(f"the uid of {name} is {metadata['uid']}")
            self.going((kind, namespace, name), since="2026-01-01T00:01:00Z")

        self._asked(f"delete {kind.plural}", delete)

    def _all(self, kind: Resource, namespace: str) -> list[Tree]:
        found = self.objects.items()
        return [body for (of, where, _), body in found if (of, where) == (kind, namespace)]

    def _replaced(self, kind: Resource, namespace: str, body: Any, part: str) -> Tree:
        found = self._found(kind, namespace, name_of(body))
        if body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            raise Conflict(f"{name_of(body)} has been modified")
        if part == "spec":
            found["metadata"] |= _described(body)
        found[part] = _copied(body[part])
        self._changed(kind, found)
        return found

    def _changed(self, kind: Resource, found: Any) -> None:
        found["metadata"]["resourceVersion"] = str(next(self._numbers))
        self._tell("MODIFIED", kind, found)

    def _tell(self, event: EventKind, kind: Resource, found: Any) -> None:
        for told in list(self.watches):
            told(Seen(resource=kind, kind=event, body=_copied(found)))

    def _found(self, kind: Resource, namespace: str, name: str) -> Any:
        if (kind, namespace, name) not in self.objects:
            raise NotFound(f"there is no {kind.plural} {name}")
        return self.objects[(kind, namespace, name)]

    def _asked(self, request: str, do: Callable[[], Any]) -> Any:
        self.requests.append(request)
        self.fault(request, False)
        try:
            return _copied(do())
        finally:
            self.fault(request, True)  # a refusal is a reply, too, that may be lost


def _copied(body: Any) -> Any:
    """As it comes back from a server: through JSON."""
    return json.loads(json.dumps(body))


def _described(body: Any) -> dict[str, object]:
    """What a client may change of an object's metadata."""
    metadata = body["metadata"]
    return {part: metadata[part] for part in ("annotations", "labels") if part in metadata}


def _fits(selector: str, value_of: Callable[[str], object]) -> bool:
    return all(
        value_of(name) == wanted
        for name, _, wanted in (one.partition("=") for one in selector.split(",") if one)
    )


def _at(found: Any, path: str) -> object:
    for name in path.split("."):
        found = found.get(name, {})
    return found
