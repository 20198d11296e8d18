"""`report.json` from what a run left behind, finished or not.

Pure but for the reading: the same files give the same report.
"""

from __future__ import annotations

from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.records import CONTROL_WITHOUT_REWARD
from seal.report.numbers.comparisons import compared_passage
from seal.report.numbers.details import rollout_details, validation_details
from seal.report.numbers.estimates import Estimator
from seal.report.numbers.findings import findings, headline
from seal.report.numbers.formats import counts, plural
from seal.report.numbers.model import (
    UNKNOWN_PHASE,
    Report,
    RolloutReport,
    ScoreRow,
    measure_names,
    measures_of,
    shares_of,
)
from seal.report.numbers.rounds import rollout_report, stage_report
from seal.report.numbers.rows import retained_rows, score_rows
from seal.report.numbers.shapes import edit_shape
from seal.report.numbers.source import RunFiles, read_run
from seal.report.numbers.words import worded

FEW_PASSAGES = 8
"""Below so many passages, resampling them says too little about others."""
MAX_PASSAGES_IN_DETAIL = 60
"""Passages per stage whose edits and answers are in the report; the rest is in the run's
`records.jsonl`."""


def build_report(
    store: ArtifactStore, run: str, *, max_passages: int = MAX_PASSAGES_IN_DETAIL
) -> Report:
    """The report of the run in `{store}/{run}`.

    Raises:
        NotFound: there is no such run.
        Internal: a file of the run is damaged, naming it.
    """
    return report_of(read_run(store, run), max_passages=max_passages)


def report_of(files: RunFiles, *, max_passages: int = MAX_PASSAGES_IN_DETAIL) -> Report:
    """The report of a run that was read."""
    domain = get_domain(files.spec.domain)
    estimator = Estimator(
        seed=files.spec.seed,
        context=domain.words.context,
        success=next((one.label for one in domain.measures if one.is_success), ""),
        shares=shares_of(files.spec),
    )
    rows = score_rows(files, estimator)
    rollouts = tuple(rollout_report(files, stage, estimator) for stage in files.named("rollout"))
    first = files.stage("validate", 0)
    return Report(
        run=files.name,
        phase=files.status.phase,
        failure=files.status.failure,
        rounds_done=max(
            (stage.round for stage in files.named("validate") if stage.complete), default=0
        ),
        started_seconds=files.status.started_seconds,
        finished_seconds=files.status.finished_seconds,
        spec=files.spec,
        machine=files.machine,
        interval=estimator.words,
        headline=worded(headline(rows, rollouts, measures_of(files.spec)), domain.words),
        findings=tuple(
            worded(each, domain.words) for each in findings(rows, measures_of(files.spec))
        ),
        validation_passages=len(first.records) if first else 0,
        validation_questions=sum(len(record.baseline.answers) for record in first.records)
        if first
        else 0,
        rows=rows,
        best_passage=best.key if (best := compared_passage(rows)) else "",
        retained=retained_rows(files, estimator),
        rollouts=rollouts,
        gold_rows=files.gold_rows,
        shapes=tuple(shape for stage in files.stages if (shape := edit_shape(stage, domain))),
        stages=tuple(
            stage_report(stage, keeps_inner_adapters=files.spec.artifacts.keep_inner_adapters)
            for stage in files.stages
        ),
        notes=tuple(worded(each, domain.words) for each in _notes(files, rows, rollouts)),
        validation_details=validation_details(files, limit=max_passages),
        rollout_details=tuple(
            rollout_details(files, stage, limit=max_passages) for stage in files.named("rollout")
        ),
    )


def _notes(
    files: RunFiles, rows: tuple[ScoreRow, ...], rollouts: tuple[RolloutReport, ...]
) -> tuple[str, ...]:
    """What a reader has to know before believing the numbers."""
    notes = []
    if files.status.failure:
        notes.append(f"The run failed: {files.status.failure}")
    elif files.status.phase == UNKNOWN_PHASE:
        notes.append(
            "How the run ended is not known here: its status does not lie beside its records. On a "
            "cluster its object has it."
        )
    elif files.status.phase != "Complete":
        notes.append(
            f"The run is not finished (phase {files.status.phase}): the report shows the finished "
            "parts of it."
        )
    notes += [
        f"Stage {stage.name} of round {stage.round} is incomplete: {len(stage.summaries)} of "
        f"{stage.shards} shards."
        for stage in files.stages
        if not stage.complete
    ]
    first = measure_names(files.spec)[0]
    fewest = min(
        (row.metrics[first].n for row in rows if row.metrics[first].n),
        default=FEW_PASSAGES,
    )
    if fewest < FEW_PASSAGES:
        notes.append(
            f"Some means are over {plural(fewest, 'passage')} only: an interval over so few is "
            "narrower than the truth."
        )
    notes += [note for row in rows for note in _row_notes(row)]
    for rollout in rollouts:
        if rollout.label.startswith(CONTROL_WITHOUT_REWARD):
            notes.append(
                f"Round {rollout.round} is a {rollout.label}: chance drew as many "
                f"{files.spec.improve.credit}s as the reward would have kept. In round 1 a run of "
                "the same seed whose reward chose has learnt from the same edits; later rounds "
                "differ in more than the reward."
            )
        if rollout.selection_sha256 and not rollout.kept:
            notes.append(
                f"Round {rollout.round} kept no edit: its policy is that of round "
                f"{rollout.policy_round}."
            )
        elif rollout.trained is False:
            notes.append(
                f"The training of round {rollout.round} made no policy: that of round "
                f"{rollout.policy_round} stays."
            )
    return tuple(notes)


def _row_notes(row: ScoreRow) -> list[str]:
    """What has no score in a row, if anything, in one sentence."""
    failed = {outcome: n for outcome, n in row.outcomes.items() if outcome != "ok"}
    parts = (
        [f"{counts(failed)} of {plural(sum(row.outcomes.values()), 'inner loop')}"]
        if failed
        else []
    )
    if row.answers_ungraded:
        parts.append(f"{row.answers_ungraded} of {plural(row.answers, 'answer')} ungraded")
    if not parts:
        return []
    without = (
        f"; {plural(row.passages_missing, 'passage has', 'passages have')} no score at all"
        if row.passages_missing
        else ""
    )
    return [f"{row.label.capitalize()}: {', '.join(parts)}, left out of every mean{without}."]
