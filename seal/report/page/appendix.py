"""The last parts of the page: what the run cost and keeps, and the settings to repeat it with."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from seal.report.numbers.formats import count, duration, stage_name, storage
from seal.report.numbers.model import Report
from seal.report.page.markup import Child, Html, join, paragraph, table, tag


def cost(report: Report) -> Html | None:
    """Time, tokens and what is kept in the artifact store."""
    if not report.stages:
        return None
    head: list[Child] = [
        "stage",
        report.seconds_are,
        "inner loops run",
        "resumed",
        "tokens: written",
        "trained",
        "answered",
        "engine: write",
        "train",
        "answer",
    ]
    rows: list[list[Child]] = []
    for stage in report.stages:
        tokens, seconds = stage.tokens, stage.engine_seconds
        rows.append(
            [
                stage_name(stage),
                duration(stage.seconds),
                count(stage.inner_loops_run),
                count(stage.inner_loops_resumed),
                count(tokens.get("generate", 0)),
                count(tokens.get("train", 0) + tokens.get("improve", 0)),
                count(tokens.get("evaluate", 0)),
                duration(seconds.get("generate", 0.0)),
                duration(seconds.get("train", 0.0) + seconds.get("improve", 0.0)),
                duration(seconds.get("evaluate", 0.0)),
            ]
        )
    rows.append(_total(report))
    return join(
        paragraph(
            "Resumed inner loops were found finished by an interrupted attempt and not run again. "
            "Trained tokens count every pass over "
            "them. Engine time is the share of the model's working time."
        ),
        table("Cost by stage", head, rows),
        _stored(report),
    )


def _stored(report: Report) -> Html | None:
    """Bytes by round and kind; None where the run's records do not say."""
    rounds = report.kept_bytes
    kinds = sorted({kind for sizes in rounds.values() for kind in sizes})
    if not kinds:
        return None
    rows: list[list[Child]] = [
        [
            f"round {number}",
            *(storage(sizes.get(kind, 0)) for kind in kinds),
            storage(sum(sizes.values())),
        ]
        for number, sizes in sorted(rounds.items())
    ]
    return join(
        tag("h3", "What is kept"),
        paragraph(
            "Bytes that each round left in the artifact store. Records are the edits, answers and "
            "grades that this page is made from, the policy is the adapter that the round trained, "
            "and adapters are those of its inner loops, if the run keeps them."
        ),
        table("Bytes by round", ["", *kinds, "all"], rows),
    )


def _total(report: Report) -> list[Child]:
    stages = report.stages

    def tokens(*kinds: str) -> str:
        return count(sum(stage.tokens.get(kind, 0) for stage in stages for kind in kinds))

    def seconds(*kinds: str) -> str:
        return duration(
            sum(stage.engine_seconds.get(kind, 0.0) for stage in stages for kind in kinds)
        )

    cells = [
        "all",
        duration(report.seconds),
        count(sum(stage.inner_loops_run for stage in stages)),
        count(sum(stage.inner_loops_resumed for stage in stages)),
        tokens("generate"), tokens("train", "improve"), tokens("evaluate"),
        seconds("generate"), seconds("train", "improve"), seconds("evaluate"),
    ]  # fmt: skip
    return [tag("b", cell) for cell in cells]


def settings(report: Report) -> Html:
    """The whole spec, and the versions."""
    machine = report.machine
    versions = [[name, version] for name, version in machine.versions.items()] if machine else []
    rows = [[name, value] for name, value in _leaves(report.spec)]
    return join(
        paragraph("The same settings, data and seeds give the same edits on the same hardware."),
        table(
            "Settings of the run", ["field", "value"], rows, words={0: "", 1: ""}, class_="settings"
        ),
        table("Versions", ["package", "version"], versions, words={0: "", 1: ""})
        if versions
        else None,
    )


def _leaves(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings by dotted name, as manifests write it."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{field.alias or name}.")
        else:
            yield f"{prefix}{field.alias or name}", _written(value)


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "null" if value is None else str(value)
