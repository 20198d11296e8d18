"""A run in the artifact store: created, opened, taken up again.

A run exists from the moment its `run.json` is there. Its first stage, `prepare`, pins it: from then
on it belongs to that spec, to the passages that were read and to those base weights. A resume with
another spec is refused, except for what only says how far to go (`rounds` may grow) and for what
decides no number (`MAY_CHANGE`). Until then nothing rests on the spec, and a run that `prepare`
refused may be begun again with a mended one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import structlog

from controller_svc.core import Phase, RunStatus, new_status, reopen
from controller_svc.worker.prepare import check_sizes, load_data
from seal.artifacts import ArtifactStore
from seal.errors import Conflict
from seal.resources import RestEMRun
from seal.runs.store import (
    in_thread,
    manifest_path,
    read_prepared,
    status_path,
)

log = structlog.get_logger(__name__)

MAX_FIELDS_IN_MESSAGE = 3
SAME_SPEC = "resume with the spec it was started with (rounds may grow)"
ROUNDS = "spec.rounds"
MAY_CHANGE = frozenset(
    {
        "spec.maxUnscoredShare",
        "spec.artifacts.keepInnerAdapters",
        "spec.edit.generator.apiKeyFile",
        *(f"spec.tracking.{name}" for name in ("to", "experiment", "adapter")),
    }
)
"""Fields that decide no number of the run."""


async def open_run(store: ArtifactStore, manifest: RestEMRun, *, resume: bool) -> RunStatus:
    """The status that a run goes on from, saved; a run that is not there is created.

    Raises:
        Conflict: the run exists and `resume` is not set, or it is pinned to another spec.

    """
    before = await check_run(store, manifest, resume=resume)
    saved = await read_manifest(store, manifest.name)
    status = before or new_status(manifest.spec, run=manifest.name)
    if saved is not None and saved.spec != manifest.spec:
        # First: a status with rounds that its manifest has not could not be taken up
        await in_thread(store.write_json, manifest_path(manifest.name), manifest)
        log.info("spec changed", run=manifest.name)
    if status != await read_status(store, manifest.name):
        await write_status(store, status)
    if saved is None:
        # Last, as it is what makes the run exist
        await in_thread(store.write_json, manifest_path(manifest.name), manifest)
        log.info("run created", run=manifest.name)
    return status


async def check_run(store: ArtifactStore, manifest: RestEMRun, *, resume: bool) -> RunStatus | None:
    """The status that a run would go on from, None if there is no such run.

    Nothing is written but a probe of the store, which is removed.

    Raises:
        PreconditionFailed: the store cannot keep write-once files.
        SealError: what `find_status` refuses.

    """
    await in_thread(store.check)
    return await find_status(store, manifest, resume=resume)


async def find_status(
    store: ArtifactStore, manifest: RestEMRun, *, resume: bool
) -> RunStatus | None:
    """`check_run` without the probe: nothing is written.

    A status that is `Complete` has nothing left to do.

    Raises:
        Conflict: the run exists and `resume` is not set, or it is pinned to another spec.
        InvalidInput: a data file that is still to be read is refused, or an M-step of the rounds
            that it is given could be more than a trainer takes.
        NotFound: there is no such file.

    """
    run = manifest.name
    saved, status = await read_manifest(store, run), await read_status(store, run)
    prepared = await read_prepared(store, run) if saved is not None else None
    failed = status is not None and status.phase is Phase.FAILED
    if saved is not None and not resume and (prepared is not None or not failed):
        phase = status.phase if status else None
        more = phase is Phase.COMPLETE
        raise Conflict(
            f"run {run!r} exists already{f' ({phase})' if phase else ''}",
            remedy="give it more rounds by --resume, or choose another name"
            if more
            else "go on with it by --resume, or choose another name",
            phase=str(phase or ""),
        )
    if saved is not None and prepared is not None:
        check_same_spec(saved, manifest)
        # A run of no rounds was not asked for the M-step that more rounds have
        check_sizes(manifest.spec, train_contexts=prepared.contexts["train"])
    else:
        await in_thread(load_data, manifest.spec)
    if saved is None:
        return None
    status = status or new_status(manifest.spec, run=run)
    return reopen(manifest.spec, status, now_seconds=time.time())


async def read_manifest(store: ArtifactStore, run: str) -> RestEMRun | None:
    """The manifest that a run was given; None if there is no such run."""
    return await in_thread(store.find_json, manifest_path(run), RestEMRun)


async def read_status(store: ArtifactStore, run: str) -> RunStatus | None:
    """The saved status of a run; None if there is none."""
    return await in_thread(store.find_json, status_path(run), RunStatus)


async def write_status(store: ArtifactStore, status: RunStatus) -> None:
    """Save the status."""
    await in_thread(store.write_json, status_path(status.run), status)


def check_same_spec(saved: RestEMRun, given: RestEMRun) -> None:
    """Raises Conflict naming the first fields in which the specs differ, with both values."""
    before, now = (
        flat_fields(manifest.spec.model_dump(mode="json", by_alias=True), "spec.")
        for manifest in (saved, given)
    )
    fields = [
        name
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and name not in MAY_CHANGE
    ]
    if saved.spec.learns and saved.spec.rounds < given.spec.rounds:
        # Without a warm start they cannot grow from 0: such a run has no training passages
        fields.remove(ROUNDS)
    if not fields:
        return
    shown = ", ".join(
        f"{name}: {before.get(name)!r} -> {now.get(name)!r}"
        for name in fields[:MAX_FIELDS_IN_MESSAGE]
    )
    rest = len(fields) - MAX_FIELDS_IN_MESSAGE
    raise Conflict(
        f"run {saved.name!r} was started with another spec ({shown}"
        f"{f' and {rest} more' if rest > 0 else ''})",
        field=fields[0],
        remedy=f"{SAME_SPEC}, or choose another name",
    )


def flat_fields(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Leaves by dotted name."""
    leaves: dict[str, object] = {}
    for name, value in values.items():
        leaves |= (
            flat_fields(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{name}": value}
        )
    return leaves
