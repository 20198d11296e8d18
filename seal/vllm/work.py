"""Requests as asks to vLLM, and its answers as results: pure.

Tokens are made and read by the engine's own text (`seal.engine.text`), so that a prompt is the same
sequence on both backends, text that spells a control token stays text, and a sample ends where the
engine's would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from seal.engine import (
    EvaluationRequest,
    EvaluationResult,
    GenerationRequest,
    GenerationResult,
    ModelOutline,
    Sample,
)
from seal.engine.items import each
from seal.engine.streaming import check_streamed
from seal.engine.text import ModelText, cut_at_stop
from seal.errors import InvalidInput, UnfitItem
from seal.outcomes import Outcome
from seal.vllm.adapters import PlacedAdapter
from seal.vllm.asks import Ask, Told

NOISE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Differences of log p, nats, that rounding alone makes between two batches, by compute type."""
SEEDS = 2**63
"""vLLM's seeds are signed 64-bit numbers."""


@dataclass(frozen=True)
class GenerationWork:
    """One generation request, tokenised."""

    request: GenerationRequest
    prompts: tuple[tuple[int, ...], ...]
    streams: bool = False
    """Its one text is wanted while it is written."""

    @property
    def rows(self) -> int:
        """Texts to write."""
        return sum(map(len, self.request.seeds))

    def asks(self, policy: PlacedAdapter | None, text: ModelText) -> list[Ask]:
        """One per seed, prompt by prompt."""
        request = self.request
        return [
            Ask(
                prompt=prompt,
                adapter=policy,
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                top_p=request.top_p,
                seed=seed % SEEDS,
                stop=request.stop,
                stop_tokens=tuple(sorted(text.end_tokens)),
                json_schema=request.json_schema,
                streams=self.streams,
            )
            for prompt, seeds in zip(self.prompts, request.seeds, strict=True)
            for seed in seeds
        ]

    def result(
        self, told: Sequence[Told], seconds: Sequence[float], text: ModelText
    ) -> GenerationResult:
        """Samples as the engine gives them. Raises UnfitItem if a log-probability is not finite."""
        rows = iter(zip(told, seconds, strict=True))
        per_prompt = [[next(rows) for _ in seeds] for seeds in self.request.seeds]
        each("prompts", per_prompt, lambda rows: _check_finite([row for row, _ in rows]))
        return GenerationResult(
            samples=tuple(
                tuple(
                    _sample(row, seed, self.request, text)
                    for (row, _), seed in zip(rows, seeds, strict=True)
                )
                for rows, seeds in zip(per_prompt, self.request.seeds, strict=True)
            ),
            engine_seconds=tuple(sum(share for _, share in rows) for rows in per_prompt),
        )


@dataclass(frozen=True)
class EvaluationWork:
    """One evaluation request, tokenised.

    Each query is asked twice, to be answered and to have its gold completion scored. With an
    adapter, the first query is scored twice more without it: the proof.
    """

    request: EvaluationRequest
    prompts: tuple[tuple[int, ...], ...]
    golds: tuple[tuple[int, ...], ...]

    @property
    def proven(self) -> bool:
        """There is an adapter whose effect is to be shown."""
        return self.request.adapter is not None

    @property
    def rows(self) -> int:
        """Texts to write and to score."""
        return 2 * len(self.prompts) + 2 * self.proven

    def asks(
        self, policy: PlacedAdapter | None, adapted: PlacedAdapter | None, text: ModelText
    ) -> list[Ask]:
        """Answers, then scores, then the proof's two."""
        request = self.request
        answers = [
            Ask(
                prompt=prompt,
                adapter=adapted,
                max_tokens=request.max_tokens,
                stop=request.stop,
                stop_tokens=tuple(sorted(text.end_tokens)),
            )
            for prompt in self.prompts
        ]
        whole = [prompt + gold for prompt, gold in zip(self.prompts, self.golds, strict=True)]
        scores = [Ask(prompt=tokens, adapter=adapted, scores=True) for tokens in whole]
        proof = [Ask(prompt=whole[0], adapter=policy, scores=True)] * (2 * self.proven)
        return [*answers, *scores, *proof]

    def result(
        self, told: Sequence[Told], seconds: Sequence[float], text: ModelText, *, dtype: str
    ) -> EvaluationResult:
        """Answers and scores as the engine gives them.

        vLLM gives log-probabilities, no logits. So `max_logit_difference` is here the largest
        absolute difference of the log-probabilities of the first query's tokens (its prompt and its
        gold completion) with the adapter to those without it, nats. It is 0 where the adapter's
        weights are zero, and where the difference is not larger than what rounding makes: the
        difference of two askings without the adapter, at least `NOISE`. An adapter that vLLM
        silently leaves out differs by that much at most.

        Raises UnfitItem if log-probabilities are not finite.
        """
        count = len(self.prompts)
        answers, scores, proof = told[:count], told[count : 2 * count], told[2 * count :]
        logprobs = [
            mean_of_last(row.prompt_logprobs, len(gold))
            for row, gold in zip(scores, self.golds, strict=True)
        ]
        if not all(
            math.isfinite(one) for row in told for one in row.logprobs + row.prompt_logprobs
        ):
            raise _diverged("adapter", "train the adapter at a lower rate")
        return EvaluationResult(
            answers=tuple(_text(row, self.request.stop, text).strip() for row in answers),
            logprobs=tuple(logprobs),
            max_logit_difference=self._difference(scores[0], proof, dtype),
            tokens=sum(len(_written(row, text)) for row in answers),
            engine_seconds=sum(seconds),
        )

    def _difference(self, adapted: Told, proof: Sequence[Told], dtype: str) -> float:
        adapter = self.request.adapter
        if adapter is None or adapter.changes_nothing():
            return 0.0
        plain, again = (row.prompt_logprobs for row in proof)
        difference = largest_difference(adapted.prompt_logprobs, plain)
        noise = max(NOISE[dtype], largest_difference(plain, again))
        return difference if difference > noise else 0.0


def generation_work(
    outline: ModelOutline, request: GenerationRequest, *, streams: bool = False
) -> GenerationWork:
    """Tokenise and check.

    Raises UnfitItem for a prompt that cannot be continued, InvalidInput for several samples of
    which to stream one.
    """
    if streams:
        check_streamed(request)
    prompts = each("prompts", request.prompts, outline.text.prompt)
    _check_lengths(outline, [len(prompt) + request.max_tokens for prompt in prompts])
    return GenerationWork(request, tuple(map(tuple, prompts)), streams)


def evaluation_work(outline: ModelOutline, request: EvaluationRequest) -> EvaluationWork:
    """Tokenise and check.

    Raises InvalidInput for a gold completion without tokens, UnfitItem for a query that cannot be
    asked.
    """
    prompts = each("prompts", request.prompts, outline.text.prompt)
    golds = each("golds", request.golds, outline.text.completion)
    for index, gold in enumerate(golds):
        if not gold:
            raise InvalidInput(
                "a completion to score has no tokens",
                field=f"golds[{index}]",
                remedy="send completions that are not empty",
            )
    lengths = [
        # a scored text is followed by one token, which vLLM writes and nobody reads
        len(prompt) + max(request.max_tokens, len(gold) + 1)
        for prompt, gold in zip(prompts, golds, strict=True)
    ]
    _check_lengths(outline, lengths)
    return EvaluationWork(request, tuple(map(tuple, prompts)), tuple(map(tuple, golds)))


def mean_of_last(values: Sequence[float], count: int) -> float:
    """Mean of the last values."""
    return sum(values[-count:]) / count


def largest_difference(some: Sequence[float], others: Sequence[float]) -> float:
    """Largest absolute difference; NaN if any is."""
    differences = [abs(one - other) for one, other in zip(some, others, strict=True)]
    return math.nan if any(map(math.isnan, differences)) else max(differences, default=0.0)


def _check_lengths(outline: ModelOutline, lengths: Sequence[int]) -> None:
    def check(length: int) -> None:
        if outline.positions is not None and length > outline.positions:
            raise UnfitItem(
                f"a prompt and what may follow it take {length} tokens, the model has "
                f"{outline.positions} positions",
                outcome=Outcome.TOO_LONG,
                remedy="shorten it, or ask for fewer tokens",
            )

    each("prompts", lengths, check)


def _written(row: Told, text: ModelText) -> tuple[int, ...]:
    """What was written without the token that ended it."""
    ended = row.stopped and row.tokens and row.tokens[-1] in text.end_tokens
    return row.tokens[:-1] if ended else row.tokens


def _text(row: Told, stop: tuple[str, ...], text: ModelText) -> str:
    return cut_at_stop(text.decode(_written(row, text)), stop)[0]


def _sample(row: Told, seed: int, request: GenerationRequest, text: ModelText) -> Sample:
    return Sample(
        text=_text(row, request.stop, text),
        seed=seed,
        tokens=len(_written(row, text)),
        truncated=not row.stopped,
        logprob=sum(row.logprobs) / len(row.logprobs) if row.logprobs else 0.0,
    )


def _check_finite(rows: Sequence[Told]) -> None:
    if not all(math.isfinite(one) for row in rows for one in row.logprobs):
        raise _diverged("", "use another policy: this one was trained at too high a rate")


def _diverged(field: str, remedy: str) -> UnfitItem:
    return UnfitItem(
        "the model's log-probabilities are NaN or infinite",
        outcome=Outcome.DIVERGED,
        field=field,
        remedy=remedy,
    )
