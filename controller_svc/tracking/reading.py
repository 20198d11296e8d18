"""What the store holds of a run, as a tracker is to be told it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from controller_svc.runs import flat_fields
from controller_svc.tracking.ledger import Ledger
from controller_svc.tracking.model import Telling, TrackedEnd, TrackedRound, TrackedRun
from controller_svc.tracking.numbers import round_metrics
from seal.artifacts import ArtifactStore
from seal.errors import Internal, NotFound
from seal.records import Stage
from seal.report import Report, render_html
from seal.report.numbers.build import report_of
from seal.report.numbers.source import StatusFile, read_run
from seal.runs.store import shard_path

log = structlog.get_logger(__name__)


@contextmanager
def untold(store: ArtifactStore, telling: Telling, ledger: Ledger) -> Iterator[TrackedRun | None]:
    """What a tracker has not been told yet; None if that is nothing.

    The files that go with it are there as long as the block lasts.

    Raises:
        SealError: the store is away, or a file of the run is damaged.

    """
    rounds = [round for round in finished_rounds(store, telling) if not ledger.has_round(round)]
    ended = telling.status.phase.terminal and not ledger.has_end(_finished_seconds(telling))
    if not rounds and not ended:
        yield None
        return
    report = _report(store, telling)
    with ExitStack() as stack:
        yield TrackedRun(
            uid=ledger.uid(),
            name=telling.name,
            experiment=telling.spec.tracking.experiment,
            started_seconds=telling.status.started_seconds or time.time(),
            parameters=_parameters(telling),
            tags=_tags(store, telling, report),
            rounds=tuple(
                TrackedRound(
                    round=round,
                    time_seconds=time.time() - store.age_seconds(_last_summary(telling, round)),
                    metrics=round_metrics(report, round),
                )
                for round in rounds
            ),
            end=_end(store, telling, report, stack) if ended else None,
        )


def finished_rounds(store: ArtifactStore, telling: Telling) -> Iterator[int]:
    """Rounds whose validation is over, in order."""
    for round in range(telling.spec.rounds + 1):
        shards = reversed(range(telling.spec.shards))  # the last one is missing the longest
        if not all(store.exists(_summary(telling, round, shard)) for shard in shards):
            return
        yield round


def _summary(telling: Telling, round: int, shard: int) -> str:
    return f"{shard_path(telling.run, round, Stage.VALIDATE, shard)}/summary.json"


def _last_summary(telling: Telling, round: int) -> str:
    return _summary(telling, round, telling.spec.shards - 1)


def _finished_seconds(telling: Telling) -> float:
    return telling.status.finished_seconds or 0.0


def _report(store: ArtifactStore, telling: Telling) -> Report:
    """As the status is now; on a cluster the store has none."""
    files = read_run(store, telling.run)
    status = StatusFile.model_validate_json(telling.status.model_dump_json())
    return report_of(replace(files, name=telling.name, status=status))


def _parameters(telling: Telling) -> dict[str, str]:
    """The algorithm; where it is tracked the tracker knows."""
    spec = telling.spec.model_dump(mode="json", by_alias=True, exclude={"tracking"})
    return {name: str(value) for name, value in flat_fields(spec).items()}


def _tags(store: ArtifactStore, telling: Telling, report: Report) -> dict[str, str]:
    """What runs are looked for by, and what must be said wherever one is shown."""
    tags = {
        "seal.run": telling.run,
        "seal.store": store.uri(telling.run),
        "seal.version": report.machine.versions.get("seal", "") if report.machine else "",
        "seal.model": telling.spec.model,
        "seal.profile": telling.spec.profile,
        "seal.interval": report.interval,
        "seal.remark": "; ".join(report.remarks),
    }
    return {name: value for name, value in tags.items() if value}


def _end(store: ArtifactStore, telling: Telling, report: Report, stack: ExitStack) -> TrackedEnd:
    directory = Path(stack.enter_context(TemporaryDirectory(prefix="seal-tracking-")))
    (directory / "report.json").write_text(report.model_dump_json(indent=2), encoding="utf-8")
    (directory / "report.html").write_text(render_html(report), encoding="utf-8")
    policy = _policy(store, telling, stack)
    return TrackedEnd(
        phase=telling.status.phase,
        time_seconds=_finished_seconds(telling),
        summary=report.failure or report.headline,
        directories={"report": directory} | ({"policy": policy} if policy is not None else {}),
    )


def _policy(store: ArtifactStore, telling: Telling, stack: ExitStack) -> Path | None:
    """The newest policy's adapter; one that has gone keeps nobody from the rest."""
    status = telling.status
    adapter = status.policies[-1].adapter if status.policies else None
    if adapter is None or not telling.spec.tracking.adapter:
        return None
    try:
        return stack.enter_context(store.fetch_directory(adapter))
    except (NotFound, Internal) as error:
        log.warning("policy not tracked", run=telling.run, cause=str(error))
        return None
