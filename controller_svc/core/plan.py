"""What a spec asks for: its stages in order, and their shards."""

from __future__ import annotations

import hashlib
import json

from seal.records import Stage
from seal.settings import RunSpec


def spec_digest(spec: RunSpec) -> str:
    """sha256 of a spec's canonical JSON."""
    return hashlib.sha256(
        json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode()
    ).hexdigest()


def stages(spec: RunSpec) -> tuple[tuple[int, Stage], ...]:
    """(round, stage) of the whole run, in order; an M-step of round 0 is the warm start."""
    learning = (
        (round, stage)
        for round in range(1, spec.rounds + 1)
        for stage in (Stage.ROLLOUT, Stage.IMPROVE, Stage.VALIDATE)
    )
    warm = ((0, Stage.IMPROVE),) if spec.improve.warm_start == "gold" else ()
    return ((0, Stage.PREPARE), *warm, (0, Stage.VALIDATE), *learning)


def shards(spec: RunSpec, stage: Stage) -> int:
    """Parts of one stage: prepare and the M-step are one, the others are cut by `spec.shards`."""
    return 1 if stage in (Stage.PREPARE, Stage.IMPROVE) else spec.shards
