"""The backend: requests wait in queues that are fair between runs, and are written by vLLM.

vLLM wants an event loop, callers come from any thread: the loop runs on a thread of its own. A
request is let in while rows are free and its adapters fit beside those at work, so that whatever is
in a batch is loaded; vLLM batches what is in. The workers are processes: when they end, or no sign
of life comes from them, the backend is broken and the process should end, as with the engine.

Log-probabilities that are no numbers may be a request's own fault or what another's left in the
cache. Such a request waits until nobody is at work, the cache is emptied, and it is written again
alone: who fails alone is the cause.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

import structlog

from seal.engine.faults import blame
from seal.engine.health import Health
from seal.engine.meters import begun, follow
from seal.engine.queues import EngineTask, FairQueue
from seal.engine.streaming import TextStream
from seal.errors import Exhausted, SealError, Transient, UnfitItem
from seal.metrics import metrics
from seal.outcomes import Outcome
from seal.vllm.adapters import AdapterFiles, PlacedAdapter
from seal.vllm.asks import Ask, Decoder, DecoderDeadError, Told
from seal.vllm.model import VllmModel
from seal.vllm.shared_time import SharedTime
from seal.vllm.task import Progress, VllmTask
from seal.vllm.work import GenerationWork, evaluation_work, generation_work

if TYPE_CHECKING:
    from seal.bases import BaseReference
    from seal.engine import (
        Adapter,
        EvaluationRequest,
        EvaluationResult,
        GenerationRequest,
        GenerationResult,
    )
    from seal.settings import EngineSettings

log = structlog.get_logger(__name__)

Kind = Literal["generate", "evaluate"]

RETRY_AFTER_SECONDS = 2.0
"""When a caller who met a full queue may ask again."""
CLOSE_SECONDS = 30.0
"""How long the workers may take to end."""


class VllmBackend:
    """Writes and evaluates through vLLM. Safe to call from any thread."""

    holds_to_schema = True

    def __init__(
        self,
        start: Callable[[], Awaitable[Decoder]],
        model: VllmModel,
        settings: EngineSettings,
        files: AdapterFiles,
    ) -> None:
        """`start` is awaited on the backend's own loop; what it raises comes out here."""
        self.settings, self._start, self._model, self._files = settings, start, model, files
        self._max_rows = max(settings.generation_rows, settings.evaluation_rows)
        self._queues: dict[Kind, FairQueue[VllmTask[Any]]] = {
            "generate": FairQueue(),
            "evaluate": FairQueue(),
        }
        self._turns = cycle(self._queues)
        self._unfinished: set[VllmTask[Any]] = set()
        self._at_work: dict[VllmTask[Any], asyncio.Task[None]] = {}
        self._using: Counter[tuple[int, int]] = Counter()
        """LoRAs of the requests at work, by policy and adapter."""
        self._suspects: deque[VllmTask[Any]] = deque()
        """Requests that diverged in company, each to be written again alone."""
        self._alone = False
        """A suspect is written: nobody joins."""
        self._tried: set[VllmTask[Any]] = set()
        self._poisoned = False
        """The cache holds what a diverged request has left."""
        self._rows = 0
        """Texts of the requests at work."""
        self._time = SharedTime()
        self._health = Health(stall_seconds=settings.stall_seconds, on_broken=self._fail_unfinished)
        self._closing = False
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop
        self._news: asyncio.Event
        ready, problem = threading.Event(), list[BaseException]()
        self._thread = threading.Thread(
            target=self._run, args=(ready, problem), name="seal-vllm", daemon=True
        )
        self._thread.start()
        ready.wait()
        if problem:
            self._health.end()
            files.close()
            raise problem[0]

    @property
    def base(self) -> BaseReference:
        """The base model as adapters name it."""
        return self._model.outline.base

    @property
    def max_lora_rank(self) -> int:
        """So much of each LoRA vLLM keeps room for, an adapter together with its policy."""
        return self._model.max_rank

    @property
    def broken(self) -> str | None:
        """Why this backend will never work again, None while it works; as the engine's."""
        if self._health.reason is None and not (self._closing or self._thread.is_alive()):
            self._health.give_up("the backend's thread has ended")
        return self._health.reason

    @property
    def heartbeat_seconds(self) -> float:
        """Age of the last sign of life, 0 while there is nothing to do."""
        return self._health.silent_seconds

    def generate(
        self,
        request: GenerationRequest,
        on_progress: Callable[[int, int], None] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> EngineTask[GenerationResult]:
        """Queue a generation, as the engine does; it may have a JSON schema."""
        self._check_open("generate")
        self._model.check_adapters(request.policy, None)
        work = generation_work(self._model.outline, request, streams=on_text is not None)
        task = VllmTask[Any](request.run, request, on_progress, work, on_text)
        return self._queue("generate", task)

    def evaluate(
        self, request: EvaluationRequest, on_progress: Callable[[int], None] | None = None
    ) -> EngineTask[EvaluationResult]:
        """Queue an evaluation, as the engine does (see `EvaluationWork.result` for its proof)."""
        self._check_open("evaluate")
        self._model.check_adapters(request.policy, request.adapter)
        work = evaluation_work(self._model.outline, request)
        return self._queue("evaluate", VllmTask[Any](request.run, request, on_progress, work))

    def close(self) -> None:
        """Stop; what is unfinished ends with Transient."""
        with self._lock:
            self._closing = True
        self._wake()
        self._thread.join(timeout=CLOSE_SECONDS)
        self._health.end()
        self._files.close()

    def _check_open(self, kind: Kind) -> None:
        """Raise Transient if nothing is done here any more, Exhausted if the queue is full."""
        if (reason := self.broken) is not None:
            raise _broken(reason)
        if self._closing:
            raise Transient("vLLM is closing", remedy="send the request to another server")
        if (waiting := len(self._queues[kind])) >= self.settings.max_queue:
            raise Exhausted(
                f"{waiting} requests wait already",
                remedy="try again later or add servers",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )

    def _queue(self, kind: Kind, task: VllmTask[Any]) -> VllmTask[Any]:
        task.on_cancel = lambda: self._call(lambda: self._drop(task))
        with self._lock:
            self._check_open(kind)
            self._unfinished.add(task)
            task.future.add_done_callback(lambda _: self._forget(task))
            follow(kind, task)
            self._queues[kind].put(task)
        self._wake()
        return task

    def _forget(self, task: VllmTask[Any]) -> None:
        """A task has ended, however it did."""
        self._unfinished.discard(task)
        self._tried.discard(task)

    def _fail_unfinished(self, reason: str) -> None:
        log.error("vllm_broken", reason=reason, tasks=len(self._unfinished))
        for task in list(self._unfinished):
            task.fail(_broken(reason))
        self._wake()

    def _call(self, action: Callable[[], None]) -> None:
        """Do it on the loop, if that still runs."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(action)

    def _wake(self) -> None:
        self._call(self._news.set)

    # The rest runs on the loop's thread.

    def _run(self, ready: threading.Event, problem: list[BaseException]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:  # whoever waits must not wait for ever, whatever it was
            if ready.is_set():
                log.exception("vllm_thread_failed")
                self._health.give_up(f"the backend's thread has ended with {error!r}")
            problem.append(error)
        finally:
            ready.set()
            for task in list(self._unfinished):
                task.fail(Transient("vLLM was closed", remedy="send the request again"))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        self._decoder = await self._start()
        try:
            ready.set()
            while not (self._closing or self._health.reason):
                await self._let_in()
                await self._news.wait()
                self._news.clear()
            for working in list(self._at_work.values()):
                working.cancel()
            await asyncio.gather(*self._at_work.values(), return_exceptions=True)
        finally:
            self._decoder.close()

    async def _let_in(self) -> None:
        """Suspects first, one at a time in an empty cache; then the others."""
        if self._alone:
            return
        if not (self._poisoned or self._suspects):
            self._admit()
        elif not self._at_work:
            try:
                await self._decoder.forget()
            except DecoderDeadError as error:
                self._health.give_up(f"vLLM's workers have ended: {error}")
                return
            self._poisoned = False
            while self._suspects and self._suspects[0].unwanted:
                self._suspects.popleft().fail(_cancelled())
            if self._suspects:
                self._alone = True
                self._enter(self._suspects.popleft())
            else:
                self._admit()

    def _admit(self) -> None:
        """Let requests in, in turns of their kinds, until one does not fit."""
        empty = 0
        while self._rows < self._max_rows and empty < len(self._queues):
            kind = next(self._turns)
            queue = self._queues[kind]
            task = next(iter(queue), None)
            if task is None or not self._fits(task):
                empty += 1
                continue
            if (taken := queue.take()) is not None and not taken.unwanted:
                begun(kind, taken)
                self._enter(taken)
            elif taken is not None:
                taken.fail(_cancelled())
            empty = 0
        for kind, queue in self._queues.items():
            metrics.engine_queue_length.labels(kind).set(len(queue))

    def _fits(self, task: VllmTask[Any]) -> bool:
        """Whether its LoRAs fit beside those at work; one request alone always enters."""
        together = set(self._using) | self._loras(task)
        return not self._at_work or len(together) <= self._model.max_adapters

    def _loras(self, task: VllmTask[Any]) -> set[tuple[int, int]]:
        request = task.request
        return self._files.needed(request.policy, getattr(request, "adapter", None))

    def _enter(self, task: VllmTask[Any]) -> None:
        self._rows += task.job.rows
        self._using.update(self._loras(task))
        working = asyncio.create_task(self._do(task))
        self._at_work[task] = working
        working.add_done_callback(lambda _: self._leave(task, started=not working.cancelled()))

    def _leave(self, task: VllmTask[Any], *, started: bool) -> None:
        if not started:  # it was cancelled before its first step, and could not say so itself
            task.fail(_cancelled())
        del self._at_work[task]
        self._rows -= task.job.rows
        self._using.subtract(self._loras(task))
        self._using += Counter()  # forgets what is used no more
        if not self._at_work:
            self._alone = False
            self._health.rest()
        self._news.set()

    def _drop(self, task: VllmTask[Any]) -> None:
        """The caller has left: stop its texts, or have it wait no more."""
        if (working := self._at_work.get(task)) is not None:
            working.cancel()
            return
        for queue in self._queues.values():
            queue.take(lambda waiting: waiting is task)
        if task in self._suspects:
            self._suspects.remove(task)
        task.fail(_cancelled())
        self._news.set()

    async def _do(self, task: VllmTask[Any]) -> None:
        """One request, from its adapters to its result."""
        self._health.alive()
        try:
            with ExitStack() as held:
                task.succeed(await self._result(task, held))
        except asyncio.CancelledError:
            task.fail(_cancelled())
        except DecoderDeadError as error:
            self._health.give_up(f"vLLM's workers have ended: {error}")
        except UnfitItem as error:
            self._fail_or_try_alone(task, error)
        except SealError as error:
            task.fail(error)
        except Exception as error:  # whatever it is, this request has failed and the others go on
            log.exception("vllm_request_failed", run=task.run)
            task.fail(blame(error, work="write"))

    def _fail_or_try_alone(self, task: VllmTask[Any], error: UnfitItem) -> None:
        diverged = error.outcome is Outcome.DIVERGED
        self._poisoned = self._poisoned or diverged
        if not diverged or task in self._tried:
            task.fail(error)
        else:
            self._tried.add(task)
            self._suspects.append(task)

    async def _result(self, task: VllmTask[Any], held: ExitStack) -> Any:
        work, text = task.job, self._model.outline.text
        if isinstance(work, GenerationWork):
            policy = await self._place(held, work.request.policy, None)
            stream = TextStream(text, work.request.stop) if work.streams else None
            progress = Progress(task, rows=work.rows, counts_tokens=True, stream=stream)
            told, seconds = await self._tell(work.asks(policy, text), progress)
            result: Any = work.result(told, seconds, text)
            progress.say(result.samples[0][0].text)
            tokens = sum(sample.tokens for samples in result.samples for sample in samples)
        else:
            policy = await self._place(held, work.request.policy, None)
            adapted = await self._place(held, work.request.policy, work.request.adapter)
            progress = Progress(task, rows=len(work.prompts), counts_tokens=False)
            told, seconds = await self._tell(work.asks(policy, adapted, text), progress)
            result = work.result(told, seconds, text, dtype=self._model.dtype)
            tokens = result.tokens
        kind: Kind = "generate" if isinstance(work, GenerationWork) else "evaluate"
        device = self.settings.device.partition(":")[0]
        metrics.engine_busy_seconds.labels(kind, device).inc(sum(seconds))
        metrics.generated_tokens.inc(tokens)
        return result

    async def _place(
        self, held: ExitStack, policy: Adapter | None, adapter: Adapter | None
    ) -> PlacedAdapter | None:
        """Put a LoRA where vLLM finds it and have it loaded."""
        placing = asyncio.ensure_future(
            asyncio.to_thread(held.enter_context, self._files.hold(policy, adapter))
        )
        try:
            placed = await asyncio.shield(placing)
        except asyncio.CancelledError:
            await placing  # the file must be let go by the one who holds it
            raise
        if placed is not None:
            await self._decoder.load(placed)
            self._health.alive()
        return placed

    async def _tell(
        self, asks: Sequence[Ask], progress: Progress
    ) -> tuple[list[Told], list[float]]:
        """Ask for all texts at once; the first that fails ends the others."""
        try:
            async with asyncio.TaskGroup() as group:
                rows = [
                    group.create_task(self._tell_one(ask, progress, place))
                    for place, ask in enumerate(asks)
                ]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        ended = [row.result() for row in rows]
        return [told for told, _ in ended], [seconds for _, seconds in ended]

    async def _tell_one(self, ask: Ask, progress: Progress, place: int) -> tuple[Told, float]:
        def on_tokens(tokens: Sequence[int]) -> None:
            self._health.alive()
            progress.wrote(tokens)

        with self._time.row() as row:
            told = await self._decoder.tell(ask, on_tokens)
        progress.ended(place)
        return told, row.seconds


def _broken(reason: str) -> Transient:
    return Transient(f"vLLM is broken: {reason}", remedy="send the request to another server")


def _cancelled() -> Transient:
    return Transient("the request was cancelled", remedy="send it again")
