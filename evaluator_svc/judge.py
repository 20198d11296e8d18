"""The judge: a model at an endpoint that says whether an answer is right, and rates edits.

Paid for once: the same question, gold answers and answer, up to white space and an end full stop,
are asked about once. No more is taken for the same: a sign, a capital or a raised digit can be all
that parts a right answer from a wrong one (-5 and 5, mW and MW, 10² and 102). Whatever keeps the
judge from a readable verdict (it is away, says neither yes nor no, is another model, has no budget
left) leaves the answer without a grade, never with a wrong one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from evaluator_svc.judge_prompts import RUBRIC, rating_prompt, verdict_prompt
from seal.endpoints import Endpoint, Sampling, Shared
from seal.errors import PreconditionFailed, SealError, UnfitItem
from seal.prompts import Message

log = structlog.get_logger(__name__)

KEPT_VERDICTS = 100_000
"""Verdicts and ratings that are kept in memory; the oldest leave first."""
VERDICT_TOKENS, RATING_TOKENS = 16, 128
"""Most tokens of a verdict, and of the marks for an edit."""
_VERDICT = re.compile(r"\b(?:yes|no)\b", re.IGNORECASE)


_Asking = Coroutine[Any, Any, float | None]
"""One question on its way to the judge."""


@dataclass(frozen=True)
class Asked:
    """One answer to be judged."""

    question: str
    golds: tuple[str, ...]
    answer: str
    """Clean, in one line."""

    @property
    def key(self) -> bytes:
        """Answers with the same key have the same verdict."""
        said = " ".join(unicodedata.normalize("NFC", self.answer).split()).removesuffix(".")
        return _key("verdict", self.question, *self.golds, said)


@dataclass(frozen=True)
class EditText:
    """One edit to be rated, with the passage that it is on."""

    title: str
    passage: str
    edit: str

    @property
    def key(self) -> bytes:
        """Edits with the same key have the same rating."""
        return _key("rating", self.title, self.passage, self.edit)


def _key(*parts: str) -> bytes:
    """What a verdict or a rating is kept by: as small for a whole passage as for a word."""
    return hashlib.sha256(json.dumps(parts).encode()).digest()


class Judge:
    """Belongs to one event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.model = endpoint.model
        self._endpoint = endpoint
        self._why = ""
        """Why the last verdict failed that did."""
        self._kept: Shared[bytes, float] = Shared(capacity=KEPT_VERDICTS)

    async def close(self) -> None:
        """End the connections to its endpoint."""
        await self._endpoint.close()

    async def grades(
        self, asked: Sequence[Asked], on_done: Callable[[int], None]
    ) -> list[float | None]:
        """1 for a right answer, 0 for a wrong one, None where there is no verdict.

        `on_done(answers judged)` is called as they come. An answer of no words is wrong.
        """
        return await self._all([self._grade(one) for one in asked], on_done)

    async def ratings(
        self, edits: Sequence[EditText], on_done: Callable[[int], None]
    ) -> list[float | None]:
        """How good each edit looks by the rubric, 0 to 1; None where the model does not say."""
        return await self._all([self._rating(one) for one in edits], on_done)

    async def check(self) -> None:
        """Prove by one verdict, asked for anew each time, that there is a judge.

        Raises PreconditionFailed for what its settings have to mend, Transient while it is away.
        """
        known = Asked("What is two plus two?", ("four",), "It is four.")
        try:
            await self._verdict(known)
        except (PreconditionFailed, UnfitItem) as error:
            field = f"judge_{error.field}" if error.field else ""
            raise PreconditionFailed(error.message, field=field, remedy=error.remedy) from None

    async def _all(
        self, asking: Sequence[_Asking], on_done: Callable[[int], None]
    ) -> list[float | None]:
        """All at once: the endpoint bounds what is outstanding."""
        done = 0

        async def counted(one: _Asking) -> float | None:
            nonlocal done
            value = await one
            done += 1
            on_done(done)
            return value

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(counted(one)) for one in asking]
        values = [task.result() for task in tasks]
        if missing := sum(value is None for value in values):
            log.warning("no verdict", model=self.model, missing=missing, reason=self._why)
        return values

    async def _grade(self, asked: Asked) -> float | None:
        if not asked.answer.strip():
            return 0.0
        return await self._or_none(asked.key, lambda: self._verdict(asked))

    async def _rating(self, edit: EditText) -> float | None:
        if not edit.edit.strip():
            return 0.0
        return await self._or_none(edit.key, lambda: self._marks(edit))

    async def _or_none(
        self, key: bytes, ask: Callable[[], Coroutine[Any, Any, float]]
    ) -> float | None:
        try:
            return await self._kept.get(key, ask)
        except SealError as error:
            self._why = error.message
            return None

    async def _verdict(self, asked: Asked) -> float:
        prompt = verdict_prompt(asked.question, asked.golds, asked.answer)
        return read_verdict(await self._say(prompt, VERDICT_TOKENS))

    async def _marks(self, edit: EditText) -> float:
        prompt = rating_prompt(edit.title, edit.passage, edit.edit)
        return read_rating(await self._say(prompt, RATING_TOKENS))

    async def _say(self, prompt: tuple[Message, ...], max_tokens: int) -> str:
        sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=max_tokens)
        return (await self._endpoint.chat(prompt, sampling)).text


def read_verdict(text: str) -> float:
    """1 for yes, 0 for no, as the first word and not both.

    Raises PreconditionFailed for anything else.
    """
    said = [found.casefold() for found in _VERDICT.findall(text)]
    first = re.match(r"\W*(\w+)", text)
    if not said or len(set(said)) > 1 or first is None or first[1].casefold() != said[0]:
        raise _unreadable("says neither yes nor no")
    return 1.0 if said[0] == "yes" else 0.0


def read_rating(text: str) -> float:
    """The mean of the marks, 1 to 5 each, as 0 to 1.

    Raises PreconditionFailed if one is missing, there twice, or none.
    """
    marks = []
    for name in RUBRIC:
        found = re.findall(rf'\b{name}\b"?\s*[:=]\s*"?(-?\d+(?:\.\d+)?)', text, re.IGNORECASE)
        if len(found) != 1 or found[0] not in {"1", "2", "3", "4", "5"}:
            raise _unreadable("gives no marks of 1 to 5")
        marks.append(int(found[0]))
    return (sum(marks) / len(marks) - 1) / 4


def _unreadable(problem: str) -> PreconditionFailed:
    return PreconditionFailed(
        f"the judge's model {problem}",
        field="model",
        remedy="take a model that follows instructions",
    )
