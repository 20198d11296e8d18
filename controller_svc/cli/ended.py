"""What has ended in a root already, found without a server: to show it again loads no model."""

from __future__ import annotations

from collections.abc import Iterable

from controller_svc.adaptations import DEFAULT_NAMESPACE, RequestKey
from controller_svc.cli.serving import has_adaptations, look
from controller_svc.cli.target import Target
from controller_svc.core import adaptation_state
from controller_svc.local.objects import Objects
from controller_svc.requests import find_request
from seal.artifacts import ArtifactStore
from seal.client import Adaptation
from seal.errors import NotFound


def ended_here(request_ids: Iterable[str], target: Target) -> Adaptation | None:
    """The adaptation of the first request id whose adaptation is not deleted, if it has ended.

    None if it is at work, has not begun, or was deleted meanwhile.
    """
    store = ArtifactStore(target.root)
    if not has_adaptations(store):
        return None
    objects, namespace = Objects(store), target.namespace or DEFAULT_NAMESPACE
    for request_id in request_ids:
        key = RequestKey(caller="", namespace=namespace, request_id=request_id)
        record = find_request(store, key)
        if record is None:
            return None
        if objects.tombstone(record.uid) is None:
            break
    else:
        return None
    try:
        one = objects.read((namespace, record.name))
        if one.uid != record.uid or not adaptation_state(objects.status(one)).final:
            return None
        return look(target, lambda view: view.client.get(record.name))
    except NotFound:
        return None
