"""Where the pods of Jobs run: what the controller is set to, and what a run asks for beside it."""

from __future__ import annotations

from pydantic import Field

from seal.settings import FileSettings
from seal.settings.cluster import JobTemplate, Label, Toleration
from seal.yaml_files import Tree


class Affinity(FileSettings):
    """Affinity, as a pod has it; its terms are the API server's to check."""

    node_affinity: Tree = Field(default={})
    """To nodes."""
    pod_affinity: Tree = Field(default={})
    """To nodes that have such pods."""
    pod_anti_affinity: Tree = Field(default={})
    """To nodes that have none of them."""


class Placement(FileSettings):
    """What all runs get, as far as their own `jobTemplate` does not say otherwise."""

    node_selector: dict[str, Label] = Field(default={}, max_length=32)
    """Labels of the nodes that the pods may run on; a run's own win, label by label."""
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=32)
    """Taints that the pods put up with, beside those of the run."""
    affinity: Affinity = Affinity()
    """Of the pods, which a run cannot choose; its `nodeSelector` has to hold beside it."""
    priority_class_name: str = Field(default="", max_length=253)
    """PriorityClass of the pods, unless the run names one; empty for the cluster's default."""
    runtime_class_name: str = Field(default="", max_length=253)
    """RuntimeClass of the pods, which a run cannot choose; empty for the node's own."""


def placed(placement: Placement, template: JobTemplate) -> Tree:
    """The fields of a pod's spec that follow from both; none that would be empty."""
    tolerations = dict.fromkeys((*placement.tolerations, *template.tolerations))
    affinity = placement.affinity
    fields: Tree = {
        "nodeSelector": placement.node_selector | template.node_selector,
        "tolerations": [
            one.model_dump(mode="json", by_alias=True, exclude_defaults=True) for one in tolerations
        ],
        "affinity": affinity.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "priorityClassName": template.priority_class_name or placement.priority_class_name,
        "runtimeClassName": placement.runtime_class_name,
    }
    return {name: value for name, value in fields.items() if value}
