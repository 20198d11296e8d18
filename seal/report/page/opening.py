"""The first screen of the page: what came out, as a sentence, a picture and in plain words."""

from __future__ import annotations

from datetime import UTC, datetime

from seal.report.numbers.formats import (
    GRADER_WORDS,
    MEASURE_GLOSSES,
    MEASURE_NAMES,
    duration,
    plural,
)
from seal.report.numbers.model import Machine, Report
from seal.report.numbers.words import worded
from seal.report.page.advice import advice
from seal.report.page.bars import opening_figure
from seal.report.page.markup import Child, Html, bullets, details, facts, join, paragraph, tag
from seal.restem.student import LEAST_FOR_A_VERDICT


def opening(report: Report) -> Html:
    """The result, its picture, how it was measured, what to make of it, and the facts."""
    return join(
        tag("h1", f"SEAL run {report.run}: {_model(report)} teaches itself"),
        tag("p", _state(report), class_="soft"),
        tag("p", report.headline, class_="headline"),
        opening_figure(report),
        paragraph(_what(report)) if report.rows else None,
        paragraph(_learning(report)) if report.rounds_done else None,
        _glossary(report),
        tag("h3", "What came out") if report.findings else None,
        bullets(report.findings) if report.findings else None,
        _notes(report),
        _next(report),
        facts(_facts(report)),
    )


def _model(report: Report) -> str:
    return report.spec.model.rstrip("/").rsplit("/", 1)[-1]


def _state(report: Report) -> str:
    done = (
        f"{report.rounds_done} of {plural(report.spec.rounds, 'round')} done"
        if report.spec.rounds
        else ("no rounds" if report.gold_rows else "base model only")
    )
    ended = f", ended {_date(report.finished_seconds)}" if report.finished_seconds else ""
    remarks = "".join(f"; {remark}" for remark in report.remarks)
    return f"{report.phase}, {done}{ended}{remarks}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _what(report: Report) -> str:
    """What was done, for somebody who has not read the paper."""
    words = report.words
    return (words.story if report.last_edit_row else words.story_without_edits).format(
        contexts=plural(report.validation_passages, words.context),
        questions=plural(report.validation_questions, "question"),
    )


def _learning(report: Report) -> str:
    """What a round is."""
    learner = (
        "starts from it"
        if report.spec.inner.student == "policy"
        else "is the base model in every round"
    )
    improve = report.spec.improve
    chosen = "those" if improve.credit == "edit" else "the parts of them"
    drawn = "them" if improve.credit == "edit" else "their parts"
    kept = (
        f"as many of {drawn} as the reward would have kept were drawn by chance"
        if improve.selection == "random"
        else f"{chosen} that had helped it most were kept"
    )
    warm = (
        f"First the base model learnt to write from {report.gold_rows} gold questions of other "
        "passages: a warm start, which is supervised. "
        if report.gold_rows
        else ""
    )
    said = (
        f"{warm}Then came {plural(report.rounds_done, 'round')}. In each the model wrote "
        f"self-edits on other passages, {kept}, and the model was finetuned on them to write more "
        "of their kind. The model that writes is the policy; the model that learns and answers "
        f"{learner}."
    )
    return worded(said, report.words)


def _glossary(report: Report) -> Html:
    """The words of this page, folded."""
    grader = report.spec.evaluation.grader
    words: tuple[tuple[str, str], ...] = (
        *report.words.glossary,
        (
            "policy",
            "the model that writes the self-edits; in round 0 it is the base model"
            + (", after a warm start on gold questions" if report.gold_rows else ""),
        ),
        ("round", "edits are written, tried and chosen, and the policy learns the chosen ones"),
        *((MEASURE_NAMES[each], MEASURE_GLOSSES[each]) for each in report.measures),
        ("log p", GRADER_WORDS["logprob"] + "; 0 is certainty"),
        ("reward", f"what the run rewards its edits by; here {GRADER_WORDS[grader]}"),
        (
            "95 % interval",
            "how far a mean may be off because only some passages were asked: of 100 intervals "
            "made like this about 95 hold the mean over all such passages; below "
            f"{LEAST_FOR_A_VERDICT} passages they are fewer",
        ),
    )
    meanings = facts((name, worded(meaning, report.words)) for name, meaning in words)
    return details("What the words mean", meanings, class_="words")


def _facts(report: Report) -> list[tuple[str, Child]]:
    spec = report.spec
    return [
        (
            worded("passages and questions", report.words),
            f"{report.validation_passages} and {report.validation_questions}, held out",
        ),
        ("model", spec.model),
        *_writers(report),
        ("reward", GRADER_WORDS[spec.evaluation.grader]),
        ("adapters", _student(spec.inner.student)),
        (
            "seed, trainings per edit",
            f"{spec.seed}, {'at most ' if spec.inner.racing else ''}{spec.inner.repeats}",
        ),
        (
            "self-edits",
            f"{spec.edit.family}, {spec.edit.k} a {report.words.context} in a rollout, temperature "
            f"{spec.edit.temperature:g}",
        ),
        ("intervals", report.interval),
        (
            report.seconds_are,
            f"{duration(report.seconds)} for {plural(len(report.stages), 'stage')}",
        ),
        ("machine", _machine(report.machine)),
    ]


def _writers(report: Report) -> list[tuple[str, Child]]:
    """Who writes the edits, where it is not the model itself."""
    edit = report.spec.edit
    if edit.generator is not None:
        return [("edits by", f"{edit.generator.model} at its endpoint, until a policy is trained")]
    return [("edits by", report.spec.writer)] if report.spec.cross_model else []


def _student(student: str) -> str:
    if student == "base":
        return "trained on the base model; the policy only writes"
    return "trained on the policy that wrote the edits"


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


def _next(report: Report) -> Html | None:
    steps = advice(report)
    return join(tag("h3", "What to do next"), bullets(steps)) if steps else None
