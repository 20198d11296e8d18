"""What a run left in the artifact store, read once and checked, for the report to be computed from.

    {run}/run.json, status.json, machine.json, prepared.json
    {run}/contexts/{train,validation,retained}-{sha256}.jsonl, as prepared.json names them
    {run}/stages/r{round}-{stage}/shard-{0000}/{records.jsonl, retained.json, summary.json}
    {run}/stages/r{round}-improve/selection.json

Only shards that have a summary count: it is written last and names the digest of its records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from seal.artifacts import ArtifactStore
from seal.domains.base import Context
from seal.errors import Internal, NotFound
from seal.records import (
    ContextRecord,
    EvaluationRecord,
    PreparedRecord,
    SelectionRecord,
    ShardSummary,
)
from seal.report.numbers.model import UNKNOWN_PHASE, Machine
from seal.resources import RestEMRun
from seal.runs.store import contexts_path, prepared_path
from seal.settings import RunSpec

PROGRAM = "seal"
"""Name of this program among the versions of a machine."""
StageName = Literal["rollout", "improve", "validate"]

_CONTEXTS = TypeAdapter(Context)


class _Lenient(BaseModel):
    """A part of a file that others own: what is not needed here is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Condition(_Lenient):
    type: str
    status: str
    reason: str = ""
    message: str = ""


class StatusFile(_Lenient):
    """What the report needs of `status.json`."""

    phase: str = UNKNOWN_PHASE
    conditions: tuple[_Condition, ...] = ()
    started_seconds: float | None = None
    finished_seconds: float | None = None

    @property
    def failure(self) -> str:
        """Reason and message of the condition Failed; empty unless it is true."""
        failed = next(
            (
                condition
                for condition in self.conditions
                if condition.type == "Failed" and condition.status == "True"
            ),
            None,
        )
        return f"{failed.reason}: {failed.message}" if failed else ""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The finished shards of one stage."""

    name: StageName
    round: int
    shards: int
    """Shards that the stage has in all."""
    summaries: tuple[ShardSummary, ...]
    records: tuple[ContextRecord, ...]
    """Of all finished shards, ordered by context."""
    retained: EvaluationRecord | None
    """The policy alone on the retained set."""
    retained_base: EvaluationRecord | None = None
    """The base model alone, where the policy of round 0 is another (a warm start)."""

    @property
    def complete(self) -> bool:
        """True if no shard is missing."""
        return len(self.summaries) == self.shards

    @property
    def policy_round(self) -> int:
        """Round of the policy that the stage worked with."""
        return self.round if self.name == "validate" else self.round - 1


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """A run as it lies in the store."""

    name: str
    spec: RunSpec
    status: StatusFile
    machine: Machine | None
    contexts: dict[str, Context]
    """All pinned contexts by id."""
    stages: tuple[Stage, ...]
    """Stages with at least one finished shard, in the order in which they run."""
    selections: dict[int, SelectionRecord]
    """By round."""

    def stage(self, name: StageName, round: int) -> Stage | None:
        """One stage, if any of it is finished."""
        return next(
            (stage for stage in self.stages if (stage.name, stage.round) == (name, round)), None
        )

    def label(self, round: int) -> str:
        """What must be said wherever a round is shown; empty for most."""
        improve = self.stage("improve", round)
        return improve.summaries[0].label if improve else ""

    @property
    def gold_rows(self) -> int:
        """Gold pairs that a warm start has learnt; 0 without one."""
        warm = self.stage("improve", 0)
        return warm.summaries[0].kept_parts if warm and self.label(0) else 0

    def named(self, name: StageName) -> Iterator[Stage]:
        """Stages of one kind by round."""
        return (stage for stage in self.stages if stage.name == name)


def read_run(store: ArtifactStore, run: str) -> RunFiles:
    """Read a run.

    Raises:
        NotFound: there is no such run.
        Internal: a file is not what its summary or type says, naming it.
    """
    if (manifest := store.find_json(f"{run}/run.json", RestEMRun)) is None:
        raise NotFound(
            f"there is no run in {store.uri(run)}",
            remedy="give the directory that holds the run's run.json",
        )
    spec = manifest.spec
    order: list[tuple[StageName, int]] = [("validate", 0)]
    if spec.improve.warm_start == "gold":
        order.insert(0, ("improve", 0))
    for round in range(1, spec.rounds + 1):
        order += [("rollout", round), ("improve", round), ("validate", round)]
    machine = store.find_json(f"{run}/machine.json", Machine)
    found = (_read_stage(store, spec, run, name, round, machine) for name, round in order)
    selections = (
        store.find_json(f"{run}/stages/r{round}-improve/selection.json", SelectionRecord)
        for round in range(1, spec.rounds + 1)
    )
    return RunFiles(
        name=run,
        spec=spec,
        status=store.find_json(f"{run}/status.json", StatusFile) or StatusFile(),
        machine=machine,
        contexts=dict(_read_contexts(store, run)),
        stages=tuple(stage for stage in found if stage.summaries),
        selections={decided.round: decided for decided in selections if decided},
    )


def _read_contexts(store: ArtifactStore, run: str) -> Iterator[tuple[str, Context]]:
    if (prepared := store.find_json(prepared_path(run), PreparedRecord)) is None:
        return
    for name, sha256 in sorted(prepared.contexts_sha256.items()):
        for line in store.read_bytes(contexts_path(run, name, sha256)).splitlines():
            context = _CONTEXTS.validate_json(line)
            yield context.context_id, context


def _read_stage(
    store: ArtifactStore,
    spec: RunSpec,
    run: str,
    name: StageName,
    round: int,
    machine: Machine | None,
) -> Stage:
    shards = 1 if name == "improve" else spec.shards
    summaries, retained, of_base = [], [], []
    records: list[ContextRecord] = []
    for shard in range(shards):
        path = f"{run}/stages/r{round}-{name}/shard-{shard:04d}"
        if (summary := store.find_json(f"{path}/summary.json", ShardSummary)) is None:
            continue
        summaries.append(summary)
        if name != "improve":
            records += _read_records(store, f"{path}/records.jsonl", summary, machine)
        retained.append(store.find_json(f"{path}/retained.json", EvaluationRecord))
        of_base.append(store.find_json(f"{path}/retained-base.json", EvaluationRecord))
    return Stage(
        name=name,
        round=round,
        shards=shards,
        summaries=tuple(summaries),
        records=tuple(sorted(records, key=lambda record: record.context_id)),
        retained=next(filter(None, retained), None),
        retained_base=next(filter(None, of_base), None),
    )


def _read_records(
    store: ArtifactStore, path: str, summary: ShardSummary, machine: Machine | None
) -> tuple[ContextRecord, ...]:
    content = store.read_bytes(path)
    if hashlib.sha256(content).hexdigest() != summary.result_sha256:
        raise Internal(
            f"{store.uri(path)} is not the file of its summary",
            remedy="delete its shard's directory and resume the run",
        )
    by = f"{PROGRAM} {machine.versions[PROGRAM]}" if machine and PROGRAM in machine.versions else ""
    return store.parsed_lines(path, content, ContextRecord, written_by=by)
