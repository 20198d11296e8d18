"""What a tracker has been told of a run, kept with the run in the store.

    {run}/tracking/uid                          what the run is called in a tracker, for ever
    {run}/tracking/{place}/round-{0000}         it has the round
    {run}/tracking/{place}/end-{milliseconds}   it has the end of that time

A mark is created after the tracker has said that it has it: who dies between leaves one to be told
again, and a sink knows what is there. A place is a tracker, its address and the experiment: a run
that is sent elsewhere is told there from its beginning.
"""

from __future__ import annotations

import hashlib
import uuid

from seal.artifacts import ArtifactStore

_HASH_CHARACTERS = 12


class Ledger:
    """One run's."""

    def __init__(
        self, store: ArtifactStore, run: str, *, sink: str, address: str, experiment: str
    ) -> None:
        where = hashlib.sha256(f"{sink}\n{address}\n{experiment}".encode()).hexdigest()
        self._store, self._root = store, f"{run}/tracking"
        self._place = f"{self._root}/{sink}-{where[:_HASH_CHARACTERS]}"

    def uid(self) -> str:
        """What the run is called in a tracker."""
        return self._store.create_bytes(f"{self._root}/uid", uuid.uuid4().hex.encode()).decode()

    def has_round(self, round: int) -> bool:
        """Whether the tracker has a round."""
        return self._store.exists(self._round(round))

    def add_round(self, round: int) -> None:
        """It has."""
        self._store.create_bytes(self._round(round), b"")

    def has_end(self, finished_seconds: float) -> bool:
        """Whether the tracker has the end of that time; a run that is taken up again has others."""
        return self._store.exists(self._end(finished_seconds))

    def add_end(self, finished_seconds: float) -> None:
        """It has."""
        self._store.create_bytes(self._end(finished_seconds), b"")

    def _round(self, round: int) -> str:
        return f"{self._place}/round-{round:04d}"

    def _end(self, finished_seconds: float) -> str:
        return f"{self._place}/end-{int(finished_seconds * 1000)}"
