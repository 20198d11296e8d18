"""The files of one shard, and how it commits its work.

A piece of work is committed once, whole, and never written again: what a restarted task finds it
does not repeat, and a second writer (a ghost of a lost node) changes nothing. A summary says that
all the rest of its shard is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeVar

from seal.artifacts import ArtifactStore
from seal.manifest import MANIFEST_FILE
from seal.records import (
    AdapterReference,
    BaselineRecord,
    ContextEditsRecord,
    ContextRecord,
    EvaluationRecord,
    InnerLoopRecord,
    Record,
    ShardSummary,
    Stage,
)
from seal.runs.clock import ClockRecord, ShardClock
from seal.runs.epochs import check_epoch
from seal.runs.store import baseline_path, in_thread, shard_path
from seal.runs.task import ShardTask

R = TypeVar("R", bound=Record)
Alone = Literal["policy", "base"]
"""A model without an inner adapter."""
RETAINED_FILES: Mapping[Alone, str] = MappingProxyType(
    {"policy": "retained.json", "base": "retained-base.json"}
)
"""Its answers to the whole retained set; the base's where a warm start makes round 0 another."""


class ShardStore:
    """The files of one shard."""

    def __init__(
        self, store: ArtifactStore, *, run: str, round: int, stage: Stage, shard: int
    ) -> None:
        self._store, self._run, self._round, self._stage = store, run, round, stage
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

    async def run_baselines(self, keys: Iterable[str]) -> dict[str, EvaluationRecord]:
        """Finished baselines of the run, where they are the same in every round, by context key.

        One that an earlier stage measured costs nothing here: it counts where it was measured.
        """
        found = {}
        for key in keys:
            path = baseline_path(self._run, key)
            record = await in_thread(self._store.find_json, path, BaselineRecord)
            if record is not None:
                found[key] = self._own(record)
        return found

    async def commit_run_baseline(self, key: str, evaluation: EvaluationRecord) -> EvaluationRecord:
        """Write a baseline of the run unless it is there; returns the one that counts."""
        own = BaselineRecord(round=self._round, stage=self._stage, evaluation=evaluation)
        path = baseline_path(self._run, key)
        return self._own(await in_thread(self._store.create_json, path, own))

    def _own(self, record: BaselineRecord) -> EvaluationRecord:
        if (record.round, record.stage) == (self._round, self._stage):
            return record.evaluation
        return record.evaluation.model_copy(update={"tokens": 0, "engine_seconds": 0.0})

    async def edits(self) -> dict[str, ContextEditsRecord]:
        """Written edits by context key."""
        return await self.committed("edits", ContextEditsRecord)

    async def inner_loops(self) -> dict[str, InnerLoopRecord]:
        """Finished inner loops by key."""
        return await self.committed("inner", InnerLoopRecord)

    async def retained(self, alone: Alone) -> EvaluationRecord | None:
        """A model alone on the whole retained set."""
        path = f"{self.path}/{RETAINED_FILES[alone]}"
        return await in_thread(self._store.find_json, path, EvaluationRecord)

    async def commit_retained(self, alone: Alone, record: EvaluationRecord) -> EvaluationRecord:
        """Write it unless it is there; returns the one that counts."""
        path = f"{self.path}/{RETAINED_FILES[alone]}"
        return await in_thread(self._store.create_json, path, record)

    async def summary(self) -> ShardSummary | None:
        """The shard's summary, if it is finished."""
        return await in_thread(self._store.find_json, f"{self.path}/summary.json", ShardSummary)

    async def holds(self, adapter: AdapterReference) -> bool:
        """Whether the adapter is in the store."""
        return await in_thread(self._store.exists, f"{adapter.path}/{MANIFEST_FILE}")

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
        return self._parsed(lines), hashlib.sha256(lines).hexdigest()

    async def read_records(self) -> tuple[tuple[ContextRecord, ...], str]:
        """The records and their sha256. Raises Internal for those of another version."""
        lines = await in_thread(self._store.read_bytes, f"{self.path}/records.jsonl")
        return self._parsed(lines), hashlib.sha256(lines).hexdigest()

    def _parsed(self, lines: bytes) -> tuple[ContextRecord, ...]:
        return self._store.parsed_lines(f"{self.path}/records.jsonl", lines, ContextRecord)

    async def clock(self) -> ShardClock:
        """The shard's clock, running."""
        before = await in_thread(self._store.find_json, f"{self.path}/clock.json", ClockRecord)
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
        Superseded: a newer controller has started the stage; nothing has changed.
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
