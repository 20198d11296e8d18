"""`python -m trainer_svc.improve`: the M-step of one round as a job with an engine of its own.

What a laptop does through the trainer service a cluster does apart, on a GPU that the services do
not share: a long training keeps no other waiting. It is the same function (`seal.runs.improve`)
over the same trainings: the same request, the same checkpoints, the same adapter.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

import structlog
from pydantic import Field

from seal.loading import Backend
from seal.options import EngineOptions
from seal.records import AdapterReference, ShardSummary, Stage, TrainingRecord
from seal.resources import RestEMRun
from seal.rpc.engine_calls import Pace, sample
from seal.rpc.hops import hop_of_environment
from seal.rpc.lifecycle import Signals
from seal.rpc.tracing import working
from seal.runs.improve import OnResumed, OnStep, check_row_tokens, improve
from seal.runs.manifest import let_in
from seal.runs.shards import ShardStore, finish_shard
from seal.runs.shares import ShareTeller
from seal.runs.store import in_thread, manifest_path, pinned
from seal.runs.task import ShardTask
from seal.serving import STOPPED_AT_ONCE, leave, run_job
from seal.settings import RunSpec
from seal.termination import done_of, write_termination
from seal.v1 import trainer_pb2
from trainer_svc.plan import parse_training, training_rows

if TYPE_CHECKING:
    from seal.engine import Engine
    from trainer_svc.trainings import Trainings

log = structlog.get_logger(__name__)

HOW_IT_ENDS = """
On SIGTERM the training stops after its current step, with a checkpoint from which the next attempt
goes on; a second signal ends the process at once, and so does the first where the run keeps no
checkpoints (improve.checkpointEverySeconds: 0).

Exit codes: 0 done (or found done), 2 a wrong option, model or store, 42 permanent error, 43 worth a
retry (a signal, a store that is away, a broken engine).
"""


class ImproveOptions(EngineOptions):
    """Do the M-step of one round of a run with an engine of its own, and end.

    Reads the run's manifest and the rollout's records from the artifact store, keeps the edits that
    helped (in round 0, the warm start, gold pairs of training passages), trains the policy on them,
    publishes it and writes the stage's summary.
    """

    program: ClassVar[str] = "python -m trainer_svc.improve"
    ends: ClassVar[str] = HOW_IT_ENDS
    writes: ClassVar[bool] = True
    run: str
    """Name of the run."""
    round: int = Field(ge=0)
    """Round whose M-step it is; 0 is the warm start, which learns gold pairs (supervised)."""
    attempt: int = Field(default=1, ge=1)
    """Attempt of the stage."""
    epoch: int = Field(default=1, ge=1)
    """Turn of the controller that started it; what an older one commits is refused."""
    policy_path: str = ""
    """Path of the policy adapter in the store; empty for the base model alone."""
    policy_sha256: str = ""
    """Digest of that adapter."""
    slots: int = Field(default=1, ge=1)
    """Adapters trained at once: there is one."""

    @property
    def task(self) -> ShardTask:
        """What is to be done."""
        policy = AdapterReference(path=self.policy_path, sha256=self.policy_sha256)
        return ShardTask(
            run=self.run,
            stage=Stage.IMPROVE,
            round=self.round,
            shard=0,
            shards=1,
            attempt=self.attempt,
            epoch=self.epoch,
            policy=policy if self.policy_path else None,
        )


async def run_improve(options: ImproveOptions, backend: Backend[Engine], signals: Signals) -> None:
    """Do the M-step, unless it is done.

    Raises:
        Transient: a signal came; a checkpoint is in the store.
        Conflict: a newer controller has started the stage, or the engine takes shorter rows than
            the run was prepared for.
        SealError: as `seal.runs.improve`.

    """
    path = manifest_path(options.task.run)
    manifest = await in_thread(backend.store.read_json, path, RestEMRun)
    with let_in():
        await _improve(options.task, manifest.spec, backend, signals)


async def _improve(
    task: ShardTask, spec: RunSpec, backend: Backend[Engine], signals: Signals
) -> None:
    from trainer_svc.trainings import Trainings  # loads torch: not for --help

    store = backend.store
    prepared = await pinned(store, task.run)
    check_row_tokens(task.run, prepared.policy_model, backend.engine.limits.max_row_tokens)
    trainings = Trainings(engine=backend.engine, store=store, adapters=backend.adapters)
    teller = ShareTeller(store, task)

    async def work(files: ShardStore) -> ShardSummary:
        return await improve(
            task,
            spec=spec,
            store=store,
            trainer=EngineTrainer(trainings, backend),
            clock=await files.clock(),
            on_step=lambda step, total: teller.tell(step / max(total, 1)),
            on_resumed=lambda step: log.info("training of the policy resumed", step=step),
        )

    async def suspend_on_signal() -> None:
        await signals.get()
        if not spec.improve.checkpoint_every_seconds:
            log.info("stopping at once: the run keeps no checkpoints")
            leave(STOPPED_AT_ONCE)
        log.info("stopping after the current step, with a checkpoint")
        trainings.suspend()
        await signals.get()
        leave(STOPPED_AT_ONCE)

    watching = asyncio.create_task(suspend_on_signal())
    try:
        with (
            working(f"{task.stage} shard", hop_of_environment(), **task.facts),
            structlog.contextvars.bound_contextvars(**task.facts),
        ):
            async with teller.telling():
                summary = await finish_shard(task, store, work)
            said = "policy trained" if summary.policy else "policy stays"
            rows = summary.kept_parts
            log.info(said, kept=summary.kept, rows=rows, label=summary.label)
        said = f"improve of round {task.round}: {said}, {rows} rows, in {summary.seconds:.0f} s"
        write_termination(done_of(summary, name=task.name, said=said))
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await trainings.close(grace_seconds=0.0)


class EngineTrainer:
    """Trains on the engine of this process, with what the service does about results."""

    max_request_bytes = sys.maxsize
    """No message carries it."""

    def __init__(self, trainings: Trainings, backend: Backend[Engine]) -> None:
        self._trainings, self._backend = trainings, backend

    async def train(
        self,
        request: trainer_pb2.TrainAdapterRequest,
        on_progress: OnStep,
        on_resumed: OnResumed | None = None,
    ) -> TrainingRecord:
        """As TrainAdapter does."""
        plan = parse_training(request)
        self._backend.adapters.check_base(plan.base)
        training = self._trainings.attach(plan)
        resumed = False
        async for progress in sample(
            training.progress, training.task, pace=Pace(), alive=self._trainings.alive
        ):
            if on_resumed is not None and progress.resumed_step and not resumed:
                resumed = True
                on_resumed(progress.resumed_step)
            on_progress(progress.step, progress.total_steps)
        return await training.result()

    async def count_tokens(self, examples: Sequence[trainer_pb2.TrainingExample]) -> list[int]:
        """As CountTokens does."""
        return await asyncio.to_thread(self._backend.engine.row_tokens, training_rows(examples))


if __name__ == "__main__":
    run_job(ImproveOptions, run_improve)
