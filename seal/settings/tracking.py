"""Where a run's numbers are kept for comparison with others: an experiment tracker."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from seal.errors import InvalidInput
from seal.settings.base import FileSettings

NOT_IN_A_PROJECT = "/\\#?%:"
"""Characters that W&B takes in no project's name."""


class TrackingSettings(FileSettings):
    """Which tracker is told what a run comes to; it decides no number of the run.

    Where the tracker is, and with which credentials it is reached, says the environment of the
    process that drives the run (MLFLOW_TRACKING_URI, WANDB_API_KEY and so on): who writes a run on
    a cluster must not be able to send the controller's token elsewhere.
    """

    to: Literal["none", "mlflow", "wandb"] = "none"
    """The tracker: `mlflow` (extra `mlflow`), `wandb` (extra `wandb`), or none."""
    experiment: str = Field(default="seal", min_length=1, max_length=128)
    """MLflow's experiment, W&B's project; made if it is not there."""
    adapter: bool = True
    """Hand over the policy adapter, too, once the run has ended."""

    @model_validator(mode="after")
    def _is_a_project(self) -> Self:
        if self.to == "wandb" and set(self.experiment) & set(NOT_IN_A_PROJECT):
            raise InvalidInput(
                f"W&B has no project {self.experiment!r}",
                field="experiment",
                remedy=f"use none of {NOT_IN_A_PROJECT}",
            )
        return self
