"""`python -m controller_svc.worker`: one shard of a stage as a process, an index of a Job's pod.

It does what a task of local mode does, with the same functions. What it is told stands in its flags
or in the environment (`--run` or `SEAL_RUN`, ...); what it came to is in the store, a digest of it
in the termination message, and the exit code says whether another attempt is worth it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import ClassVar

import structlog
from pydantic import Field, ValidationInfo, field_validator

from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.reaching import check_reachable
from controller_svc.worker.settings import ServiceAddresses, WorkerSettings
from controller_svc.worker.task import run_task
from seal.artifacts import ArtifactStore
from seal.errors import Internal, SealError, Transient
from seal.options import ProcessOptions
from seal.records import AdapterReference, ShardSummary, Stage
from seal.rpc.hops import hop_of_environment, within
from seal.rpc.lifecycle import Signals, stop_signals
from seal.runs.manifest import let_in, read_spec
from seal.runs.shares import ShareTeller
from seal.runs.task import ShardTask
from seal.serving import STOPPED_AT_ONCE, leave, run_process
from seal.termination import done_of, failure_of, write_termination

log = structlog.get_logger(__name__)

HOW_IT_ENDS = """
On SIGTERM it cancels the calls under way and ends; what is committed stays, and the next attempt
goes on from there. A second signal ends it at once.

Exit codes: 0 done (or found done), 2 a wrong option, store or run, 42 permanent error, 43 worth a
retry (a signal, a service or a store that is away, a store whose key was changed meanwhile). The
termination message (a line of JSON of at most 4,096 bytes, in /dev/termination-log or the file that
SEAL_TERMINATION_MESSAGE names) says the same with a reason. SEAL_REQUEST_ID, TRACEPARENT and
TRACESTATE are handed on with every call.
"""


class WorkerOptions(WorkerSettings, ServiceAddresses, ProcessOptions):
    """Do one shard of one stage of a run or an adaptation, and end.

    Reads the manifest from the artifact store, calls the three services and commits records and a
    summary to the store. It holds no model.
    """

    model_config = ProcessOptions.model_config

    program: ClassVar[str] = "python -m controller_svc.worker"
    ends: ClassVar[str] = HOW_IT_ENDS
    run: str
    """What the run or the adaptation is called in the store."""
    stage: Stage
    """Stage whose shard it is."""
    round: int = Field(default=0, ge=0)
    """Round of the stage; of an adaptation 0."""
    attempt: int = Field(default=1, ge=1)
    """Attempt of the stage."""
    epoch: int = Field(default=1, ge=1)
    """Turn of the controller that started it; what an older one commits is refused."""
    shards: int = Field(default=1, ge=1)
    """Parts that the stage is cut into."""
    shard: int = Field(default=0, ge=0)
    """Which of them, from 0."""
    policy_path: str = ""
    """Path in the store of the policy adapter that the stage works with; empty for none."""
    policy_sha256: str = ""
    """Digest of that adapter."""

    @field_validator("shard")
    @classmethod
    def _is_one_of_them(cls, shard: int, info: ValidationInfo) -> int:
        shards = info.data.get("shards", shard + 1)  # absent if it is wrong itself
        if shard >= shards:
            raise ValueError(f"there is no shard {shard} of {shards}, counted from 0")
        return shard

    @property
    def task(self) -> ShardTask:
        """What is to be done."""
        policy = AdapterReference(path=self.policy_path, sha256=self.policy_sha256)
        return ShardTask(
            run=self.run,
            stage=self.stage,
            round=self.round,
            shard=self.shard,
            shards=self.shards,
            attempt=self.attempt,
            epoch=self.epoch,
            policy=policy if self.policy_path else None,
        )


async def run_worker(options: WorkerOptions) -> None:
    """Do the shard and leave the termination message.

    Raises:
        Transient: a signal came; what is committed stays.
        Internal: a defect, which is logged.
        SealError: as `run_task`.

    """
    with within(hop_of_environment()):
        try:
            summary = await _work(options)
        except SealError as error:
            write_termination(failure_of(error))
            raise
        except Exception as error:
            # This process's boundary: a defect is an answer like any other
            log.exception("worker crashed", task=options.task.name)
            # Without its text, which may hold data: it ends in the conditions of an object
            internal = Internal(
                f"unexpected {type(error).__name__}", remedy="see the pod's log for the traceback"
            )
            write_termination(failure_of(internal))
            raise internal from error
        said = in_words(options.task, summary)
        write_termination(done_of(summary, name=options.task.name, said=said))
        log.info("shard done", task=options.task.name, said=said)


async def _work(options: WorkerOptions) -> ShardSummary:
    """The shard."""
    store, task = ArtifactStore(options.artifacts), options.task
    async with stop_signals() as signals:
        spec = await read_spec(store, task.run)
        with let_in():
            services, settings = options.part(ServiceAddresses), options.part(WorkerSettings)
            teller = ShareTeller(store, task)
            async with ServiceClients(services, settings) as clients, teller.telling():
                working = asyncio.create_task(
                    run_task(
                        task,
                        spec=spec,
                        store=store,
                        clients=clients,
                        settings=settings,
                        tell=lambda progress: teller.tell(progress.share),
                        ready=partial(
                            check_reachable,
                            services,
                            task.stage,
                            within_seconds=settings.patience_seconds,
                        ),
                    )
                )
                return await _unless_stopped(working, signals)


async def _unless_stopped(working: asyncio.Task[ShardSummary], signals: Signals) -> ShardSummary:
    """The summary; at a signal the work is cancelled and waited for.

    Calls are cancelled at the services, too. A write under way ends in its thread, which the
    process waits for at its end.
    """
    stopped = asyncio.create_task(signals.get())
    await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        stopped.cancel()
        return working.result()
    log.info("stopping", signal=stopped.result().name)
    again = asyncio.create_task(_leave_at_a_second(signals))
    working.cancel()
    try:
        with suppress(asyncio.CancelledError):
            return await working  # it was through already
    finally:
        again.cancel()
    raise Transient(
        f"stopped by {stopped.result().name}",
        remedy="what is committed stays; the next attempt goes on from there",
    )


async def _leave_at_a_second(signals: Signals) -> None:
    """End the process without waiting for anything."""
    await signals.get()
    leave(STOPPED_AT_ONCE)


def in_words(task: ShardTask, summary: ShardSummary) -> str:
    """What a shard came to, in a sentence."""
    where = f"{task.stage} of round {task.round}, shard {task.shard + 1} of {task.shards}"
    resumed = summary.inner_loops_resumed
    loops = summary.inner_loops_run + resumed
    if not loops:
        return f"{where}: done in {summary.seconds:.0f} s"
    outcomes = ", ".join(f"{number} {name}" for name, number in sorted(summary.outcomes.items()))
    found = f", {resumed} of them found done" if resumed else ""
    return f"{where}: {loops} inner loops ({outcomes}){found} in {summary.seconds:.0f} s"


if __name__ == "__main__":
    run_process(WorkerOptions, run_worker)
