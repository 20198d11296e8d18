"""What the specs of runs and of adaptations share: how edits are written, tried and rewarded."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from seal.errors import InvalidInput
from seal.settings.base import MAX_SEED, FileSettings
from seal.settings.data import ArtifactSettings
from seal.settings.domains import DOMAIN_OPTIONS, DomainName, check_choice, check_votes
from seal.settings.edits import EditSettings
from seal.settings.evaluation import EvaluationSettings
from seal.settings.inner import InnerLoopSettings, check_survivors

Profile = Literal["embedded", "published", "arc", "published-arc"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
"""Names of the profiles in `seal/profiles`, the usual one first."""


class LearningSpec(FileSettings):
    """How one learns from self-edits; where and how it is computed is no part of it."""

    profile: Profile = "embedded"
    """Where the fields that the manifest leaves out come from."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Every sample, shuffle and initial weight derives from it."""
    model: str = "smollm2-135m"
    """Base model: an embedded name, a path, `file://`, or `org/model[@revision]` of the hub."""
    domain: DomainName = "knowledge"
    """What is learnt: `knowledge` of passages, or few-shot puzzles (`arc`)."""
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
    def writer(self) -> str:
        """Base model that writes edits and whose policy an M-step trains."""
        return self.edit.model or self.model

    @property
    def cross_model(self) -> bool:
        """Whether one model writes the edits and another learns them."""
        return self.writer != self.model

    @model_validator(mode="after")
    def _domain_fits(self) -> Self:
        """Every domain has families, question formats and graders of its own."""
        options = DOMAIN_OPTIONS[self.domain]
        check_choice(self.domain, self.edit.family, options.families, field="edit.family")
        check_choice(
            self.domain,
            self.evaluation.question_format,
            options.question_formats,
            field="evaluation.questionFormat",
        )
        check_choice(
            self.domain, self.evaluation.grader, options.graders, field="evaluation.grader"
        )
        check_votes(
            self.domain, self.evaluation.votes, self.evaluation.grader, field="evaluation.votes"
        )
        return self

    @model_validator(mode="after")
    def _writer_fits(self) -> Self:
        """Adapters of one base model lie beneath no other."""
        if self.cross_model and self.inner.student == "policy":
            raise InvalidInput(
                f"the policy is an adapter of {self.writer!r}, and {self.model!r} cannot learn on "
                "top of it",
                field="inner.student",
                remedy="set it to base, or leave edit.model out",
            )
        return self

    @property
    def needs_judge(self) -> bool:
        """Whether the evaluator needs an endpoint whose model judges."""
        by_rubric = self.inner.preselect > 0 and self.inner.preselect_by == "rubric"
        return self.evaluation.grader == "judge" or by_rubric

    @property
    def trained_candidates(self) -> int:
        """Candidates of a context that a rollout trains on."""
        return self.inner.preselect or self.edit.k

    @model_validator(mode="after")
    def _rollout_fits(self) -> Self:
        """Of `edit.k` candidates no more are trained on, and a race begins with these."""
        chosen, racing = self.inner.preselect, self.inner.racing
        if not chosen and self.inner.preselect_by == "rubric":
            raise InvalidInput(
                "all candidates are trained on, so that there is nothing to rate",
                field="inner.preselectBy",
                remedy="give inner.preselect the number to train on, or leave this out",
            )
        if chosen > self.edit.k:
            raise InvalidInput(
                f"{chosen} of {self.edit.k} candidates cannot be trained on",
                field="inner.preselect",
                remedy=f"give {self.edit.k} or fewer, 0 for all, or raise edit.k",
            )
        if racing:
            check_survivors(racing, candidates=self.trained_candidates, repeats=self.inner.repeats)
        return self
