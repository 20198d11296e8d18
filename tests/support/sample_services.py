"""Services of every shape, and a command that prints what KServe's SDK makes of them as JSON.

The command needs the extra kserve alone, so that an environment without pytest can run it.
"""

from __future__ import annotations

import json

from controller_svc.k8s.publishing.promotion import Revision, promoted, service_of, withdrawn
from controller_svc.k8s.publishing.serving import Service
from seal.records import AdapterReference
from seal.settings.publish import KServeSettings

_RESOURCES = {"requests": {"cpu": "500m"}, "limits": {"memory": "4Gi", "nvidia.com/gpu": "1"}}
_HUB = {"name": "qwen", "modelUri": "hf://org/qwen", "storeUri": "s3://bucket/seal"}
_CLAIM = {"name": "qwen", "modelUri": "pvc://models/qwen", "storeUri": "pvc://artifacts"}
_FULL = {"resources": _RESOURCES, "args": ["--max-model-len=4096"], "maxLoraRank": 64}


def sample_services() -> list[Service]:
    """Services of either kind: of one adapter, of two, of none, with every setting."""
    made: list[Service] = []
    for kind in ("InferenceService", "LLMInferenceService"):
        for base in (_HUB, _CLAIM, _HUB | _FULL | {"runtime": "mine"}):
            settings = KServeSettings.model_validate({"kind": kind, **base})
            one, two = _revision(settings, "1"), _revision(settings, "2")
            first = promoted({}, one)
            served = (first, promoted(first, two), withdrawn(first, one))
            made += [service_of(names, settings=settings, namespace="default") for names in served]
    return made


def _revision(settings: KServeSettings, digit: str) -> Revision:
    adapter = AdapterReference(path=f"runs/{digit}/adapters/{digit * 64}", sha256=digit * 64)
    return Revision(
        settings=settings,
        adaptation=f"adaptation-{digit}",
        uid=f"uid-{digit}",
        ended_seconds=1_767_225_600.25,
        adapter=adapter,
        rank=8,
    )


if __name__ == "__main__":
    from controller_svc.k8s.publishing.kserve import build

    print(json.dumps([build(service) for service in sample_services()]))
