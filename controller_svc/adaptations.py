"""Adaptations as the front door sees them, whoever keeps and runs them.

A laptop's are in `controller_svc.local.adaptations`. An adaptation is an object: accepted once for
each request id, at work on its own, readable for as long as it is not deleted. What is seen of it
is its status, which a restart finds again, and how far its current stage is, which it does not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from controller_svc.core import AdaptationState, Event, RunStatus, adaptation_state, events
from seal.config import load_adaptation
from seal.errors import Conflict, NotFound, Transient
from seal.records import AdapterReference
from seal.resources import Adaptation
from seal.settings import AdaptationSpec, FileReference

DEFAULT_NAMESPACE = "default"
"""Where a request goes that names none."""
FOLDER = "adaptations"
"""Folder of the artifact store for what belongs to no run."""
FILES = f"{FOLDER}/files"
"""Documents and questions by digest: `{FILES}/{sha256}`."""
_STORED = re.compile(rf"{FILES}/[0-9a-f]{{64}}")
Name = tuple[str, str]
"""Namespace and name of an adaptation."""


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
    def uid(self) -> str:
        """That of the adaptation it stands for: no second one is ever made for it."""
        return self.sha256[:32]

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
class Serving:
    """The model server of a cluster that an adapter was handed on to, or why there is none."""

    kind: str
    """Kind of its object."""
    service: str
    """Name of its object, in the adaptation's namespace."""
    adapter_name: str
    """What its clients ask for as the model; empty if the adapter is not served."""
    adapter_uri: str
    """Where it finds the adapter."""
    ready: bool | None
    """Whether it lists the adapter; None while that is not known."""
    reason: str
    """CamelCase; API."""
    message: str
    """For people."""
    last_transition_seconds: float
    """Unix time at which `ready` last changed."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One adaptation as it is at a moment."""

    name: str
    namespace: str
    uid: str
    """Unique for all time: a deleted adaptation's name may be taken again."""
    created_seconds: float
    """Unix time at which it was accepted."""
    spec: AdaptationSpec
    """How it adapts, nothing left out."""
    status: RunStatus
    """All that a restart finds again."""
    base_sha256: str = ""
    """Digest of the base model's weights that it is pinned to; empty before it is prepared."""
    progress: Progress = Progress()
    serving: Serving | None = None
    """None where nobody was asked to serve it, and before the end."""

    @cached_property
    def state(self) -> AdaptationState:
        """Where it is."""
        return adaptation_state(self.status)

    @property
    def waiting(self) -> str:
        """Why it does not go on at the moment, in words; empty while it does, and at its end."""
        condition = self.status.condition("Progressing")
        if condition is None or condition.status == "True" or self.state.final:
            return ""
        return ": ".join(filter(None, (condition.reason, condition.message)))

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """All that has happened to it, in order; made once for all who watch."""
        return events(self.status)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What is asked for, checked by all that can be known without a model."""

    key: RequestKey
    body_sha256: str
    """Digest of the whole request but its id."""
    name: str
    """Name that it is to have; empty leaves it to the request's key."""
    changes: Mapping[str, object]
    """Fields of an adaptation's spec by dotted name, as manifests write them; the rest comes from
    the profile of who keeps the adaptations, and so does the base model."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some adaptations of a namespace, by name."""

    views: tuple[View, ...]
    following: str
    """Name after which the next page begins; empty at the end."""


class Listed(Protocol):
    """What a page is chosen by."""

    @property
    def state(self) -> AdaptationState | None:
        """Where an adaptation is; None of one that cannot be read, which no page has."""

    @property
    def leaving(self) -> bool:
        """It is being deleted: nobody but the deletion sees it any more."""


def page_of(
    entries: Mapping[Name, Listed],
    namespace: str,
    *,
    after: str,
    limit: int,
    states: Collection[AdaptationState],
    name_prefix: str,
) -> tuple[list[Name], str]:
    """The first names that fit, in order, and where the next page begins; empty at the end."""
    names = sorted(
        name
        for (where, name), entry in entries.items()
        if where == namespace
        and name > after
        and name.startswith(name_prefix)
        and entry.state is not None
        and (not states or entry.state in states)
        and not entry.leaving
    )
    page = [(namespace, name) for name in names[:limit]]
    return page, page[-1][1] if len(names) > limit else ""


class Adaptations(Protocol):
    """All adaptations of one installation."""

    async def requested(self, key: RequestKey, body_sha256: str) -> View | None:
        """The adaptation that a request has made; None if there is none yet.

        Raises:
            Conflict: the request's id stands for another body, or what it made was deleted.

        """

    async def submit(self, submission: Submission) -> tuple[View, bool]:
        """The adaptation of a request, made unless it is there; whether this call has made it.

        However often a request is sent, and whatever stops one of its calls, there is one.

        Raises:
            Conflict: the request's id stands for another body, what it made was deleted, or the
                name is that of another adaptation.
            InvalidInput: the changes and the profile together are no spec.

        """

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

    def watch(self, namespace: str, name: str, *, events: int = 0) -> AsyncIterator[View]:
        """The adaptation as it is, and again whenever it has changed; the last is a final one.

        Of changes that follow each other faster than they are taken, the newest is given.
        `events`: so many have been told already, perhaps by another process: no older state is
        given, so that the first has fewer only if the number is another adaptation's.

        Raises:
            NotFound: there is none of this name, or it was deleted meanwhile.
            Transient: this process ends, and the adaptation goes on with the next; or it cannot
                see at the moment what the other process has told.

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


def manifest_of(submission: Submission, *, profile: str, model: str) -> Adaptation:
    """The adaptation that is asked for, of the profile and the base model of who keeps it.

    Raises InvalidInput naming the field.
    """
    changes = {
        **submission.changes,
        "profile": profile,
        "model": model,
        "metadata.namespace": submission.key.namespace,
        "metadata.name": submission.name or submission.key.name,
    }
    return load_adaptation(None, changes, source="request")


def given_files(spec: AdaptationSpec) -> frozenset[str]:
    """Paths of the documents and questions that an adaptation was given."""
    given: tuple[FileReference, ...] = spec.data.documents
    if spec.data.questions is not None:
        given = (*given, spec.data.questions)
    return frozenset(file.path for file in given)


def stored_files(paths: Collection[str]) -> tuple[str, ...]:
    """Those that this service stored, under their digests, sorted: they go with an adaptation.

    Others are left alone, as a document by reference may be anybody's; nor need they be paths at
    all, of an object that was applied by hand.
    """
    return tuple(sorted(filter(_STORED.fullmatch, paths)))


def kept_adapters(status: RunStatus) -> tuple[AdapterReference, ...]:
    """What the result of an adaptation refers to."""
    result = status.adaptation and status.adaptation.result
    found = (result.adapter, result.passages_adapter) if result else ()
    return tuple(adapter for adapter in found if adapter is not None)


def not_found(name: Name) -> NotFound:
    """The error for an adaptation that is not there; the caller raises it."""
    return NotFound(
        f"there is no adaptation {name[1]!r} in namespace {name[0]!r}",
        field="name",
        remedy="ListAdaptations, or `seal list`, names those there are",
    )


def of_another_uid(name: str) -> Conflict:
    """The error for a name that is another adaptation's than was meant; the caller raises it."""
    return Conflict(
        f"adaptation {name!r} is another one than that of this uid",
        field="uid",
        remedy="read it with GetAdaptation, and give its own uid if it is meant",
    )


def file_deleted() -> Transient:
    """The error for a document that went with another adaptation; the caller raises it."""
    return Transient(
        "a document was deleted while its adaptation was submitted",
        remedy="send the same request again; upload the document again if it was uploaded",
    )


def stopping() -> Transient:
    """The error for who watches while this process ends; the caller raises it."""
    return Transient(
        "the server is stopping",
        remedy="watch again, after the last event that was seen: the adaptation goes on",
    )


def _framed(text: str) -> bytes:
    """The text with its length before it, so that no two lists of texts look alike."""
    content = text.encode()
    return len(content).to_bytes(8, "big") + content
