"""What one task is given: one shard of one attempt of a stage."""

from __future__ import annotations

from dataclasses import dataclass

from seal.records import AdapterReference, Stage


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard of one attempt of a stage: what a pod of an Indexed Job gets."""

    name: str
    run: str
    stage: Stage
    round: int
    shard: int
    """The shard, which is the Job's index."""
    shards: int
    """Shards of the stage in all."""
    attempt: int
    """Attempt of the stage."""
    epoch: int
    """Turn of the controller that started it."""
    policy: AdapterReference | None
    """The policy that the stage works with; None is the base model."""
