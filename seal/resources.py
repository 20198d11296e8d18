"""The manifests: what `seal run FILE` and `kubectl apply -f FILE` both take.

    apiVersion: seal.dev/v1alpha1
    kind: RestEMRun
    metadata: {name: my-run}
    spec: {rounds: 1, ...}                  any part of `RunSpec`; the rest comes from its profile

An `Adaptation` has an `AdaptationSpec` in the same manner.

Whoever runs it saves it whole beside the run. What it is computed on (slots, threads, memory) is
the machine's matter and stands elsewhere: `EngineSettings`.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import ConfigDict, Field

from seal.settings import AdaptationSpec, FileSettings, RunSpec

API_VERSION: Final = "seal.dev/v1alpha1"
RUN_KIND: Final = "RestEMRun"
ADAPTATION_KIND: Final = "Adaptation"
RUN_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$"
"""A DNS label of at most 40 characters, which leaves room for what names of Jobs add."""


class ObjectMeta(FileSettings):
    """What identifies an object; the rest of what kubectl shows here is accepted and ignored."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(pattern=RUN_NAME_PATTERN)
    """Name of at most 40 lower-case letters, digits and dashes, a letter or digit at both ends."""
    namespace: str = Field(default="default", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    """Namespace on a cluster; a laptop has only one."""
    labels: dict[str, str] = Field(default={})
    """For selecting objects; a laptop ignores them."""
    annotations: dict[str, str] = Field(default={})
    """For tools; ignored."""


class RestEMRun(FileSettings):
    """One ReST^EM run."""

    api_version: Literal["seal.dev/v1alpha1"] = API_VERSION
    """Version of this format."""
    kind: Literal["RestEMRun"] = RUN_KIND
    """What the manifest describes."""
    metadata: ObjectMeta
    """Its name, and what kubectl keeps beside it."""
    spec: RunSpec = RunSpec()
    """What is to be run."""

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.metadata.name

    @classmethod
    def of(cls, name: str, spec: RunSpec) -> RestEMRun:
        """The manifest of a spec under a name."""
        return cls(metadata=ObjectMeta(name=name), spec=spec)


class Adaptation(FileSettings):
    """One adaptation."""

    api_version: Literal["seal.dev/v1alpha1"] = API_VERSION
    """Version of this format."""
    kind: Literal["Adaptation"] = ADAPTATION_KIND
    """What the manifest describes."""
    metadata: ObjectMeta
    """Its name and namespace, and what kubectl keeps beside them."""
    spec: AdaptationSpec
    """What is to be learnt, and how."""

    @property
    def name(self) -> str:
        """Name of the adaptation, unique in its namespace."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return self.metadata.namespace
