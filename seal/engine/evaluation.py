"""Evaluation requests of many adapters as rows of one decoding batch: answered and scored."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from seal.engine.bank import stack
from seal.engine.decoding import RunningBatch
from seal.engine.health import unwatched
from seal.engine.items import each
from seal.engine.model import FrozenModel
from seal.engine.peft_format import Adapter
from seal.engine.requests import EvaluationRequest, EvaluationResult
from seal.engine.routes import AdapterGroups
from seal.engine.rows import Row
from seal.engine.sampling import GREEDY, DecodeSettings
from seal.errors import InvalidInput, UnfitItem
from seal.outcomes import Outcome


def nobody(_: int) -> bool:
    """For a batch in which no request was cancelled."""
    return False


class Evaluation:
    """One evaluation request, tokenised."""

    def __init__(self, model: FrozenModel, request: EvaluationRequest) -> None:
        """Raises InvalidInput for a gold completion without tokens, UnfitItem for a bad text."""
        self.request = request
        self.prompts = each("prompts", request.prompts, model.text.prompt)
        self.golds = [tuple(gold) for gold in each("golds", request.golds, model.text.completion)]
        for index, gold in enumerate(self.golds):
            if not gold:
                raise InvalidInput(
                    "a completion to score has no tokens",
                    field=f"golds[{index}]",
                    remedy="send completions that are not empty",
                )

    def rows(self, group: int) -> list[Row]:
        """Fresh rows; the first keeps its logits if there is an adapter to prove."""
        settings = DecodeSettings(0.0, 1.0, self.request.max_tokens, self.request.stop)
        proven = self.request.adapter is not None
        return [
            Row(prompt, group, settings, gold=gold, keep_logits=proven and index == 0)
            for index, (prompt, gold) in enumerate(zip(self.prompts, self.golds, strict=True))
        ]


def evaluate(
    model: FrozenModel,
    evaluations: Sequence[Evaluation],
    *,
    max_rows: int,
    cache_bytes: int | None = None,
    cancelled: Callable[[int], bool] = nobody,
    alive: Callable[[], None] = unwatched,
) -> list[EvaluationResult | UnfitItem]:
    """Answer and score the queries of many adapters in one batch of at most `max_rows` rows.

    All share a policy. Beside each request's rows, its first prompt runs once without the adapter:
    the proof that the adapter changes the logits. `cache_bytes`: what keys and values may take.
    `cancelled(index of a request)` is asked after every step; a cancelled request's rows are
    dropped and its result is incomplete. `alive` is called after every pass. A request whose logits
    are not finite has UnfitItem in its place.
    """
    started = time.monotonic()
    requests = [evaluation.request for evaluation in evaluations]
    factors = stack(
        [None, *(request.adapter for request in requests)],
        model.layers,
        dtype=model.dtype,
        device=model.device,
    )
    adapters = AdapterGroups(len(requests) + 1, factors, model.policy_factors(requests[0].policy))
    batch = RunningBatch(model, adapters, max_rows=max_rows, cache_bytes=cache_bytes, alive=alive)
    witnesses = {
        evaluation.request.prompts[0]: Row(evaluation.prompts[0], 0, GREEDY, keep_logits=True)
        for evaluation in evaluations
        if evaluation.request.adapter is not None
    }
    rows = [evaluation.rows(index + 1) for index, evaluation in enumerate(evaluations)]
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
    shares = sum(row.seconds for mine in rows for row in mine)
    # no shares: all were cancelled while only witnesses had a place
    seconds_per_share = (time.monotonic() - started) / shares if shares else 0.0
    return [
        _evaluation_result(request, mine, witnesses.get(request.prompts[0]), seconds_per_share)
        for request, mine in zip(requests, rows, strict=True)
    ]


def _evaluation_result(
    request: EvaluationRequest, rows: Sequence[Row], witness: Row | None, seconds_per_share: float
) -> EvaluationResult | UnfitItem:
    difference = _logit_difference(request.adapter, rows[0], witness)
    finite = all(math.isfinite(value) for value in (difference, *(row.logprob for row in rows)))
    if not finite or any(row.diverged for row in rows):
        return UnfitItem(
            "the adapted model's logits are NaN or infinite",
            outcome=Outcome.DIVERGED,
            field="adapter",
            remedy="train the adapter at a lower rate",
        )
    return EvaluationResult(
        answers=tuple(row.text.strip() for row in rows),
        logprobs=tuple(row.logprob for row in rows),
        max_logit_difference=difference,
        tokens=sum(len(row.tokens) for row in rows),
        engine_seconds=sum(row.seconds for row in rows) * seconds_per_share,
    )


def _logit_difference(adapter: Adapter | None, adapted: Row, witness: Row | None) -> float:
    """Largest difference of the first prompt's logits with and without the adapter.

    Asked of the weights first: two passes round differently, so that even the logits of an adapter
    of zeros may differ from the witness's.
    """
    if adapter is None or adapter.changes_nothing():
        return 0.0
    if witness is None or witness.logits_V is None or adapted.logits_V is None:
        return 0.0  # a cancelled request
    return float((adapted.logits_V - witness.logits_V).abs().max())
