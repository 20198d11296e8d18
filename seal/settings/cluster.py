"""What a spec says that only a cluster has: where its Jobs' pods run, and when.

These fields stand in the manifest's `spec` beside the algorithm's and are no part of it: they
decide no number, are in no digest, and a laptop accepts and ignores them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from seal.settings.base import FileSettings
from seal.settings.publish import PublishSettings
from seal.settings.resources import ResourceSettings

Label = Annotated[str, Field(max_length=63)]
"""A label's value."""
QUEUE_NAME = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"
"""A LocalQueue's name, or none."""


class Toleration(FileSettings):
    """A taint of nodes that the pods put up with."""

    key: str = Field(default="", max_length=317)
    """The taint's key; empty, with the operator Exists, is any."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether the taint's value counts."""
    value: str = Field(default="", max_length=63)
    """The taint's value."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """The taint's effect; empty is any."""
    toleration_seconds: int | None = Field(default=None, ge=0)
    """How long a pod stays on a node that gets a NoExecute taint; null for ever."""


class JobTemplate(FileSettings):
    """What may be said of the pods of a run's Jobs; all else is the controller's."""

    resources: ResourceSettings = ResourceSettings()
    """Of the container that trains a run's policy. The workers of all other stages, also of the one
    in which an adaptation's adapter is trained, let the services train, hold no model and take what
    the controller is set to."""
    node_selector: dict[str, Label] = Field(default={}, max_length=32)
    """Labels of the nodes that the pods may run on."""
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=32)
    """Taints that the pods put up with."""
    priority_class_name: str = Field(default="", max_length=253)
    """PriorityClass of the pods; empty for the cluster's default."""


class ClusterSettings(FileSettings):
    """What only a cluster has; of these `jobTemplate` alone is fixed once the object is there."""

    job_template: JobTemplate = JobTemplate()
    """Pods of the Jobs."""
    suspend: bool = False
    """Stop, with the results kept; false goes on."""
    queue_name: str = Field(default="", max_length=63, pattern=QUEUE_NAME)
    """Kueue's LocalQueue that admits the Jobs; empty for none."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """Seconds after the end at which the object is deleted; null keeps it. Its results stay."""


class AdaptationClusterSettings(ClusterSettings):
    """The same of an adaptation."""

    cancelled: bool = False
    """Stop for good; it cannot be taken back."""
    publish: PublishSettings | None = None
    """Where the adapter is served once its gate has let it pass; null serves it nowhere."""
