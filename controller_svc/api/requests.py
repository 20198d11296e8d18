"""What callers of AdaptationService ask for, checked field by field.

Each refusal is an `InvalidInput` that names the field as the caller wrote it. No message repeats a
document's, a question's or an answer's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controller_svc.adaptations import DEFAULT_NAMESPACE, FILES
from controller_svc.api.convert import STATE_FROM_WIRE
from controller_svc.core import AdaptationState
from seal.documents import check_name
from seal.limits import (
    MAX_ANSWER_CHARACTERS,
    MAX_ANSWERS,
    MAX_DOCUMENTS,
    MAX_GIVEN_QUESTIONS,
    MAX_QUESTION_CHARACTERS,
    MAX_ROWS,
    MAX_TARGET_MODULES,
)
from seal.resources import RUN_NAME_PATTERN
from seal.rpc import validation
from seal.rpc.convert import adapter_reference, lora_settings, optimizer_settings
from seal.settings import MAX_SEED, LoraSettings, Settings
from seal.v1 import adaptation_pb2, common_pb2, trainer_pb2

MAX_PAGE = 500
"""Adaptations in one page."""
USUAL_PAGE = 100
"""Adaptations in a page of a request that does not say."""
MAX_PASSAGE_TOKENS = 65_536
"""Longest passage that may be asked for; the model's own positions allow less."""
MAX_CANDIDATES = 1024
"""Edits of one passage, as a run's settings bound them."""

_NAME = re.compile(RUN_NAME_PATTERN)
_NAMESPACE = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
_PREFIX = re.compile(r"^[a-z0-9][-a-z0-9]{0,39}$")


@dataclass(frozen=True, kw_only=True)
class Key:
    """Names one adaptation."""

    namespace: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a page is asked for."""

    namespace: str
    after: str
    limit: int
    states: frozenset[AdaptationState]
    name_prefix: str


def parse_key(
    request: adaptation_pb2.GetAdaptationRequest
    | adaptation_pb2.WatchAdaptationRequest
    | adaptation_pb2.CancelAdaptationRequest
    | adaptation_pb2.DeleteAdaptationRequest,
) -> Key:
    """The adaptation that a request names."""
    return Key(
        namespace=parse_namespace(request.namespace), name=_label(request.name, field="name")
    )


def parse_namespace(value: str) -> str:
    """A namespace; `default` for none."""
    if value and not _NAMESPACE.fullmatch(value):
        raise validation.refuse(
            "namespace",
            "is no DNS label",
            "give 1-63 of a-z, 0-9 and -, with a letter or digit at both ends, or nothing",
        )
    return value or DEFAULT_NAMESPACE


def parse_name(value: str) -> str:
    """The name that a new adaptation is to have; empty for one that the server chooses."""
    return _label(value, field="name") if value else ""


def parse_uid(value: str) -> str:
    """An adaptation's uid; empty for any."""
    return value and validation.identifier(
        value, field="uid", remedy="give it as GetAdaptation returned it"
    )


def parse_caller(value: str) -> str:
    """Who a call's metadata say that its caller is; empty is one caller."""
    return value and validation.identifier(
        value, field="x-seal-caller", remedy="give 1-256 printable characters, or leave it out"
    )


def parse_listing(request: adaptation_pb2.ListAdaptationsRequest) -> Listing:
    """The page that a request asks for."""
    if request.page_token and not _NAME.fullmatch(request.page_token):
        raise validation.refuse(
            "page_token", "is none", "give next_page_token of the page before, unaltered"
        )
    if request.name_prefix and not _PREFIX.fullmatch(request.name_prefix):
        raise validation.refuse(
            "name_prefix", "begins no name", "give at most 40 of a-z, 0-9 and -"
        )
    return Listing(
        namespace=parse_namespace(request.namespace),
        after=request.page_token,
        limit=validation.whole_number(
            request.page_size, field="page_size", minimum=0, maximum=MAX_PAGE
        )
        or USUAL_PAGE,
        states=frozenset(
            _state(state, field=f"states[{place}]") for place, state in enumerate(request.states)
        ),
        name_prefix=request.name_prefix,
    )


def check_documents(documents: Sequence[adaptation_pb2.Document]) -> None:
    """Refuse documents by all that is known of them without reading them."""
    validation.count(documents, field="documents", maximum=MAX_DOCUMENTS, what="document")
    for place, document in enumerate(documents):
        field = f"documents[{place}]"
        check_name(document.name, field=f"{field}.name")
        source = document.WhichOneof("source")
        if source is None:
            raise validation.refuse(
                field, "has neither content nor file", "give its bytes, or upload it first"
            )
        if source == "file":
            check_file(document.file, field=f"{field}.file")
    validation.unique((document.name for document in documents), field="documents[{index}].name")


def check_file(file: common_pb2.FileRef, *, field: str) -> None:
    """Refuse a reference to an uploaded document that is none.

    The store holds more than documents, also what others own: nothing else may be referred to.
    """
    remedy = "give the reference as UploadDocument returned it"
    validation.text(file.path, field=f"{field}.path", max_characters=4096, remedy=remedy)
    if not file.path.startswith(f"{FILES}/"):
        raise validation.refuse(f"{field}.path", "is not that of an uploaded document", remedy)
    validation.sha256(file.sha256, field=f"{field}.sha256")


def check_questions(
    questions: Sequence[adaptation_pb2.Question], *, documents: Iterable[str]
) -> None:
    """Refuse questions that are too long, have no answer, or are on a document that is not there.

    `documents`: names of the request's documents.
    """
    if len(questions) > MAX_GIVEN_QUESTIONS:
        raise validation.refuse(
            "questions",
            f"holds {len(questions)}, the limit is {MAX_GIVEN_QUESTIONS}",
            "leave some out, or send several requests",
        )
    names = set(documents)
    for place, question in enumerate(questions):
        field = f"questions[{place}]"
        validation.text(
            question.question,
            field=f"{field}.question",
            max_characters=MAX_QUESTION_CHARACTERS,
            remedy="write the question, or leave the row out",
        )
        validation.count(
            question.answers, field=f"{field}.answers", maximum=MAX_ANSWERS, what="answer"
        )
        for index, answer in enumerate(question.answers):
            validation.text(
                answer,
                field=f"{field}.answers[{index}]",
                max_characters=MAX_ANSWER_CHARACTERS,
                remedy="write the answer, or leave it out",
            )
        if question.document and question.document not in names:
            raise validation.refuse(
                f"{field}.document",
                "names none of the documents",
                "give the name of one of them, or nothing",
            )


def parse_options(options: adaptation_pb2.AdaptationOptions) -> Mapping[str, object]:
    """What a request changes in the server's profile: dotted fields of an adaptation's spec."""
    changes: dict[str, object] = {}

    def whole(name: str, field: str, *, minimum: int, maximum: int) -> None:
        if options.HasField(name):  # type: ignore[arg-type]
            value: int = getattr(options, name)
            changes[field] = validation.whole_number(
                value, field=f"options.{name}", minimum=minimum, maximum=maximum
            )

    whole("seed", "seed", minimum=0, maximum=MAX_SEED)
    whole("candidates", "edit.k", minimum=1, maximum=MAX_CANDIDATES)
    whole("passage_tokens", "passages.maxTokens", minimum=16, maximum=MAX_PASSAGE_TOKENS)
    whole("replay_rows", "adapter.replayRows", minimum=0, maximum=MAX_ROWS)
    if options.HasField("held_out_share"):
        changes["questions.heldOutShare"] = _share(options.held_out_share)
    if options.HasField("policy"):
        policy = adapter_reference(options.policy, field="options.policy")
        changes["policy"] = policy.model_dump()
    if options.HasField("lora"):
        changes["adapter.lora"] = _dumped(_lora(options.lora))
    if options.HasField("optimizer"):
        changes["adapter.optimizer"] = _dumped(
            optimizer_settings(options.optimizer, field="options.optimizer")
        )
    return changes | _gate(options.gate)


def _gate(gate: adaptation_pb2.GateOptions) -> dict[str, object]:
    changes: dict[str, object] = {}
    for name, field, minimum in (
        ("min_gain", "gate.minGain", -1.0),
        ("max_regression", "gate.maxRegression", 0.0),
    ):
        if gate.HasField(name):  # type: ignore[arg-type]
            value: float = getattr(gate, name)
            changes[field] = validation.real_number(
                value, field=f"options.gate.{name}", minimum=minimum, maximum=1.0
            )
    if gate.HasField("confident"):
        changes["gate.confident"] = gate.confident
    return changes


def _lora(message: trainer_pb2.LoraConfig) -> LoraSettings:
    validation.count(
        message.target_modules,
        field="options.lora.target_modules",
        maximum=MAX_TARGET_MODULES,
        what="layer",
    )
    return lora_settings(message, field="options.lora")


def _dumped(settings: Settings) -> dict[str, object]:
    """As a manifest writes them."""
    return settings.model_dump(mode="json", by_alias=True)


def _share(value: float) -> float:
    if not 0.0 < value < 1.0:  # NaN is in no interval
        raise validation.refuse(
            "options.held_out_share",
            f"{value} is not between 0 and 1",
            "give a number above 0 and below 1, for example 0.5",
        )
    return value


def _state(value: int, *, field: str) -> AdaptationState:
    if (state := STATE_FROM_WIRE.get(value)) is None:
        raise validation.refuse(
            field, f"{value} is no state of an adaptation", "give one of AdaptationState, or none"
        )
    return state


def _label(value: str, *, field: str) -> str:
    if not _NAME.fullmatch(value):
        raise validation.refuse(
            field,
            "is empty" if not value else "is no name of an adaptation",
            "give 1-40 of a-z, 0-9 and -, with a letter or digit at both ends",
        )
    return value
