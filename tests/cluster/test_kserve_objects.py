"""Services held against KServe's own definitions on a real API server.

KServe's controllers do not run here: what they would do is played, by a status that is patched.
The definitions are in the folder `$SEAL_TEST_CRDS`, as files or in an archive. kube-apiserver takes
1.4 GB with them, so it is one of its own.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import plain_kserve
import pytest
from control_plane import ControlPlane, running_control_plane
from kserve_definitions import find_definitions
from kubernetes.aio import config
from publishing import RESOURCES, Publishing, adapter_of
from sample_services import sample_services

from controller_svc.k8s.api import KubernetesApi, Resource
from controller_svc.k8s.publishing.serving import Service

NAMESPACE = "default"
KINDS = tuple(RESOURCES)
SERVED_SECONDS = 120.0
SDK = importlib.util.find_spec("kserve") is not None


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of the two kinds' definitions."""
    plurals = [resource.plural for resource in RESOURCES.values()]
    try:
        return find_definitions(plurals, tmp_path_factory.mktemp("definitions"))
    except FileNotFoundError as absent:
        pytest.skip(str(absent))


@pytest.fixture(scope="module")
def kserve_plane(
    definitions: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """A control plane that knows KServe's kinds."""
    with running_control_plane(tmp_path_factory.mktemp("kserve")) as plane:
        for file in definitions:
            plane.kubectl("create", "-f", str(file))
        deadline = time.monotonic() + SERVED_SECONDS
        for resource in RESOURCES.values():
            while not is_established(plane, resource):
                assert time.monotonic() < deadline, f"{resource.plural} are not served"
                time.sleep(0.2)
        yield plane


def is_established(plane: ControlPlane, resource: Resource) -> bool:
    """Whether the server serves a kind: right after its creation nothing is said of it."""
    name = f"{resource.plural}.{resource.api_version.partition('/')[0]}"
    definition = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    _, body = plane.request("GET", definition)
    conditions = body["status"].get("conditions") or []
    return ("Established", "True") in {(one["type"], one["status"]) for one in conditions}


@pytest.fixture
async def api(kserve_plane: ControlPlane) -> AsyncIterator[KubernetesApi]:
    client = await config.new_client_from_config(str(kserve_plane.kubeconfig))
    async with client:
        yield KubernetesApi(client, timeout_seconds=60.0)


def built(service: Service) -> Any:
    """The service's object: by the SDK where it is there, else as the SDK makes it."""
    if not SDK:
        return plain_kserve.build(service)
    from controller_svc.k8s.publishing.kserve import build

    return build(service)


def path(resource: Resource, name: str = "", *, part: str = "") -> str:
    return resource.path(NAMESPACE, name, part=part)


@pytest.mark.skipif(not SDK, reason="needs the extra kserve (tests/install has it)")
def test_the_tests_own_objects_are_those_of_the_sdk() -> None:
    for service in sample_services():
        assert built(service) == plain_kserve.build(service)


def test_the_api_server_takes_services_of_every_shape(kserve_plane: ControlPlane) -> None:
    for service in sample_services():
        body = built(service)
        resource = RESOURCES[service.settings.kind]
        query = "?fieldValidation=Strict&dryRun=All"
        code, reply = kserve_plane.request("POST", path(resource) + query, body)
        assert code == 201, reply
        assert reply["spec"] == body["spec"]


@pytest.mark.parametrize(
    ("kind", "below", "wrong"),
    [
        ("InferenceService", ("predictor",), {"storageUris": [{"mountPath": "/mnt/models"}]}),
        ("InferenceService", ("predictor",), {"storageUri": []}),
        ("LLMInferenceService", ("model", "lora"), {"maxRank": 0}),
        ("LLMInferenceService", ("model",), {"lora": {"rank": 8}}),
    ],
)
def test_what_the_definitions_do_not_know_is_refused(
    kind: str, below: tuple[str, ...], wrong: dict[str, object], kserve_plane: ControlPlane
) -> None:
    service = next(one for one in sample_services() if one.settings.kind == kind)
    body = built(service)
    place = body["spec"]
    for name in below:
        place = place[name]
    place |= wrong
    query = "?fieldValidation=Strict&dryRun=All"
    code, reply = kserve_plane.request("POST", path(RESOURCES[kind]) + query, body)
    assert code in (400, 422), reply
    assert next(iter(wrong)) in reply["message"]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_adapter_is_published_replaced_and_taken_back(
    kind: str, api: KubernetesApi, kserve_plane: ControlPlane
) -> None:
    site = Publishing(api, namespace=NAMESPACE)
    site.build = built
    resource = RESOURCES[kind]
    first = site.ended("first", "1", kind=kind, adapterName="docs")
    second = site.ended("second", "2", seconds=1.0, kind=kind, adapterName="docs")

    async def plays_ready() -> dict[str, Any]:
        """What KServe's controllers would write once the pods are there."""
        body: Any = await api.get(resource, NAMESPACE, "qwen")
        status = {
            "observedGeneration": body["metadata"]["generation"],
            "url": "http://served",
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        return await api.replace_status(resource, NAMESPACE, body | {"status": status})

    assert (await first.look()).shown.reason == "RollingOut"
    made = await plays_ready()
    site.listed = frozenset({"docs-111111111111"})
    assert (await first.look()).shown.reason == "Served"
    assert (await first.look()).shown.ready is True
    kept: Any = await api.get(resource, NAMESPACE, "qwen")
    assert kept["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]

    seen = await second.look()
    assert seen.shown.previous_adapter_uri.endswith(adapter_of("1").path)
    changed: Any = await api.get(resource, NAMESPACE, "qwen")
    assert changed["metadata"]["generation"] == 2
    assert "KServe has not looked" in seen.shown.message
    # What is there already is not written again, whatever the server added to it
    await second.look()
    again: Any = await api.get(resource, NAMESPACE, "qwen")
    assert again["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]

    second.withdraw()
    assert (await second.look()).shown.message == "first is served as docs"
    back: Any = await api.get(resource, NAMESPACE, "qwen")
    assert back["spec"] == kept["spec"]
    assert back["metadata"]["generation"] == 3


async def test_a_kind_that_the_cluster_does_not_know_is_named(control_plane: ControlPlane) -> None:
    client = await config.new_client_from_config(str(control_plane.kubeconfig))
    async with client:
        site = Publishing(KubernetesApi(client), namespace=NAMESPACE)
        seen = await site.ended("docs", "1").look()
    assert seen.shown.reason == "KServeMissing"
    assert seen.shown.message == "the cluster has no InferenceService: install KServe"
