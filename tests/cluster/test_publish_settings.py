"""What an adaptation may say of the service that serves its adapter."""

from __future__ import annotations

import pytest
from cluster_objects import adaptation, object_path
from control_plane import ControlPlane
from publishing import Publishing, kserve_settings

from controller_svc.k8s.objects import ObjectStatus
from seal.config import adaptation_of_object
from seal.errors import InvalidInput


def read(**kserve: object):
    body = adaptation("a", publish={"kserve": kserve_settings(**kserve)})
    return adaptation_of_object(body)[1].publish.kserve


def test_a_service_has_a_name_a_model_and_a_store_and_the_rest_has_defaults() -> None:
    settings = read()
    assert (settings.kind, settings.adapter_name) == ("InferenceService", "")
    assert adaptation_of_object(adaptation("a"))[1].publish is None


BY_ITSELF = [
    ({"modelUri": "https://example.org/model"}, "modelUri"),
    ({"modelUri": "hf://org"}, "modelUri"),
    ({"storeUri": "file:///artifacts"}, "storeUri"),
    ({"storeUri": "pvc://claim/"}, "storeUri"),
    ({"kind": "Deployment"}, "kind"),
    ({"name": "Qwen"}, "name"),
    ({"name": "7b"}, "name"),
    ({"adapterName": "with.dot"}, "adapterName"),
    ({"maxLoraRank": 1024}, "maxLoraRank"),
    ({"args": ["--trust-remote-code"]}, "args"),
    ({"args": ["--model=/etc"]}, "args"),
    ({"args": ["--dtype=half --trust-remote-code"]}, "args"),
    ({"args": ["--dtype=half\n--trust-remote-code"]}, "args"),
    ({"args": ["--lora-modules=x=/y"]}, "args"),
    ({"image": "mine"}, "image"),
    ({"serviceAccountName": "admin"}, "serviceAccountName"),
]
"""What one field breaks."""
TOGETHER = [
    ({"modelUri": "pvc://claim/../other"}, "storeUri"),
    ({"storeUri": "s3://bucket/../other"}, "storeUri"),
    ({"kind": "LLMInferenceService", "storeUri": "gs://bucket"}, "storeUri"),
    ({"kind": "LLMInferenceService", "modelUri": "gs://bucket/model"}, "modelUri"),
    ({"adapterName": "qwen"}, "adapterName"),
    ({"runtime": "mine", "modelUri": "pvc://models/qwen"}, "modelUri"),
]
"""What several fields break together."""


@pytest.mark.parametrize(("update", "field"), BY_ITSELF + TOGETHER)
def test_what_no_service_could_serve_is_refused_by_field(update: dict, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(**update)
    assert f"publish.kserve.{field}" in str(refused.value)


def test_arguments_that_only_size_the_server_are_taken() -> None:
    arguments = ["--max-model-len=4096", "--gpu-memory-utilization=0.9", "--enforce-eager"]
    assert read(args=arguments).args == tuple(arguments)
    assert read(runtime="mine", modelUri="pvc://models").runtime == "mine"


def create(plane: ControlPlane, object_name: str, **kserve: object) -> tuple[int, dict]:
    body = adaptation(object_name, publish={"kserve": kserve_settings(**kserve)})
    return plane.request("POST", f"{object_path(body, '')}?fieldValidation=Strict", body)


@pytest.mark.parametrize(("update", "field"), BY_ITSELF)
def test_the_api_server_refuses_the_same_by_field(
    update: dict, field: str, seal_api: ControlPlane
) -> None:
    code, reply = create(seal_api, "refused", **update)
    assert code in (400, 422), reply
    assert f"spec.publish.kserve.{field}" in reply["message"]


async def test_where_an_adapter_is_served_cannot_be_changed_and_what_became_of_it_is_kept(
    seal_api: ControlPlane,
) -> None:
    limits = {"cpu": 2, "nvidia.com/gpu": "1"}
    code, kept = create(seal_api, "served", resources={"limits": limits}, args=["--seed=1"])
    assert code == 201, kept
    path = object_path(kept, "served")
    for change in ({"name": "other"}, {"args": []}):
        altered = kept | {"spec": dict(kept["spec"])}
        altered["spec"]["publish"] = {"kserve": kept["spec"]["publish"]["kserve"] | change}
        code, reply = seal_api.request("PUT", path, altered)
        assert code == 422 and "spec.publish cannot be changed" in reply["message"]
    ended = Publishing(namespace="default").ended("served", "1")
    await ended.look()
    kept["status"] = ended.body["status"]
    code, kept = seal_api.request("PUT", f"{path}/status?fieldValidation=Strict", kept)
    assert code == 200, kept
    assert kept["status"] == ended.body["status"]
    shown = ObjectStatus.model_validate(kept["status"]).publication
    assert shown is not None and shown.reason == "RollingOut"
    found = seal_api.kubectl(
        "get", "adapt", "served", "-o", "jsonpath={.status.conditions[*].type}"
    )
    assert "Published" in found
