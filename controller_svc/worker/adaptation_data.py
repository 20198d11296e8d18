"""What an adaptation is about, once it is pinned: its passages, their questions, the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from controller_svc.worker.documents import HELD_OUT, RETAINED, TRAIN
from controller_svc.worker.questions import read_questions_made
from seal.adaptations.retained import Retained, part_retained
from seal.artifacts import ArtifactStore
from seal.domains.base import Context, Query
from seal.records import KeptQuestion, QuestionsRecord
from seal.runs.store import read_contexts
from seal.settings import AdaptationSpec


@dataclass(frozen=True)
class AdaptationData:
    """The data of an adaptation."""

    train: tuple[Context, ...]
    """All passages, with the questions that their edits are chosen by; some have none."""
    held_out: tuple[Query, ...]
    """The test."""
    retained: Retained
    """Other passages."""


async def read_data(store: ArtifactStore, run: str, spec: AdaptationSpec) -> AdaptationData:
    """What is pinned, with the questions that the model made where it makes some.

    Raises:
        NotFound: the first stage has not ended.
        Internal: a file is not what was pinned, or not what its summary says.

    """
    train = await read_contexts(store, run, TRAIN)
    test = await read_contexts(store, run, HELD_OUT)
    held_out = tuple(query for context in test for query in context.queries)
    if spec.questions.source == "self-made":
        made = await read_questions_made(store, run, shards=spec.shards)
        train, held_out = with_questions(train, made)
    retained = part_retained(
        await read_contexts(store, run, RETAINED),
        questions=spec.gate.retained_questions,
        replay=spec.adapter.replay_rows,
        seed=spec.seed,
    )
    return AdaptationData(train, held_out, retained)


def with_questions(
    contexts: Sequence[Context], made: Mapping[str, QuestionsRecord]
) -> tuple[tuple[Context, ...], tuple[Query, ...]]:
    """The passages with the questions by which edits are chosen, and the test."""
    kept = {name: record.kept for name, record in made.items()}
    train = tuple(
        replace(
            context,
            queries=tuple(
                _query(one) for one in kept.get(context.context_id, ()) if one.role == "reward"
            ),
        )
        for context in contexts
    )
    test = tuple(
        _query(one)
        for context in contexts
        for one in kept.get(context.context_id, ())
        if one.role == "held-out"
    )
    return train, test


def _query(kept: KeptQuestion) -> Query:
    return Query(kept.query_id, kept.question, kept.answers)
