"""What a domain asks of the model and of the settings before the first costly step."""

from __future__ import annotations

from collections.abc import Sequence

from controller_svc.worker.bounds import GIVEN_EDITS, bound_training, given_edit
from controller_svc.worker.clients import ServiceClients
from seal.domains import get_domain
from seal.domains.base import Context
from seal.errors import InvalidInput
from seal.settings import LearningSpec
from seal.v1 import trainer_pb2

_FIELDS = {"fixed-edit": "fixedEdit", "oracle-edit": "oracleEdit"}
_TIMES = 3
"""A text that is one token three times in a row is one: pairs and triples would have merged."""


def check_given_edits(spec: LearningSpec, contexts: Sequence[Context]) -> None:
    """Refuse edits of the settings from which no context gets an example.

    Raises:
        InvalidInput: naming the field.
    """
    for bound in GIVEN_EDITS:
        if not given_edit(spec, bound) or not contexts:
            continue
        rows = (
            bound_training(
                get_domain(spec.domain), spec, context, bound, seed=0, passage_optimizer=None
            )[0]
            for context in contexts
        )
        if not any(rows):
            raise InvalidInput(
                "the edit makes no training example of any validation context",
                field=f"spec.validation.{_FIELDS[bound]}",
                remedy=f"give an edit as family {spec.edit.family!r} writes them, or leave it out",
            )


async def check_single_tokens(spec: LearningSpec, clients: ServiceClients) -> None:
    """Refuse a model whose tokenizer splits, or joins, what the domain needs as single tokens.

    Raises:
        InvalidInput: naming the field.
    """
    texts = get_domain(spec.domain).single_tokens(spec.evaluation.question_format)
    rows = [
        trainer_pb2.TrainingExample(completion=text * times)
        for text in texts
        for times in (1, _TIMES)
    ]
    if not rows:
        return
    counts = await clients.count_tokens(rows)
    for text, once, often in zip(texts, counts[::2], counts[1::2], strict=True):
        if often - once != _TIMES - 1:
            raise InvalidInput(
                f"{text!r} is not one token of {spec.model!r}: {_TIMES} of them are "
                f"{often - once + 1} tokens",
                field="spec.evaluation.questionFormat",
                remedy="use another format of the domain, or another model",
            )
