"""What the controller asks of the API server, and every way in which that can fail.

Bodies are dicts: a field that the client's models do not know is kept, and what is a mistake the
server refuses (`fieldValidation=Strict`; by default it would only warn). An error that is
`Retryable` leaves open whether the request was carried out: whoever goes on looks first.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import aiohttp
from kubernetes.aio.client import ApiClient, ApiException

from seal.errors import (
    Conflict,
    Exhausted,
    Internal,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    SealError,
    Transient,
)
from seal.metrics import metrics
from seal.resources import API_VERSION
from seal.yaml_files import Tree

TIMEOUT_SECONDS = 15.0
"""Of one request; a lease, which is renewed every second, has a client with less."""
PAGE_OBJECTS = 100
"""Asked for at once of all objects of a namespace: 2.5 MB of adaptations that have ended."""
MAX_MESSAGE_CHARACTERS = 500
API_SERVER = "API server"
_JSON = {"Accept": "application/json", "Content-Type": "application/json"}


@dataclass(frozen=True)
class Resource:
    """One kind of object as the API server's paths name it."""

    api_version: str
    plural: str

    def path(self, namespace: str, name: str = "", *, part: str = "") -> str:
        """Path of an object, of its subresource `part`, or, without a name, of all of them.

        `namespace`: empty for a kind that no namespace has, as nodes.
        """
        root = "apis" if "/" in self.api_version else "api"
        where = f"/namespaces/{namespace}" if namespace else ""
        path = f"/{root}/{self.api_version}{where}/{self.plural}"
        return path + (f"/{name}" if name else "") + (f"/{part}" if part else "")


JOBS = Resource("batch/v1", "jobs")
PODS = Resource("v1", "pods")
EVENTS = Resource("v1", "events")
LEASES = Resource("coordination.k8s.io/v1", "leases")
WORKLOADS = Resource("kueue.x-k8s.io/v1beta2", "workloads")
WORKLOADS_BEFORE = Resource("kueue.x-k8s.io/v1beta1", "workloads")
"""Of a Kueue older than 0.15; one of 0.20 serves it no more."""
RUNS = Resource(API_VERSION, "restemruns")
ADAPTATIONS = Resource(API_VERSION, "adaptations")
INFERENCE_SERVICES = Resource("serving.kserve.io/v1beta1", "inferenceservices")
LLM_INFERENCE_SERVICES = Resource("serving.kserve.io/v1alpha2", "llminferenceservices")


class ClusterApi(Protocol):
    """The requests that the controller makes.

    All raise:
        NotFound: there is no such object, or no such kind.
        Conflict: the name is taken, or the object has changed since it was read.
        InvalidInput: the server refuses the body.
        PreconditionFailed: it is forbidden, or the namespace is going.
        Exhausted: a quota or the server is full.
        Transient: the server is away or answered with an error of its own.
    """

    async def get(self, kind: Resource, namespace: str, name: str) -> Tree:
        """One object."""

    async def list(
        self, kind: Resource, namespace: str, *, labels: str = "", fields: str = ""
    ) -> list[Tree]:
        """Objects that both selectors choose, as they are now and not as a cache has them.

        All in one reply: selectors that choose few, as those of one object do.
        """

    def pages(self, kind: Resource, namespace: str) -> AsyncIterator[Sequence[Tree]]:
        """All objects of a namespace that were there when this began, however many.

        Where the server forgets the place meanwhile they are begun anew, and some come twice.
        """

    async def create(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        """Make an object; as the server keeps it."""

    async def replace(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        """Put an object in the place of the one whose `resourceVersion` it bears."""

    async def replace_status(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        """The same of its status alone."""

    async def delete(self, kind: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Delete the object of this uid; it stays until all that it owns has gone."""


class ForwardingApi:
    """Another `ClusterApi`, unchanged: for those who change a request or two of it."""

    def __init__(self, api: ClusterApi) -> None:
        self._given = api

    @property
    def _api(self) -> ClusterApi:
        """Whom a request is sent to."""
        return self._given

    async def get(self, kind: Resource, namespace: str, name: str) -> Tree:
        """One object."""
        return await self._api.get(kind, namespace, name)

    async def list(
        self, kind: Resource, namespace: str, *, labels: str = "", fields: str = ""
    ) -> list[Tree]:
        """Objects that both selectors choose."""
        return await self._api.list(kind, namespace, labels=labels, fields=fields)

    def pages(self, kind: Resource, namespace: str) -> AsyncIterator[Sequence[Tree]]:
        """All objects of a namespace."""
        return self._api.pages(kind, namespace)

    async def create(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        """Make an object."""
        return await self._api.create(kind, namespace, body)

    async def replace(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        """Put an object in another's place."""
        return await self._api.replace(kind, namespace, body)

    async def replace_status(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        """Put a status in another's place."""
        return await self._api.replace_status(kind, namespace, body)

    async def delete(self, kind: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Delete an object and, before it, what it owns."""
        await self._api.delete(kind, namespace, name, uid=uid)


class KubernetesApi:
    """The API server behind a client of `kubernetes.aio`."""

    def __init__(
        self,
        client: ApiClient,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        page_objects: int = PAGE_OBJECTS,
    ) -> None:
        """`client` stays the caller's to close."""
        self._client, self._timeout_seconds = client, timeout_seconds
        self._page_objects = page_objects

    async def get(self, kind: Resource, namespace: str, name: str) -> Tree:
        """One object."""
        _count("get", kind)
        return await self._ask("GET", kind.path(namespace, name))

    async def list(
        self, kind: Resource, namespace: str, *, labels: str = "", fields: str = ""
    ) -> list[Tree]:
        """Objects that both selectors choose."""
        _count("list", kind)
        selectors = {"labelSelector": labels, "fieldSelector": fields}
        query = {name: value for name, value in selectors.items() if value}
        found = await self._ask("GET", kind.path(namespace), query)
        return _items(found)

    async def pages(self, kind: Resource, namespace: str) -> AsyncIterator[Sequence[Tree]]:
        """All objects of a namespace."""
        query, begun_anew = {"limit": str(self._page_objects)}, False
        while True:
            _count("list", kind)
            try:
                found = await self._ask("GET", kind.path(namespace), query)
            except Expired:
                if begun_anew:
                    raise
                query, begun_anew = {"limit": str(self._page_objects)}, True
                continue
            yield _items(found)
            place = str(cast("Tree", found.get("metadata") or {}).get("continue") or "")
            if not place:
                return
            query["continue"] = place

    async def create(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        """Make an object."""
        _count("create", kind)
        return await self._ask("POST", kind.path(namespace), _STRICT, body)

    async def replace(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        """Put an object in another's place."""
        _count("replace", kind)
        return await self._ask("PUT", kind.path(namespace, name_of(body)), _STRICT, body)

    async def replace_status(self, kind: Resource, namespace: str, body: Tree) -> Tree:
        """Put a status in another's place."""
        _count("replace_status", kind)
        path = kind.path(namespace, name_of(body), part="status")
        return await self._ask("PUT", path, _STRICT, body)

    async def delete(self, kind: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Delete an object and, before it, what it owns."""
        _count("delete", kind)
        options: Tree = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        await self._ask("DELETE", kind.path(namespace, name), body=options)

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: object = None
    ) -> Tree:
        client, headers = self._client, {**self._client.default_headers, **_JSON}
        try:
            await client.update_params_for_auth(headers, [], ["BearerToken"])
            # Not by `call_api`: it walks over each body twice, as it might hold the client's models
            reply = await client.rest_client.request(
                method,
                client.configuration.host + path,
                query_params=list((query or {}).items()),
                headers=headers,
                body=body,
                _request_timeout=self._timeout_seconds,
            )
        except ApiException as error:
            said = (error.body or b"").decode(errors="replace")
            raise api_error(
                error.status or 0, said, error.headers or {}, f"{method} {path}"
            ) from error
        except TimeoutError as error:
            message = f"{method} {path}: no reply within {self._timeout_seconds:g} s"
            raise _away(message) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _away(f"{method} {path}: {type(error).__name__}: {error}") from error
        return _object(reply.data, f"{method} {path}")


def _object(data: bytes, request: str) -> Tree:
    """The object of a reply. Raises Transient: a proxy answered in its own words, say."""
    try:
        reply: object = json.loads(data)
    except ValueError:  # what is no UTF-8, too
        reply = None
    if not isinstance(reply, dict):
        raise _away(f"{request}: the reply is no object of JSON")
    return reply


def _items(found: Tree) -> list[Tree]:
    return cast("list[Tree]", found.get("items") or [])


class Expired(Transient):
    """The API server has forgotten where a list was to go on (410)."""


class StatusRefused(PreconditionFailed):
    """The API server does not take a status: its definitions of the kinds are of another version.

    No condition can say so, as that would be a status, too.
    """


async def write_status(api: ClusterApi, kind: Resource, namespace: str, body: Tree) -> Tree:
    """Replace an object's status; as the server keeps it.

    Raises:
        StatusRefused: the server does not know what a status of this version holds.
        SealError: as all requests.

    """
    try:
        return await api.replace_status(kind, namespace, body)
    except InvalidInput as error:
        raise StatusRefused(
            f"the API server refuses the status, so that nothing can go on: {error.message}",
            remedy="`helm upgrade` brings the definitions (CRDs) of this version, with "
            "crds.enabled; where they are installed apart, apply those of the chart",
        ) from error


def is_of_server(error: SealError) -> bool:
    """Whether it is the API server that is away or full: no object can be told so."""
    return error.details.get("away") == API_SERVER


def _away(message: str, retry_after_seconds: float | None = None) -> Transient:
    return Transient(message, retry_after_seconds=retry_after_seconds, away=API_SERVER)


def _count(verb: str, kind: Resource) -> None:
    metrics.api_requests.labels(verb=verb, resource=kind.plural).inc()


_STRICT = {"fieldValidation": "Strict"}


def name_of(body: Mapping[str, object]) -> str:
    """The name in an object's metadata."""
    return str(cast("Mapping[str, object]", body["metadata"])["name"])


def api_error(status: int, body: str, headers: Mapping[str, str] | None, request: str) -> SealError:
    """The error that a reply of the API server stands for; `request` is told in its message."""
    said = _said(body)
    message = f"{request}: {str(said.get('message') or body or status)[:MAX_MESSAGE_CHARACTERS]}"
    wait = _retry_after_seconds(headers or {})
    if status == 429:
        return Exhausted(message, retry_after_seconds=wait, away=API_SERVER)
    if status == 403 and "exceeded quota" in message:
        return Exhausted(message, retry_after_seconds=wait)
    if status == 410:
        return Expired(message, retry_after_seconds=wait, away=API_SERVER)
    if status == 408 or status >= 500:
        return _away(message, wait)
    if status in (400, 413, 415, 422):
        return InvalidInput(message, field=_field(said))
    if status in (401, 403):
        return PreconditionFailed(message, remedy="look at the controller's Role and its token")
    if status == 404:
        return NotFound(message)
    if status == 409:
        return Conflict(message)
    return Internal(message)


def _said(body: str) -> Mapping[str, object]:
    """The Status object of a refusal; empty where a proxy answered in its own words."""
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _field(said: Mapping[str, object]) -> str:
    """The first field that the server names."""
    details = said.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    first = causes[0] if isinstance(causes, list) and causes else None
    return str(first.get("field", "")) if isinstance(first, dict) else ""


def _retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Kubernetes sends whole seconds; a date, as proxies may send it, is left alone."""
    text = str(headers.get("Retry-After", ""))
    return float(text) if text.isdecimal() else None
