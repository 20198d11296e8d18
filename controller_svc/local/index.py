"""What is kept in memory of every adaptation of a laptop, ended or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from controller_svc.adaptations import Name, not_found
from controller_svc.core import AdaptationState
from controller_svc.local.objects import AdaptationObject
from seal.metrics import metrics


@dataclass
class Entry:
    """One adaptation."""

    uid: str
    state: AdaptationState
    files: frozenset[str]
    """Paths of the documents and questions that it was given."""
    leaving: bool = False
    """It is being deleted: nobody but the deletion sees it any more."""


class Index:
    """All adaptations by name; the gauge of adaptations by state follows it."""

    def __init__(self) -> None:
        self._entries: dict[Name, Entry] = {}
        metrics.adaptations.clear()

    def __iter__(self) -> Iterator[Name]:
        return iter(self._entries)

    def add(self, one: AdaptationObject, state: AdaptationState) -> None:
        """Another adaptation."""
        name = (one.namespace, one.name)
        self._entries[name] = Entry(uid=one.uid, state=state, files=one.files)
        _gauge(state, 1)

    def move(self, name: Name, state: AdaptationState) -> bool:
        """Note where an adaptation is; whether it was elsewhere."""
        entry = self._entries[name]
        if entry.state is state:
            return False
        _gauge(entry.state, -1)
        _gauge(state, 1)
        entry.state = state
        return True

    def remove(self, name: Name) -> None:
        """Forget an adaptation."""
        _gauge(self._entries.pop(name).state, -1)

    @property
    def entries(self) -> Mapping[Name, Entry]:
        """All by name, also those that are being deleted."""
        return self._entries

    def find(self, name: Name) -> Entry | None:
        """An adaptation, also one that is being deleted; None if there is none of this name."""
        return self._entries.get(name)

    def entry(self, name: Name) -> Entry:
        """An adaptation.

        Raises:
            NotFound: there is none of this name, or it is being deleted.

        """
        entry = self._entries.get(name)
        if entry is None or entry.leaving:
            raise not_found(name)
        return entry

    def files_of_others(self, uid: str) -> frozenset[str]:
        """Files that adaptations other than this one were given."""
        others = (entry.files for entry in self._entries.values() if entry.uid != uid)
        return frozenset().union(*others)


def _gauge(state: AdaptationState, change: int) -> None:
    metrics.adaptations.labels(state=str(state)).inc(change)
