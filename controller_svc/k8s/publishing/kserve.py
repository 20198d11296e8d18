"""The object of a service, made with KServe's SDK.

The SDK is an extra of 278 MB whose import takes seconds, and this is the one module that imports
it: whoever needs an object imports it late.
"""

from __future__ import annotations

from typing import cast

from kserve.models import (
    V1alpha2LLMInferenceService,
    V1beta1InferenceService,
    V1beta1InferenceServiceSpec,
    V1beta1ModelFormat,
    V1beta1ModelSpec,
    V1beta1PredictorSpec,
    V1beta1StorageUri,
)
from kubernetes.client import ApiClient, V1ObjectMeta, V1ResourceRequirements

from controller_svc.k8s.api import INFERENCE_SERVICES, LLM_INFERENCE_SERVICES
from controller_svc.k8s.publishing.serving import Service
from seal.yaml_files import Tree

MAIN_CONTAINER = "main"
"""Of an LLMInferenceService: the one that runs vLLM."""


def build(service: Service) -> Tree:
    """The object of a service as the API server takes it."""
    of_kind = {
        "InferenceService": _inference_service,
        "LLMInferenceService": _llm_inference_service,
    }
    typed = of_kind[service.settings.kind](service)
    with ApiClient() as client:
        return cast("Tree", client.sanitize_for_serialization(typed))


def _inference_service(service: Service) -> V1beta1InferenceService:
    """One model server; it loads what is mounted beside its model."""
    settings = service.settings
    model = V1beta1ModelSpec(
        model_format=V1beta1ModelFormat(name=settings.model_format),
        runtime=settings.runtime or None,
        args=list(service.arguments),
        resources=_resources(service),
    )
    mounts = [V1beta1StorageUri(uri=uri, mount_path=path) for path, uri in service.mounts.items()]
    predictor = V1beta1PredictorSpec(model=model, storage_uris=mounts)
    return V1beta1InferenceService(
        api_version=INFERENCE_SERVICES.api_version,
        kind=settings.kind,
        metadata=_metadata(service),
        spec=V1beta1InferenceServiceSpec(predictor=predictor),
    )


def _llm_inference_service(service: Service) -> V1alpha2LLMInferenceService:
    """KServe's own for language models; the SDK has no types for its spec."""
    settings = service.settings
    resources = _resources(service)
    given: Tree = {"args": list(settings.args), "resources": resources}
    container = {name: value for name, value in given.items() if value}
    model: Tree = {"uri": settings.model_uri, "name": settings.name}
    if service.adapters:
        model["lora"] = {
            "maxRank": service.max_rank,
            "maxAdapters": service.loaded_at_once,
            "maxCpuAdapters": len(service.adapters),
            "adapters": [{"name": one.name, "uri": one.uri} for one in service.adapters],
        }
    # Without a route the service has no address
    spec: Tree = {"model": model, "router": {"route": {}, "gateway": {}}}
    if container:
        spec["template"] = {"containers": [{"name": MAIN_CONTAINER, **container}]}
    if settings.runtime:
        spec["baseRefs"] = [{"name": settings.runtime}]
    return V1alpha2LLMInferenceService(
        api_version=LLM_INFERENCE_SERVICES.api_version,
        kind=settings.kind,
        metadata=_metadata(service),
        spec=spec,
    )


def _metadata(service: Service) -> V1ObjectMeta:
    return V1ObjectMeta(
        name=service.settings.name,
        namespace=service.namespace,
        labels=dict(service.labels),
        annotations=dict(service.annotations),
    )


def _resources(service: Service) -> V1ResourceRequirements | None:
    given = service.settings.resources
    if not given.requests and not given.limits:
        return None
    return V1ResourceRequirements(
        requests=dict(given.requests) or None, limits=dict(given.limits) or None
    )
