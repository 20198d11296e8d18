"""The API server to one who leads: once another may lead, nothing more is asked for.

A process that was stopped for a while and goes on is at first where it was, in the middle of a
look. Its turn is about to be cancelled; until then this keeps it from sending what it had decided
long ago. It costs no request: a leader knows by its own clock how long it leads.
"""

from __future__ import annotations

from collections.abc import Callable

from controller_svc.k8s.api import ClusterApi, Resource
from seal.errors import Superseded
from seal.yaml_files import Tree


class LeadersApi:
    """A `ClusterApi` for as long as its user leads; then each request raises Superseded."""

    def __init__(self, api: ClusterApi, leads: Callable[[], bool]) -> None:
        self._given, self._leads = api, leads

    @property
    def _api(self) -> ClusterApi:
        if not self._leads():
            raise Superseded("another controller may lead", remedy="leave it to that one")
        return self._given

    async def get(self, kind: Resource, namespace: str, name: str) -> Tree:
        """One object."""
        return await self._api.get(kind, namespace, name)

    async def list(
        self, kind: Resource, namespace: str, *, labels: str = "", fields: str = ""
    ) -> list[Tree]:
        """Objects that both selectors choose."""
        return await self._api.list(kind, namespace, labels=labels, fields=fields)

    async def create(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        """Make an object."""
        return await self._api.create(kind, namespace, body)

    async def replace(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        """Put an object in another's place."""
        return await self._api.replace(kind, namespace, body)

    async def replace_status(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        """Put a status in another's place."""
        return await self._api.replace_status(kind, namespace, body)

    async def delete(self, kind: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Delete an object and, before it, what it owns."""
        await self._api.delete(kind, namespace, name, uid=uid)
