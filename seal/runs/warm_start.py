"""The warm start: a supervised M-step on gold pairs of training contexts, before the first round.

No reward chooses what is learnt, and whoever reads the results has to know: it is labelled wherever
it is shown. Only training contexts are read; a held-out question is never learnt. What is learnt is
written down before anything is trained, like a round's selection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import structlog

from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.domains.base import Context
from seal.errors import InvalidInput
from seal.records import GoldRow, LearntRow, SupervisedRecord
from seal.restem.plan import plan_round
from seal.restem.rollout import kept_digest
from seal.runs.rows import RowCounter, fitting_rows
from seal.runs.store import in_thread, read_contexts, supervised_path
from seal.settings import RunSpec

log = structlog.get_logger(__name__)

TOO_LONG = "too_long"
"""Why a row is left out: the trainer takes no row so long."""


def gold_rows(spec: RunSpec, train: Sequence[Context]) -> tuple[GoldRow, ...]:
    """What a warm start learns of the training contexts that the first round takes.

    Each row has the prompt by which the policy will be asked once it is trained. Rows that come
    twice are learnt once. Empty where the family writes no questions.

    Raises:
        InvalidInput: there is no training context.

    """
    contexts = {context.context_id: context for context in train}
    taken = plan_round(spec.seed, tuple(contexts), 1, spec.data.train_contexts)
    return tuple(
        GoldRow(context_id=context_id, row=row)
        for context_id in taken
        for row in dict.fromkeys(_rows_of(spec, contexts[context_id]))
    )


def _rows_of(spec: RunSpec, context: Context) -> Iterator[LearntRow]:
    domain, edit = get_domain(spec.domain), spec.edit
    gold = domain.gold_parts(context, edit.family, edit.format)
    if not gold:
        return
    title, text = context.title, context.text
    trained = domain.edit_prompts(title, text, edit.family, edit.format, trained=True)
    places = {prompt: part for part, prompt in enumerate(trained)}
    worked = domain.edit_prompts(title, text, edit.family, edit.format)
    for prompt, written in gold:
        part = places[prompt]
        asked = trained[part] if edit.trained_prompt == "short" else worked[part]
        yield LearntRow(
            part=part,
            prompt=asked.prompt.text + asked.start,
            messages=asked.prompt.messages,
            completion=written,
        )


def check_warm_start(spec: RunSpec, train: Sequence[Context]) -> int:
    """Refuse a warm start that has nothing to learn; the number of its rows.

    Raises:
        InvalidInput: naming the field.

    """
    rows = gold_rows(spec, train)
    if not rows:
        raise InvalidInput(
            f"none of the gold questions of {len(train)} training contexts can be asked as an edit "
            f"of family {spec.edit.family!r} would ask it",
            field="spec.improve.warmStart",
            remedy="set it to none, or give training contexts whose text holds their answers",
        )
    return len(rows)


async def check_fits(
    spec: RunSpec, train: Sequence[Context], *, max_row_tokens: int, trainer: RowCounter
) -> None:
    """Refuse a warm start of which no row fits; say how many do not.

    Raises:
        InvalidInput: naming the field.

    """
    rows = gold_rows(spec, train)
    record = await _fitting(rows, max_row_tokens=max_row_tokens, trainer=trainer)
    if not record.rows:
        raise InvalidInput(
            f"each of the {len(rows)} rows of the warm start is longer than the trainer takes, "
            f"{max_row_tokens} tokens",
            field="spec.improve.warmStart",
            remedy="cut the passages into parts, or set improve.warmStart to none",
        )
    if record.dropped:
        log.warning("rows of the warm start too long", **record.dropped, rows=len(record.rows))


async def choose_rows(
    run: str, spec: RunSpec, store: ArtifactStore, *, max_row_tokens: int, trainer: RowCounter
) -> SupervisedRecord:
    """What the warm start of a pinned run learns; not yet committed."""
    rows = gold_rows(spec, await read_contexts(store, run, "train"))
    return await _fitting(rows, max_row_tokens=max_row_tokens, trainer=trainer)


async def read_supervised(store: ArtifactStore, run: str) -> SupervisedRecord | None:
    """What the warm start learns, if that is decided."""
    return await in_thread(store.find_json, supervised_path(run), SupervisedRecord)


async def commit_supervised(
    store: ArtifactStore, run: str, chosen: SupervisedRecord
) -> SupervisedRecord:
    """Decide what the warm start learns, unless it is decided; the record that counts."""
    return await in_thread(store.create_json, supervised_path(run), chosen)


async def _fitting(
    rows: Sequence[GoldRow], *, max_row_tokens: int, trainer: RowCounter
) -> SupervisedRecord:
    fits = await fitting_rows([row.row for row in rows], max_row_tokens, trainer)
    kept = tuple(row for row, fit in zip(rows, fits, strict=True) if fit)
    left_out = len(rows) - len(kept)
    return SupervisedRecord(
        rows=kept, dropped={TOO_LONG: left_out} if left_out else {}, sha256=_digest(kept)
    )


def _digest(rows: Iterable[GoldRow]) -> str:
    digests = (kept_digest(row.context_id, [row.row]) for row in rows)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
