"""Objects of the project's kinds as tests apply them, and a status with all that it can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controller_svc.core import (
    AdaptationStatus,
    Condition,
    Phase,
    PolicyStatus,
    RoundStatus,
    RunStatus,
    StageStatus,
)
from controller_svc.core.rounds import MEASURED_ROUNDS
from controller_svc.core.state import FailedShard, FinishedStage
from seal.outcomes import Outcome
from seal.records import AdaptationCounts, AdapterReference, ScoreSum, Stage
from seal.restem.select import DropReason

CRDS = Path(__file__).resolve().parents[2] / "charts/seal/files/crds"
GROUP_PATH = "/apis/seal.dev/v1alpha1/namespaces/default"
PLURALS = {"RestEMRun": "restemruns", "Adaptation": "adaptations"}
SHA256 = "ab" * 32
NOW_SECONDS = 1_800_000_000.25
Object = dict[str, Any]


def run(name: str, **spec: object) -> Object:
    """A RestEMRun."""
    return _object("RestEMRun", name, spec)


def adaptation(name: str, **spec: object) -> Object:
    """An Adaptation of one document."""
    documents = [{"name": "a.md", "path": "uploads/a.md", "sha256": SHA256}]
    return _object("Adaptation", name, {"data": {"documents": documents}} | spec)


def _object(kind: str, name: str, spec: object) -> Object:
    return {
        "apiVersion": "seal.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def object_path(made: Object, name: str) -> str:
    """Where the API server has an object; of an empty name, all of its kind."""
    return f"{GROUP_PATH}/{PLURALS[made['kind']]}" + (f"/{name}" if name else "")


def full_status(rounds: int, *, adaptation: bool = False) -> RunStatus:
    """A status at its largest: every field set, every message as long as it can be."""
    return RunStatus(
        run="r" * 40,
        spec_sha256=SHA256,
        phase=Phase.RUNNING,
        round=rounds,
        stage=Stage.ROLLOUT,
        current=StageStatus(
            name="s" * 58,
            stage=Stage.ROLLOUT,
            round=rounds,
            shards=10_000,
            completed=",".join(str(index) for index in range(0, 10_000, 2)),
            failed=tuple(
                FailedShard(index=index, reason="Transient", message="m" * 200)
                for index in range(5)
            ),
            failed_shards=5,
            message="w" * 1024,
        ),
        policies=() if adaptation else tuple(_policy(round) for round in range(rounds + 1)),
        rounds=()
        if adaptation
        else tuple(
            _round(round, measured=round > rounds - MEASURED_ROUNDS) for round in range(rounds + 1)
        ),
        adaptation=_adaptation() if adaptation else None,
        conditions=(
            Condition(
                type="Progressing",
                status="True",
                reason="RolloutRunning",
                message="m" * 1024,
                last_transition_seconds=NOW_SECONDS,
            ),
        ),
        started_seconds=NOW_SECONDS,
    )


def _policy(round: int) -> PolicyStatus:
    adapter = AdapterReference(path=f"adapters/{SHA256}", sha256=SHA256) if round else None
    return PolicyStatus(round=round, adapter=adapter, trained=round > 0)


def _round(round: int, *, measured: bool) -> RoundStatus:
    names = ("base", "passage", "reward", "gain", "best", "retained", "gold", "policy")
    scores = {name: ScoreSum(n=1000, total=1 / 3 + round, squares=1 / 7 + round) for name in names}
    watched = ("gain", "edit_tokens", "distinct_1", "distinct_2", "duplicate", "ungraded")
    stages = ("rollout", "validate")
    kinds = [f"{stage}/{kind}" for stage in stages for kind in ("generate", "train", "evaluate")]
    return RoundStatus(
        round=round,
        label="control without reward",
        kept=50,
        kept_parts=500,
        selection_sha256=SHA256,
        rollout=scores,
        validation=scores,
        measures={f"{stage}/{name}": scores["gain"] for stage in stages for name in watched}
        if measured
        else {},
        dropped={str(reason): 1000 for reason in DropReason},
        outcomes={f"{stage}/{outcome}": 7 for stage in stages for outcome in Outcome},
        tokens=dict.fromkeys(kinds, 10**9),
        engine_seconds=dict.fromkeys(kinds, 12345.678901234),
        seconds=dict.fromkeys(("rollout", "improve", "validate"), 12345.678901234),
        stored_bytes={"adapters": 10**12, "records": 10**9},
        inner_loops_run=100_000,
    )


def _adaptation() -> AdaptationStatus:
    counts = AdaptationCounts(documents=1, passages=10, held_out_questions=5)
    ended = FinishedStage(
        stage=Stage.PREPARE,
        tokens={},
        engine_seconds={},
        seconds=1.5,
        ended_seconds=NOW_SECONDS,
    )
    return AdaptationStatus(
        documents=1,
        self_made=True,
        accepted_seconds=NOW_SECONDS,
        prepared=counts,
        edits={"ok": 3},
        scores={"gain": ScoreSum(n=3, total=0.1)},
        stages=(ended,),
    )
