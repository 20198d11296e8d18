"""Evaluation requests of many adapters as rows of one decoding batch: answered and scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from seal.engine.bank import stack
from seal.engine.decoding import Row, RunningBatch
from seal.engine.model import FrozenModel
from seal.engine.requests import EvaluationRequest, EvaluationResult
from seal.engine.routes import AdapterGroups
from seal.engine.sampling import GREEDY, DecodeSettings
from seal.errors import InvalidInput


def nobody(_: int) -> bool:
    """For a batch in which no request was cancelled."""
    return False


def evaluate(
    model: FrozenModel,
    requests: Sequence[EvaluationRequest],
    *,
    max_rows: int,
    cancelled: Callable[[int], bool] = nobody,
) -> list[EvaluationResult]:
    """Answer and score the queries of many adapters in one batch of at most `max_rows` rows.

    All requests share a policy. Beside each request's rows, its first prompt runs once without the
    adapter: the proof that the adapter changes the logits. `cancelled(index of a request)` is asked
    after every step; a cancelled request's rows are dropped and its result is incomplete. Raises
    InvalidInput for a gold completion without tokens.
    """
    started = time.monotonic()
    count = len(requests) + 1
    factors = stack(
        [None, *(request.adapter for request in requests)],
        model.layers,
        dtype=model.dtype,
        device=model.device,
    )
    adapters = AdapterGroups(count, factors, model.policy_factors(requests[0].policy)).select(
        range(count)
    )
    batch = RunningBatch(model, adapters, max_rows=max_rows)
    witnesses = {
        prompt: Row(model.text.prompt(prompt), 0, GREEDY, keep_logits=True)
        for prompt in dict.fromkeys(
            request.prompts[0] for request in requests if request.adapter is not None
        )
    }
    rows = [_evaluation_rows(model, request, index + 1) for index, request in enumerate(requests)]
    batch.add([*witnesses.values(), *(row for mine in rows for row in mine)])
    dropped: set[int] = set()
    while len(batch):
        batch.step()
        gone = {
            index for index in range(len(requests)) if index not in dropped and cancelled(index)
        }
        if gone:
            batch.drop(lambda row: row.group - 1 in gone)  # noqa: B023 - called at once
            dropped |= gone
    seconds_per_share = (time.monotonic() - started) / sum(
        row.seconds for mine in rows for row in mine
    )
    return [
        _evaluation_result(request, mine, witnesses.get(request.prompts[0]), seconds_per_share)
        for request, mine in zip(requests, rows, strict=True)
    ]


def encode_golds(model: FrozenModel, request: EvaluationRequest) -> list[tuple[int, ...]]:
    """Tokens of the gold completions; raises InvalidInput for one without any."""
    golds = [tuple(model.text.completion(gold)) for gold in request.golds]
    for index, gold in enumerate(golds):
        if not gold:
            raise InvalidInput(
                "a completion to score has no tokens",
                field=f"golds[{index}]",
                remedy="send completions that are not empty",
            )
    return golds


def _evaluation_rows(model: FrozenModel, request: EvaluationRequest, group: int) -> list[Row]:
    settings = DecodeSettings(0.0, 1.0, request.max_tokens, request.stop)
    first = request.adapter is not None
    rows: list[Row] = []
    for prompt, gold in zip(request.prompts, encode_golds(model, request), strict=True):
        rows.append(Row(model.text.prompt(prompt), group, settings, gold=gold, keep_logits=first))
        first = False
    return rows


def _evaluation_result(
    request: EvaluationRequest, rows: Sequence[Row], witness: Row | None, seconds_per_share: float
) -> EvaluationResult:
    difference = 0.0
    if witness is not None and witness.logits_V is not None and rows[0].logits_V is not None:
        difference = float((rows[0].logits_V - witness.logits_V).abs().max())
    return EvaluationResult(
        answers=tuple(row.text.strip() for row in rows),
        logprobs=tuple(row.logprob for row in rows),
        max_logit_difference=difference,
        tokens=sum(len(row.tokens) for row in rows),
        engine_seconds=sum(row.seconds for row in rows) * seconds_per_share,
    )
