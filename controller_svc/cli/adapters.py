"""Which adapter was trained on which passage, as the records of a run have it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rich.console import Console
from rich.text import Text

from seal.artifacts import ArtifactStore
from seal.records import AdapterReference, ContextRecord
from seal.report.numbers.source import Stage, read_run
from seal.telemetry import harmless


@dataclass(frozen=True, kw_only=True)
class AdapterLine:
    """Which adapter was trained on which passage."""

    stage: str
    round: int
    label: str
    """What must be said wherever the round is shown; empty for most."""
    context_id: str
    title: str
    kind: str
    """What it was trained on: `InnerLoopKind`."""
    candidate: int
    repeat: int
    outcome: str
    sha256: str
    path: str
    """Store-relative; empty if nothing was trained."""
    deleted: bool
    """Cleaned up once its stage had ended (`spec.artifacts.keepInnerAdapters` keeps it)."""


def adapters_of(store: ArtifactStore, run: str) -> Iterator[AdapterLine]:
    """Adapters of finished shards by passage, as the run's records have them."""
    there: dict[str, bool] = {}
    stages = read_run(store, run).stages
    labels = {each.round: each.summaries[0].label for each in stages if each.name == "improve"}
    for stage in stages:
        for record in stage.records:
            for line in _adapters_of_context(stage, labels.get(stage.round, ""), record):
                if line.path and line.path not in there:
                    there[line.path] = bool(store.list(line.path))
                yield replace(line, deleted=bool(line.path) and not there[line.path])


def _adapters_of_context(stage: Stage, label: str, record: ContextRecord) -> Iterator[AdapterLine]:
    for loop in record.inner_loops:
        if loop.kind == "open-book":
            continue  # nothing is trained
        adapter: AdapterReference | None = loop.training.adapter if loop.training else None
        yield AdapterLine(
            stage=stage.name,
            round=stage.round,
            label=label,
            context_id=record.context_id,
            title=record.title,
            kind=loop.kind,
            candidate=loop.candidate,
            repeat=loop.repeat,
            outcome=str(loop.outcome),
            sha256=adapter.sha256 if adapter else "",
            path=adapter.path if adapter else "",
            deleted=False,
        )


def print_adapters(console: Console, found: list[AdapterLine]) -> None:
    """Adapters by stage and passage, for people."""
    if not found:
        console.print("No stage has finished yet, so no adapter is known.")
    stage = title = ""
    for line in found:
        label = f" ({line.label})" if line.label else ""
        if (heading := f"round {line.round}{label}, {line.stage}") != stage:
            stage, title = heading, ""
            console.print(Text(f"\n{stage}", style="bold"))
        if line.title != title:
            title = line.title
            console.print(f"  {harmless(title)}", markup=False)
        what = line.kind if line.kind != "edit" else f"edit {line.candidate + 1}"
        if line.repeat:
            what += f", repeat {line.repeat + 1}"
        where = f"{line.path} (deleted)" if line.deleted else line.path or line.outcome
        console.print(f"    {what:<19} {where}", markup=False)
