"""Where a run's files lie in the artifact store, and how a shard commits its work.

    {run}/run.json, status.json
    {run}/contexts/{train,validation,retained}-{sha256}.jsonl, prepared.json with their digests
    {run}/stages/r{round}-{stage}/shard-{0000}/{baseline,edits,inner}/<key>.json   one small file
    per finished piece of work
                                              /retained.json, clock.json, records.jsonl, and
                                              summary.json last

A piece of work is committed once, whole, and never written again: what a restarted task finds it
does not repeat, and a second writer (a ghost of a lost node) changes nothing. A summary says that
all the rest of its shard is there.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import ParamSpec, TypeVar

from pydantic import TypeAdapter

from seal.artifacts import ArtifactStore
from seal.domains.base import Context
from seal.errors import Conflict, Internal
from seal.records import (
    ContextEditsRecord,
    ContextRecord,
    EvaluationRecord,
    InnerLoopRecord,
    PreparedRecord,
    Record,
    SelectionRecord,
    ShardSummary,
    Stage,
)
from seal.runs.task import ShardTask

CONTEXTS = TypeAdapter(Context)
MAX_KEY_CHARACTERS = 96
CLOCK_INTERVAL_SECONDS = 2.0
"""Work of a killed attempt that is younger than this is missing from `ShardSummary.seconds`."""
_SAFE_KEY = re.compile(r"^[a-z0-9][-_.a-z0-9]*$")

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=Record)


class ClockRecord(Record):
    """Seconds that a shard's attempts have worked so far."""

    seconds: float


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


def selection_path(run: str, round: int) -> str:
    """What a round kept."""
    return f"{stage_path(run, round, Stage.IMPROVE)}/selection.json"


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A blocking call in a thread.

    Cancelled, it waits for the thread first: nothing writes on after its task has ended.
    """
    call_ends = asyncio.create_task(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(call_ends)
    except asyncio.CancelledError:
        await asyncio.wait({call_ends})
        if not call_ends.cancelled():
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
    return await _read_if_there(store, prepared_path(run), PreparedRecord)


async def take_epoch(store: ArtifactStore, run: str) -> int:
    """The next number of a controller's turn at a run; no two controllers get the same."""
    return await in_thread(_next_epoch, store, f"{run}/epochs")


async def newest_epoch(store: ArtifactStore, run: str) -> int:
    """The last turn that a controller took; 0 before the first."""
    return await in_thread(_newest, store, f"{run}/epochs")


async def claim_stage(store: ArtifactStore, run: str, round: int, stage: Stage, epoch: int) -> None:
    """Note that an attempt of a stage is started in this epoch: older ones commit no more."""
    path = f"{stage_path(run, round, stage)}/epochs/{epoch:06d}"
    await in_thread(store.create_bytes, path, b"")


async def check_epoch(store: ArtifactStore, run: str, round: int, stage: Stage, epoch: int) -> None:
    """Before a worker commits what the stage goes on from.

    Raises:
        Conflict: a newer controller has started the stage, and its workers are at it.

    """
    newest = await in_thread(_newest, store, f"{stage_path(run, round, stage)}/epochs")
    if newest > epoch:
        raise Conflict(
            f"this task is of epoch {epoch}, its stage was started anew in epoch {newest}",
            remedy="leave it: the newer task does the same work",
        )


def _newest(store: ArtifactStore, folder: str) -> int:
    return max((int(path.rsplit("/", 1)[-1]) for path in store.list(folder)), default=0)


def _next_epoch(store: ArtifactStore, folder: str) -> int:
    epoch = _newest(store, folder)
    mine = uuid.uuid4().bytes
    while True:
        epoch += 1
        if store.create_bytes(f"{folder}/{epoch:06d}", mine) == mine:
            return epoch


async def read_selection(store: ArtifactStore, run: str, round: int) -> SelectionRecord | None:
    """What a round kept, if that is decided."""
    return await _read_if_there(store, selection_path(run, round), SelectionRecord)


async def commit_selection(
    store: ArtifactStore, run: str, selection: SelectionRecord
) -> SelectionRecord:
    """Decide what a round keeps, unless it is decided; returns the selection that counts."""
    return await in_thread(store.create_json, selection_path(run, selection.round), selection)


async def _read_if_there(store: ArtifactStore, path: str, type: type[R]) -> R | None:
    if not await in_thread(store.exists, path):
        return None
    return await in_thread(store.read_json, path, type)


def _parsed(lines: bytes) -> tuple[ContextRecord, ...]:
    return tuple(ContextRecord.model_validate_json(line) for line in lines.splitlines())


class ShardStore:
    """The files of one shard."""

    def __init__(
        self, store: ArtifactStore, *, run: str, round: int, stage: Stage, shard: int
    ) -> None:
        self._store = store
        self.path = shard_path(run, round, stage, shard)

    async def committed(self, folder: str, type: type[R]) -> dict[str, R]:
        """Records of a folder by key: what earlier attempts finished."""
        return await in_thread(self._read_folder, folder, type)

    def _read_folder(self, folder: str, type: type[R]) -> dict[str, R]:
        paths = sorted(
            path for path in self._store.list(f"{self.path}/{folder}") if path.endswith(".json")
        )
        return {
            path.rsplit("/", 1)[-1].removesuffix(".json"): self._store.read_json(path, type)
            for path in paths
        }

    async def commit(self, folder: str, key: str, record: R) -> R:
        """Write a record unless its key has one; either way return the one that counts."""
        return await in_thread(self._store.create_json, f"{self.path}/{folder}/{key}.json", record)

    async def baselines(self) -> dict[str, EvaluationRecord]:
        """Finished baselines by context key."""
        return await self.committed("baseline", EvaluationRecord)

    async def edits(self) -> dict[str, ContextEditsRecord]:
        """Written edits by context key."""
        return await self.committed("edits", ContextEditsRecord)

    async def inner_loops(self) -> dict[str, InnerLoopRecord]:
        """Finished inner loops by key."""
        return await self.committed("inner", InnerLoopRecord)

    async def retained(self) -> EvaluationRecord | None:
        """The policy alone on the whole retained set."""
        return await _read_if_there(self._store, f"{self.path}/retained.json", EvaluationRecord)

    async def commit_retained(self, record: EvaluationRecord) -> EvaluationRecord:
        """Write it unless it is there; returns the one that counts."""
        return await in_thread(self._store.create_json, f"{self.path}/retained.json", record)

    async def summary(self) -> ShardSummary | None:
        """The shard's summary, if it is finished."""
        return await _read_if_there(self._store, f"{self.path}/summary.json", ShardSummary)

    async def commit_summary(self, summary: ShardSummary) -> ShardSummary:
        """Say that the shard is finished; nothing follows. Returns the summary that counts."""
        return await in_thread(self._store.create_json, f"{self.path}/summary.json", summary)

    async def commit_records(
        self, records: Sequence[ContextRecord]
    ) -> tuple[tuple[ContextRecord, ...], str]:
        """Write `records.jsonl` unless it is there; returns the records that count, their sha256.

        A summary is made of what this returns: it then agrees with the file, whoever wrote it.
        """
        own = b"".join(record.model_dump_json().encode() + b"\n" for record in records)
        lines = await in_thread(self._store.create_bytes, f"{self.path}/records.jsonl", own)
        return _parsed(lines), hashlib.sha256(lines).hexdigest()

    async def read_records(self) -> tuple[tuple[ContextRecord, ...], str]:
        """The records and their sha256."""
        lines = await in_thread(self._store.read_bytes, f"{self.path}/records.jsonl")
        return _parsed(lines), hashlib.sha256(lines).hexdigest()

    async def clock(self) -> ShardClock:
        """The shard's clock, running."""
        before = await _read_if_there(self._store, f"{self.path}/clock.json", ClockRecord)
        return ShardClock(
            self._store, f"{self.path}/clock.json", seconds_before=before.seconds if before else 0.0
        )


async def _nothing(files: ShardStore) -> None:
    """The default of `after`."""


async def finish_shard(
    task: ShardTask,
    store: ArtifactStore,
    work: Callable[[ShardStore], Awaitable[ShardSummary]],
    *,
    after: Callable[[ShardStore], Awaitable[None]] = _nothing,
) -> ShardSummary:
    """Do a shard's work unless it is done, and say that it is; the summary that counts.

    `after` is called once it is said.

    Raises:
        Conflict: a newer controller has started the stage; nothing has changed.
        SealError: from the work.

    """
    files = ShardStore(store, run=task.run, round=task.round, stage=task.stage, shard=task.shard)
    if (summary := await files.summary()) is not None:
        return summary
    made = await work(files)
    await check_epoch(store, task.run, task.round, task.stage, task.epoch)
    summary = await files.commit_summary(made)
    await after(files)
    return summary


class ShardClock:
    """Wall time of a shard over all its attempts.

    Each leaves its time behind while it works, as it may be killed.
    """

    def __init__(
        self,
        store: ArtifactStore,
        path: str,
        *,
        seconds_before: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._path, self._before, self._clock = store, path, seconds_before, clock
        self._started = self._saved = clock()

    @property
    def seconds(self) -> float:
        """Seconds worked so far."""
        return self._before + self._clock() - self._started

    async def tick(self) -> None:
        """Note the time, now and then."""
        now = self._clock()
        if now - self._saved >= CLOCK_INTERVAL_SECONDS:
            self._saved = now
            await in_thread(self._store.write_json, self._path, ClockRecord(seconds=self.seconds))
