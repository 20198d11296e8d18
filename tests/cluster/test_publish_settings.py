"""What an adaptation may say of the service that serves its adapter."""

from __future__ import annotations

import pytest
from cluster_objects import adaptation
from publishing import kserve_settings

from seal.config import adaptation_of_object
from seal.errors import InvalidInput


def read(**kserve: object):
    body = adaptation("a", publish={"kserve": kserve_settings(**kserve)})
    return adaptation_of_object(body)[1].publish.kserve


def test_a_service_has_a_name_a_model_and_a_store_and_the_rest_has_defaults() -> None:
    settings = read()
    assert (settings.kind, settings.adapter_name) == ("InferenceService", "")
    assert adaptation_of_object(adaptation("a"))[1].publish is None


@pytest.mark.parametrize(
    ("update", "field"),
    [
        ({"modelUri": "https://example.org/model"}, "modelUri"),
        ({"modelUri": "hf://org"}, "modelUri"),
        ({"modelUri": "pvc://claim/../other"}, "storeUri"),
        ({"storeUri": "file:///artifacts"}, "storeUri"),
        ({"storeUri": "s3://bucket/../other"}, "storeUri"),
        ({"storeUri": "pvc://claim/"}, "storeUri"),
        ({"kind": "LLMInferenceService", "storeUri": "gs://bucket"}, "storeUri"),
        ({"kind": "LLMInferenceService", "modelUri": "gs://bucket/model"}, "modelUri"),
        ({"kind": "Deployment"}, "kind"),
        ({"name": "Qwen"}, "name"),
        ({"name": "7b"}, "name"),
        ({"adapterName": "with.dot"}, "adapterName"),
        ({"adapterName": "qwen"}, "adapterName"),
        ({"maxLoraRank": 1024}, "maxLoraRank"),
        ({"runtime": "mine", "modelUri": "pvc://models/qwen"}, "modelUri"),
        ({"args": ["--trust-remote-code"]}, "args"),
        ({"args": ["--model=/etc"]}, "args"),
        ({"args": ["--dtype=half --trust-remote-code"]}, "args"),
        ({"args": ["--dtype=half\n--trust-remote-code"]}, "args"),
        ({"args": ["--lora-modules=x=/y"]}, "args"),
        ({"image": "mine"}, "image"),
        ({"serviceAccountName": "admin"}, "serviceAccountName"),
    ],
)
def test_what_no_service_could_serve_is_refused_by_field(update: dict, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(**update)
    assert f"publish.kserve.{field}" in str(refused.value)


def test_arguments_that_only_size_the_server_are_taken() -> None:
    arguments = ["--max-model-len=4096", "--gpu-memory-utilization=0.9", "--enforce-eager"]
    assert read(args=arguments).args == tuple(arguments)
    assert read(runtime="mine", modelUri="pvc://models").runtime == "mine"
