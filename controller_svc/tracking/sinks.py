"""Which tracker is which; each is loaded when a run wants it, as its library is an extra."""

from __future__ import annotations

from typing import Literal

from controller_svc.tracking.model import TrackingSink
from seal.errors import PreconditionFailed


def open_sink(tracker: Literal["mlflow", "wandb"]) -> TrackingSink:
    """A tracker, as the environment says where it is; nothing is asked of it.

    Raises:
        PreconditionFailed: its library is not installed, or the environment names no tracker.

    """
    try:
        if tracker == "mlflow":
            from controller_svc.tracking.mlflow import MlflowSink

            return MlflowSink()
        from controller_svc.tracking.wandb import WandbSink

        return WandbSink()
    except ImportError as error:
        raise PreconditionFailed(
            f"runs cannot be tracked with {tracker}: {error}",
            field="spec.tracking.to",
            remedy=f"pip install 'seal-kubernetes[{tracker}]' (in a checkout: pip install -e "
            f"'.[{tracker}]'), or set it to none",
        ) from error
