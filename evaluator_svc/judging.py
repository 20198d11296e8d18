"""Answers to the judge and verdicts back, edits to the judge and ratings back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seal.endpoint_keys import read_key
from seal.errors import Conflict, InvalidInput, PreconditionFailed
from seal.judge_options import JUDGE_KEY_VARIABLE
from seal.limits import MAX_CONTEXT_EDITS_BYTES, MAX_PASSAGE_CHARACTERS, MAX_TITLE_CHARACTERS
from seal.outcomes import Outcome
from seal.rpc import validation
from seal.rpc.convert import OUTCOME_TO_WIRE
from seal.settings import JudgeSettings
from seal.settings.endpoints import MAX_MODEL_NAME_CHARACTERS
from seal.v1 import evaluator_pb2

if TYPE_CHECKING:
    from evaluator_svc.judge import Asked, EditText, Judge
    from evaluator_svc.plan import EvaluationPlan
    from seal.engine import EvaluationResult

MAX_RATED_EDITS = 1024
"""Edits of one request: candidates of one context."""


def open_judge(settings: JudgeSettings | None) -> Judge | None:
    """A judge on the running event loop; None without settings.

    Raises InvalidInput for a key that cannot be read, or if the extra is not installed.
    """
    if settings is None:
        return None
    try:
        from evaluator_svc.judge import Judge
        from seal.endpoints import Endpoint
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"--judge-base-url: a judge needs the package {error.name}",
            field="judge_base_url",
            remedy="pip install 'seal-kubernetes[openai]'",
        ) from error
    key = read_key(
        settings.endpoint.api_key_file, field="judge_api_key_file", variable=JUDGE_KEY_VARIABLE
    )
    return Judge(Endpoint(settings.endpoint, key=key, limits=settings.limits))


def the_judge(judge: Judge | None, *, wanted: str, field: str) -> Judge:
    """The judge, if it is the one that a request names; an empty name is any.

    Raises PreconditionFailed if there is none, Conflict if it is another: verdicts of two models
    are not comparable.
    """
    if judge is None:
        raise PreconditionFailed(
            "this evaluator has no judge",
            field=field,
            remedy="start it with --judge-base-url and --judge-model",
        )
    validation.optional_text(wanted, field="judge", max_characters=MAX_MODEL_NAME_CHARACTERS)
    if wanted and wanted != judge.model:
        raise Conflict(
            f"answers were judged by {wanted!r}, the judge is now {judge.model!r}",
            field="judge",
            remedy="start the evaluator with --judge-model as it was, or begin another run",
        )
    return judge


def to_judge(
    plan: EvaluationPlan, asked: Sequence[int], evaluated: EvaluationResult
) -> list[Asked]:
    """The answers of an evaluation, for the judge; `asked`: places of the queries."""
    from evaluator_svc.judge import Asked  # only where there is a judge, and so its library

    return [
        Asked(
            question=plan.queries[place].question,
            golds=plan.queries[place].answers,
            answer=plan.domain.clean_answer(text, plan.question_format),
        )
        for place, text in zip(asked, evaluated.answers, strict=True)
    ]


def parse_rating(request: evaluator_pb2.RateEditsRequest) -> list[EditText]:
    """Check a request. Raises InvalidInput naming the field."""
    from evaluator_svc.judge import EditText

    validation.request_id(request.request_id)
    validation.run_name(request.run)
    title = validation.optional_text(
        request.title, field="title", max_characters=MAX_TITLE_CHARACTERS
    )
    text = validation.text(
        request.text,
        field="text",
        max_characters=MAX_PASSAGE_CHARACTERS,
        remedy="give the passage that the edits are on",
    )
    validation.count(request.edits, field="edits", maximum=MAX_RATED_EDITS, what="edit")
    validation.unique((edit.edit_id for edit in request.edits), field="edits[{index}].edit_id")
    edits = []
    for index, edit in enumerate(request.edits):
        validation.identifier(
            edit.edit_id, field=f"edits[{index}].edit_id", remedy="give each edit its own id"
        )
        validation.optional_text(
            edit.text, field=f"edits[{index}].text", max_characters=MAX_CONTEXT_EDITS_BYTES
        )
        edits.append(EditText(title=title, passage=text, edit=edit.text))
    return edits


def rating_result(
    request: evaluator_pb2.RateEditsRequest, ratings: Sequence[float | None]
) -> evaluator_pb2.RateEditsResult:
    """What the judge's model said, on the wire."""
    return evaluator_pb2.RateEditsResult(
        ratings=[
            evaluator_pb2.EditRating(
                edit_id=edit.edit_id,
                outcome=OUTCOME_TO_WIRE[Outcome.UNGRADED if rating is None else Outcome.OK],
                rating=rating or 0.0,
            )
            for edit, rating in zip(request.edits, ratings, strict=True)
        ]
    )
