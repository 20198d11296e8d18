"""An object whose spec is none: what several fields together break, the API server does not see."""

from __future__ import annotations

from typing import cast

from controller_svc.core import AdaptationStatus, Phase, Reason, RunStatus
from controller_svc.core.conditions import set_condition
from controller_svc.k8s.api import RUNS, Resource
from controller_svc.k8s.objects import of_object
from controller_svc.k8s.wanted import created_seconds, owner_of, store_name
from seal.errors import InvalidInput, error_class
from seal.yaml_files import Tree


def status_of_refused(kind: Resource, body: Tree) -> RunStatus:
    """What the object shows; that of what has not started if it shows nothing."""
    shown = of_object(cast("Tree", body.get("status") or {}))
    if shown is not None:
        return shown
    adaptation = AdaptationStatus(
        documents=0, self_made=False, accepted_seconds=created_seconds(body)
    )
    return RunStatus(
        run=store_name(owner_of(kind, body)),
        spec_sha256="",
        adaptation=None if kind == RUNS else adaptation,
    )


def kept_seconds_of_refused(body: Tree) -> int | None:
    """Its `ttlSecondsAfterFinished`, which the API server has checked; None keeps it."""
    return cast("int | None", _spec(body).get("ttlSecondsAfterFinished"))


def fail_refused(status: RunStatus, error: InvalidInput, now_seconds: float) -> RunStatus:
    """Its end, which names the field and what to do."""
    ended = status.model_copy(
        update={
            "phase": Phase.FAILED,
            "stage": None,
            "current": None,
            "finished_seconds": now_seconds,
        }
    )
    ended = set_condition(ended, "Progressing", "False", Reason.RUN_FAILED, "", now_seconds)
    reason = error_class(error).reason
    return set_condition(ended, "Failed", "True", reason, str(error), now_seconds)


def _spec(body: Tree) -> Tree:
    return cast("Tree", body.get("spec") or {})
