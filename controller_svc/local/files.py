"""A local run on disk.

Opening it, pinning its data, resuming it, and the lock that keeps a second process away. A run
exists from the moment its `run.json` is there. It is pinned to that manifest's spec and to the
contexts beside it: a resume with another spec is refused, and a data file that changes in the
meantime changes nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from urllib.parse import unquote, urlsplit

import structlog

from controller_svc.core import Phase, RunStatus, new_status, reopen
from controller_svc.worker.store import in_thread, manifest_path, status_path, write_contexts
from seal.artifacts import ArtifactStore
from seal.datasets import load_contexts
from seal.domains.base import Context
from seal.errors import Conflict
from seal.files import file_errors
from seal.resources import RestEMRun
from seal.restem.leakage import check_ids, check_leakage
from seal.settings import RunSpec

log = structlog.get_logger(__name__)

MAX_FIELDS_IN_MESSAGE = 3


async def open_run(store: ArtifactStore, manifest: RestEMRun, *, resume: bool) -> RunStatus:
    """The status that a run goes on from; a new run is pinned first.

    Raises:
        Conflict: the run exists and `resume` is not set, or it exists with another spec.
        InvalidInput: a data file is refused, or a passage is on two sides.

    """
    run, spec = manifest.name, manifest.spec
    if not await check_existing(store, manifest, resume=resume):
        return await _create(store, manifest)
    status = await read_status(store, run) or new_status(spec, run=run)
    if status.phase is Phase.FAILED:
        log.info("failed run taken up again", run=run)
        return reopen(spec, status)
    return status


async def check_existing(store: ArtifactStore, manifest: RestEMRun, *, resume: bool) -> bool:
    """True if the run exists and may be resumed, False if there is none.

    Raises:
        Conflict: it exists and `resume` is not set, or it exists with another spec.

    """
    saved = await read_manifest(store, manifest.name)
    if saved is None:
        return False
    if not resume:
        status = await read_status(store, manifest.name)
        phase = f" ({status.phase})" if status else ""
        raise Conflict(
            f"run {manifest.name!r} exists already{phase}",
            remedy="go on with it by --resume, or choose another name",
        )
    check_same_spec(saved, manifest)
    return True


async def read_manifest(store: ArtifactStore, run: str) -> RestEMRun | None:
    """The manifest that a run is pinned to; None if there is no such run."""
    if not await in_thread(store.exists, manifest_path(run)):
        return None
    return await in_thread(store.read_json, manifest_path(run), RestEMRun)


async def read_status(store: ArtifactStore, run: str) -> RunStatus | None:
    """The saved status of a run; None if there is none."""
    if not await in_thread(store.exists, status_path(run)):
        return None
    return await in_thread(store.read_json, status_path(run), RunStatus)


async def write_status(store: ArtifactStore, status: RunStatus) -> None:
    """Save the status."""
    await in_thread(store.write_json, status_path(status.run), status)


def check_same_spec(saved: RestEMRun, given: RestEMRun) -> None:
    """Raises Conflict naming the first fields in which the specs differ, with both values."""
    before, now = (
        _flat(manifest.spec.model_dump(mode="json"), "spec.") for manifest in (saved, given)
    )
    fields = [
        name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)
    ]
    if not fields:
        return
    shown = ", ".join(
        f"{name}: {before.get(name)!r} -> {now.get(name)!r}"
        for name in fields[:MAX_FIELDS_IN_MESSAGE]
    )
    more = (
        f" and {len(fields) - MAX_FIELDS_IN_MESSAGE} more"
        if len(fields) > MAX_FIELDS_IN_MESSAGE
        else ""
    )
    raise Conflict(
        f"run {saved.name!r} was started with another spec ({shown}{more})",
        field=fields[0],
        remedy="resume with the spec it was started with, or choose another name",
    )


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Leaves by dotted name."""
    leaves: dict[str, object] = {}
    for name, value in values.items():
        leaves |= (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{name}": value}
        )
    return leaves


async def _create(store: ArtifactStore, manifest: RestEMRun) -> RunStatus:
    """Pin data and spec; the spec last, as it is what makes the run exist."""
    run = manifest.name
    contexts = await in_thread(load_data, manifest.spec)
    for name, members in contexts.items():
        await write_contexts(store, run, name, members)
    status = new_status(manifest.spec, run=run)
    await write_status(store, status)
    await in_thread(store.write_json, manifest_path(run), manifest)
    log.info("run created", run=run, **{name: len(members) for name, members in contexts.items()})
    return status


def load_data(spec: RunSpec) -> dict[str, tuple[Context, ...]]:
    """The contexts of a run by name.

    Raises:
        InvalidInput: a bad row, an empty file, a passage on both the training and the validation
            side, or two passages under one id.
        NotFound: there is no such file.

    """
    data = spec.data
    contexts = {
        "train": load_contexts(data.train) if spec.rounds else (),
        "validation": load_contexts(data.validation, limit=data.validation_contexts),
        "retained": load_contexts(data.retained) if data.retained else (),
    }
    check_leakage(contexts["train"], contexts["validation"])
    check_ids(chain.from_iterable(contexts.values()), where="the data")
    return contexts


@contextmanager
def run_lock(store: ArtifactStore, run: str) -> Iterator[None]:
    """Keep other processes of this machine from the same run.

    The lock ends with the process, however it dies.
    Object stores have no locks: there the caller sees to it.

    Raises:
        Conflict: another process holds it.

    """
    parts = urlsplit(store.root_uri)
    if parts.scheme != "file":
        yield
        return
    lock_file = Path(unquote(parts.path)) / run / ".lock"
    with file_errors(lock_file):
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        handle = lock_file.open("a+")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise Conflict(
                f"run {run!r} is being run by process {holder}", remedy="wait for it, or stop it"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
