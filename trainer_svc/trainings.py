"""The trainings that this service has accepted, from request to stored result.

A training belongs to the service, not to a call, whoever is still listening. It ends in one of
three ways:

- its result is stored (`{run}/trainings/...json`): from then on every retry of the same request
  gets this result, also after a restart and from every trainer on this store. A training whose own
  content is at fault (a row too long, for example) ends so too: its outcome says it, and nobody
  else pays;
- trained, but the adapter could not be stored (disk full): the weights stay in memory and the next
  retry only stores them;
- failed before that: it is forgotten, the callers get the error, and a retry starts anew, with the
  same seeds and so the same weights, or goes on from the last checkpoint if the request asked for
  checkpoints.

Several trainers on one store agree by claims (`claims.py`) on who does it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from seal.engine import Adapter, Suspended, TrainingRequest, TrainingResult, save_adapter
from seal.errors import NotFound, Transient, UnfitItem
from seal.metrics import metrics
from seal.outcomes import Outcome
from seal.records import TrainingRecord
from seal.rpc.engine_calls import engine_call, shows_life
from seal.rpc.line import EngineTask, Line
from trainer_svc.checkpoints import checkpoints_of
from trainer_svc.claims import Claim, Claims
from trainer_svc.plan import TrainingPlan
from trainer_svc.results import Results, StoredTraining
from trainer_svc.training import Training, check_same_body, progress_message
from trainer_svc.unwanted import LOOK_SECONDS, Unwanted

if TYPE_CHECKING:
    from seal.adapters import AdapterCache
    from seal.artifacts import ArtifactStore
    from seal.engine import Engine

log = structlog.get_logger(__name__)

CANCEL_WAIT_SECONDS = 5.0
"""How long a cancel waits for the engine to let go before it answers with the state as it is."""
CANCEL_LOOK_SECONDS = 0.2
"""Time between two looks for the result of a training that another trainer cancels."""
FINAL_CHECKPOINT_SECONDS = 60.0
"""How long an ending process waits for suspended trainings to finish their step and for their
checkpoints to be written."""

Key = tuple[str, str]
"""(run, request_id)."""


class Trainings:
    """All trainings of one service; belongs to one event loop."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: ArtifactStore,
        adapters: AdapterCache,
        save_adapter: Callable[[Adapter, Path], None] = save_adapter,
        claims: Claims | None = None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """`claims`: where several trainers work on one store; None for one that is alone there.

        `look_seconds`: between two looks for runs that were cancelled.
        """
        self.engine = engine
        self.store, self._adapters = store, adapters
        self._results, self._claims = Results(store, save_adapter), claims
        self._live: dict[Key, Training] = {}
        self._unwanted = Unwanted(store, self._live, look_seconds=look_seconds)
        self._line = Line("train")
        self._closing = self._suspending = False

    def attach(self, plan: TrainingPlan, *, time_left: float | None = None) -> Training:
        """The live training of this request, or a new one.

        `time_left`: seconds that this caller can wait for a place in the engine's queue; None: as
        long as it takes. Raises Conflict if the request_id belongs to another body.
        """
        key = (plan.run, plan.request_id)
        if (training := self._live.get(key)) is not None:
            check_same_body(plan, training.plan.body_sha256)
            training.wait_until(time_left)
            return training
        if self._closing or (self._suspending and plan.checkpoint_every_seconds):
            raise Transient("the trainer is shutting down", remedy="send the same request again")
        training = self._live[key] = Training(plan)
        training.wait_until(time_left)
        training.task = asyncio.create_task(self._run(training), name=f"training {plan.request_id}")
        training.task.add_done_callback(lambda task: self._ended(key, task))
        self._unwanted.look()
        return training

    async def find(self, *, run: str, request_id: str) -> Training | StoredTraining | Claim:
        """A training that is live here, has ended, or is live elsewhere. Raises NotFound."""
        if (training := self._live.get((run, request_id))) is not None:
            return training
        stored = await asyncio.to_thread(self._results.find, run, request_id)
        if stored is not None:
            return stored
        if self._claims is not None:
            claim = await asyncio.to_thread(self._claims.find, run, request_id)
            if claim is not None:
                return claim
        raise NotFound(
            f"run {run!r} has no training {request_id!r}",
            field="request_id",
            remedy="send TrainAdapter; a failed training is forgotten",
        )

    async def cancel(self, *, run: str, request_id: str) -> bool:
        """Stop one training and wait shortly for its end; True if it has ended. Raises NotFound."""
        found = await self.find(run=run, request_id=request_id)
        if isinstance(found, StoredTraining):
            return True
        if isinstance(found, Training) and not found.following:
            found.stop()
            deadline = time.monotonic() + CANCEL_WAIT_SECONDS
            while not found.following:  # it may yet learn that another trainer does it
                await asyncio.wait({found.task}, timeout=CANCEL_LOOK_SECONDS)
                if found.task.done() or time.monotonic() > deadline:
                    return found.task.done()
        return await self._cancel_elsewhere(run, request_id)

    async def _cancel_elsewhere(self, run: str, request_id: str) -> bool:
        """Ask the trainer that does it, and look for its result for a while."""
        if self._claims is None:
            return False
        await asyncio.to_thread(self._claims.ask_to_cancel, run, request_id)
        deadline = time.monotonic() + CANCEL_WAIT_SECONDS
        while await asyncio.to_thread(self._results.find, run, request_id) is None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(CANCEL_LOOK_SECONDS)
        await asyncio.to_thread(self._claims.withdraw_cancel, run, request_id)
        return True

    def alive(self) -> bool:
        """Whether the engine gives signs of life."""
        return shows_life(self.engine)

    def suspend(self) -> None:
        """Stop the trainings that keep checkpoints after their current step, with a last one.

        `close` waits for it. The others go on.
        """
        self._suspending = True
        for training in self._live.values():
            if training.checkpoints is not None:
                training.checkpoints.suspend()

    async def close(self, *, grace_seconds: float) -> None:
        """Accept nothing new and end what runs within the grace.

        What keeps checkpoints is suspended, the others may end, what is left then is dropped. A
        retry goes on from the checkpoints and trains the others again.
        """
        self._closing = True
        self._unwanted.close()
        self.suspend()
        suspended = {
            training.task
            for training in self._live.values()
            if training.plan.checkpoint_every_seconds and not training.following
        }
        followers = {training.task for training in self._live.values() if training.following}
        others = {training.task for training in self._live.values()} - suspended - followers
        await asyncio.gather(
            _end_within(followers, 0.0),
            _end_within(others, grace_seconds),
            _end_within(suspended, max(grace_seconds, FINAL_CHECKPOINT_SECONDS)),
        )

    async def _run(self, training: Training) -> TrainingRecord:
        """An earlier result, this trainer's own, or that of the trainer which does it."""
        plan, number = training.plan, 1
        while (earlier := await asyncio.to_thread(self._results.earlier, plan)) is None:
            if self._claims is None:
                return await self._train_and_keep(training)
            if not await self._claims.take(training, number):
                number = await self._claims.follow(training, number)
                continue
            async with self._claims.held(training, number):
                # Its owner may have ended between the look and the claim
                earlier = await asyncio.to_thread(self._results.earlier, plan)
                return earlier or await self._train_and_keep(training)
        return earlier

    async def _train_and_keep(self, training: Training) -> TrainingRecord:
        plan = training.plan
        trained = self._results.unstored(plan) or await self._train_or_outcome(training)
        record = await asyncio.to_thread(self._results.keep, plan, trained)
        metrics.trainings.labels(outcome=record.outcome.value).inc()
        log.info(
            "training ended",
            run=plan.run,
            request_id=plan.request_id,
            outcome=record.outcome.value,
            steps=record.steps,
            resumed_step=training.progress.value.resumed_step,
            final_loss=round(record.final_loss, 4),
            seconds=round(record.seconds, 3),
        )
        return record

    async def _train_or_outcome(self, training: Training) -> TrainingResult:
        """A training whose own content is at fault has an outcome, which is final as any other."""
        try:
            return await self._train(training)
        except UnfitItem as error:
            log.warning(
                "training unfit",
                run=training.plan.run,
                request_id=training.plan.request_id,
                outcome=error.outcome.value,
                reason=str(error),
            )
            return _without_adapter(error.outcome)

    async def _train(self, training: Training) -> TrainingResult:
        plan = training.plan
        policy = (
            None
            if plan.policy is None
            else await self._adapters.get(plan.policy, field="policy.adapter")
        )
        if training.cancel_requested:
            return _without_adapter(Outcome.CANCELLED)
        request = TrainingRequest(
            run=plan.run,
            policy=policy,
            examples=plan.examples,
            lora=plan.lora,
            optimizer=plan.optimizer,
            init_seed=plan.init_seed,
            order_seed=plan.order_seed,
            with_policy=plan.with_policy,
        )
        async with checkpoints_of(self.store, plan) as training.checkpoints:
            if training.checkpoints is not None and self._suspending:
                training.checkpoints.suspend()
            async with engine_call(
                lambda: self._start(training, request),
                line=self._line,
                time_left=training.time_left,
            ) as training.waiting:
                log.info(
                    "training accepted",
                    run=plan.run,
                    request_id=plan.request_id,
                    examples=len(plan.examples),
                    rank=plan.lora.rank,
                )
                await asyncio.wait({training.waiting})
                if training.waiting.cancelled() and training.cancel_requested:
                    return _without_adapter(Outcome.CANCELLED)
                return training.waiting.result()

    def _start(self, training: Training, request: TrainingRequest) -> EngineTask[TrainingResult]:
        """Hand the request to the engine; a cancel that came meanwhile is passed on."""
        task = self.engine.train(
            request,
            on_progress=lambda progress: training.progress.set(progress_message(progress)),
            checkpoints=training.checkpoints,
        )
        training.engine_task = task
        if training.cancel_requested:
            task.cancel()
        return task

    def _ended(self, key: Key, task: asyncio.Task[TrainingRecord]) -> None:
        del self._live[key]
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, Suspended):
            log.info("training suspended", run=key[0], request_id=key[1], reason=str(error))
        else:
            metrics.trainings.labels(outcome="failed").inc()
            log.warning(
                "training failed",
                run=key[0],
                request_id=key[1],
                error=type(error).__name__,
                reason=str(error),
            )


async def _end_within(tasks: set[asyncio.Task[TrainingRecord]], seconds: float) -> None:
    """Let tasks end, then cancel those that have not."""
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=seconds)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def _without_adapter(outcome: Outcome) -> TrainingResult:
    """A training that ended before the engine could say how far it was."""
    return TrainingResult(
        outcome=outcome,
        adapter=None,
        steps=0,
        final_loss=0.0,
        tokens=0,
        seconds=0.0,
        engine_seconds=0.0,
    )
