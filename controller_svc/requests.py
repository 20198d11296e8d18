"""Which adaptation a request id stands for: noted in the artifact store, once and for all.

    adaptations/requests/{digest}.json

A request is noted before its adaptation is made, so that a kill in between leaves a request whose
next try makes the same adaptation. All calls that touch the store block; the caller takes a thread.
"""

from __future__ import annotations

from controller_svc.adaptations import FOLDER, Name, RequestKey
from seal.artifacts import ArtifactStore
from seal.errors import Conflict
from seal.records import Record


class RequestRecord(Record):
    """What a request id stands for."""

    name: str
    """Name of the adaptation."""
    uid: str
    """That of the request (`RequestKey.uid`)."""
    body_sha256: str
    """Digest of what was asked for."""


def find_request(store: ArtifactStore, key: RequestKey) -> RequestRecord | None:
    """What a request id stands for; None before its first request."""
    return store.find_json(_request_path(key), RequestRecord)


def note_request(
    store: ArtifactStore, key: RequestKey, *, name: str, body_sha256: str
) -> RequestRecord:
    """Note what a request id stands for, unless that is noted; the record that counts."""
    own = RequestRecord(name=name, uid=key.uid, body_sha256=body_sha256)
    return store.create_json(_request_path(key), own)


def check_same_body(record: RequestRecord, body_sha256: str) -> None:
    """Raises Conflict if the request id was used for something else."""
    if record.body_sha256 != body_sha256:
        raise Conflict(
            f"this request_id was used for adaptation {record.name!r} with another body",
            field="request_id",
            remedy="give each adaptation a request_id of its own",
        )


def was_deleted(name: str) -> Conflict:
    """The error for a request whose adaptation is no more; the caller raises it."""
    return Conflict(
        f"the adaptation {name!r} of this request was deleted",
        field="request_id",
        remedy="give another request_id to adapt once more",
    )


def name_taken(name: Name) -> Conflict:
    """The error for a name that another adaptation has; the caller raises it."""
    return Conflict(
        f"there is another adaptation {name[1]!r} in namespace {name[0]!r}",
        field="name",
        remedy="choose another name and another request_id, or delete that one first",
    )


def _request_path(key: RequestKey) -> str:
    return f"{FOLDER}/requests/{key.sha256}.json"
