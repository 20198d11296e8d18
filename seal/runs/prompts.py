"""What the M-step learns to follow: the prompts by which the policy will be asked once trained."""

from __future__ import annotations

from collections.abc import Sequence

from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.domains.base import Context
from seal.errors import Internal
from seal.part_prompts import PartPromptRecord
from seal.records import ContextRecord
from seal.runs.store import read_contexts
from seal.settings import RunSpec


async def with_learnt_prompts(
    records: Sequence[ContextRecord], *, spec: RunSpec, store: ArtifactStore, run: str
) -> tuple[ContextRecord, ...]:
    """A rollout's records with the prompts of a trained policy in place of those that were used.

    Raises:
        Internal: a passage has other parts than when its edits were written.
    """
    if spec.edit.trained_prompt == "worked":
        return tuple(records)
    contexts = {context.context_id: context for context in await read_contexts(store, run, "train")}
    return tuple(_asked_as_trained(record, contexts[record.context_id], spec) for record in records)


def _asked_as_trained(record: ContextRecord, context: Context, spec: RunSpec) -> ContextRecord:
    if not record.parts:  # it has no edits
        return record
    asked = get_domain(spec.domain).edit_prompts(
        context.title, context.text, spec.edit.family, spec.edit.format, trained=True
    )
    parts = tuple(
        PartPromptRecord(prompt=part.prompt.text, messages=part.prompt.messages, start=part.start)
        for part in asked
    )
    if [part.start for part in parts] != [part.start for part in record.parts]:
        raise Internal(
            f"passage {context.context_id!r} has other parts now than when its edits were written",
            remedy="go on with the version that began the run",
        )
    return record.model_copy(update={"parts": parts})
