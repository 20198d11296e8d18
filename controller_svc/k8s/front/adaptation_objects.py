"""An Adaptation object as the front door makes it, and what callers see of one.

Who made it does not matter: one that was applied by hand is seen as those that were submitted. The
object holds the whole spec, nothing left to a profile, so that a newer front door or controller
does not see another one in it; and of what a cluster alone has what the front door is set to, as no
caller may say where pods run or where an adapter is served.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from controller_svc.adaptations import Name, Progress, Serving, View
from controller_svc.core import Phase, RunStatus, new_status
from controller_svc.k8s.api import ADAPTATIONS
from controller_svc.k8s.hops import hop_annotations
from controller_svc.k8s.objects import ObjectProgress, ObjectPublication, of_shown, shown_of
from controller_svc.k8s.wanted import created_seconds, owner_of, read_wanted, store_name
from controller_svc.requests import RequestRecord
from seal.errors import InvalidInput, PreconditionFailed
from seal.resources import ADAPTATION_KIND, API_VERSION, Adaptation
from seal.rpc.errors import from_validation_error
from seal.rpc.hops import Hop
from seal.settings import AdaptationSpec
from seal.settings.cluster import AdaptationClusterSettings
from seal.yaml_files import Tree

REQUEST_LABEL = "seal.dev/request-uid"
"""Which request an object was made for: a digest of caller, namespace and request id."""
BODY_ANNOTATION = "seal.dev/request-sha256"
"""Digest of what was asked for."""
MAX_OBJECT_BYTES = 1024 * 1024
"""Of one object as it is submitted: etcd takes 1.5 MiB, and the status comes to it."""


class Identity(BaseModel):
    """Which object it is."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)

    name: str
    namespace: str
    uid: str

    @property
    def key(self) -> Name:
        """Namespace and name."""
        return (self.namespace, self.name)


class Metadata(Identity):
    """And what the API server has noted of it."""

    resource_version: int
    """Versions of one object grow; a server that says otherwise is none of Kubernetes."""
    deletion_timestamp: AwareDatetime | None = None
    """When its deletion began; None unless it has."""
    labels: dict[str, str] = Field(default={})

    @property
    def request_uid(self) -> str:
        """The request that it was made for; empty of one that was applied."""
        return self.labels.get(REQUEST_LABEL, "")


def metadata_of(body: Mapping[str, object]) -> Metadata:
    """An object's metadata."""
    return Metadata.model_validate(body["metadata"])


def submitted_object(
    manifest: Adaptation, *, cluster: AdaptationClusterSettings, request: RequestRecord, hop: Hop
) -> Tree:
    """The object of a request.

    Raises:
        InvalidInput: it is larger than what the API server keeps.

    """
    body: Tree = {
        "apiVersion": API_VERSION,
        "kind": ADAPTATION_KIND,
        "metadata": {
            "name": manifest.name,
            "namespace": manifest.namespace,
            "labels": {
                "app.kubernetes.io/part-of": "seal",
                "app.kubernetes.io/managed-by": "seal-api",
                REQUEST_LABEL: request.uid,
            },
            "annotations": {BODY_ANNOTATION: request.body_sha256} | hop_annotations(hop),
        },
        "spec": manifest.spec.model_dump(mode="json", by_alias=True)
        | cluster.model_dump(mode="json", by_alias=True, exclude_defaults=True),
    }
    size = len(json.dumps(body, ensure_ascii=False).encode())
    if size > MAX_OBJECT_BYTES:
        raise InvalidInput(
            f"the names of the documents make an object of {size} bytes, and the cluster keeps"
            f" {MAX_OBJECT_BYTES}",
            field="documents",
            remedy="give shorter names, or hand them in as several adaptations",
        )
    return body


def read_object(body: Tree) -> tuple[AdaptationSpec, bool]:
    """What an object asks for, and whether its owner wishes it to stop.

    Raises:
        PreconditionFailed: what was applied is no adaptation; the controller says so in its status.

    """
    try:
        wanted = read_wanted(ADAPTATIONS, body)
    except InvalidInput as error:
        name = metadata_of(body).name
        raise PreconditionFailed(
            f"adaptation {name!r} cannot be read: {error.message}",
            field="name",
            remedy="apply another one with a mended spec, and delete it",
        ) from error
    return cast("AdaptationSpec", wanted.manifest.spec), wanted.cancelled


def given_paths(body: Mapping[str, object]) -> frozenset[str]:
    """Paths of the documents and questions that an object names, also one that cannot be read."""
    spec = body.get("spec")
    data = spec.get("data") if isinstance(spec, Mapping) else None
    if not isinstance(data, Mapping):
        return frozenset()
    documents = data.get("documents")
    files = [*(documents if isinstance(documents, list) else ()), data.get("questions")]
    return frozenset(
        str(file["path"]) for file in files if isinstance(file, Mapping) and "path" in file
    )


def read_view(body: Tree) -> View:
    """What callers see of an object.

    Raises:
        PreconditionFailed: it cannot be read.

    """
    return view_of(body, read_object(body)[0])


def view_of(body: Tree, spec: AdaptationSpec) -> View:
    """What callers see of an object whose spec is known.

    Raises:
        PreconditionFailed: its status is none of this version's.

    """
    metadata = metadata_of(body)
    accepted_seconds = created_seconds(body)
    try:
        shown = shown_of(body)
        kept = of_shown(shown) if shown is not None else None
    except ValidationError as error:
        raise PreconditionFailed(
            f"the status of adaptation {metadata.name!r} cannot be read:"
            f" {from_validation_error(error).message}",
            field="name",
            remedy="let the front door and the controller be of one version",
        ) from error
    run = store_name(owner_of(ADAPTATIONS, body))
    status = new_status(spec, run=run, now_seconds=accepted_seconds)
    if kept is not None:
        # A controller that could not read the spec has written no more than why
        status = kept.model_copy(update={"adaptation": kept.adaptation or status.adaptation})
    return View(
        name=metadata.name,
        namespace=metadata.namespace,
        uid=metadata.uid,
        created_seconds=accepted_seconds,
        spec=spec,
        status=status,
        progress=_progress(status, shown.progress if shown else ObjectProgress()),
        serving=_serving(shown.publication) if shown and shown.publication else None,
    )


def _serving(shown: ObjectPublication) -> Serving:
    return Serving(
        kind=shown.kind,
        service=shown.name,
        adapter_name=shown.adapter_name,
        adapter_uri=shown.adapter_uri,
        ready=shown.ready,
        reason=shown.reason,
        message=shown.message,
        last_transition_seconds=shown.last_transition_time.timestamp(),
    )


def _progress(status: RunStatus, shown: ObjectProgress) -> Progress:
    """As the controller counts it."""
    if status.phase is Phase.COMPLETE:
        return Progress(percent=100.0)
    if status.phase.terminal:
        return Progress(percent=shown.percent)
    return Progress(
        stage=str(status.stage or ""), percent=shown.percent, eta_seconds=shown.eta_seconds
    )
