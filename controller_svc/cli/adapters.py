"""Which adapter was trained on which passage, as the records of a run have it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from seal.artifacts import ArtifactStore
from seal.records import AdapterReference, ContextRecord
from seal.report.numbers.source import read_run


@dataclass(frozen=True, kw_only=True)
class AdapterLine:
    """Which adapter was trained on which passage."""

    stage: str
    round: int
    context_id: str
    title: str
    kind: str
    """edit, passage or gold."""
    candidate: int
    repeat: int
    outcome: str
    sha256: str
    path: str


def adapters_of(store: ArtifactStore, run: str) -> Iterator[AdapterLine]:
    """Adapters of finished shards by passage, as the run's records have them."""
    for stage in read_run(store, run).stages:
        for record in stage.records:
            yield from _adapters_of_context(str(stage.name), stage.round, record)


def _adapters_of_context(stage: str, round: int, record: ContextRecord) -> Iterator[AdapterLine]:
    for loop in record.inner_loops:
        adapter: AdapterReference | None = loop.training.adapter if loop.training else None
        yield AdapterLine(
            stage=stage,
            round=round,
            context_id=record.context_id,
            title=record.title,
            kind=loop.kind,
            candidate=loop.candidate,
            repeat=loop.repeat,
            outcome=str(loop.outcome),
            sha256=adapter.sha256 if adapter else "",
            path=adapter.path if adapter else "",
        )


def print_adapters(console: Console, found: list[AdapterLine]) -> None:
    """Adapters by stage and passage, for people."""
    if not found:
        console.print("No stage has finished yet, so no adapter is known.")
    stage = title = ""
    for line in found:
        if (heading := f"round {line.round}, {line.stage}") != stage:
            stage, title = heading, ""
            console.print(Text(f"\n{stage}", style="bold"))
        if line.title != title:
            title = line.title
            console.print(f"  {title}", markup=False)
        what = line.kind if line.kind != "edit" else f"edit {line.candidate + 1}"
        if line.repeat:
            what += f", repeat {line.repeat + 1}"
        console.print(f"    {what:<18} {line.path or line.outcome}", markup=False)
