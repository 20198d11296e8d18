"""The work of one shard of a rollout or a validation."""

from __future__ import annotations

from dataclasses import dataclass

from controller_svc.worker.bounds import Bound
from controller_svc.worker.requests import NOTHING_RETAINED, RetainedSet
from seal.domains.base import Context
from seal.runs.shards import Alone


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """The work of one shard."""

    contexts: tuple[tuple[int, Context], ...]
    """(index in the stage, context)."""
    k: int
    """Edits per context; 0 for a prompt family without edits."""
    preselect: int = 0
    """Edits of a context that get inner loops (seal.restem.preselect); 0 gives them to all. It
    looks at gold answers: for training contexts alone."""
    survivors: tuple[int, ...] = ()
    """Edits of a context that get the second, third, ... repeat, the best first; empty: all get all
    (seal.restem.racing)."""
    bounds: tuple[Bound, ...] = ()
    """What is measured beside the edits."""
    retained: RetainedSet = NOTHING_RETAINED
    """Questions on other passages; empty for none."""
    retained_per_model: int = 0
    """Of these, asked of each adapted model."""
    retained_alone: tuple[Alone, ...] = ()
    """Models that are asked all of them without an inner adapter; one shard of a stage asks."""
