"""Where an adapter that its gate has let pass is served: only a cluster has this.

It says what is served and by which runtime. Of the pods it says what a container takes and a few
arguments of vLLM: everything else is the serving side's own.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from seal.errors import InvalidInput
from seal.limits import VLLM_RANKS
from seal.settings.base import FileSettings
from seal.settings.resources import ResourceSettings

ServiceKind = Literal["InferenceService", "LLMInferenceService"]
"""What of KServe serves it."""

_CLAIM = r"pvc://[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?"
_PATH = r"(/[A-Za-z0-9._=-]+)*"
_HUB = r"hf://[A-Za-z0-9._-]+/[A-Za-z0-9._-]+(:[A-Za-z0-9._-]+)?"
_BUCKET = r"(s3|gs)://[a-z0-9][a-z0-9._-]{1,220}"
_ARGUMENTS = (
    r"^--(dtype|gpu-memory-utilization|kv-cache-dtype|max-model-len|max-num-batched-tokens"
    r"|max-num-seqs|seed|tensor-parallel-size)=[A-Za-z0-9._-]{1,32}$|^--enforce-eager$"
)
_MODEL_SCHEMES = {
    "InferenceService": ("hf", "s3", "gs", "pvc"),
    "LLMInferenceService": ("hf", "s3", "pvc"),
}
_STORE_SCHEMES = {"InferenceService": ("s3", "gs", "pvc"), "LLMInferenceService": ("s3", "pvc")}
HUGGING_FACE = "huggingface"

ServingArgument = Annotated[str, Field(max_length=64, pattern=_ARGUMENTS)]
"""One argument of vLLM: `--max-model-len=4096`."""


class KServeSettings(FileSettings):
    """The service of KServe that serves the adapter, made or changed in the object's namespace.

    Adaptations that name the same service share it: each adapter has a name of its own there, and
    of two under one name the adaptation that ended later is served.
    """

    kind: ServiceKind = "InferenceService"
    """`InferenceService` runs one model server, which loads the adapters; `LLMInferenceService` is
    KServe's own for language models, with a gateway before it."""
    name: str = Field(pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$", max_length=40)
    """Name of the service, by which clients ask for the base model, too."""
    model_uri: str = Field(pattern=f"^({_HUB}|({_BUCKET}|{_CLAIM}){_PATH})$", max_length=1024)
    """The base model that the adapter was trained on, where the serving side finds it:
    `hf://org/model`, `s3://bucket/path`, `pvc://claim/path`; `gs://` with an InferenceService."""
    store_uri: str = Field(pattern=f"^({_BUCKET}|{_CLAIM}){_PATH}$", max_length=1024)
    """The root of the artifact store as the serving side sees it: `s3://bucket/path` or
    `pvc://claim/path`; `gs://` with an InferenceService."""
    adapter_name: str = Field(
        default="", pattern=r"^([a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?)?$", max_length=40
    )
    """Name by which clients ask for the adapter; empty is the adaptation's own."""
    max_lora_rank: int = Field(default=0, ge=0, le=VLLM_RANKS[-1])
    """Highest rank that the service is prepared for; it is never below those of its adapters, and
    goes up to the next that vLLM knows."""
    model_format: str = Field(default=HUGGING_FACE, pattern=r"^[A-Za-z0-9-]+$", max_length=63)
    """Of an InferenceService: by which KServe looks for a runtime."""
    runtime: str = Field(default="", pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=63)
    """Of an InferenceService the ServingRuntime, which has to run vLLM and read /mnt/models; of an
    LLMInferenceService the LLMInferenceServiceConfig. Empty leaves it to KServe."""
    resources: ResourceSettings = ResourceSettings()
    """Of the model server's container; empty leaves them to KServe."""
    args: tuple[ServingArgument, ...] = Field(default=(), max_length=16)
    """Arguments of vLLM: `--max-model-len=4096`."""

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        schemes = (
            ("modelUri", self.model_uri, _MODEL_SCHEMES[self.kind]),
            ("storeUri", self.store_uri, _STORE_SCHEMES[self.kind]),
        )
        for field, uri, known in schemes:
            if uri.partition(":")[0] not in known:
                raise InvalidInput(
                    f"no {self.kind} reads {uri[:200]!r}",
                    field=field,
                    remedy=f"give a URI of {', '.join(f'{scheme}://' for scheme in known)}",
                )
        if ".." in f"{self.model_uri}/{self.store_uri}".split("/"):
            raise InvalidInput(
                "a URI leads upwards", field="storeUri", remedy="give URIs without `..`"
            )
        if self.adapter_name == self.name:
            raise InvalidInput(
                f"the base model is served as {self.name!r}",
                field="adapterName",
                remedy="give the adapter another name than the service",
            )
        return self

    @model_validator(mode="after")
    def _runtime_finds_the_model(self) -> Self:
        """KServe mounts a claim at its root; only its own server is told where the model lies."""
        own_server = self.kind == "LLMInferenceService" or not self.runtime
        if not own_server and self.model_uri.startswith("pvc://") and self.model_uri.count("/") > 2:
            raise InvalidInput(
                "a runtime of your own reads the model at the volume's root",
                field="modelUri",
                remedy="name the claim alone, with the model at its root, or leave runtime out",
            )
        return self


class PublishSettings(FileSettings):
    """Where a published adapter is served."""

    kserve: KServeSettings
    """By KServe."""
