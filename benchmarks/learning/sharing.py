"""What two runs begin with alike is done once: an arm takes it over from its reward run.

Sound, because nothing of these stages knows which run it belongs to: every sample, shuffle and
initial weight takes a seed of `spec.seed`, never of the run's name; the policy of round 0 is the
base model; which candidates are trained is first asked in round 1's rollout, and what an M-step
learns after it. The arm would compute the same records. It finds the shards finished, as a resumed
run does; what is committed is write-once on both sides, and the summaries, which are copied last,
name the digests of their records. Epochs, which say whose turn it is at a run, are not copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controller_svc.core.plan import shards
from controller_svc.local.lock import run_lock
from seal.artifacts import ArtifactStore
from seal.errors import InvalidInput
from seal.records import PreparedRecord, Stage
from seal.resources import RestEMRun
from seal.runs.store import baseline_path, contexts_path, manifest_path, prepared_path, shard_path
from seal.settings import RunSpec

SUMMARY_FILE = "summary.json"


def borrow(
    store: ArtifactStore,
    *,
    lender: RestEMRun,
    borrower: RestEMRun,
    stages: Sequence[tuple[int, Stage]],
) -> int:
    """Copy what the lender has finished of some first stages to a run that has not begun.

    The number of stages; killed at any moment, it may be called again.

    Raises:
        InvalidInput: the specs differ in what these stages do.
        Conflict: another process is at the borrower.
    """
    _check_alike(lender.spec, borrower.spec, stages)
    with run_lock(store, borrower.name):
        if store.exists(manifest_path(borrower.name)):
            return 0
        taken = 0
        for round, stage in stages:
            folders = [
                (shard_path(lender.name, round, stage, shard), shard)
                for shard in range(shards(lender.spec, stage))
            ]
            if not all(store.exists(f"{folder}/{SUMMARY_FILE}") for folder, _ in folders):
                break
            if stage is Stage.PREPARE:
                _copy_of_run(store, lender.name, borrower.name)
            for folder, shard in folders:
                target = shard_path(borrower.name, round, stage, shard)
                for path in _summary_last(store, folder):
                    store.create_bytes(target + path.removeprefix(folder), store.read_bytes(path))
            taken += 1
        return taken


def _check_alike(lender: RunSpec, borrower: RunSpec, stages: Sequence[tuple[int, Stage]]) -> None:
    later = {"improve": {"selection", "abstain_share"}}
    if Stage.ROLLOUT not in {stage for _, stage in stages}:
        later["inner"] = {"preselect"}
    if lender.model_dump(exclude=later) != borrower.model_dump(exclude=later) or (
        lender.improve.warm_start != "none"
    ):
        raise InvalidInput(
            "a run borrows from one that does the same in the stages that it takes over, without a "
            "warm start",
            field="spec",
        )


def _copy_of_run(store: ArtifactStore, lender: str, borrower: str) -> None:
    """Baselines of the base model, the passages, and what the run is pinned to, which names them.

    A baseline is the same in every round, whichever stage was the first to measure it.
    """
    for path in store.list(baseline_path(lender, "").rpartition("/")[0]):
        store.create_bytes(borrower + path.removeprefix(lender), store.read_bytes(path))
    prepared = store.read_json(prepared_path(lender), PreparedRecord)
    for name, sha256 in prepared.contexts_sha256.items():
        content = store.read_bytes(contexts_path(lender, name, sha256))
        store.create_bytes(contexts_path(borrower, name, sha256), content)
    store.create_json(prepared_path(borrower), prepared)


def _summary_last(store: ArtifactStore, folder: str) -> Iterator[str]:
    """Files of a shard: a summary says that all the rest is there."""
    yield from sorted(store.list(folder), key=lambda path: path.endswith(f"/{SUMMARY_FILE}"))
