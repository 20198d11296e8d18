"""From the client's dataclasses to the messages of AdaptationService; back: `convert`."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from google.protobuf.message import Message

from seal.client.types import Document, Options, Question, State
from seal.errors import InvalidInput
from seal.rpc.convert import adapter_message, lora_message, optimizer_message
from seal.v1 import adaptation_pb2

STATE_TO_WIRE = MappingProxyType(
    {
        State.PENDING: adaptation_pb2.ADAPTATION_STATE_PENDING,
        State.RUNNING: adaptation_pb2.ADAPTATION_STATE_RUNNING,
        State.PUBLISHED: adaptation_pb2.ADAPTATION_STATE_PUBLISHED,
        State.REFUSED: adaptation_pb2.ADAPTATION_STATE_REFUSED,
        State.FAILED: adaptation_pb2.ADAPTATION_STATE_FAILED,
        State.CANCELLED: adaptation_pb2.ADAPTATION_STATE_CANCELLED,
    }
)
SCALAR_OPTIONS = ("seed", "candidates", "passage_tokens", "replay_rows", "held_out_share")
"""Options that are one number, named alike on both sides."""
SCALAR_GATE = ("min_gain", "confident", "max_regression")
"""The gate's, likewise."""


def document_message(document: Document) -> adaptation_pb2.Document:
    """A document with its bytes, or with the file that was uploaded."""
    message = adaptation_pb2.Document(name=document.name, media_type=document.media_type)
    if document.file is None:
        message.content = document.content
    else:
        message.file.path, message.file.sha256 = document.file.path, document.file.sha256
    return message


def question_message(question: Question) -> adaptation_pb2.Question:
    """A question with its gold answers."""
    return adaptation_pb2.Question(
        question=question.question, answers=question.answers, document=question.document
    )


def options_message(options: Options) -> adaptation_pb2.AdaptationOptions:
    """Only what is set: the rest comes from the server's profile."""
    message = adaptation_pb2.AdaptationOptions(
        policy=None if options.policy is None else adapter_message(options.policy),
        lora=None if options.lora is None else lora_message(options.lora),
        optimizer=None if options.optimizer is None else optimizer_message(options.optimizer),
    )
    _set_scalars(message, options, SCALAR_OPTIONS, within="options")
    _set_scalars(message.gate, options.gate, SCALAR_GATE, within="options.gate")
    return message


def _set_scalars(message: Message, values: object, names: Sequence[str], *, within: str) -> None:
    """What is set of some numbers. Raises InvalidInput for one that no message can hold."""
    for name in names:
        if (value := getattr(values, name)) is None:
            continue
        try:
            setattr(message, name, value)
        except (TypeError, ValueError):
            raise InvalidInput(
                f"{within}.{name}: {value!r} is out of bounds",
                field=f"{within}.{name}",
                remedy="give one that is not negative and has at most 32 bits, a seed 64",
            ) from None
