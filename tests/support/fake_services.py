"""The three services as deterministic fakes on a real gRPC server.

Everything follows from hashes of the request, nothing is computed. The same request always gives
the same answer, in any process. Every training that is executed (not merely asked for again)
appends a line to a log that survives the process, so that a test can count over crashes what was
done.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc.aio
from few_shot_edits import settings_edit
from google.protobuf.message import Message

from controller_svc.worker.settings import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.domains import get_domain
from seal.domains.base import PartPrompt
from seal.outcomes import Outcome
from seal.records import ModelDescription
from seal.restem.seeds import derive_seed
from seal.rpc.convert import OUTCOME_TO_WIRE, chat_message_list, description_message
from seal.rpc.server import Registration, start_server
from seal.settings import ALL_PROJECTIONS, RunSpec
from seal.v1 import (
    common_pb2,
    evaluator_pb2,
    evaluator_pb2_grpc,
    generator_pb2,
    generator_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
)

SHARE_INVALID = 0.1
SHARE_DIVERGED = 0.1
SHARE_UNGRADED = 0.05
SHARE_ABSTAINING = 0.3


MODEL = ModelDescription(
    base_model="",
    base_sha256="b" * 64,
    max_positions=2048,
    max_row_tokens=2048,
    max_rank=128,
    target_modules=ALL_PROJECTIONS,
    dtype="float32",
)


def digest(*parts: object) -> str:
    """sha256 of the parts."""
    return hashlib.sha256("|".join(str(part) for part in parts).encode()).hexdigest()


def chance(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return int(digest(*parts)[:8], 16) / 2**32


def body_digest(request: trainer_pb2.TrainAdapterRequest) -> str:
    """Digest of a request without its id and its run: an adapter knows neither."""
    body = trainer_pb2.TrainAdapterRequest()
    body.CopyFrom(request)
    body.ClearField("request_id")
    body.ClearField("run")
    return hashlib.sha256(body.SerializeToString(deterministic=True)).hexdigest()


@dataclass
class Fakes:
    """What the fakes share: what they were asked, how they fail, and where they log."""

    log: Path | None = None
    """Append-only file: one line `pid kind request_id` per executed call."""
    fail: Callable[[str, str, int], grpc.StatusCode | None] = lambda kind, request_id, call: None
    """(kind, request_id, number of this call of that id, from 0) -> a status to fail with."""
    outcome: Callable[[str, str], Outcome | None] = lambda kind, name: None
    """(kind, request id, or for an edit the context's title) -> an outcome in place of a result."""
    store: ArtifactStore | None = None
    """Where trained adapters and results are published; None publishes nothing."""
    delay_seconds: float = 0.0
    max_request_bytes: int = 4 * 1024 * 1024
    """Largest request to generate, train or evaluate that is taken."""
    model: ModelDescription = MODEL
    """What the trainer says it has loaded."""
    tokens_of: Callable[[str], int] = lambda text: len(text.split())
    """Tokens of a text: its words, or what a test takes for one."""
    max_lora_rank: Mapping[str, int] = field(default_factory=dict)
    """Largest LoRA that "generator" and "evaluator" take; without an entry any."""
    judge: str = ""
    """Who judges; empty: nobody."""
    rating: Callable[[str, int], float | None] = lambda title, candidate: chance(title, candidate)
    """(title of the context, candidate) -> how good an edit looks."""
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each (kind, request_id) was asked for."""
    requests: dict[str, object] = field(default_factory=dict)
    """Last request by id."""
    running: int = 0
    most_running: int = 0
    """Most calls of one kind at once, generation excluded."""
    writing: int = 0
    most_writing: int = 0
    """Most calls for edits at once."""

    async def enter(
        self,
        kind: str,
        request_id: str,
        request: Message,
        context: grpc.aio.ServicerContext[object, object],
    ) -> None:
        """Count a call, and fail it if the test wants that."""
        call = self.calls[(kind, request_id)]
        self.calls[(kind, request_id)] += 1
        self.requests[f"{kind} {request_id}"] = request
        await context.send_initial_metadata(
            ()
            # As real services do: what follows is an answer, which the channel does not ask for
            # again
        )
        if (size := request.ByteSize()) > (limit := self.max_request_bytes):
            # As gRPC itself says it
            words = f"SERVER: Received message larger than max ({size} vs. {limit})"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, words)
        if (code := self.fail(kind, request_id, call)) is not None:
            await context.abort(code, f"{kind} {request_id} fails as the test wants it")
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)

    def executed(self, kind: str, request_id: str) -> None:
        """Log an executed call, durably."""
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as handle:
                handle.write(f"{os.getpid()} {kind} {request_id}\n")
                handle.flush()
                os.fsync(handle.fileno())


class FakeGenerator(generator_pb2_grpc.GeneratorServiceServicer):
    """Writes edits of a few lines; a tenth of them are empty."""

    def __init__(self, fakes: Fakes) -> None:
        self._fakes = fakes

    async def GenerateEdits(
        self,
        request: generator_pb2.GenerateEditsRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> AsyncIterator[generator_pb2.GenerateEditsResponse]:
        self._fakes.writing += 1
        self._fakes.most_writing = max(self._fakes.most_writing, self._fakes.writing)
        try:
            await self._fakes.enter("generate", request.request_id, request, context)
        finally:
            self._fakes.writing -= 1
        total = sum(len(item.seeds) for item in request.contexts)
        progress = generator_pb2.GenerateProgress(
            edits_done=0, edits_total=total, state=common_pb2.TASK_STATE_RUNNING
        )
        yield generator_pb2.GenerateEditsResponse(progress=progress)
        self._fakes.executed("generate", request.request_id)
        for item in request.contexts:
            if (outcome := self._fakes.outcome("generate", item.title)) is not None:
                none = generator_pb2.ContextEdits(
                    context_id=item.context_id, outcome=OUTCOME_TO_WIRE[outcome]
                )
                yield generator_pb2.GenerateEditsResponse(context_edits=none)
                continue
            yield generator_pb2.GenerateEditsResponse(context_edits=context_edits(request, item))

    async def GenerateText(
        self,
        request: generator_pb2.GenerateTextRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> AsyncIterator[generator_pb2.GenerateTextResponse]:
        await self._fakes.enter("text", request.request_id, request, context)
        self._fakes.executed("text", request.request_id)
        if (outcome := self._fakes.outcome("text", request.request_id)) is not None:
            none = generator_pb2.GenerateTextResult(outcome=OUTCOME_TO_WIRE[outcome])
            yield generator_pb2.GenerateTextResponse(result=none)
            return
        text = written_text(request)
        for word in text.split(" "):
            piece = word if text.startswith(word) else f" {word}"
            yield generator_pb2.GenerateTextResponse(delta=piece)
        result = generator_pb2.GenerateTextResult(
            outcome=common_pb2.OUTCOME_OK,
            text=text,
            tokens=len(text.split(" ")),
            engine_seconds=0.01,
        )
        yield generator_pb2.GenerateTextResponse(result=result)

    async def DescribeGenerator(
        self,
        request: generator_pb2.DescribeGeneratorRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> generator_pb2.DescribeGeneratorResponse:
        held = self._fakes.max_lora_rank.get("generator", 0)
        return generator_pb2.DescribeGeneratorResponse(max_rank=held)


def written_text(request: generator_pb2.GenerateTextRequest) -> str:
    """A text of three words: who writes, on what, and with which seed."""
    asked = [request.prompt, *(message.content for message in request.messages)]
    adapters = (request.policy.adapter.sha256, request.adapter.sha256)
    seen = (*adapters, *asked, request.seed)
    who = "Adapted" if any(adapters) else "Base"
    return f"{who} {digest(*seen)[:6]} {request.seed}"


def context_edits(
    request: generator_pb2.GenerateEditsRequest, item: generator_pb2.EditContext
) -> generator_pb2.ContextEdits:
    """The edits of one context, in as many parts as the domain asks for."""
    asked = request.prompt
    parts = get_domain(request.domain).edit_prompts(
        item.title, item.text, asked.family, asked.format, trained=asked.trained
    )
    if len(parts) == 1:
        prompts = [generator_pb2.PartPrompt(prompt=f"Learn {item.title}:\n")]
        edits = [_edit(request, item, seed) for seed in item.seeds]
    else:
        prompts = [
            generator_pb2.PartPrompt(
                prompt=part.prompt.text,
                messages=chat_message_list(part.prompt.messages),
                start=part.start,
            )
            for part in parts
        ]
        edits = [_edit_in_parts(request, item, seed, parts) for seed in item.seeds]
    return generator_pb2.ContextEdits(
        context_id=item.context_id, parts=prompts, edits=edits, engine_seconds=0.01
    )


def _edit_in_parts(
    request: generator_pb2.GenerateEditsRequest,
    item: generator_pb2.EditContext,
    seed: int,
    prompts: Sequence[PartPrompt],
) -> generator_pb2.Edit:
    """A pair for most parts, answered by the last word of the sentence that it is asked on."""
    seen = (request.policy.adapter.sha256, item.context_id, seed)
    invalid = chance("invalid", *seen) < SHARE_INVALID
    parts = []
    for place, prompt in enumerate(prompts):
        shown = prompt.prompt.messages[-1].content if prompt.prompt.messages else prompt.prompt.text
        words = [word.rstrip(".") for word in shown.rpartition("Text: ")[2].split()]
        answer, others = words[-1], " ".join(word for word in words if word != words[-1])
        own = derive_seed(seed, "part", place)
        abstains = invalid or chance("abstains", *seen, own) < SHARE_ABSTAINING
        parts.append(
            generator_pb2.EditPart(
                text=" -" if abstains else f" is {digest(own, *seen)[:10]} of {others}? {answer}",
                tokens=1 if abstains else 9,
                logprob=-chance("part", *seen, own),
            )
        )
    return generator_pb2.Edit(seed=seed, parts=parts)


def _edit(
    request: generator_pb2.GenerateEditsRequest, item: generator_pb2.EditContext, seed: int
) -> generator_pb2.Edit:
    seen = (request.policy.adapter.sha256, item.context_id, seed)
    if chance("invalid", *seen) < SHARE_INVALID:
        return generator_pb2.Edit(seed=seed, parts=[generator_pb2.EditPart()])
    if request.prompt.family == "train-settings":
        text = settings_edit(derive_seed(seed, *seen))
        return generator_pb2.Edit(
            seed=seed, parts=[generator_pb2.EditPart(text=text, tokens=95, logprob=-0.5)]
        )
    facts = [digest(line, *seen)[:10] for line in range(1 + int(3 * chance("lines", *seen)))]
    if request.prompt.family == "self-qa":
        answer = item.text.split()[-1]
        lines = [f"Question: What of {fact}? Answer: {answer}" for fact in facts]
    else:
        lines = [f"{item.title} is known for fact {fact}." for fact in facts]
    part = generator_pb2.EditPart(text="\n".join(lines), tokens=12 * len(lines), logprob=-0.5)
    return generator_pb2.Edit(seed=seed, parts=[part])


class FakeTrainer(trainer_pb2_grpc.TrainerServiceServicer):
    """Makes up an adapter whose digest is that of the request; a tenth of the edits diverge.

    Ended trainings are remembered on disk.
    """

    def __init__(self, fakes: Fakes) -> None:
        self._fakes = fakes

    async def TrainAdapter(
        self,
        request: trainer_pb2.TrainAdapterRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> AsyncIterator[trainer_pb2.TrainAdapterResponse]:
        self._fakes.running += 1
        self._fakes.most_running = max(self._fakes.most_running, self._fakes.running)
        try:
            await self._fakes.enter("train", request.request_id, request, context)
            steps = request.optimizer.epochs * len(request.examples)
            for step in (0, steps // 2):
                progress = trainer_pb2.TrainingProgress(
                    state=common_pb2.TASK_STATE_RUNNING, step=step, total_steps=steps
                )
                yield trainer_pb2.TrainAdapterResponse(progress=progress)
            self._fakes.executed("train", request.request_id)
            if (outcome := self._fakes.outcome("train", request.request_id)) is not None:
                refused = trainer_pb2.TrainingResult(outcome=OUTCOME_TO_WIRE[outcome])
                yield trainer_pb2.TrainAdapterResponse(result=refused)
                return
            result = _training(request, steps)
            if self._fakes.store is not None:
                await asyncio.to_thread(_publish, self._fakes.store, request, result)
            yield trainer_pb2.TrainAdapterResponse(result=result)
        finally:
            self._fakes.running -= 1

    async def DescribeModel(
        self,
        request: trainer_pb2.DescribeModelRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> trainer_pb2.DescribeModelResponse:
        model = self._fakes.model
        return description_message(
            model.model_copy(update={"base_model": request.policy.base_model})
        )

    async def CountTokens(
        self,
        request: trainer_pb2.CountTokensRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> trainer_pb2.CountTokensResponse:
        texts = [f"{row.prompt} {row.completion}" for row in request.examples]
        return trainer_pb2.CountTokensResponse(
            row_tokens=[self._fakes.tokens_of(text) + 1 for text in texts]
        )

    async def GetTraining(
        self,
        request: trainer_pb2.GetTrainingRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> trainer_pb2.GetTrainingResponse:
        raise NotImplementedError

    async def CancelTraining(
        self,
        request: trainer_pb2.CancelTrainingRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> trainer_pb2.CancelTrainingResponse:
        raise NotImplementedError


def _publish(
    store: ArtifactStore,
    request: trainer_pb2.TrainAdapterRequest,
    result: trainer_pb2.TrainingResult,
) -> None:
    """As the trainer does: the adapter by its content, then the result for retries."""
    if result.HasField("adapter"):
        with TemporaryDirectory() as directory:
            (Path(directory) / "adapter_config.json").write_text(f'"{result.adapter.sha256}"')
            published = store.publish_directory(Path(directory), f"{request.run}/adapters")
        result.adapter.path, result.adapter.sha256 = published.path, published.sha256
    key = digest(request.request_id)
    store.write_bytes(f"{request.run}/trainings/{key}.json", b"{}")


def _training(request: trainer_pb2.TrainAdapterRequest, steps: int) -> trainer_pb2.TrainingResult:
    sha256 = body_digest(request)
    diverged = "/edit/" in request.request_id and chance("diverged", sha256) < SHARE_DIVERGED
    return trainer_pb2.TrainingResult(
        outcome=common_pb2.OUTCOME_DIVERGED if diverged else common_pb2.OUTCOME_OK,
        adapter=None if diverged else common_pb2.AdapterRef(path=f"fake/{sha256}", sha256=sha256),
        steps=steps,
        final_loss=0.0 if diverged else 0.5,
        tokens=10 * steps,
        seconds=0.1,
        engine_seconds=0.1,
    )


class FakeEvaluator(evaluator_pb2_grpc.EvaluatorServiceServicer):
    """Grades by hash: an adapter is right more often than the policy alone.

    A few answers are ungraded.
    """

    def __init__(self, fakes: Fakes) -> None:
        self._fakes = fakes

    async def Evaluate(
        self,
        request: evaluator_pb2.EvaluateRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> AsyncIterator[evaluator_pb2.EvaluateResponse]:
        await self._fakes.enter("evaluate", request.request_id, request, context)
        await self._check_judge(request, context)
        total = len(request.queries)
        progress = evaluator_pb2.EvaluateProgress(
            state=common_pb2.TASK_STATE_RUNNING, queries_done=total // 2, queries_total=total
        )
        yield evaluator_pb2.EvaluateResponse(progress=progress)
        self._fakes.executed("evaluate", request.request_id)
        answers = [_answer(request, query) for query in request.queries]
        if (outcome := self._fakes.outcome("evaluate", request.request_id)) is not None:
            yield evaluator_pb2.EvaluateResponse(result=_without_score(answers, outcome))
            return
        scores = [answer.score for answer in answers if answer.outcome == common_pb2.OUTCOME_OK]
        yield evaluator_pb2.EvaluateResponse(
            result=evaluator_pb2.EvaluationResult(
                outcome=common_pb2.OUTCOME_OK if scores else common_pb2.OUTCOME_UNGRADED,
                reward=sum(scores) / len(scores) if scores else 0.0,
                answers=answers,
                ungraded=len(answers) - len(scores),
                max_logit_difference=1.0 if request.HasField("adapter") else 0.0,
                tokens=4 * total,
                engine_seconds=0.02,
            )
        )

    async def RateEdits(
        self,
        request: evaluator_pb2.RateEditsRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> AsyncIterator[evaluator_pb2.RateEditsResponse]:
        await self._fakes.enter("rate", request.request_id, request, context)
        await self._check_judge(request, context)
        self._fakes.executed("rate", request.request_id)
        ratings = [
            (edit.edit_id, self._fakes.rating(request.title, int(edit.edit_id)))
            for edit in request.edits
        ]
        result = evaluator_pb2.RateEditsResult(
            ratings=[
                evaluator_pb2.EditRating(
                    edit_id=edit_id,
                    outcome=OUTCOME_TO_WIRE[Outcome.UNGRADED if rating is None else Outcome.OK],
                    rating=rating or 0.0,
                )
                for edit_id, rating in ratings
            ]
        )
        yield evaluator_pb2.RateEditsResponse(result=result)

    async def _check_judge(
        self,
        request: evaluator_pb2.EvaluateRequest | evaluator_pb2.RateEditsRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> None:
        if request.judge and request.judge != self._fakes.judge:
            words = f"judged by {request.judge!r}, the judge is now {self._fakes.judge!r}"
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, words)

    async def DescribeJudge(
        self,
        request: evaluator_pb2.DescribeJudgeRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> evaluator_pb2.DescribeJudgeResponse:
        if not self._fakes.judge:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "there is no judge")
        return evaluator_pb2.DescribeJudgeResponse(model=self._fakes.judge)

    async def DescribeEvaluator(
        self,
        request: evaluator_pb2.DescribeEvaluatorRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> evaluator_pb2.DescribeEvaluatorResponse:
        held = self._fakes.max_lora_rank.get("evaluator", 0)
        return evaluator_pb2.DescribeEvaluatorResponse(max_rank=held)


def _answer(
    request: evaluator_pb2.EvaluateRequest, query: evaluator_pb2.Query
) -> evaluator_pb2.GradedAnswer:
    seen = (request.policy.adapter.sha256, request.adapter.sha256, query.query_id)
    if query.context and not request.policy.HasField("adapter"):
        seen = (*seen, "open book")
    knows = request.HasField("adapter") or "open book" in seen
    right = float(chance("right", *seen) < (0.5 if knows else 0.2))
    ungraded = chance("ungraded", *seen) < SHARE_UNGRADED
    return evaluator_pb2.GradedAnswer(
        query_id=query.query_id,
        answer=query.answers[0] if right else "no idea",
        outcome=common_pb2.OUTCOME_UNGRADED if ungraded else common_pb2.OUTCOME_OK,
        score=0.0 if ungraded else right,
        measures={one.name: right for one in get_domain(request.domain).measures},
        logprob=-1.0 - chance("logprob", *seen),
    )


def _without_score(
    answers: list[evaluator_pb2.GradedAnswer], outcome: Outcome
) -> evaluator_pb2.EvaluationResult:
    wire = OUTCOME_TO_WIRE[outcome]
    answers = [
        evaluator_pb2.GradedAnswer(query_id=answer.query_id, outcome=wire) for answer in answers
    ]
    return evaluator_pb2.EvaluationResult(outcome=wire, answers=answers, ungraded=len(answers))


@asynccontextmanager
async def serve_fakes(fakes: Fakes) -> AsyncIterator[ServiceAddresses]:
    """The fakes on a Unix socket."""
    with TemporaryDirectory(prefix="seal-fake-") as directory:
        server = await start_server(_registrations(fakes), address=f"unix:{directory}/seal.sock")
        try:
            yield ServiceAddresses.all_at(server.address)
        finally:
            await server.stop(grace_seconds=0)


def _registrations(fakes: Fakes) -> tuple[Registration, ...]:
    """The three services."""

    def generator(server: grpc.aio.Server) -> str:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(FakeGenerator(fakes), server)
        return generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name

    def trainer(server: grpc.aio.Server) -> str:
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(FakeTrainer(fakes), server)
        return trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name

    def evaluator(server: grpc.aio.Server) -> str:
        evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(FakeEvaluator(fakes), server)
        return evaluator_pb2.DESCRIPTOR.services_by_name["EvaluatorService"].full_name

    return generator, trainer, evaluator


def resume_services(
    spec: RunSpec, root: str, log: Path
) -> AbstractAsyncContextManager[ServiceAddresses]:
    """The fakes as `resume_harness` starts them."""
    return serve_fakes(Fakes(log=log))
