"""Adaptations as the front door sees them, whoever keeps and runs them.

A laptop's are in `controller_svc.local.adaptations`. An adaptation is an object: accepted once for
each request id, at work on its own, readable for as long as it is not deleted. What is seen of it
is its status, which a restart finds again, and how far its current stage is, which it does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from controller_svc.core import Phase, RunStatus

DEFAULT_NAMESPACE = "default"
"""Where a request goes that names none."""


class AdaptationState(StrEnum):
    """Where an adaptation is. It only moves down this list; the last four are final."""

    PENDING = "Pending"
    """Accepted, waits for its turn."""
    RUNNING = "Running"
    """At work."""
    PUBLISHED = "Published"
    """The gate let its adapter pass."""
    REFUSED = "Refused"
    """The gate refused its adapter, which stays readable."""
    FAILED = "Failed"
    """Ended without an adapter."""
    CANCELLED = "Cancelled"
    """Stopped by a caller."""

    @property
    def final(self) -> bool:
        """True if nothing follows."""
        return self not in (AdaptationState.PENDING, AdaptationState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class RequestKey:
    """Whose request it is: the same id of another caller, or in another namespace, is another."""

    caller: str
    """Who asks; empty is one caller."""
    namespace: str
    request_id: str

    @property
    def sha256(self) -> str:
        """The key as a name: what a caller wrote never becomes a path."""
        parts = (self.caller, self.namespace, self.request_id)
        return hashlib.sha256(b"".join(_framed(part) for part in parts)).hexdigest()

    @property
    def name(self) -> str:
        """Name of an adaptation whose request gives none; the same each time it is sent."""
        return f"adaptation-{self.sha256[:16]}"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an adaptation is; lost by a restart, and counted anew."""

    stage: str = ""
    """Stage at work; empty before the first and after the last."""
    percent: float = 0.0
    """Share of the whole, 0 to 100."""
    eta_seconds: float | None = None
    """Estimated seconds to the end; None if unknown."""
    edits_done: int = 0
    """In this stage, as all that follow."""
    edits_total: int = 0
    steps_done: int = 0
    """Optimiser steps."""
    steps_total: int = 0
    answers_done: int = 0
    answers_total: int = 0


@dataclass(frozen=True, kw_only=True)
class View:
    """One adaptation as it is at a moment."""

    name: str
    namespace: str
    uid: str
    """Unique for all time: a deleted adaptation's name may be taken again."""
    created_seconds: float
    """Unix time at which it was accepted."""
    status: RunStatus
    """All that a restart finds again."""
    progress: Progress = Progress()

    @property
    def state(self) -> AdaptationState:
        """Where it is."""
        return state_of(self.status)


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some adaptations of a namespace, by name."""

    views: tuple[View, ...]
    more: bool
    """Others follow."""


class Adaptations(Protocol):
    """All adaptations of one installation."""

    async def get(self, namespace: str, name: str) -> View:
        """An adaptation as it is.

        Raises:
            NotFound: there is none of this name.

        """

    async def list(
        self,
        namespace: str,
        *,
        after: str,
        limit: int,
        states: Collection[AdaptationState],
        name_prefix: str,
    ) -> Page:
        """The first `limit` adaptations, by name, of those whose names come after `after`.

        `states`: only those that are in one of them; empty takes all.
        """

    def watch(self, namespace: str, name: str) -> AsyncIterator[View]:
        """The adaptation as it is, and again whenever it has changed; the last is a final one.

        Of changes that follow each other faster than they are taken, the newest is given.

        Raises:
            NotFound: there is none of this name, or it was deleted meanwhile.
            Transient: this process ends, and the adaptation goes on with the next.

        """

    async def cancel(self, namespace: str, name: str) -> View:
        """Ask that an adaptation stops; one that has ended stays as it is.

        Raises:
            NotFound: there is none of this name.

        """

    async def delete(self, namespace: str, name: str, *, uid: str, keep_adapters: bool) -> None:
        """Remove an adaptation with its records and adapters; one at work is stopped first.

        Raises:
            NotFound: there is none of this name.
            Conflict: the name is that of another adaptation than `uid`, unless that is empty.

        """


def state_of(status: RunStatus) -> AdaptationState:
    """Where an adaptation with this status is."""
    return {
        Phase.PENDING: AdaptationState.PENDING,
        Phase.RUNNING: AdaptationState.RUNNING,
        Phase.FAILED: AdaptationState.FAILED,
    }.get(status.phase, AdaptationState.REFUSED)


def _framed(text: str) -> bytes:
    """Text with its length before it, so that no two lists of texts look alike."""
    content = text.encode()
    return len(content).to_bytes(8, "big") + content
