"""Telling an experiment tracker what runs come to, beside their work.

    numbers.py   a report -> one round's numbers
    reading.py   what the store holds of a run -> `TrackedRun`
    ledger.py    what a tracker has been told already, in the store
    tracker.py   tells it, in a thread of its own: never fails and never delays a run
    mlflow.py    MLflow as a sink; the only module that imports it
    wandb.py     Weights & Biases as a sink; the only module that imports it

A sink brings what the tracker holds to a given state, so that telling twice is telling once: a run
that is taken up again, by whichever process, goes on in the same run of the tracker.
"""

from __future__ import annotations

from controller_svc.tracking.model import Telling
from controller_svc.tracking.sinks import open_sink
from controller_svc.tracking.tracker import AGAIN_SECONDS, Tracker

__all__ = ["AGAIN_SECONDS", "Telling", "Tracker", "open_sink"]
