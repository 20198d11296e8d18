"""What a domain asks of the model and of the settings before the first costly step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from controller_svc.worker.bounds import GIVEN_EDITS, bound_training, given_edit
from seal.domains import get_domain
from seal.domains.base import Context
from seal.errors import InvalidInput
from seal.restem.seeds import derive_seed
from seal.runs.rows import RowCounter
from seal.settings import DOMAIN_OPTIONS, LearningSpec
from seal.v1 import trainer_pb2

_FIELDS = {"fixed-edit": "fixedEdit", "oracle-edit": "oracleEdit"}
_TIMES = 3
"""A text that is one token three times in a row is one: pairs and triples would have merged."""
_BESIDE = "a"
"""Counted with each answer and once alone, so that the tokens around a row are not counted."""


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


async def check_single_tokens(spec: LearningSpec, trainer: RowCounter) -> None:
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
    counts = await trainer.count_tokens(rows)
    for text, once, often in zip(texts, counts[::2], counts[1::2], strict=True):
        if often - once != _TIMES - 1:
            raise InvalidInput(
                f"{text!r} is not one token of {spec.model!r}: {_TIMES} of them are "
                f"{often - once + 1} tokens",
                field="spec.evaluation.questionFormat",
                remedy="use another format of the domain, or another model",
            )


@dataclass(frozen=True)
class _Gold:
    """A gold answer as it has to be written."""

    context: Context
    question: int
    """From 1."""
    text: str


async def check_answers_fit(
    spec: LearningSpec, contexts: Iterable[Context], trainer: RowCounter
) -> None:
    """Refuse questions whose answer is longer than an answer may be, where it counts as a whole.

    Nobody could answer them, and they would be scored as wrong.

    Raises:
        InvalidInput: naming the longest, and how many there are.
    """
    if not DOMAIN_OPTIONS[spec.domain].whole_answers:
        return
    golds = list(_gold_answers(spec, contexts))
    rows = [trainer_pb2.TrainingExample(completion=_BESIDE)]
    rows += [trainer_pb2.TrainingExample(prompt=_BESIDE, completion=gold.text) for gold in golds]
    beside, *counts = await trainer.count_tokens(rows)
    most = spec.evaluation.max_tokens
    long = [
        (count - beside, gold)
        for count, gold in zip(counts, golds, strict=True)
        if count - beside > most
    ]
    if not long:
        return
    tokens, gold = max(long, key=lambda each: each[0])
    others = len({(one.context.context_id, one.question) for _, one in long}) - 1
    one = get_domain(spec.domain).words.context
    more = f", and {others} more are longer too" if others else ""
    raise InvalidInput(
        f"the answer to question {gold.question} of {one} {gold.context.title[:80]!r} has {tokens} "
        f"tokens, an answer may have {most}{more}: it could never be right",
        field="spec.evaluation.maxTokens",
        remedy=f"give {tokens} or more, or leave such {one}s out",
    )


def _gold_answers(spec: LearningSpec, contexts: Iterable[Context]) -> Iterator[_Gold]:
    """The first gold answer to every question, in all ways in which that may be asked."""
    domain, settings = get_domain(spec.domain), spec.evaluation
    for context in contexts:
        for number, query in enumerate(context.queries, 1):
            seed = derive_seed(derive_seed(spec.seed, "views"), query.query_id)  # as it is asked
            for view in domain.views(query, settings.votes, seed=seed):
                gold = view.query.answers[0]
                text = domain.answer_completion(gold, settings.question_format)
                yield _Gold(context, number, text.rstrip())  # its end need not be written
