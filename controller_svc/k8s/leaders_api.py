"""The API server to one who leads: once another may lead, nothing more is asked for.

A process that was stopped for a while and goes on is at first where it was, in the middle of a
look. Its turn is about to be cancelled; until then this keeps it from sending what it had decided
long ago. It costs no request: a leader knows by its own clock how long it leads.
"""

from __future__ import annotations

from collections.abc import Callable

from controller_svc.k8s.api import ClusterApi, ForwardingApi
from seal.errors import Superseded


class LeadersApi(ForwardingApi):
    """A `ClusterApi` for as long as its user leads; then each request raises Superseded."""

    def __init__(self, api: ClusterApi, leads: Callable[[], bool]) -> None:
        super().__init__(api)
        self._leads = leads

    @property
    def _api(self) -> ClusterApi:
        """Whom a request is sent to; asked anew for each."""
        if not self._leads():
            raise Superseded("another controller may lead", remedy="leave it to that one")
        return self._given
