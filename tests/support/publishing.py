"""Adaptations that are to be served, and a cluster in memory with a KServe that tests play."""

from __future__ import annotations

import copy
from typing import Any

import plain_kserve
from cluster_objects import adaptation
from memory_api import MemoryApi
from synthetic_adaptation import synthetic_result

from controller_svc.core import Phase, RunStatus, new_status
from controller_svc.k8s.api import ADAPTATIONS, INFERENCE_SERVICES, LLM_INFERENCE_SERVICES
from controller_svc.k8s.objects import to_object
from controller_svc.k8s.publishing.publication import Publication, publish
from controller_svc.k8s.wanted import Wanted
from seal.config import adaptation_of_object
from seal.errors import Transient
from seal.records import AdapterReference, GateReason

RESOURCES = {
    "InferenceService": INFERENCE_SERVICES,
    "LLMInferenceService": LLM_INFERENCE_SERVICES,
}
URL = "http://served"
END_SECONDS = 1_767_225_600.0


def kserve_settings(**update: object) -> dict[str, object]:
    """The section `publish.kserve` as a file has it."""
    return {"name": "qwen", "modelUri": "hf://org/qwen", "storeUri": "pvc://artifacts"} | update


def adapter_of(digit: str) -> AdapterReference:
    """An adapter in the store whose digest is one digit."""
    return AdapterReference(path=f"runs/{digit}/adapters/{digit * 64}", sha256=digit * 64)


class Publishing:
    """A cluster with one service at most, and adaptations that have ended."""

    def __init__(self, api: Any = None, *, namespace: str = "team") -> None:
        self.api = api or MemoryApi()
        self.namespace = namespace
        self.listed: frozenset[str] | None = None
        """What the service's server lists; None: it does not answer."""
        self.asked: list[str] = []
        self.now = END_SECONDS
        self.build: Any = plain_kserve.build

    def ended(
        self,
        name: str,
        digit: str,
        *,
        seconds: float = 0.0,
        refused: GateReason | None = None,
        **kserve: object,
    ) -> Ended:
        """An adaptation that came to an adapter so many seconds after the first."""
        body = adaptation(name, publish={"kserve": kserve_settings(**kserve)})
        body["metadata"] |= {"namespace": self.namespace, "uid": f"uid-of-{name}"}
        result = synthetic_result(refused=refused)
        if refused is None:
            result = result.model_copy(update={"adapter": adapter_of(digit)})
        return Ended(self, body, result, END_SECONDS + seconds)

    async def models(self, url: str) -> frozenset[str]:
        """What stands for asking a server."""
        self.asked.append(url)
        if self.listed is None:
            raise Transient(f"{url}: refused")
        return self.listed

    def service(self, kind: str = "InferenceService", name: str = "qwen") -> Any:
        """The service as it is."""
        return self.api.objects[(RESOURCES[kind], self.namespace, name)]

    def plays_ready(self, kind: str = "InferenceService", name: str = "qwen") -> None:
        """KServe's controllers have rolled out what the service is to serve."""
        generation = self.service(kind, name)["metadata"].get("generation", 0)
        status = {
            "observedGeneration": generation,
            "url": URL,
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        self.api.change(RESOURCES[kind], name, self.namespace, status=status)


class Ended:
    """One adaptation's object, and what it came to."""

    def __init__(self, site: Publishing, body: Any, result: Any, end_seconds: float) -> None:
        self.site, self.body = site, body
        self.manifest, self.cluster = adaptation_of_object(body)
        begun = new_status(self.manifest.spec, run=self.manifest.name)
        assert begun.adaptation is not None
        self.status: RunStatus = begun.model_copy(
            update={
                "phase": Phase.COMPLETE,
                "finished_seconds": end_seconds,
                "adaptation": begun.adaptation.model_copy(update={"result": result}),
            }
        )

    @property
    def wanted(self) -> Wanted:
        """The object as a controller reads it."""
        body = copy.deepcopy(self.body)
        return Wanted(kind=ADAPTATIONS, body=body, manifest=self.manifest, cluster=self.cluster)

    async def look(self) -> Publication:
        """A controller looks, and writes down what it saw."""
        site = self.site
        seen = await publish(
            self.wanted, self.status, api=site.api, build=site.build,
            list_models=site.models, clock=lambda: site.now,
        )  # fmt: skip
        assert seen is not None
        self.body["status"] = to_object(self.status, generation=1, publication=seen.shown)
        return seen

    def withdraw(self, value: str = "true") -> None:
        """Its owner takes the adapter back."""
        self.body["metadata"]["annotations"] = {"seal.dev/withdraw": value}
