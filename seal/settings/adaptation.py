"""The spec of an adaptation: documents in, one adapter out that a gate has judged."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from seal.errors import InvalidInput
from seal.limits import MAX_DOCUMENTS, MAX_ROWS, MAX_TITLE_CHARACTERS
from seal.records import AdapterReference
from seal.settings.base import FileSettings
from seal.settings.domains import DOMAIN_OPTIONS
from seal.settings.inner import InnerLoopSettings
from seal.settings.learning import LearningSpec
from seal.settings.run import RunSpec
from seal.settings.training import ALL_PROJECTIONS, LoraSettings, OptimizerSettings

SHA256_PATTERN = r"^[0-9a-f]{64}$"
"""A digest, in lower-case hex."""


def _within_the_store(path: str) -> str:
    """A path relative to the store's root that does not lead out of it."""
    parts = PurePosixPath(path).parts
    if path != "/".join(parts) or not parts or {"..", "/"} & set(parts) or "\\" in path:
        raise InvalidInput(
            f"{path[:200]!r} is no path within the artifact store",
            remedy="name the file relative to the store's root, as `a/b`",
        )
    return path


def _is_stored(adapter: AdapterReference) -> AdapterReference:
    """An adapter whose path and digest are such."""
    try:
        _within_the_store(adapter.path)
    except InvalidInput as error:
        raise InvalidInput(error.message, field="path", remedy=error.remedy) from None
    if not re.fullmatch(SHA256_PATTERN, adapter.sha256):
        raise InvalidInput(
            "it is no sha256", field="sha256", remedy="give the digest as 64 lower-case hex digits"
        )
    return adapter


StorePath = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_within_the_store)]
"""A path within the artifact store."""


class FileReference(FileSettings):
    """One file of the artifact store."""

    path: StorePath
    """Its path, relative to the store's root."""
    sha256: str = Field(pattern=SHA256_PATTERN)
    """Digest of its content, lower-case hex."""


class DocumentReference(FileReference):
    """One document of the artifact store."""

    name: str = Field(min_length=1, max_length=MAX_TITLE_CHARACTERS)
    """Name that people know it by, for example the file's."""
    media_type: str = Field(default="", max_length=100)
    """Media type, as `text/markdown`; empty goes by the name's suffix."""


class AdaptationData(FileSettings):
    """What is learnt, and what it is measured on."""

    documents: tuple[DocumentReference, ...] = Field(min_length=1, max_length=MAX_DOCUMENTS)
    """The documents, each with a name of its own."""
    questions: FileReference | None = None
    """Questions on them with gold answers: JSONL, each row a `seal.v1.Question` as JSON. None where
    the documents bring their own, or the model makes some."""
    retained: str = "corpus://retained"
    """Other passages with questions, as in a run's data: what the gate measures forgetting by, and
    where replayed rows come from. Empty for none."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names: set[str] = set()
        for place, document in enumerate(self.documents):
            if document.name in names:
                raise InvalidInput(
                    f"two documents are named {document.name!r}",
                    field=f"documents.{place}.name",
                    remedy="give each document a name of its own",
                )
            names.add(document.name)
        return self


class PassageSettings(FileSettings):
    """How documents are cut into passages."""

    max_tokens: int = Field(default=256, ge=16, le=65_536)
    """Longest passage, tokens of the base model."""


class QuestionSettings(FileSettings):
    """Where the questions come from, and which are the test."""

    source: Literal["given", "self-made"] = "self-made"
    """`given`: those of `data.questions` and of documents that bring their own; `self-made`: the
    base model writes them with the passage before it, and keeps those that it answers the same way
    again with the passage and not without it. What is measured with them is labelled so."""
    held_out_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of a passage's questions that is the test; the rest is what the choice of edits looks
    at."""
    per_passage: int = Field(default=8, ge=1, le=256)
    """Questions of its own that the model keeps of one passage, at most."""


class AdapterTraining(FileSettings):
    """The one adapter over all passages, and that of the passages alone."""

    lora: LoraSettings = LoraSettings(rank=8, alpha=16.0, target_modules=ALL_PROJECTIONS)
    """Shape of the adapter."""
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=4e-3, epochs=8, batch_size=8)
    """How it is trained."""
    replay_rows: int = Field(default=0, ge=0, le=MAX_ROWS)
    """Rows of the retained set's passages that are learnt beside, against forgetting. They are of
    passages that the gate does not ask about."""


class GateSettings(FileSettings):
    """The rule that an adapter must pass to be published."""

    min_gain: float = Field(default=0.0, ge=-1, le=1)
    """Least gain over the base model on the held-out questions, in mean token F1."""
    confident: bool = True
    """The whole 95 % interval of the gain must be above `minGain`, not just its mean. It needs six
    passages with held-out questions: all of fewer gain by chance too often."""
    max_regression: float = Field(default=0.05, ge=0, le=1)
    """Most that the retained set may lose, in mean token F1."""
    retained_questions: int = Field(default=32, ge=0, le=4096)
    """Questions of the retained set that base and adapter are asked, at most; 0 asks none, and the
    gate looks at the gain alone."""


class AdaptationSpec(LearningSpec):
    """How documents become one adapter on the base model.

    Edits are written by the policy and tried on the base model, as in a rollout; the best of each
    passage are learnt together.
    """

    policy: Annotated[AdapterReference, AfterValidator(_is_stored)] | None = None
    """Policy of a ReST^EM run on the same base model, which writes the edits; None for the base
    model itself."""
    data: AdaptationData
    """Documents and questions."""
    passages: PassageSettings = PassageSettings()
    """Passages."""
    questions: QuestionSettings = QuestionSettings()
    """Questions."""
    inner: InnerLoopSettings = InnerLoopSettings(student="base")
    """Inner loop. The student is the base model: that is what the adapter sits on."""
    adapter: AdapterTraining = AdapterTraining()
    """The adapter."""
    gate: GateSettings = GateSettings()
    """The gate."""
    max_unscored_share: float = Field(default=1.0, ge=0, le=1)
    """Share of the inner loops that may be without a score; above it the adaptation fails with
    `TooFewScores`. The default lets it go on whatever comes: of a passage without scores the first
    edit is learnt, and the gate judges what comes of it."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        """What one setting asks for another gives."""
        if not DOMAIN_OPTIONS[self.domain].learns_text:
            raise InvalidInput(
                f"documents are no contexts of domain {self.domain!r}",
                field="domain",
                remedy="set it to knowledge; a run (RestEMRun) learns from the tasks of the other",
            )
        if self.inner.student != "base":
            raise InvalidInput(
                "an adaptation's adapter sits on the base model",
                field="inner.student",
                remedy="set it to base",
            )
        if self.policy is not None and self.edit.generator is not None:
            raise InvalidInput(
                "a policy writes the edits already",
                field="edit.generator",
                remedy="leave it out, or leave the policy out",
            )
        if self.questions.source == "self-made" and self.data.questions is not None:
            raise InvalidInput(
                "there are questions, but the model is to make its own",
                field="questions.source",
                remedy="set it to given, or leave data.questions out",
            )
        if not self.data.retained and self.gate.retained_questions:
            raise InvalidInput(
                f"the gate asks {self.gate.retained_questions} questions of a retained set, and "
                "there is none",
                field="gate.retainedQuestions",
                remedy="set it to 0, or name the set in data.retained",
            )
        if not self.data.retained and self.adapter.replay_rows:
            raise InvalidInput(
                "there is no retained set to replay rows of",
                field="adapter.replayRows",
                remedy="set it to 0, or name the set in data.retained",
            )
        return self


Spec = RunSpec | AdaptationSpec
"""What the controller brings to its end."""
