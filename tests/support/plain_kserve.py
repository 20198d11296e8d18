"""The objects of KServe as plain trees: what the SDK makes of a service, without the SDK.

The SDK is 278 MB and an extra. A test that has it holds its objects against these.
"""

from __future__ import annotations

from typing import Any

from controller_svc.k8s.publishing.serving import Service


def build(service: Service) -> dict[str, Any]:
    """The object of a service."""
    settings = service.settings
    metadata = {
        "name": settings.name,
        "namespace": service.namespace,
        "labels": dict(service.labels),
        "annotations": dict(service.annotations),
    }
    resources = settings.resources.model_dump(mode="json", exclude_defaults=True)
    if settings.kind == "InferenceService":
        model: dict[str, Any] = {
            "modelFormat": {"name": settings.model_format},
            "args": list(service.arguments),
            "name": "",  # the SDK will have one
        }
        model |= {"runtime": settings.runtime} if settings.runtime else {}
        model |= {"resources": resources} if resources else {}
        mounts = [{"uri": uri, "mountPath": path} for path, uri in service.mounts.items()]
        return {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": metadata,
            "spec": {"predictor": {"model": model, "storageUris": mounts}},
        }
    container: dict[str, Any] = {"args": list(settings.args)} if settings.args else {}
    container |= {"resources": resources} if resources else {}
    spec: dict[str, Any] = {
        "model": {"uri": settings.model_uri, "name": settings.name},
        "router": {"route": {}, "gateway": {}},
    }
    if container:
        spec["template"] = {"containers": [{"name": "main"} | container]}
    if service.adapters:
        spec["model"]["lora"] = {
            "maxRank": service.max_rank,
            "maxAdapters": service.loaded_at_once,
            "maxCpuAdapters": len(service.adapters),
            "adapters": [{"name": one.name, "uri": one.uri} for one in service.adapters],
        }
    if settings.runtime:
        spec["baseRefs"] = [{"name": settings.runtime}]
    return {
        "apiVersion": "serving.kserve.io/v1alpha2",
        "kind": "LLMInferenceService",
        "metadata": metadata,
        "spec": spec,
    }
