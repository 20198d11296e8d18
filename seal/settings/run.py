"""The spec of a ReST^EM run."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from seal.errors import InvalidInput
from seal.limits import MAX_EDITS
from seal.settings.data import DataSettings
from seal.settings.domains import DOMAIN_OPTIONS, check_bounds
from seal.settings.edits import BY_SENTENCE
from seal.settings.evaluation import ValidationSettings
from seal.settings.improve import ImproveSettings
from seal.settings.learning import LearningSpec
from seal.settings.tracking import TrackingSettings


class RunSpec(LearningSpec):
    """The algorithm of one ReST^EM run; where and how it is computed is no part of it."""

    rounds: int = Field(default=2, ge=0, le=1000)
    """ReST^EM rounds; 0 only measures the base policy, or the warm start."""
    data: DataSettings = DataSettings()
    """Contexts."""
    improve: ImproveSettings = ImproveSettings()
    """M-step."""
    validation: ValidationSettings = ValidationSettings()
    """Validation."""
    tracking: TrackingSettings = TrackingSettings()
    """Experiment tracking. It may be changed by a resume."""

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        """What is measured beside the edits is there in the domain."""
        check_bounds(
            self.domain,
            of_text={
                "validation.passage": self.validation.passage is not None,
                "validation.equalSteps": self.validation.equal_steps,
                "validation.openBook": self.validation.open_book,
                "validation.goldBound": self.validation.gold_bound,
                "validation.emptyEdit": self.validation.empty_edit == "passage",
                "data.retained": bool(self.data.retained),
            },
            of_given_edits={
                "validation.fixedEdit": bool(self.validation.fixed_edit),
                "validation.oracleEdit": bool(self.validation.oracle_edit),
            },
        )
        if self.inner.preselect and not DOMAIN_OPTIONS[self.domain].learns_text:
            raise InvalidInput(
                f"edits of domain {self.domain!r} hold no question-answer pairs to compare, and no "
                "text to rate",
                field="inner.preselect",
                remedy="leave it out, or race with inner.racing",
            )
        return self

    @model_validator(mode="after")
    def _edits_are_there(self) -> Self:
        """What is measured by self-edits needs a family that writes some."""
        if not self.edit.family.startswith("self-qa") and self.improve.warm_start == "gold":
            raise InvalidInput(
                f"edits of family {self.edit.family!r} ask no questions that gold ones could be "
                "learnt as",
                field="improve.warmStart",
                remedy="set it to none, or edit.family to a self-qa family",
            )
        if self.edit.family == "none" and self.validation.equal_steps:
            raise InvalidInput(
                "family 'none' writes no edit that the passage could be given the steps of",
                field="validation.equalSteps",
                remedy="set it to false, or choose an edit.family that writes edits",
            )
        return self

    @model_validator(mode="after")
    def _edits_can_be_kept(self) -> Self:
        """At least `improve.keepPerContext` candidates of a context can be kept."""
        chosen, racing, keep = (
            self.inner.preselect,
            self.inner.racing,
            self.improve.keep_per_context,
        )
        if chosen and self.improve.selection == "random":
            raise InvalidInput(
                "it says which candidates are trained on, so that a control would not be without "
                "reward",
                field="inner.preselect",
                remedy="set it to 0 in the control and in the run that it is for",
            )
        if chosen and keep > chosen and self.improve.credit == "edit":
            raise InvalidInput(
                f"{keep} edits of a context cannot be kept where {chosen} are trained on",
                field="improve.keepPerContext",
                remedy=f"keep {chosen} or fewer, or raise inner.preselect",
            )
        if racing and keep > racing[-1] and self.improve.credit == "edit":
            raise InvalidInput(
                f"{keep} edits of a context cannot be kept where {racing[-1]} end the race",
                field="improve.keepPerContext",
                remedy=f"keep {racing[-1]} or fewer, or let more end inner.racing",
            )
        return self

    @property
    def learns(self) -> bool:
        """Whether the policy is trained at all, so that training contexts are read."""
        return self.rounds > 0 or self.improve.warm_start == "gold"

    def learnt_rows_at_most(self, contexts: int) -> int:
        """Rows of an M-step on so many contexts, if as much is kept as can be."""
        improve, many_parts = self.improve, self.edit.family == BY_SENTENCE
        per_edit = self.inner.examples.max_examples if many_parts else 1
        if improve.credit == "edit":
            return contexts * min(improve.keep_per_context, self.edit.k) * per_edit
        kept = contexts * min(improve.max_parts_per_context or MAX_EDITS, self.edit.k * per_edit)
        return kept + int(improve.abstain_share * kept)

    @model_validator(mode="after")
    def _credit_fits(self) -> Self:
        """Credit to parts needs question-answer pairs and scores of 0 to 1."""
        improve = self.improve
        if improve.credit == "part":
            if not self.edit.family.startswith("self-qa"):
                raise InvalidInput(
                    f"parts of {self.edit.family!r} ask no question that a query could be "
                    "compared with",
                    field="improve.credit",
                    remedy="set edit.family to a self-qa family, or improve.credit to edit",
                )
            if self.evaluation.grader == "logprob":
                raise InvalidInput(
                    "credit is counted in answered queries, and a log-probability is none",
                    field="evaluation.grader",
                    remedy="use exact, contains or f1, or set improve.credit to edit",
                )
            if improve.abstain_share and self.edit.family != BY_SENTENCE:
                raise InvalidInput(
                    f"an edit of {self.edit.family!r} is one part, which always fits",
                    field="improve.abstainShare",
                    remedy=f"set edit.family to {BY_SENTENCE}, or leave it out",
                )
            return self
        if improve.abstain_share:
            raise InvalidInput(
                "parts are chosen by it, and whole edits are learnt",
                field="improve.abstainShare",
                remedy="set improve.credit to part, or leave improve.abstainShare out",
            )
        return self
