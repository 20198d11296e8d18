"""AdaptationService as a fake: it follows the proto, plays a script, and fails where it is told to.

What happens to an adaptation is a list of events that a watch may read from anywhere, as with the
real service. `serve_in_thread` lets blocking clients call it.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from prometheus_client import CollectorRegistry

from seal.errors import Conflict, InvalidInput, NotFound, SealError, Transient
from seal.manifest import FileEntry, Manifest
from seal.metrics import Metrics
from seal.rpc.server import start_server
from seal.v1 import adaptation_pb2 as pb
from seal.v1 import adaptation_pb2_grpc, common_pb2

FILES = {
    "adapter_config.json": b'{"peft_type": "LORA"}',
    "adapter_model.safetensors": bytes(range(256)) * 4000,
}
"""Of every adapter."""
ADAPTER_SHA256 = Manifest(
    files={
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for name, content in FILES.items()
    }
).sha256
PIECE_BYTES = 300_000
FINAL = (
    pb.ADAPTATION_STATE_PUBLISHED,
    pb.ADAPTATION_STATE_REFUSED,
    pb.ADAPTATION_STATE_FAILED,
    pb.ADAPTATION_STATE_CANCELLED,
)


def interval(mean: float) -> pb.Interval:
    return pb.Interval(mean=mean, low=mean - 0.1, high=mean + 0.1, passages=4)


def evaluation(*, self_made: bool) -> pb.AdaptationEvaluation:
    """Base, passages alone and adapter by three measures."""
    worth = {"base": 0.021, "passages": 0.3, "adapter": 0.603}
    return pb.AdaptationEvaluation(
        questions=12,
        self_made=self_made,
        scores=[
            pb.Score(model=model, measure=measure, value=interval(mean))
            for model, mean in worth.items()
            for measure in ("f1", "exact", "contains")
        ],
        differences=[
            pb.Difference(
                model="adapter",
                against=against,
                measure=measure,
                value=interval(worth["adapter"] - worth[against]),
            )
            for against in ("base", "passages")
            for measure in ("f1", "exact", "contains")
        ],
        retained_questions=32,
        retained=[
            pb.Score(model=model, measure="f1", value=interval(mean))
            for model, mean in {"base": 0.333, "adapter": 0.301}.items()
        ],
        retained_change=interval(-0.032),
    )


@dataclass
class Job:
    """One adaptation of the fake."""

    body: bytes
    message: pb.Adaptation
    events: list[pb.AdaptationEvent] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    work: asyncio.Task[None] | None = None

    async def tell(self, event: pb.AdaptationEvent) -> None:
        """Add an event that is kept, and wake the watches."""
        async with self.changed:
            event.sequence = self.message.sequence = len(self.events) + 1
            event.time.GetCurrentTime()
            self.events.append(event)
            self.changed.notify_all()


@dataclass
class FakeAdaptations(adaptation_pb2_grpc.AdaptationServiceServicer):
    """The service; every field may be set before and while it is served."""

    delay_seconds: float = 0.0
    """Between two events."""
    end: int = pb.ADAPTATION_STATE_PUBLISHED
    """How adaptations end."""
    drops: list[int] = field(default_factory=list)
    """Messages after which the next watches lose their connection, one number a watch."""
    ends_early: int = 0
    """So many watches end without an error after their first message."""
    stale_gets: int = 0
    """So many Gets answer as another replica does that has not heard of the last event."""
    refuse: dict[str, list[SealError]] = field(default_factory=dict)
    """By method: errors of its next calls, before anything is done."""
    lose: Counter[str] = field(default_factory=Counter)
    """By method: calls that are carried out and whose answer is lost."""
    damaged: bool = False
    """A download's last byte is another."""
    calls: Counter[str] = field(default_factory=Counter)
    callers: list[str] = field(default_factory=list)
    """Who submitted."""
    after: list[int] = field(default_factory=list)
    """Where the watches began."""
    uploads: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[tuple[str, str], Job] = field(default_factory=dict)
    requests: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """By caller, namespace and request id: the adaptation's name."""

    def register(self, server: grpc.aio.Server) -> str:
        """For `start_server`."""
        adaptation_pb2_grpc.add_AdaptationServiceServicer_to_server(self, server)
        return "seal.v1.AdaptationService"

    # The RPCs

    async def UploadDocument(self, requests, context):  # type: ignore[no-untyped-def]
        return await self._carry_out("UploadDocument", self._upload(requests))

    async def SubmitAdaptation(self, request, context):  # type: ignore[no-untyped-def]
        caller = dict(context.invocation_metadata()).get("x-seal-caller", "")
        return await self._carry_out("SubmitAdaptation", self._submit(request, caller))

    async def GetAdaptation(self, request, context):  # type: ignore[no-untyped-def]
        async def get() -> pb.GetAdaptationResponse:
            response = pb.GetAdaptationResponse(adaptation=self._job(request).message)
            if self.stale_gets:
                self.stale_gets -= 1
                response.adaptation.state = pb.ADAPTATION_STATE_RUNNING
                response.adaptation.sequence -= 1
            return response

        return await self._carry_out("GetAdaptation", get())

    async def ListAdaptations(self, request, context):  # type: ignore[no-untyped-def]
        return await self._carry_out("ListAdaptations", self._list(request))

    async def CancelAdaptation(self, request, context):  # type: ignore[no-untyped-def]
        async def cancel() -> pb.CancelAdaptationResponse:
            job = self._job(request)
            if job.message.state not in FINAL and job.work is not None:
                job.work.cancel()
                await self._finish(job, pb.ADAPTATION_STATE_CANCELLED)
            return pb.CancelAdaptationResponse(adaptation=job.message)

        return await self._carry_out("CancelAdaptation", cancel())

    async def DeleteAdaptation(self, request, context):  # type: ignore[no-untyped-def]
        async def delete() -> pb.DeleteAdaptationResponse:
            job = self._job(request)
            if job.work is not None:
                job.work.cancel()
            del self.jobs[self._key(request)]
            return pb.DeleteAdaptationResponse()

        return await self._carry_out("DeleteAdaptation", delete())

    async def WatchAdaptation(self, request, context):  # type: ignore[no-untyped-def]
        self._count("WatchAdaptation")
        self.after.append(request.after_sequence)
        drop = self.drops.pop(0) if self.drops else None
        sent = 0
        async for event in self._events(self._job(request), request.after_sequence):
            if drop == sent:
                raise Transient("the connection is lost")
            yield pb.WatchAdaptationResponse(event=event)
            sent += 1
            if self.ends_early:
                self.ends_early -= 1
                return

    async def DownloadAdapter(self, request, context):  # type: ignore[no-untyped-def]
        self._count("DownloadAdapter")
        if request.adapter.sha256 != ADAPTER_SHA256:
            raise NotFound("there is no such adapter", field="adapter")
        for name, content in FILES.items():
            digest = hashlib.sha256(content).hexdigest()
            header = pb.AdapterFile(name=name, size=len(content), sha256=digest)
            yield pb.DownloadAdapterResponse(file=header)
            sent = content[:-1] + b"!" if self.damaged else content
            for start in range(0, len(content), PIECE_BYTES):
                yield pb.DownloadAdapterResponse(data=sent[start : start + PIECE_BYTES])

    # What they do

    async def _carry_out(self, method: str, work: Awaitable[Any]) -> Any:
        try:
            self._count(method)
        except SealError:
            work.close()  # type: ignore[attr-defined]
            raise
        answer = await work
        if self.lose[method]:
            self.lose[method] -= 1
            raise Transient("the answer is lost")
        return answer

    def _count(self, method: str) -> None:
        self.calls[method] += 1
        if errors := self.refuse.get(method):
            raise errors.pop(0)

    async def _upload(self, requests: AsyncIterator[Any]) -> pb.UploadDocumentResponse:
        header, content = None, b""
        async for request in requests:
            if request.WhichOneof("part") == "header":
                header = request.header
            content += request.data
        assert header is not None
        if hashlib.sha256(content).hexdigest() != header.sha256 or len(content) != header.size:
            raise InvalidInput("other content than announced", field="sha256")
        self.uploads[header.sha256] = content
        file = common_pb2.FileRef(path=f"documents/{header.sha256}", sha256=header.sha256)
        return pb.UploadDocumentResponse(file=file)

    async def _submit(self, request: Any, caller: str) -> pb.SubmitAdaptationResponse:
        if not request.documents:
            raise InvalidInput(
                "there are no documents", field="documents", remedy="give at least one"
            )
        namespace = request.namespace or "default"
        key, body = (caller, namespace, request.request_id), request.SerializeToString()
        name = request.name or f"a-{hashlib.sha256(request.request_id.encode()).hexdigest()[:8]}"
        created = key not in self.requests
        if not created and (namespace, self.requests[key]) not in self.jobs:
            raise Conflict("the adaptation of this request was deleted", field="request_id")
        if not created and self.jobs[namespace, self.requests[key]].body != body:
            raise Conflict("another request has this id", field="request_id")
        if created and (namespace, name) in self.jobs:
            raise Conflict(f"there is an adaptation {name}", field="name", remedy="choose another")
        if created:
            self._begin(request, key, name, body, caller)
        job = self.jobs[namespace, self.requests[key]]
        return pb.SubmitAdaptationResponse(adaptation=job.message, created=created)

    def _begin(
        self, request: Any, key: tuple[str, str, str], name: str, body: bytes, caller: str
    ) -> None:
        message = pb.Adaptation(
            name=name,
            namespace=key[1],
            uid=f"uid-{len(self.requests)}",
            state=pb.ADAPTATION_STATE_PENDING,
            options=request.options,
            base=common_pb2.PolicyRef(base_model="fake-model", base_sha256="b" * 64),
        )
        message.created.GetCurrentTime()
        job = Job(body=body, message=message)
        self.requests[key], self.jobs[key[1], name] = name, job
        self.callers.append(caller)
        job.work = asyncio.get_running_loop().create_task(self._play(job, request))

    async def _list(self, request: Any) -> pb.ListAdaptationsResponse:
        namespace = request.namespace or "default"
        found = [
            job.message
            for (where, name), job in sorted(self.jobs.items())
            if where == namespace
            and name.startswith(request.name_prefix)
            and (not request.states or job.message.state in request.states)
        ]
        start = int(request.page_token or 0)
        end = start + min(request.page_size or 100, 2)  # small pages: a test of paging is cheap
        more = str(end) if end < len(found) else ""
        return pb.ListAdaptationsResponse(adaptations=found[start:end], next_page_token=more)

    @staticmethod
    def _key(request: Any) -> tuple[str, str]:
        return request.namespace or "default", request.name

    def _job(self, request: Any) -> Job:
        job = self.jobs.get(self._key(request))
        if job is None:
            raise NotFound(
                f"there is no adaptation {request.name!r}", field="name", remedy="list them"
            )
        return job

    async def _events(self, job: Job, after: int) -> AsyncIterator[pb.AdaptationEvent]:
        """All kept events after a number, with progress in between."""
        while True:
            async with job.changed:
                while len(job.events) <= after:
                    if job.events and job.events[-1].HasField("ended"):
                        return
                    await job.changed.wait()
                new = job.events[after:]
            for event in new:
                yield event
                after = event.sequence
                if event.HasField("ended"):
                    return
                for _ in range(2):  # far more often than a per cent is done
                    yield pb.AdaptationEvent(sequence=after, progress=job.message.progress)

    async def _play(self, job: Job, request: Any) -> None:
        """The script of an adaptation."""
        message, self_made = job.message, not request.questions
        await job.tell(
            pb.AdaptationEvent(accepted=pb.AdaptationAccepted(documents=len(request.documents)))
        )
        await self._get_on(job, "prepare", 5)
        message.state = pb.ADAPTATION_STATE_RUNNING
        message.counts.MergeFrom(
            pb.AdaptationCounts(
                documents=len(request.documents),
                passages=4,
                reward_questions=10,
                held_out_questions=12,
                self_made=self_made,
            )
        )
        await job.tell(pb.AdaptationEvent(prepared=pb.AdaptationPrepared(counts=message.counts)))
        if self_made:
            await self._get_on(job, "question", 10)
            questioned = pb.AdaptationQuestioned(written=40, kept=22, held_out=12)
            await job.tell(pb.AdaptationEvent(questioned=questioned))
        await self._get_on(job, "rollout", 30)
        rewarded = pb.AdaptationRewarded(
            edits={"ok": 11, "invalid": 1}, baseline=0.02, reward=0.4, best=0.55
        )
        await job.tell(pb.AdaptationEvent(rewarded=rewarded))
        await self._get_on(job, "adapt", 80)
        if self.end != pb.ADAPTATION_STATE_FAILED:
            await self._train(job, self_made=self_made)
        await self._finish(job, self.end)

    async def _get_on(self, job: Job, stage: str, percent: float) -> None:
        await asyncio.sleep(self.delay_seconds)
        job.message.progress.CopyFrom(
            pb.AdaptationProgress(
                stage=stage, percent=percent, eta_seconds=120, edits_done=3, edits_total=12
            )
        )

    async def _train(self, job: Job, *, self_made: bool) -> None:
        message = job.message
        message.adapter.path = f"adapters/{ADAPTER_SHA256}"
        message.adapter.sha256 = ADAPTER_SHA256
        message.counts.rows.update({"edit": 40, "passage": 4, "replay": 2})
        message.evaluation.CopyFrom(evaluation(self_made=self_made))
        message.costs.add(
            stage="rollout",
            tokens={"generate": 1200, "train": 45_000, "evaluate": 900},
            seconds=61.5,
            engine_seconds=58.0,
        )
        await job.tell(
            pb.AdaptationEvent(
                trained=pb.AdaptationTrained(
                    adapter=message.adapter,
                    rows=message.counts.rows,
                    evaluation=message.evaluation,
                )
            )
        )
        passed = self.end == pb.ADAPTATION_STATE_PUBLISHED
        message.gate.CopyFrom(
            pb.GateVerdict(
                passed=passed,
                reason="" if passed else "GainUncertain",
                message="gain 0.582 [0.482, 0.682] over 0.0"
                if passed
                else "gain 0.032 [-0.068, 0.132]: the interval is not above 0.0",
            )
        )
        await job.tell(pb.AdaptationEvent(judged=message.gate))

    async def _finish(self, job: Job, state: int) -> None:
        job.message.state = state
        job.message.finished.GetCurrentTime()
        job.message.progress.Clear()
        why = "TooFewScores: 9 of 12 inner loops have no score"
        if state == pb.ADAPTATION_STATE_FAILED:
            reason, _, words = why.partition(": ")
            job.message.conditions.add(type="Failed", status="True", reason=reason, message=words)
        ended = pb.AdaptationEnded(
            state=state, message=why if state == pb.ADAPTATION_STATE_FAILED else ""
        )
        await job.tell(pb.AdaptationEvent(ended=ended))


@asynccontextmanager
async def serve(fake: FakeAdaptations, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Serve it; gives the address."""
    server = await start_server(
        [fake.register], address=address, metrics=Metrics(CollectorRegistry())
    )
    try:
        yield server.address
    finally:
        await server.stop(0)


class ThreadedServer:
    """A fake served by a loop of its own thread, which may be stopped and started again."""

    def __init__(self, fake: FakeAdaptations) -> None:
        self.fake, self.address = fake, "127.0.0.1:0"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._leave: Callable[[], Awaitable[None]] | None = None

    def start(self) -> None:
        """Listen, at the same address as before."""

        async def start() -> None:
            block = serve(self.fake, self.address)
            self.address = await block.__aenter__()

            async def leave() -> None:
                await block.__aexit__(None, None, None)

            self._leave = leave

        self._run(start())

    def stop(self) -> None:
        """End, with every call that runs; adaptations go on."""
        if self._leave is not None:
            leave, self._leave = self._leave, None
            self._run(leave())

    def restart_after(self, seconds: float) -> None:
        """Away for a while, seen from another thread."""

        def restart() -> None:
            self.stop()
            time.sleep(seconds)
            self.start()

        threading.Thread(target=restart, daemon=True).start()

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._run(self._end_work())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end_work(self) -> None:
        work = [job.work for job in self.fake.jobs.values() if job.work is not None]
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=20)


@contextmanager
def serve_in_thread(fake: FakeAdaptations) -> Iterator[ThreadedServer]:
    """Serve it for blocking clients."""
    server = ThreadedServer(fake)
    server.start()
    try:
        yield server
    finally:
        server.close()
