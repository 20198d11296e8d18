"""Reads a log of SEAL's rollout (arXiv 2506.10943, knowledge domain).

Passages x edits x repeats with a verdict per question.
The log is read from where it lies; nothing of it is kept in this repository.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from seal.domains.words import normalise
from seal.errors import InvalidInput
from seal.files import file_errors


class Verdict(BaseModel):
    """One question asked of one adapted model, and of the model without an adapter."""

    rep: int
    question: str
    answer: str
    baseline_answer: str
    adapter_answer: str
    baseline_correct: bool
    adapter_correct: bool


class Completion(BaseModel):
    """One edit."""

    text: str
    questions: list[Verdict] = Field(min_length=1)


class Article(BaseModel):
    """One passage."""

    title: str
    completions: list[Completion] = Field(min_length=2)


class Log(BaseModel):
    """The whole file; fields that are not used here are ignored."""

    articles: list[Article] = Field(min_length=2)


@dataclass(frozen=True)
class SealLog:
    """A log as rewards."""

    sha256: str
    """Digest of the file, lower-case hex."""
    rewards_P_C_R: NDArray[np.float64]
    """Share of right answers by passage, candidate and repeat."""
    baseline_P: NDArray[np.float64]
    """Share of right answers without an adapter."""
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class JudgeCalls:
    """Calls of a judge that grades one answer at a time, without and with a cache.

    The cache is by (question, gold, normalised answer).
    """

    adapter: int
    """Answers of adapted models."""
    baseline: int
    """Answers of the model without an adapter, asked anew for each adapter."""
    baseline_once: int
    """The same if each question is asked once."""
    adapter_distinct: int
    """Adapted models' answers that the cache lets through."""
    all_distinct: int
    """Answers of either kind that the cache lets through."""
    contradictions: int
    """Cache keys that the judge of the log graded both right and wrong."""

    @property
    def saved_as_logged(self) -> float:
        """Share of calls that the cache saves if the baseline is asked anew for each adapter."""
        return 1 - self.all_distinct / (self.adapter + self.baseline)

    @property
    def saved_baseline_once(self) -> float:
        """Share that it saves beyond a baseline asked once per context."""
        return 1 - self.all_distinct / (self.adapter + self.baseline_once)

    @property
    def saved_adapter(self) -> float:
        """Share of the adapted models' calls that it saves."""
        return 1 - self.adapter_distinct / self.adapter


def read_log(path: Path) -> SealLog:
    """Read and check a log.

    Raises:
        NotFound: there is no such file.
        InvalidInput: another format, or not the same repeats of every edit and the same number of
            edits of every passage.
    """
    with file_errors(path):
        content = path.read_bytes()
    try:
        log = Log.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"{path}: {place}: {first['msg']}",
            field=place,
            remedy="give a file like SEAL's rank_iter0.json",
        ) from error
    rewards = [
        [_rewards(completion) for completion in article.completions] for article in log.articles
    ]
    repeats = {tuple(each) for candidates in rewards for each in candidates}
    sizes = {len(candidates) for candidates in rewards}
    if len(repeats) > 1 or len(sizes) > 1:
        raise InvalidInput(
            f"{path}: passages have {sorted(sizes)} edits with repeats {sorted(repeats)}",
            remedy="give a log in which every passage has as many edits and every edit the same "
            "repeats",
        )
    return SealLog(
        sha256=hashlib.sha256(content).hexdigest(),
        rewards_P_C_R=np.array(
            [[list(each.values()) for each in candidates] for candidates in rewards]
        ),
        baseline_P=np.array(
            [
                np.mean([verdict.baseline_correct for verdict in _verdicts(article)])
                for article in log.articles
            ]
        ),
        verdicts=tuple(verdict for article in log.articles for verdict in _verdicts(article)),
    )


def _verdicts(article: Article) -> list[Verdict]:
    return [verdict for completion in article.completions for verdict in completion.questions]


def _rewards(completion: Completion) -> dict[int, float]:
    """Share of right answers by repeat, in the repeats' order."""
    repeats = sorted({verdict.rep for verdict in completion.questions})
    return {
        repeat: float(
            np.mean(
                [
                    verdict.adapter_correct
                    for verdict in completion.questions
                    if verdict.rep == repeat
                ]
            )
        )
        for repeat in repeats
    }


def count_judge_calls(verdicts: tuple[Verdict, ...]) -> JudgeCalls:
    """What a cache would have saved."""
    adapter: dict[tuple[str, str, str], set[bool]] = {}
    baseline: dict[tuple[str, str, str], set[bool]] = {}
    for verdict in verdicts:
        asked = (verdict.question, verdict.answer)
        adapter.setdefault((*asked, normalise(verdict.adapter_answer)), set()).add(
            verdict.adapter_correct
        )
        baseline.setdefault((*asked, normalise(verdict.baseline_answer)), set()).add(
            verdict.baseline_correct
        )
    keys = adapter.keys() | baseline.keys()
    return JudgeCalls(
        adapter=len(verdicts),
        baseline=len(verdicts),
        baseline_once=len({(verdict.question, verdict.answer) for verdict in verdicts}),
        adapter_distinct=len(adapter),
        all_distinct=len(keys),
        contradictions=sum(
            len(adapter.get(key, set()) | baseline.get(key, set())) > 1 for key in keys
        ),
    )
