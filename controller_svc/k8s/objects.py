"""The status subresource: a `RunStatus` as an object of a cluster shows it.

Its fields are the status's own, named as Kubernetes names fields, so that a controller that starts
anew reads from the object all that it needs. Five things differ. Conditions carry a time of day.
`progress` and `columns` are there for people. `publication` is what became of an adapter after the
end. Of many rounds the newest are kept, as an object must stay small. And `observedGeneration` says
which spec all this is about.

A status is replaced (PUT), never merged: a merge patch takes null for "delete this field", and in a
status null is a value, for example the policy that is the base model alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar, get_args

from pydantic import AwareDatetime, ConfigDict, Field

from controller_svc.core.state import Condition, PolicyStatus, RoundStatus, RunStatus, Status
from seal.yaml_files import Tree

MAX_ROUNDS = 9
"""Newest rounds that an object shows, beside round 0; the store has all."""
MICROSECONDS = 6
"""Decimals of a time that an object keeps."""
MAX_STATUS_BYTES = 64 * 1024
"""No status is larger."""
PUBLISHED: Final = "Published"
"""Condition of an adaptation that is to be served."""


class ObjectCondition(Status):
    """One condition, as all of Kubernetes has them."""

    type: str = Field(min_length=1, max_length=316)
    """Progressing, Suspended, Complete, Failed, Cancelled or Published."""
    status: str = Field(pattern="^(True|False|Unknown)$")
    """True, False or Unknown."""
    reason: str = Field(max_length=1024)
    """Why, in CamelCase; programs may rely on it."""
    message: str = Field(default="", max_length=1024)
    """Why, for people."""
    last_transition_time: AwareDatetime
    """When `status` last changed."""
    observed_generation: int | None = Field(default=None, ge=0)
    """Generation of the spec that it is about."""


class ObjectProgress(Status):
    """How far it is."""

    percent: int = Field(default=0, ge=0, le=100)
    """Share of the whole that is done."""
    eta_seconds: int | None = Field(default=None, ge=0)
    """Estimated seconds to the end; null if unknown."""
    last_update_time: AwareDatetime | None = None
    """When this was last counted."""


class ObjectColumns(Status):
    """What `kubectl get` shows; numbers are text there, and none is null, which it would print."""

    round: str = ""
    """Round at work and rounds in all: `1/2`."""
    reward: str = ""
    """Of a run: mean reward of the newest validation; empty before."""
    stage: str = ""
    """Of an adaptation: the stage at work; empty before the first and after the last."""
    gain: str = ""
    """Of an adaptation: gain over the base model on the held-out questions; empty before."""


class ObjectPublication(Status):
    """The service that serves an adaptation's adapter, or why none does."""

    kind: str = Field(max_length=63)
    """InferenceService or LLMInferenceService."""
    name: str = Field(max_length=63)
    """Its name, in the object's namespace."""
    adapter_name: str = Field(default="", max_length=63)
    """Name by which clients ask for the adapter; empty if none is served."""
    adapter_uri: str = Field(default="", max_length=2048)
    """Where the serving side finds the adapter; it ends in the digest."""
    sha256: str = Field(default="", max_length=64)
    """Digest of the adapter: the one that was evaluated."""
    previous_adapter_uri: str = Field(default="", max_length=2048)
    """What was served under the name before, and is again if this one is withdrawn."""
    ready: bool | None = None
    """Whether the service lists the adapter; null while that is not known."""
    reason: str = Field(max_length=1024)
    """Why, in CamelCase; programs may rely on it."""
    message: str = Field(default="", max_length=1024)
    """Why, for people."""
    last_transition_time: AwareDatetime
    """When `ready` last changed."""


class ObjectStatus(RunStatus):
    """What the controller knows of the object."""

    model_config = ConfigDict(serialize_by_alias=True)

    observed_generation: int = Field(default=0, ge=0)
    """Generation of the spec that this is about."""
    progress: ObjectProgress = ObjectProgress()
    """How far it is."""
    columns: ObjectColumns = ObjectColumns()
    """What `kubectl get` shows."""
    publication: ObjectPublication | None = None
    """Of an adaptation that is to be served, after its end; null before, and of a run."""
    conditions: tuple[ObjectCondition, ...] = Field(default=(), max_length=16)  # type: ignore[assignment]
    """One per type."""


Entry = TypeVar("Entry", RoundStatus, PolicyStatus)
_OWN_FIELDS = frozenset({"observed_generation", "progress", "columns", "publication"})
_KNOWN_CONDITIONS = frozenset(get_args(Condition.model_fields["type"].annotation))


def to_object(
    status: RunStatus,
    *,
    generation: int,
    progress: ObjectProgress | None = None,
    columns: ObjectColumns | None = None,
    publication: ObjectPublication | None = None,
) -> Tree:
    """The status subresource of a status."""
    conditions = [_to_condition(condition, generation) for condition in status.conditions]
    if publication is not None:
        conditions.append(_published(publication, generation))
    kept = status.model_copy(
        update={"rounds": _newest(status.rounds), "policies": _newest(status.policies)}
    )
    fields = kept.model_dump(mode="json") | {
        "conditions": conditions,
        "observed_generation": generation,
        "progress": progress or ObjectProgress(),
        "columns": columns or ObjectColumns(),
        "publication": publication,
    }
    shown = ObjectStatus.model_validate(fields)
    return shown.model_dump(mode="json", by_alias=True)


def shown_of(body: Mapping[str, object]) -> ObjectStatus | None:
    """What an object shows; None if it has no status yet."""
    values = body.get("status")
    return _shown(values) if values else None


def of_object(values: Mapping[str, object]) -> RunStatus | None:
    """The status that an object's status subresource holds; None if it has none yet."""
    return of_shown(_shown(values)) if values else None


def _shown(values: object) -> ObjectStatus:
    return ObjectStatus.model_validate(values, by_alias=True, by_name=False)


def of_shown(shown: ObjectStatus) -> RunStatus:
    """The status beneath what an object shows."""
    fields = shown.model_dump(mode="json", by_alias=False, exclude=set(_OWN_FIELDS))
    fields["conditions"] = [
        _of_condition(condition)
        for condition in shown.conditions
        if condition.type in _KNOWN_CONDITIONS
    ]
    return RunStatus.model_validate(fields)


def _newest(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The newest rounds, and round 0: what came before the first is compared with."""
    return (
        tuple(entry for entry in entries[:-MAX_ROUNDS] if entry.round == 0) + entries[-MAX_ROUNDS:]
    )


def _to_condition(condition: Condition, generation: int) -> Tree:
    moment = datetime.fromtimestamp(condition.last_transition_seconds, tz=UTC)
    kept = condition.model_dump(mode="json", exclude={"last_transition_seconds"})
    return kept | {"last_transition_time": moment, "observed_generation": generation}


def _published(publication: ObjectPublication, generation: int) -> Tree:
    """The condition that a publication is."""
    values = {True: "True", False: "False", None: "Unknown"}
    kept = publication.model_dump(include={"reason", "message", "last_transition_time"})
    return kept | {
        "type": PUBLISHED,
        "status": values[publication.ready],
        "observed_generation": generation,
    }


def _of_condition(condition: ObjectCondition) -> Tree:
    kept = condition.model_dump(exclude={"last_transition_time", "observed_generation"})
    return kept | {"last_transition_seconds": condition.last_transition_time.timestamp()}
