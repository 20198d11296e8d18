"""What the metrics say of a run at work: its status as values of the gauges that carry its name."""

from __future__ import annotations

from collections.abc import Mapping

from controller_svc.core import RoundStatus, RunStatus
from seal.records import ScoreSum, Stage
from seal.run_metrics import Values

_RETAINED = {"retained_policy": "policy", "retained": "edit", "retained_base": "base"}
"""Names of scores that are answers to retained questions, and whose they are."""


def run_values(status: RunStatus, *, share: float) -> dict[str, Values]:
    """Values by gauge. `share`: of the run that is done, from 0 to 1."""
    values: dict[str, dict[tuple[str, ...], float]] = {
        "seal_run_progress_ratio": {(): share},
        "seal_run_round": {(): status.round},
        "seal_run_stage": {(str(status.stage),): 1.0} if status.stage is not None else {},
    }
    for entry in status.rounds:
        for name, found in _of_round(entry).items():
            values.setdefault(name, {}).update(found)
    return dict(values)


def _of_round(entry: RoundStatus) -> dict[str, Values]:
    rewards: dict[tuple[str, ...], float] = {}
    retained: dict[tuple[str, ...], float] = {}
    for stage, name, score in _scores(entry):
        if score.mean is None:
            continue
        if name in _RETAINED:
            retained[str(entry.round), _RETAINED[name]] = score.mean
        else:
            rewards[str(entry.round), str(stage), name] = score.mean
    return {"seal_run_reward": rewards, "seal_run_retained_accuracy": retained}


def _scores(entry: RoundStatus) -> list[tuple[Stage, str, ScoreSum]]:
    by_stage: Mapping[Stage, Mapping[str, ScoreSum]] = {
        Stage.ROLLOUT: entry.rollout,
        Stage.VALIDATE: entry.validation,
    }
    return [
        (stage, name, score) for stage, scores in by_stage.items() for name, score in scores.items()
    ]
