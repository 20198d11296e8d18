"""Where a run's files lie in the artifact store, and what is common to all its shards.

    {run}/run.json, status.json
    {run}/contexts/{train,validation,retained}-{sha256}.jsonl, prepared.json with their digests
    {run}/stages/r{round}-{stage}/shard-{0000}/{baseline,edits,inner}/<key>.json   one small file
    per finished piece of work
                                              /retained.json, retained-base.json, clock.json,
                                              records.jsonl, and summary.json last
    {run}/stages/r{round}-improve/            selection.json, of a warm start supervised.json
    {run}/baselines/<key>.json                where the student is the base: one for all rounds
    {run}/adapters/{sha256}/                  policies, and inner adapters as long as they are kept

What is pinned or decided is created once and never written again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from pydantic import TypeAdapter

from seal.artifacts import ArtifactStore
from seal.domains.base import Context
from seal.errors import Internal
from seal.records import (
    AdaptationCounts,
    AdapterReference,
    LongRow,
    ModelDescription,
    PreparedRecord,
    SelectionRecord,
    Stage,
)

CONTEXTS = TypeAdapter(Context)
MAX_KEY_CHARACTERS = 96
_SAFE_KEY = re.compile(r"^[a-z0-9][-_.a-z0-9]*$")

P = ParamSpec("P")
T = TypeVar("T")


def key_of(context_id: str) -> str:
    """A context's id in paths and request ids: itself if short and plain, else a digest."""
    if len(context_id) <= MAX_KEY_CHARACTERS and _SAFE_KEY.fullmatch(context_id):
        return context_id
    return f"sha256-{hashlib.sha256(context_id.encode()).hexdigest()}"


def manifest_path(run: str) -> str:
    """The manifest that the run is pinned to."""
    return f"{run}/run.json"


def status_path(run: str) -> str:
    """The status of a local run."""
    return f"{run}/status.json"


def contexts_path(run: str, name: str, sha256: str) -> str:
    """Contexts with that digest; `name` is train, validation or retained.

    `PreparedRecord.contexts_sha256` says which of them the run is pinned to.
    """
    return f"{run}/contexts/{name}-{sha256}.jsonl"


def prepared_path(run: str) -> str:
    """What the run is pinned to."""
    return f"{run}/prepared.json"


def stage_path(run: str, round: int, stage: Stage) -> str:
    """Directory of one stage."""
    return f"{run}/stages/r{round}-{stage}"


def shard_path(run: str, round: int, stage: Stage, shard: int) -> str:
    """Directory of one shard of a stage."""
    return f"{stage_path(run, round, stage)}/shard-{shard:04d}"


def baseline_path(run: str, key: str) -> str:
    """The baseline of a context that is the same in every round."""
    return f"{run}/baselines/{key}.json"


def selection_path(run: str, round: int) -> str:
    """What a round kept."""
    return f"{stage_path(run, round, Stage.IMPROVE)}/selection.json"


def supervised_path(run: str) -> str:
    """What the warm start learns."""
    return f"{stage_path(run, 0, Stage.IMPROVE)}/supervised.json"


def adapters_path(run: str) -> str:
    """Directory that the run's adapters are published in."""
    return f"{run}/adapters"


def published_adapters(store: ArtifactStore, run: str) -> set[AdapterReference]:
    """All adapters that were published for a run and are still there.

    It blocks. Raises SealError if the store is away.
    """
    addresses = {path.rpartition("/")[0] for path in store.list(adapters_path(run))}
    return {
        AdapterReference(path=address, sha256=address.rpartition("/")[2]) for address in addresses
    }


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A blocking call in a thread.

    Cancelled, however often, it waits for the thread first: nothing writes on after its task has
    ended, and a lock that the task holds is held as long.
    """
    work = partial(copy_context().run, call, *args, **kwargs)
    # No task, as asyncio.to_thread would need: a loop that ends cancels all of them
    call_ends = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(call_ends)
    except asyncio.CancelledError:
        while not call_ends.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({call_ends})
        call_ends.exception()  # seen: who cancels does not want to know
        raise


async def write_contexts(
    store: ArtifactStore, run: str, name: str, contexts: Iterable[Context]
) -> str:
    """Write contexts for a run to be pinned to, one JSON object per line; their sha256.

    A file of its own for each digest: of preparations at once that read different data, the one
    that is pinned finds its own.
    """
    lines = b"".join(CONTEXTS.dump_json(context) + b"\n" for context in contexts)
    sha256 = hashlib.sha256(lines).hexdigest()
    await in_thread(store.create_bytes, contexts_path(run, name, sha256), lines)
    return sha256


async def read_contexts(store: ArtifactStore, run: str, name: str) -> tuple[Context, ...]:
    """The pinned contexts, in order.

    Raises:
        NotFound: the run is not pinned, or the file is gone.
        Internal: the file is not the one that the run was pinned to.

    """
    sha256 = (await pinned(store, run)).contexts_sha256[name]
    path = contexts_path(run, name, sha256)
    content = await in_thread(store.read_bytes, path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Internal(
            f"{path} is not the file that the run was pinned to",
            remedy="bring it back, or begin another run",
        )
    return tuple(CONTEXTS.validate_json(line) for line in content.splitlines())


async def pin_contexts(
    store: ArtifactStore,
    run: str,
    contexts: Mapping[str, Sequence[Context]],
    *,
    model: ModelDescription,
    writer: ModelDescription | None,
    judge: str,
    too_long: tuple[LongRow, ...],
    counts: AdaptationCounts | None = None,
) -> PreparedRecord:
    """Write contexts, and pin a run to them and its models, unless it is pinned; what counts."""
    digests = {
        name: await write_contexts(store, run, name, members) for name, members in contexts.items()
    }
    prepared = PreparedRecord(
        contexts_sha256=digests,
        contexts={name: len(members) for name, members in contexts.items()},
        model=model,
        writer=writer,
        judge=judge,
        too_long=too_long,
        counts=counts,
    )
    counted = await pin(store, run, prepared)
    for name, sha256 in digests.items():
        if sha256 != counted.contexts_sha256[name]:  # another preparation was first
            await in_thread(store.remove, contexts_path(run, name, sha256))
    return counted


async def pin(store: ArtifactStore, run: str, prepared: PreparedRecord) -> PreparedRecord:
    """Pin a run, unless it is; what counts."""
    return await in_thread(store.create_json, prepared_path(run), prepared)


async def pinned(store: ArtifactStore, run: str) -> PreparedRecord:
    """What a run is pinned to.

    Raises:
        NotFound: its first stage has not ended.

    """
    return await in_thread(store.read_json, prepared_path(run), PreparedRecord)


async def read_prepared(store: ArtifactStore, run: str) -> PreparedRecord | None:
    """What a run is pinned to; None before its first stage has ended."""
    return await in_thread(store.find_json, prepared_path(run), PreparedRecord)


async def read_selection(store: ArtifactStore, run: str, round: int) -> SelectionRecord | None:
    """What a round kept, if that is decided."""
    return await in_thread(store.find_json, selection_path(run, round), SelectionRecord)


async def commit_selection(
    store: ArtifactStore, run: str, selection: SelectionRecord
) -> SelectionRecord:
    """Decide what a round keeps, unless it is decided; returns the selection that counts."""
    return await in_thread(store.create_json, selection_path(run, selection.round), selection)
