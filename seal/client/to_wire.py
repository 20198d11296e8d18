"""From the client's dataclasses to the messages of AdaptationService; back: `convert`."""

from __future__ import annotations

from types import MappingProxyType

from seal.client.types import Document, Options, Question, State
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
    for name in SCALAR_OPTIONS:
        if (value := getattr(options, name)) is not None:
            setattr(message, name, value)
    for name in SCALAR_GATE:
        if (value := getattr(options.gate, name)) is not None:
            setattr(message.gate, name, value)
    return message
