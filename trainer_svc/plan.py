"""What one TrainAdapter request asks for, checked.

Every bound is refused by the name of its field before the engine sees anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from seal.bases import BaseReference
from seal.limits import (
    MAX_CHECKPOINT_SECONDS,
    MAX_COUNTED_CHARACTERS,
    MAX_RANK,
    MAX_ROW_CHARACTERS,
    MAX_ROWS,
    MAX_STEPS,
    MAX_TARGET_MODULES,
    MAX_TURNS,
)
from seal.prompts import Prompt
from seal.records import AdapterReference
from seal.rpc import validation
from seal.rpc.convert import (
    adapter_reference,
    base_reference,
    chat_messages,
    lora_settings,
    optimizer_settings,
)
from seal.settings import LoraSettings, OptimizerSettings
from seal.v1 import trainer_pb2

MAX_ROWS_NOTE_CHARACTERS = 200
"""What a card says of the rows."""


@dataclass(frozen=True)
class TrainingPlan:
    """One checked request."""

    request_id: str
    run: str
    body_sha256: str
    """Digest of all that decides the result: the request without its id, its checkpoints and the
    path of the policy, whose digest says what it is."""
    base: BaseReference
    policy: AdapterReference | None
    examples: tuple[tuple[str | Prompt, str], ...]
    """(prompt, completion) pairs; a chat's turns are in a `Prompt`."""
    lora: LoraSettings
    optimizer: OptimizerSettings
    init_seed: int
    order_seed: int
    with_policy: bool
    checkpoint_every_seconds: float
    """0 keeps no checkpoints."""
    rows_note: str = ""
    """What the rows are, in one line; empty for text that a language model wrote for itself."""

    @property
    def result_path(self) -> str:
        """Where the ended training is kept, relative to the artifacts root."""
        return result_path(self.run, self.request_id)

    @property
    def checkpoint_path(self) -> str:
        """Where the running training's last checkpoint is kept, relative to the artifacts root."""
        digest = hashlib.sha256(self.request_id.encode()).hexdigest()
        return f"{self.run}/checkpoints/{digest}.safetensors"


def result_path(run: str, request_id: str) -> str:
    """`{run}/trainings/{sha256 of the request id}.json`.

    An id is a caller's text and never becomes a path itself.
    """
    return f"{run}/trainings/{hashlib.sha256(request_id.encode()).hexdigest()}.json"


def parse_training(request: trainer_pb2.TrainAdapterRequest) -> TrainingPlan:
    """Check a request. Raises InvalidInput naming the field."""
    request_id, run = validation.request_id(request.request_id), validation.run_name(request.run)
    base = base_reference(request.policy)
    policy = (
        adapter_reference(request.policy.adapter, field="policy.adapter")
        if request.policy.HasField("adapter")
        else None
    )
    lora = parse_lora(request.lora)
    optimizer = optimizer_settings(request.optimizer, field="optimizer")
    examples = _examples(request)
    steps = optimizer.epochs * -(-len(examples) // optimizer.batch_size)
    if steps > MAX_STEPS:
        raise validation.refuse(
            "optimizer.epochs",
            f"{steps} optimiser steps, the limit is {MAX_STEPS}",
            "take fewer epochs or larger batches",
        )
    if request.export_mode not in (
        trainer_pb2.EXPORT_MODE_ADAPTER,
        trainer_pb2.EXPORT_MODE_WITH_POLICY,
    ):
        raise validation.refuse(
            "export_mode", "is not set", "use EXPORT_MODE_ADAPTER or EXPORT_MODE_WITH_POLICY"
        )
    return TrainingPlan(
        request_id=request_id,
        run=run,
        body_sha256=body_digest(request),
        base=base,
        policy=policy,
        examples=examples,
        lora=lora,
        optimizer=optimizer,
        init_seed=validation.seed(request.init_seed, field="init_seed"),
        order_seed=validation.seed(request.order_seed, field="order_seed"),
        with_policy=request.export_mode == trainer_pb2.EXPORT_MODE_WITH_POLICY,
        checkpoint_every_seconds=validation.real_number(
            request.checkpoint_every_seconds,
            field="checkpoint_every_seconds",
            minimum=0.0,
            maximum=MAX_CHECKPOINT_SECONDS,
        ),
        rows_note=_rows_note(request.rows_note),
    )


def _rows_note(text: str) -> str:
    """One line of a card, whatever the caller wrote."""
    checked = validation.optional_text(
        text, field="rows_note", max_characters=MAX_ROWS_NOTE_CHARACTERS
    )
    return " ".join(checked.split())


def body_digest(request: trainer_pb2.TrainAdapterRequest) -> str:
    """sha256 of the request without id, checkpoints and policy path.

    The same artifacts under a moved root are the same body.
    """
    body = trainer_pb2.TrainAdapterRequest()
    body.CopyFrom(request)
    body.ClearField("request_id")
    body.ClearField("checkpoint_every_seconds")
    if body.policy.HasField("adapter"):
        body.policy.adapter.ClearField("path")
    if body.policy.base_sha256:
        body.policy.ClearField("base_model")
    return hashlib.sha256(body.SerializeToString(deterministic=True)).hexdigest()


def _examples(request: trainer_pb2.TrainAdapterRequest) -> tuple[tuple[str | Prompt, str], ...]:
    validation.count(request.examples, field="examples", maximum=MAX_ROWS, what="example")
    for index, example in enumerate(request.examples):
        if not example.completion.strip():
            raise validation.refuse(
                f"examples[{index}].completion",
                "is empty: there is nothing to learn",
                "drop the example",
            )
        _check_size(example, f"examples[{index}]", MAX_ROW_CHARACTERS)
    return tuple(training_rows(request.examples))


def parse_counting(request: trainer_pb2.CountTokensRequest) -> list[tuple[str | Prompt, str]]:
    """The rows whose tokens are to be counted. Raises InvalidInput naming the field."""
    for index, example in enumerate(request.examples):
        _check_size(example, f"examples[{index}]", MAX_COUNTED_CHARACTERS)
    return training_rows(request.examples)


def _check_size(example: trainer_pb2.TrainingExample, field: str, maximum: int) -> None:
    """Refuse a row of more than `maximum` characters, or of too many turns."""
    if len(example.messages) > MAX_TURNS:
        raise validation.refuse(
            f"{field}.messages",
            f"holds {len(example.messages)} turns, the limit is {MAX_TURNS}",
            "keep the last turns",
        )
    characters = len(example.prompt) + len(example.completion)
    characters += sum(len(message.content) for message in example.messages)
    if characters > maximum:
        raise validation.refuse(
            field, f"has {characters} characters, the limit is {maximum}", "cut it in parts"
        )


def training_rows(
    examples: Iterable[trainer_pb2.TrainingExample],
) -> list[tuple[str | Prompt, str]]:
    """(prompt, completion) pairs.

    Raises InvalidInput naming a turn of a chat whose role is none.
    """
    return [
        (_prompt(example, f"examples[{index}].messages"), example.completion)
        for index, example in enumerate(examples)
    ]


def _prompt(example: trainer_pb2.TrainingExample, field: str) -> str | Prompt:
    """What stands before the completion: raw text, or a chat for the model's template."""
    if not example.messages:
        return example.prompt
    return Prompt(text=example.prompt, messages=chat_messages(example.messages, field=field))


def parse_lora(message: trainer_pb2.LoraConfig, *, field: str = "lora") -> LoraSettings:
    """Check the shape of an adapter. Raises InvalidInput naming the field below `field`."""
    validation.whole_number(message.rank, field=f"{field}.rank", minimum=1, maximum=MAX_RANK)
    validation.count(
        message.target_modules,
        field=f"{field}.target_modules",
        maximum=MAX_TARGET_MODULES,
        what="projection",
    )
    return lora_settings(message, field=field)
