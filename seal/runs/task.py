"""What one task is given: one shard of one attempt of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from seal.names import stage_name
from seal.records import (
    AdaptationCounts,
    AdaptationResult,
    AdapterReference,
    ScoreSum,
    ShardSummary,
    Stage,
)


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard of one attempt of a stage: what a pod of an Indexed Job gets."""

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

    @property
    def name(self) -> str:
        """That of the attempt and its index, as the Job's pods have it."""
        name = stage_name(run=self.run, round=self.round, stage=self.stage, attempt=self.attempt)
        return f"{name}-{self.shard}"

    @property
    def facts(self) -> dict[str, str | int]:
        """As log lines and spans name it."""
        return {
            "run": self.run,
            "round": self.round,
            "stage": str(self.stage),
            "shard": self.shard,
        }

    def summary(
        self,
        *,
        seconds: float,
        result_sha256: str,
        inner_loops_run: int = 0,
        inner_loops_resumed: int = 0,
        outcomes: Mapping[str, int] = MappingProxyType({}),
        tokens: Mapping[str, int] = MappingProxyType({}),
        engine_seconds: Mapping[str, float] = MappingProxyType({}),
        stored_bytes: Mapping[str, int] = MappingProxyType({}),
        scores: Mapping[str, ScoreSum] = MappingProxyType({}),
        measures: Mapping[str, ScoreSum] = MappingProxyType({}),
        dropped: Mapping[str, int] = MappingProxyType({}),
        device: str = "",
        policy: AdapterReference | None = None,
        kept: int = 0,
        kept_parts: int = 0,
        label: str = "",
        counts: AdaptationCounts | None = None,
        result: AdaptationResult | None = None,
    ) -> ShardSummary:
        """What the shard reports once it is finished."""
        return ShardSummary(
            name=self.name,
            stage=self.stage,
            round=self.round,
            shard=self.shard,
            attempt=self.attempt,
            seconds=seconds,
            inner_loops_run=inner_loops_run,
            inner_loops_resumed=inner_loops_resumed,
            outcomes=dict(outcomes),
            tokens=dict(tokens),
            engine_seconds=dict(engine_seconds),
            stored_bytes=dict(stored_bytes),
            scores=dict(scores),
            measures=dict(measures),
            dropped=dict(dropped),
            device=device,
            policy=policy,
            kept=kept,
            kept_parts=kept_parts,
            label=label,
            counts=counts,
            result=result,
            result_sha256=result_sha256,
        )
