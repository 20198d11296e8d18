"""What the specs of runs and of adaptations share: how edits are written, tried and rewarded."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from seal.errors import InvalidInput
from seal.settings.base import MAX_SEED, FileSettings
from seal.settings.data import ArtifactSettings
from seal.settings.edits import EditSettings
from seal.settings.evaluation import EvaluationSettings
from seal.settings.inner import InnerLoopSettings, check_survivors


class LearningSpec(FileSettings):
    """How one learns from self-edits; where and how it is computed is no part of it."""

    profile: Literal["embedded", "published"] = "embedded"
    """Where the fields that the manifest leaves out come from."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Every sample, shuffle and initial weight derives from it."""
    model: str = "smollm2-135m"
    """Base model: an embedded name, a path, `file://`, or `org/model[@revision]` of the hub."""
    domain: Literal["knowledge"] = "knowledge"
    """What is learnt."""
    shards: int = Field(default=1, ge=1, le=10_000)
    """Parts into which the contexts of a stage are cut; each is one task or Job index."""
    edit: EditSettings = EditSettings()
    """Sampling of edits."""
    inner: InnerLoopSettings = InnerLoopSettings()
    """Inner loop."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Reward."""
    artifacts: ArtifactSettings = ArtifactSettings()
    """What is kept. It may be changed by a resume."""
    max_unscored_share: float = Field(default=0.5, ge=0, le=1)
    """Share of a stage's inner loops that may be without a score; above it what is run fails with
    `TooFewScores`. It may be changed by a resume."""

    @property
    def trained_candidates(self) -> int:
        """Candidates of a context that a rollout trains on."""
        return self.inner.preselect or self.edit.k

    @model_validator(mode="after")
    def _rollout_fits(self) -> Self:
        """Of `edit.k` candidates no more are trained on, and a race begins with these."""
        chosen, racing = self.inner.preselect, self.inner.racing
        if chosen > self.edit.k:
            raise InvalidInput(
                f"{chosen} of {self.edit.k} candidates cannot be trained on",
                field="inner.preselect",
                remedy=f"give {self.edit.k} or fewer, 0 for all, or raise edit.k",
            )
        if racing:
            check_survivors(racing, candidates=self.trained_candidates, repeats=self.inner.repeats)
        return self
