"""What is kept of a finished run: its scores passage by passage, its counts, and what it was.

One small file, `CORPUS-ARM-SEED.json`. It holds no path of a machine and no text of a passage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from benchmarks.learning.data import Data, SourceFile
from benchmarks.learning.plan import ARM_NAMES, CORPORA, ArmName, CorpusName, PlannedRun
from benchmarks.learning.settings import Settings, portable, settings_of
from controller_svc.core.plan import spec_digest
from seal.artifacts import ArtifactStore
from seal.domains.base import Context
from seal.domains.graders import grade
from seal.errors import InvalidInput
from seal.files import file_errors, write_atomically
from seal.records import ContextRecord, EditRecord, PreparedRecord, Record
from seal.report.numbers.model import Machine, Metric, metrics_of
from seal.report.numbers.scores import adapted_scores, baseline_scores
from seal.report.numbers.source import RunFiles, Stage, read_run
from seal.resources import RestEMRun
from seal.restem.reward import mean
from seal.runs.store import prepared_path

MEASURES: tuple[Metric, ...] = ("f1", "exact", "contains", "logprob")
DIGITS = 5
"""Decimal places of a score: far below what a passage's few questions can tell apart."""
BASE, EDIT = "base", "edit"

Scores = dict[str, tuple[float | None, ...]]
"""By measure, in the order of the passages; None is missing."""


class EditCounts(Record):
    """The edits of a rollout or a validation."""

    edits: int
    empty: int
    """Edits that parsed to no training example."""
    usable: float | None
    """Training examples of an edit, the passage not counted: mean over edits."""
    cover: float | None
    """Share of a passage's gold answers that stand in an answer of one of the edit's pairs: mean
    over edits. None where no edit holds a pair."""


class Kept(Record):
    """The selection of a round."""

    edits: int
    """Edits of which something was kept."""
    rows: int
    """What the M-step learnt: parts of edits, and those that abstain."""
    abstaining: int
    """Rows that write nothing."""
    dropped: dict[str, int]
    """Parts by reason; whole edits where these are chosen."""


class Summary(Record):
    """One run."""

    corpus: CorpusName
    arm: ArmName
    seed: int
    rounds: int
    contexts: tuple[str, ...]
    """Ids of the validation passages, in the order of their data."""
    queries: tuple[int, ...]
    """Questions of each."""
    rows: dict[str, Scores]
    """By what the model had learnt: `base` nothing, `edit-N` an edit by the policy of round N, else
    the kind of bound. A score is the mean over the passage's questions, then over repeats."""
    edits: dict[str, EditCounts]
    """By stage: `r1-rollout`."""
    selections: dict[int, Kept]
    """By round."""
    gold_rows: int
    """Supervised rows of the warm start; 0 without one."""
    outcomes: dict[str, dict[str, int]]
    """Inner loops by outcome, by stage."""
    seconds: dict[str, float]
    """Wall time by stage; without the stages that were taken over from another run."""
    settings: Settings
    spec_sha256: str
    """Digest of the run's spec, its data named by their digests."""
    model_sha256: str
    """Of the base model's weights."""
    train: SourceFile
    validation: SourceFile
    machine: Machine

    @property
    def key(self) -> str:
        """As in `PlannedRun`."""
        return f"{self.corpus}/{self.arm}/{self.seed}"

    def scores(self, row: str, measure: Metric) -> dict[str, float]:
        """A row's scores by passage; what is missing is absent, and so is a row not measured."""
        values = self.rows.get(row, {}).get(measure, ())
        return {
            context: value
            for context, value in zip(self.contexts, values, strict=bool(values))
            if value is not None
        }


def summarise(store: ArtifactStore, run: PlannedRun, manifest: RestEMRun, data: Data) -> Summary:
    """The summary of a run that is complete."""
    files = read_run(store, manifest.name)
    prepared = store.read_json(prepared_path(manifest.name), PreparedRecord)
    first, warm = files.stage("validate", 0), files.stage("improve", 0)
    records = {record.context_id: record for record in first.records} if first else {}
    contexts = tuple(context_id for context_id in files.contexts if context_id in records)
    return Summary(
        corpus=run.corpus,
        arm=run.arm,
        seed=run.seed,
        rounds=manifest.spec.rounds,
        contexts=contexts,
        queries=tuple(len(files.contexts[context_id].queries) for context_id in contexts),
        rows={
            row: {measure: _column(scores[measure], contexts) for measure in MEASURES}
            for row, scores in _rows(files)
        },
        edits={
            _stage_key(stage): edit_counts(stage.records, files.contexts)
            for stage in files.stages
            if stage.name != "improve"
        },
        selections={
            number: Kept(
                edits=len(selection.kept),
                rows=len(selection.rows),
                abstaining=len(selection.abstaining),
                dropped=dict(selection.dropped_parts or selection.dropped),
            )
            for number, selection in files.selections.items()
        },
        gold_rows=sum(one.kept_parts for one in warm.summaries) if warm else 0,
        outcomes={_stage_key(stage): _outcomes(stage) for stage in files.stages},
        seconds={
            _stage_key(stage): round(max(one.seconds for one in stage.summaries), 1)
            for stage in files.stages
            if all(one.name.startswith(f"{manifest.name}-") for one in stage.summaries)
        },
        settings=settings_of(manifest.spec, data),
        spec_sha256=spec_digest(portable(manifest.spec, data)),
        model_sha256=prepared.model.base_sha256,
        train=data.train.source,
        validation=data.validation.source,
        machine=store.read_json(f"{manifest.name}/machine.json", Machine),
    )


def _rows(files: RunFiles) -> Iterator[tuple[str, Mapping[Metric, Mapping[str, float]]]]:
    """Every kind of model that was asked, in the order in which it was measured."""
    found, metrics = set(), metrics_of(files.spec)
    for stage in files.named("validate"):
        if stage.round == 0 and files.spec.improve.warm_start == "none":
            yield BASE, baseline_scores(stage.records, metrics)
        kinds = {loop.kind: None for record in stage.records for loop in record.inner_loops}
        for kind in kinds:
            row = f"{EDIT}-{stage.round}" if kind == EDIT else kind
            if row not in found:  # a bound of a later round is that of another policy
                found.add(row)
                yield row, adapted_scores(stage.records, kind, metrics)


def _column(scores: Mapping[str, float], contexts: Sequence[str]) -> tuple[float | None, ...]:
    return tuple(
        round(scores[context_id], DIGITS) if context_id in scores else None
        for context_id in contexts
    )


def edit_counts(records: Sequence[ContextRecord], contexts: Mapping[str, Context]) -> EditCounts:
    """Counts over all edits of a stage."""
    edits = [(edit, contexts[record.context_id]) for record in records for edit in record.edits]
    usable = mean(float(len(edit.examples)) for edit, _ in edits)
    pairs = any(example.answer for edit, _ in edits for example in edit.examples)
    cover = mean(_cover(edit, context) for edit, context in edits) if pairs else None
    return EditCounts(
        edits=len(edits),
        empty=sum(not edit.examples for edit, _ in edits),
        usable=None if usable is None else round(usable, DIGITS),
        cover=None if cover is None else round(cover, DIGITS),
    )


def _cover(edit: EditRecord, context: Context) -> float | None:
    """Share of a passage's queries one of whose gold answers stands in an answer of the edit."""
    answers = [example.answer for example in edit.examples if example.answer]
    return mean(
        float(any(grade("contains", answer, query.answers, None) == 1.0 for answer in answers))
        for query in context.queries
    )


def _outcomes(stage: Stage) -> dict[str, int]:
    sums: dict[str, int] = {}
    for summary in stage.summaries:
        for outcome, number in summary.outcomes.items():
            sums[outcome] = sums.get(outcome, 0) + number
    return dict(sorted(sums.items()))


def _stage_key(stage: Stage) -> str:
    return f"r{stage.round}-{stage.name}"


def file_name(summary: Summary) -> str:
    """The summary's file."""
    return f"{summary.corpus}-{summary.arm}-{summary.seed}.json"


def write_summary(directory: Path, summary: Summary) -> Path:
    """Write a summary; its file."""
    file = directory / file_name(summary)
    with file_errors(file):
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(file, _compact(summary).encode())
    return file


def _compact(summary: Summary) -> str:
    """JSON with one line per field and row, so that a diff can be read."""
    lines = []
    for name, value in summary.model_dump(mode="json").items():
        if name == "rows":
            rows = ",\n".join(f"  {json.dumps(row)}: {json.dumps(value[row])}" for row in value)
            lines.append(f' "rows": {{\n{rows}\n }}')
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_summaries(directory: Path) -> tuple[Summary, ...]:
    """All summaries of a directory, by corpus, arm and seed; none if it is not there.

    Raises:
        InvalidInput: a file is no summary, or not the one that its name says.
    """
    summaries = []
    with file_errors(directory):
        files = sorted(directory.glob("*.json")) if directory.is_dir() else []
        texts = [(file, file.read_text(encoding="utf-8")) for file in files]
    for file, text in texts:
        try:
            summary = Summary.model_validate_json(text)
        except ValidationError as error:
            raise _no_summary(file, str(error).splitlines()[0]) from error
        if file_name(summary) != file.name:
            raise _no_summary(file, f"it is that of {summary.key}")
        summaries.append(summary)
    order = [(corpus, arm) for corpus in CORPORA for arm in ARM_NAMES]
    return tuple(sorted(summaries, key=lambda one: (order.index((one.corpus, one.arm)), one.seed)))


def _no_summary(file: Path, why: str) -> InvalidInput:
    return InvalidInput(
        f"{file.name} is no summary of a run under this name: {why}",
        remedy="delete it, so that its run is made again",
    )
