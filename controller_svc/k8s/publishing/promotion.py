"""What a service of KServe is to serve: pure, from an adapter and the object that is there.

A service serves adapters under names; what each name stands for, and what it stood for before, is
kept in an annotation of the service itself. So whoever comes later, another adaptation or a
controller that starts anew, reads all that it needs from the object that it is about to change, and
of two that change it at once the API server lets one through.

Of two adaptations under one name the one that ended later is served. One that is withdrawn makes
room for what was served before; an adaptation that was passed over meanwhile does not come back.

A URI ends in the adapter's digest, and the service lists the adapter under a second name that does
so, too: a list that has it comes from a server that has loaded that very adapter, also while an
older one still answers under the first name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from pydantic import TypeAdapter, ValidationError

from controller_svc.k8s.publishing.serving import DIGEST_CHARACTERS, Adapter, Service
from seal.errors import Conflict, InvalidInput, PreconditionFailed
from seal.limits import VLLM_RANKS, vllm_rank
from seal.records import AdapterReference
from seal.settings import Settings
from seal.settings.publish import KServeSettings
from seal.yaml_files import Tree

SERVED_ANNOTATION = "seal.dev/served"
"""Of a service: what each name stands for, as JSON."""
MANAGER_LABEL, MANAGER = "app.kubernetes.io/managed-by", "seal-controller"
LABELS = {
    "app.kubernetes.io/name": "seal",
    "app.kubernetes.io/component": "serving",
    "app.kubernetes.io/part-of": "seal",
    MANAGER_LABEL: MANAGER,
}
MAX_NAMES = 32
"""Adapters of one service: vLLM loads them all at its start."""


class Revision(Settings):
    """One adapter as it was promoted, with the settings of the service that go with it."""

    settings: KServeSettings
    adaptation: str
    """Name of the adaptation's object."""
    uid: str
    """Its uid."""
    ended_seconds: float
    """Unix time at which it ended."""
    adapter: AdapterReference
    rank: int

    @property
    def name(self) -> str:
        """Name by which clients ask for the adapter."""
        return self.settings.adapter_name or self.adaptation

    @property
    def digest_name(self) -> str:
        """Name that no other adapter is served under."""
        return f"{self.name}-{self.adapter.sha256[:DIGEST_CHARACTERS]}"

    @property
    def adapter_uri(self) -> str:
        """Where the serving side finds the adapter."""
        return f"{self.settings.store_uri}/{self.adapter.path}"

    @property
    def order(self) -> tuple[float, str]:
        """Of two revisions the greater is served."""
        return (self.ended_seconds, self.uid)


class Served(Settings):
    """What a name stands for."""

    current: Revision | None
    """None: it was withdrawn, and nothing came before it."""
    previous: Revision | None = None
    """What it stood for before."""
    newest: tuple[float, str]
    """Order of the newest that was ever served: whatever is older was passed over."""


Names = Mapping[str, Served]
_NAMES: TypeAdapter[dict[str, Served]] = TypeAdapter(dict[str, Served])


def names_of(found: Tree | None) -> Names:
    """What the names of a service stand for; nothing if there is no service.

    Raises:
        Conflict: the service is not SEAL's.
        InvalidInput: the annotation was altered.

    """
    if found is None:
        return {}
    metadata = cast("Mapping[str, Mapping[str, str] | None]", found["metadata"])
    if (metadata.get("labels") or {}).get(MANAGER_LABEL) != MANAGER:
        raise Conflict(
            "there is a service of this name that is not SEAL's",
            field="publish.kserve.name",
            remedy=f"choose another name, or hand it over with the label {MANAGER_LABEL}={MANAGER}",
        )
    text = (metadata.get("annotations") or {}).get(SERVED_ANNOTATION, "{}")
    try:
        return _NAMES.validate_json(text)
    except ValidationError as error:
        raise InvalidInput(
            f"the service's annotation {SERVED_ANNOTATION} cannot be read: {error.errors()[0]}",
            remedy="delete the service: it is made anew",
        ) from error


def promoted(names: Names, revision: Revision) -> Names:
    """The names once a revision stands for its own, unless a newer one has passed it over.

    Raises:
        PreconditionFailed: the service serves adapters of another base model, or as many as it can.

    """
    there = names.get(revision.name, Served(current=None, newest=(0.0, "")))
    if there.newest > revision.order:
        return names
    before = there.current
    if before is not None and before.uid == revision.uid:
        before = there.previous
    others = {name: served for name, served in names.items() if name != revision.name}
    _check_beside(others, revision)
    served = Served(current=revision, previous=before, newest=revision.order)
    return others | {revision.name: served}


def withdrawn(names: Names, revision: Revision) -> Names:
    """The names once a revision stands for none: what was there before it is back.

    Not if that sits on another base model than what the other names stand for by now.
    """
    there = names.get(revision.name)
    if there is None:
        return names
    current, back = there.current, there.previous
    if back is not None and back.uid == revision.uid:
        return {**names, revision.name: there.model_copy(update={"previous": None})}
    if current is None or current.uid != revision.uid:
        return names
    others = [one.current for name, one in names.items() if name != revision.name]
    models = {other.settings.model_uri for other in others if other is not None}
    if back is not None and models - {back.settings.model_uri}:
        back = None
    return {**names, revision.name: Served(current=back, newest=there.newest)}


def service_of(names: Names, *, settings: KServeSettings, namespace: str) -> Service:
    """The service that serves these names; `settings` hold where nothing is served."""
    current = sorted(
        (served.current for served in names.values() if served.current is not None),
        key=lambda revision: revision.order,
    )
    newest = current[-1].settings if current else settings
    ranks = [revision.rank for revision in current]
    wished = [revision.settings.max_lora_rank for revision in current]
    adapters = (adapter for revision in current for adapter in _both_names(revision))
    text = _NAMES.dump_json(dict(sorted(names.items())), by_alias=True)
    return Service(
        settings=newest,
        namespace=namespace,
        labels=LABELS,
        annotations={SERVED_ANNOTATION: text.decode()},
        adapters=tuple(sorted(adapters, key=lambda adapter: adapter.name)),
        # More than the largest is let in neither by settings nor by `check_revision`
        max_rank=vllm_rank(max(ranks + wished, default=1)) or VLLM_RANKS[-1],
    )


def check_revision(revision: Revision) -> None:
    """Refuse what no service can serve.

    Raises:
        InvalidInput: the rank is above what vLLM knows, or the base model has the name.

    """
    if vllm_rank(revision.rank) is None:
        raise InvalidInput(
            f"the adapter has rank {revision.rank}, and vLLM serves up to {VLLM_RANKS[-1]}",
            field="adapter.lora.rank",
            remedy="adapt with a lower rank",
        )
    if revision.name == revision.settings.name:
        raise InvalidInput(
            f"the base model is served as {revision.name!r}",
            field="publish.kserve.adapterName",
            remedy="give the adapter a name of its own",
        )


def _check_beside(others: Names, revision: Revision) -> None:
    """All adapters of a service sit on its one base model."""
    current = [served.current for served in others.values() if served.current is not None]
    model_uri = revision.settings.model_uri
    for other in current:
        if other.settings.model_uri != model_uri:
            raise PreconditionFailed(
                f"the service serves {other.name!r} on {other.settings.model_uri}",
                field="publish.kserve.modelUri",
                remedy="publish to a service of another name",
            )
    if len(current) >= MAX_NAMES:
        raise PreconditionFailed(
            f"the service serves {len(current)} adapters",
            field="publish.kserve.name",
            remedy="withdraw one, or publish to a service of another name",
        )


def _both_names(revision: Revision) -> Iterator[Adapter]:
    for name in (revision.name, revision.digest_name):
        yield Adapter(name=name, uri=revision.adapter_uri, sha256=revision.adapter.sha256)
