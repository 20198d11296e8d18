"""What a client of AdaptationService hands in and gets back, as frozen dataclasses.

A number that is missing is None, never 0. `self_made` says that the questions behind a number were
made by the model itself: say so wherever such a number is shown. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from seal.client.evaluations import Evaluation, Verdict
from seal.files import file_errors
from seal.records import AdapterReference
from seal.settings import LoraSettings, OptimizerSettings


class State(StrEnum):
    """Where an adaptation is; the last four are final."""

    PENDING = "Pending"
    """Accepted, waits for its turn."""
    RUNNING = "Running"
    """At work."""
    PUBLISHED = "Published"
    """The gate let the adapter pass."""
    REFUSED = "Refused"
    """The gate refused the adapter, which stays readable."""
    FAILED = "Failed"
    """Ended without an adapter; the condition Failed says why."""
    CANCELLED = "Cancelled"
    """Stopped by a caller."""

    @property
    def final(self) -> bool:
        """Nothing comes after it."""
        return self not in (State.PENDING, State.RUNNING)


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file in the server's store, as an upload returns it."""

    path: str
    """Relative to the store's root."""
    sha256: str
    """Of its content, lower-case hex."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """Something to learn: its bytes, or a file that was uploaded before."""

    name: str
    """Unique among the documents; its suffix says what it is, unless `media_type` does."""
    content: bytes = b""
    """Of any size: what is too large for one message is uploaded first."""
    file: StoredFile | None = None
    """In the place of `content`."""
    media_type: str = ""
    """text/plain, text/markdown, text/html, application/pdf, application/json, application/jsonl;
    empty goes by the name."""

    @staticmethod
    def read(path: str | Path, *, name: str = "", media_type: str = "") -> Document:
        """The document in a file, named like it.

        Raises NotFound or InvalidInput naming a file that cannot be read.
        """
        file = Path(path)
        with file_errors(file):
            return Document(
                name=name or file.name, content=file.read_bytes(), media_type=media_type
            )


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question on the documents; no self-edit ever sees one."""

    question: str
    answers: tuple[str, ...]
    """Acceptable answers, at least one."""
    document: str = ""
    """Name of the document that it is about; empty looks in all of them."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """When an adapter is published; what is None comes from the server's profile."""

    min_gain: float | None = None
    """Least gain over the base model on the held-out questions, mean token F1, -1 to 1."""
    confident: bool | None = None
    """The whole 95 % interval of the gain must be above `min_gain`, not just its mean. It needs six
    passages with held-out questions."""
    max_regression: float | None = None
    """Most that the retained set may lose, mean token F1, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to adapt; what is None comes from the server's profile."""

    seed: int | None = None
    """Of every sample, shuffle and initial weight."""
    policy: AdapterReference | None = None
    """Adapter of a ReST^EM run that writes the edits; None for the base model."""
    candidates: int | None = None
    """Edits written for each passage, of which the best is learnt."""
    passage_tokens: int | None = None
    """Longest passage that documents are cut into, tokens."""
    lora: LoraSettings | None = None
    """Shape of the adapter."""
    optimizer: OptimizerSettings | None = None
    """How the adapter is trained."""
    replay_rows: int | None = None
    """Rows of other passages that are learnt beside the documents, against forgetting."""
    held_out_share: float | None = None
    """Share of the questions that are held back as the test, above 0 and below 1."""
    gate: Gate = Gate()


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition in the manner of Kubernetes."""

    type: str
    """Progressing, Complete, Failed or Cancelled."""
    status: str
    """"True" or "False"."""
    reason: str
    """CamelCase; API."""
    message: str
    changed_seconds: float | None
    """When the status last changed."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an adaptation is."""

    stage: str
    """prepare, question, rollout or adapt; empty before the first and after the last."""
    percent: float
    """Share of the whole, 0 to 100."""
    eta_seconds: float | None
    """Estimated time to the end; None if unknown."""
    edits_done: int
    edits_total: int
    steps_done: int
    steps_total: int
    answers_done: int
    answers_total: int
    waiting: str = ""
    """Why it does not go on at the moment; empty while it does."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What an adaptation is made of, so far."""

    documents: int
    passages: int
    passages_too_long: int
    """Passages that the model cannot take."""
    reward_questions: int
    """Questions that the choice of edits looks at."""
    held_out_questions: int
    """Questions of the test."""
    self_made: bool
    """The questions were made by the model itself."""
    edits: Mapping[str, int]
    """Edits that were tried, by outcome."""
    rows: Mapping[str, int]
    """Rows that the adapter learnt, by kind: edit, passage, replay."""
    questions_dropped: int
    """Given questions that are not used, for example because one stands on both sides."""
    examples_left_out: int
    """Examples of chosen edits that ask a question of the test, and were not learnt."""


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """What one stage has cost."""

    stage: str
    tokens: Mapping[str, int]
    """By kind: generate, train, evaluate."""
    seconds: float
    """Wall time."""
    engine_seconds: float


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """The model beneath an adapter."""

    name: str
    sha256: str
    """Of its weights; empty until it is known."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """The model server of a cluster that an adapter was handed on to, or why there is none."""

    kind: str
    """Kind of its object: InferenceService or LLMInferenceService."""
    service: str
    """Name of its object, in the adaptation's namespace."""
    adapter_name: str
    """What its clients ask for as the model; empty if the adapter is not served."""
    adapter_uri: str
    """Where it finds the adapter; it ends in the adapter's digest."""
    ready: bool | None
    """Whether it lists the adapter; None while that is not known."""
    reason: str
    """CamelCase; programs may rely on it."""
    message: str
    changed_seconds: float | None
    """Unix time at which `ready` last changed."""


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """One adaptation as it was when it was asked for."""

    name: str
    namespace: str
    uid: str
    """Unique for all time: a deleted adaptation's name may be taken again."""
    state: State
    conditions: tuple[Condition, ...]
    progress: Progress
    counts: Counts
    adapter: AdapterReference | None
    """Once it is trained; it sits on the base model."""
    passages_adapter: AdapterReference | None
    """Of the passages alone, which the adapter is compared with."""
    evaluation: Evaluation | None
    gate: Verdict | None
    costs: tuple[StageCost, ...]
    base: BaseModel | None
    sequence: int
    """Number of the last event."""
    created_seconds: float | None
    started_seconds: float | None
    finished_seconds: float | None
    options: Options = field(default_factory=Options)
    """How it adapts, nothing left out."""
    serving: Serving | None = None
    """None where nobody was asked to serve the adapter, and before the end."""

    def condition(self, type: str) -> Condition | None:
        """The condition of a type; None if it is not there."""
        return next((one for one in self.conditions if one.type == type), None)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """An accepted adaptation."""

    adaptation: Adaptation
    created: bool
    """False if an earlier call with the same request id had made it."""
