"""Generation requests as rows of a decoding batch: sampled, counted, and put together again."""

from __future__ import annotations

from collections.abc import Callable

from seal.engine.decoding import RunningBatch
from seal.engine.health import unwatched
from seal.engine.items import each
from seal.engine.model import FrozenModel
from seal.engine.peft_format import Adapter
from seal.engine.requests import GenerationRequest, GenerationResult, Sample
from seal.engine.routes import AdapterGroups
from seal.engine.rows import Row
from seal.engine.sampling import DecodeSettings
from seal.engine.streaming import TextStream, check_streamed
from seal.errors import UnfitItem
from seal.outcomes import Outcome


class Generation:
    """One generation request in a batch: the rows of its samples."""

    def __init__(
        self, model: FrozenModel, request: GenerationRequest, *, streams: bool = False
    ) -> None:
        """`streams`: its text is wanted while it is written.

        Raises UnfitItem for a bad text, InvalidInput for several samples of which to stream one.
        """
        self.request, self._text = request, model.text
        self.prompts = each("prompts", request.prompts, model.text.prompt)
        self.rows = self._new_rows()
        if streams:
            check_streamed(request)
        self._streams = streams
        self._stream = TextStream(model.text, request.stop)
        self._told = 0
        """Characters that have been told."""

    def restart(self) -> None:
        """Forget what is written: a sample is a function of its seed, so it will be the same."""
        self.rows = self._new_rows()
        self._stream = TextStream(self._text, self.request.stop)

    def grown_text(self) -> str:
        """All that is certain of a streamed text, if that is more than at the last call.

        Empty if it is not, and for a request that does not stream.
        """
        if not self._streams:
            return ""
        (row,) = self.all_rows
        text = row.text if row.done else self._stream.certain(row.tokens)
        if len(text) <= self._told:
            return ""
        self._told = len(text)
        return text

    def _new_rows(self) -> list[list[Row]]:
        request = self.request
        settings = DecodeSettings(
            request.temperature, request.top_p, request.max_tokens, request.stop
        )
        return [
            [Row(prompt, 0, settings, seed, keep_logprobs=True) for seed in seeds]
            for prompt, seeds in zip(self.prompts, request.seeds, strict=True)
        ]

    @property
    def all_rows(self) -> list[Row]:
        """Rows of all prompts."""
        return [row for rows in self.rows for row in rows]

    @property
    def done(self) -> int:
        """Rows that are done."""
        return sum(row.done for row in self.all_rows)

    @property
    def complete(self) -> bool:
        """Every row is done."""
        return all(row.done for row in self.all_rows)

    @property
    def tokens(self) -> int:
        """Tokens written so far."""
        return sum(len(row.tokens) for row in self.all_rows)

    def result(self) -> GenerationResult:
        """Samples as they are. Raises UnfitItem if logits were NaN or infinite."""
        each("prompts", self.rows, _check_finite)
        return GenerationResult(
            samples=tuple(tuple(map(_sample, rows)) for rows in self.rows),
            engine_seconds=tuple(sum(row.seconds for row in rows) for rows in self.rows),
        )


def _sample(row: Row) -> Sample:
    logprobs = row.written_logprobs
    return Sample(
        text=row.text,
        seed=row.seed,
        tokens=len(row.tokens),
        truncated=not row.ended,
        logprob=sum(logprobs) / len(logprobs) if logprobs else 0.0,
    )


def _check_finite(rows: list[Row]) -> None:
    if any(row.diverged for row in rows):
        raise UnfitItem(
            "the model's logits are NaN or infinite",
            outcome=Outcome.DIVERGED,
            remedy="use another policy: this one was trained at too high a rate",
        )


class GenerationBatch:
    """Generation requests that share a policy, written together.

    Requests may join and leave between steps.
    """

    def __init__(
        self,
        model: FrozenModel,
        policy: Adapter | None,
        *,
        max_rows: int,
        alive: Callable[[], None] = unwatched,
    ) -> None:
        """`alive` is called after every pass."""
        self.policy = policy
        adapters = AdapterGroups(1, {}, model.policy_factors(policy))
        self._batch = RunningBatch(model, adapters, max_rows=max_rows, alive=alive)

    def __len__(self) -> int:
        """Rows that are not done."""
        return len(self._batch)

    @property
    def held_bytes(self) -> int:
        """What keys and values take from step to step."""
        return self._batch.held_bytes

    def add(self, generation: Generation) -> None:
        """Let a request's rows wait for places, in turns with other runs' rows."""
        self._batch.add(generation.all_rows, run=generation.request.run)

    def drop(self, generation: Generation) -> None:
        """Forget a request's rows."""
        self._batch.drop(set(generation.all_rows).__contains__)

    def step(self, *, cache_bytes: int | None = None) -> None:
        """Write one token of each running row; keys and values may take so much."""
        self._batch.cache_bytes = cache_bytes
        self._batch.step()
