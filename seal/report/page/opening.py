"""The first screen of the page: what was measured and what came out, in plain words."""

from __future__ import annotations

from datetime import UTC, datetime

from seal.report.numbers.formats import (
    GRADER_WORDS,
    duration,
    listed,
    percent,
    plural,
    points,
    with_interval,
)
from seal.report.numbers.model import Estimate, Machine, Report, ScoreRow
from seal.report.page.markup import Child, Html, bullets, facts, join, paragraph, tag


def opening(report: Report) -> Html:
    """Title, plain words, the finding, the facts, and what to know before believing them."""
    return join(
        tag("h1", f"SEAL run {report.run}: {_model(report)} teaches itself"),
        tag("p", _state(report), class_="soft"),
        tag("p", _what(report), class_="lead"),
        _findings(report),
        facts(_facts(report)),
        _notes(report),
    )


def _model(report: Report) -> str:
    return report.spec.model.rstrip("/").rsplit("/", 1)[-1]


def _state(report: Report) -> str:
    done = (
        f"{report.rounds_done} of {plural(report.spec.rounds, 'round')} done"
        if report.spec.rounds
        else "base model only"
    )
    ended = f", ended {_date(report.finished_seconds)}" if report.finished_seconds else ""
    return f"{report.phase}, {done}{ended}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _what(report: Report) -> str:
    """What was done, for somebody who has not read the paper."""
    passages, questions = (
        plural(report.validation_passages, "passage"),
        plural(report.validation_questions, "question"),
    )
    learning = (
        "Between rounds the model was finetuned on those of its notes on other passages that had "
        "helped most, to write better ones."
        if report.rounds_done
        else ""
    )
    return (
        f"The model read {passages} that it had not been trained on and wrote its own study notes "
        "on each (a self-edit). A small adapter "
        "was trained on the notes together with the passage, and the adapted model then answered "
        f"{questions} on the passages from "
        f"memory, without seeing them. {learning}"
    ).rstrip()


def _findings(report: Report) -> Html:
    """The comparison that the run is about, as sentences with their intervals."""
    base, passage, last = report.row("base"), report.row("passage"), report.last_edit_row
    if base is None:
        return paragraph("No validation is finished yet, so there is no result to tell.")
    scores = [
        f"{percent(row.metrics['contains'].mean)} {words}"
        for row, words in _scored(report, base, passage, last)
        if row
    ]
    sentences = [
        f"Right answers: {listed(scores)}."
        if scores
        else "No answer was graded, so there is no result to tell."
    ]
    if passage is not None:
        sentences.append(
            _difference(
                "Training on the passage alone",
                "not training at all",
                passage.over_base.get("contains"),
            )
        )
    if last is not None:
        name = (
            f"Training on self-edits of round {last.round}"
            if report.spec.rounds
            else "Training on self-edits of the base model"
        )
        sentences.append(
            _difference(name, "training on the passage alone", last.over_passage.get("contains"))
        )
        first = report.row("edit-0")
        if first is not None and first is not last and first.metrics["contains"].mean is not None:
            sentences.append(
                "Self-edits of the base model, before any round, gave "
                f"{percent(first.metrics['contains'].mean)}."
            )
    return bullets(sentence for sentence in sentences if sentence)


def _scored(
    report: Report, base: ScoreRow, passage: ScoreRow | None, last: ScoreRow | None
) -> tuple[tuple[ScoreRow | None, str], ...]:
    rows = (
        (base, "by the base model"),
        (passage, "after training on the passage alone"),
        (last, f"after training on self-edits of round {last.round if last else 0}"),
        (report.row("gold"), "after training on the gold questions and answers, the upper bound"),
    )
    return tuple(
        (row, words) for row, words in rows if row and row.metrics["contains"].mean is not None
    )


def _difference(left: str, right: str, estimate: Estimate | None) -> str:
    """A paired difference and what its interval allows to say."""
    if estimate is None or estimate.mean is None:
        return ""
    amount = f"{points(estimate.mean)} percentage points"
    if estimate.low is None or estimate.high is None:
        return (
            f"{left} against {right}: {amount} on {plural(estimate.n, 'passage')}, "
            "too few for an interval."
        )
    verdict = (
        "better: the interval is clear of zero"
        if estimate.low > 0
        else "worse: the interval is clear of zero"
        if estimate.high < 0
        else "not told apart: the interval holds zero"
    )
    return (
        f"{left} against {right}: {amount}, 95 % interval {points(estimate.low)} "
        f"to {points(estimate.high)} ({verdict})."
    )


def _facts(report: Report) -> list[tuple[str, Child]]:
    spec = report.spec
    return [
        (
            "passages and questions",
            f"{report.validation_passages} and {report.validation_questions}, held out",
        ),
        ("model", spec.model),
        ("right answer", "the gold answer occurs in it as whole words"),
        ("reward", GRADER_WORDS[spec.evaluation.grader]),
        (
            "seed, trainings per edit",
            f"{spec.seed}, {'at most ' if spec.inner.racing else ''}{spec.inner.repeats}",
        ),
        (
            "self-edits",
            f"{spec.edit.family}, {spec.edit.k} a passage in a rollout, temperature "
            f"{spec.edit.temperature:g}",
        ),
        ("intervals", report.interval),
        ("time", f"{duration(report.seconds)} for {plural(len(report.stages), 'stage')}"),
        ("machine", _machine(report.machine)),
    ]


def _machine(machine: Machine | None) -> str:
    if machine is None:
        return "not recorded"
    peak = (
        f", {machine.gemm_teraflops:.2f} TFLOP/s in {machine.dtype}"
        if machine.gemm_teraflops is not None
        else ""
    )
    return (
        f"{machine.processor}, {plural(machine.cores, 'core')}, {machine.memory_gib:.0f} GiB, "
        f"on {machine.device}{peak}"
    )


def _notes(report: Report) -> Html | None:
    if not report.notes:
        return None
    return tag(
        "section", tag("h3", "Know before you read on"), bullets(report.notes), class_="notes"
    )


def change_words(estimate: Estimate | None) -> str:
    """A difference of accuracies with its interval, in percentage points."""
    return with_interval(estimate, "contains", "contains", signed=True)
