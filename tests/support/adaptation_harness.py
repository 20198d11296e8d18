"""What tests of adaptations share: documents in a store, a small spec, its stages one by one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from controller_harness import IMPATIENT, write_passages

from controller_svc.core import shards, stages
from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.progress import TaskProgress
from controller_svc.worker.settings import WorkerSettings
from controller_svc.worker.task import run_task
from seal.adaptations.names import run_of
from seal.artifacts import ArtifactStore
from seal.records import AdaptationResult, Record, ShardSummary, Stage
from seal.runs.shards import ShardStore
from seal.runs.task import ShardTask
from seal.settings import (
    AdaptationData,
    AdaptationSpec,
    AdapterTraining,
    DocumentReference,
    EditSettings,
    EvaluationSettings,
    ExampleSettings,
    FileReference,
    GateSettings,
    InnerLoopSettings,
    LoraSettings,
    OptimizerSettings,
    PassageSettings,
    QuestionSettings,
)

RUN = run_of("default", "notes", "1")
TOWERS = """# The towers

## Old tower

The old tower lies beyond the hills of Marn. It was built of green stone by Odo Pell in 1412. \
The old tower holds nine copper lamps.

## New tower

The new tower was finished in 1877 by Runa Vahl. Its roof is covered with blue slate from Tessel. \
The new tower has a clock that runs backwards.

## Low tower

The low tower never had a door before 1620. Its keeper Ansel Brod kept forty geese there. \
The low tower burned in the winter of 1702.
"""
QUESTIONS = (
    ("Who built the old tower?", "Odo Pell"),
    ("What is the old tower built of?", "green stone"),
    ("How many lamps are in the old tower?", "nine"),
    ("When was the old tower built?", "1412"),
    ("Who finished the new tower?", "Runa Vahl"),
    ("What covers the roof of the new tower?", "blue slate"),
    ("When was the new tower finished?", "1877"),
    ("Where does the slate of the new tower come from?", "Tessel"),
)


def put(store: ArtifactStore, path: str, content: bytes) -> FileReference:
    """A file in the store."""
    store.create_bytes(path, content)
    return FileReference(path=path, sha256=hashlib.sha256(content).hexdigest())


def put_document(store: ArtifactStore, name: str, text: str) -> DocumentReference:
    """A document in the store."""
    content = text.encode()
    file = put(store, f"documents/{hashlib.sha256(content).hexdigest()}", content)
    return DocumentReference(name=name, path=file.path, sha256=file.sha256)


def adaptation_spec(
    directory: Path,
    store: ArtifactStore,
    *,
    given: bool = True,
    text: str = TOWERS,
    **changes: object,
) -> AdaptationSpec:
    """Three short passages, two of them with questions or none; a token is a word."""
    rows = [{"question": question, "answers": [answer]} for question, answer in QUESTIONS]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    questions = put(store, "documents/questions.jsonl", lines) if given else None
    values: dict[str, object] = {
        "data": AdaptationData(
            documents=(put_document(store, "towers.md", text),),
            questions=questions,
            retained=write_passages(
                directory / "retained.jsonl", [f"River {number}" for number in range(3)]
            ),
        ),
        "edit": EditSettings(k=3, family="self-qa-by-sentence", max_tokens=32),
        "passages": PassageSettings(max_tokens=40),
        "questions": QuestionSettings(source="given" if given else "self-made", per_passage=4),
        "inner": InnerLoopSettings(
            student="base",
            repeats=1,
            optimizer=OptimizerSettings(epochs=2),
            examples=ExampleSettings(question_answer="prompted"),
        ),
        "evaluation": EvaluationSettings(question_format="few-shot", grader="f1", max_tokens=20),
        "adapter": AdapterTraining(
            lora=LoraSettings(rank=4), optimizer=OptimizerSettings(epochs=2), replay_rows=2
        ),
        "gate": GateSettings(retained_questions=4, confident=False, min_gain=-1.0),
    }
    return AdaptationSpec.model_validate(values | changes)


@dataclass
class Adapting:
    """An adaptation, its store and its services."""

    spec: AdaptationSpec
    store: ArtifactStore
    clients: ServiceClients
    settings: WorkerSettings = IMPATIENT
    told: list[TaskProgress] = field(default_factory=list)

    async def run(self, stage: Stage, *, shard: int = 0, epoch: int = 1) -> ShardSummary:
        """One task to its end."""
        tell: Callable[[TaskProgress], None] = self.told.append
        return await run_task(
            ShardTask(
                run=RUN,
                stage=stage,
                round=0,
                shard=shard,
                shards=shards(self.spec, stage),
                attempt=1,
                epoch=epoch,
                policy=self.spec.policy,
            ),
            spec=self.spec,
            store=self.store,
            clients=self.clients,
            settings=self.settings,
            tell=tell,
        )

    async def run_all(self) -> AdaptationResult:
        """All stages in order; what came of it."""
        result = None
        for _, stage in stages(self.spec):
            for shard in range(shards(self.spec, stage)):
                result = (await self.run(stage, shard=shard)).result
        if result is None:
            raise AssertionError("the last stage has left no result")
        return result

    def files(self, stage: Stage, *, shard: int = 0) -> ShardStore:
        """The files of a shard."""
        return ShardStore(self.store, run=RUN, round=0, stage=stage, shard=shard)

    async def committed(self, stage: Stage, folder: str, type: type[Record]) -> dict[str, Record]:
        """Records of a folder of the stage's first shard."""
        return await self.files(stage).committed(folder, type)
