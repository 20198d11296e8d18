"""Any message to any RPC of any service gets a documented answer, and memory stays flat.

A few hundred messages are sent by default; `SEAL_FUZZ_MESSAGES=20000` sends as many in all.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import grpc.aio
import pytest
import structlog
from fake_engine import FakeEngine, save_fake_adapter
from front_door_harness import SETTINGS, Work, request
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from service_harness import (
    FAST,
    evaluation_request,
    fake_cache,
    generation_request,
    serving,
    training_request,
)
from wire_fuzz import Method, messages, methods_of

import evaluator_svc.service
import generator_svc.service
import trainer_svc.service
from controller_svc.api.service import register
from controller_svc.local import world
from controller_svc.local.adaptations import local_adaptations
from controller_svc.worker.settings import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.engine.limits import ModelLimits
from seal.errors import ERROR_CLASSES, Internal
from seal.prompts import Prompt
from seal.settings import ALL_PROJECTIONS, LoraSettings
from seal.v1 import adaptation_pb2, evaluator_pb2, generator_pb2, trainer_pb2
from trainer_svc.trainings import Trainings

METHODS = methods_of(
    adaptation_pb2.DESCRIPTOR,
    generator_pb2.DESCRIPTOR,
    trainer_pb2.DESCRIPTOR,
    evaluator_pb2.DESCRIPTOR,
)
MESSAGES = int(os.environ.get("SEAL_FUZZ_MESSAGES", "900"))
BATCH = 5
"""Messages to each method of one example."""
EXAMPLES = 10
"""Examples after which memory is looked at; the first is always of the simplest messages."""
DOCUMENTED = {row.grpc_code for kind, row in ERROR_CLASSES.items() if kind is not Internal} | {"OK"}
ROUNDS = max(1, MESSAGES // BATCH // EXAMPLES // len(METHODS))
LIMIT_SECONDS = 240 + MESSAGES // 5
MAX_GROWTH_BYTES = 64 * 1024 * 1024
some_examples = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # to shrink would take minutes
    suppress_health_check=list(HealthCheck),
)
GOOD: list[Message] = [
    request(), training_request(), generation_request(), evaluation_request(),
]  # fmt: skip


class Engine(FakeEngine):
    """One that says what it can take, too."""

    limits = ModelLimits(
        max_positions=2048,
        max_row_tokens=2048,
        max_rank=128,
        target_modules=ALL_PROJECTIONS,
        dtype="float32",
        device="cpu",
    )

    def row_tokens(self, rows: Sequence[tuple[str | Prompt, str]]) -> list[int]:
        return [len(completion) for _, completion in rows]

    def shape_refusal(self, lora: LoraSettings) -> str:
        return ""


def near(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Any message, and good ones with anything laid over them."""
    anything = messages(kind)
    good = [message for message in GOOD if type(message) is kind]
    return st.one_of(anything, *(anything.map(partial(_over, message)) for message in good))


def _over(good: Message, change: Message) -> Message:
    message = type(good)()
    message.CopyFrom(good)
    message.MergeFrom(change)
    return message


@asynccontextmanager
async def all_services(root: Path, engine: FakeEngine) -> AsyncIterator[grpc.aio.Channel]:
    """The four services, none of which computes anything."""
    store = ArtifactStore(str(root))
    adapters = fake_cache(store, engine)
    trainings = Trainings(
        engine=engine,  # type: ignore[arg-type]
        store=store,
        adapters=adapters,
        save_adapter=save_fake_adapter,  # type: ignore[arg-type]
    )
    addresses = ServiceAddresses.all_at("unix:/nowhere")
    async with (
        local_adaptations(store, model="m", services=addresses, settings=SETTINGS) as adaptations,
        serving(
            partial(register, adaptations=adaptations, store=store),
            partial(
                generator_svc.service.register,
                engine=engine,
                adapters=adapters,
                pace=FAST,  # type: ignore[arg-type]
            ),
            partial(
                trainer_svc.service.register, trainings=trainings, adapters=adapters, pace=FAST
            ),
            partial(
                evaluator_svc.service.register,
                engine=engine,
                adapters=adapters,
                pace=FAST,  # type: ignore[arg-type]
            ),
        ) as channel,
    ):
        yield channel
        await trainings.close(grace_seconds=1.0)


async def answer(channel: grpc.aio.Channel, method: Method, sent: list[Message]) -> str:
    """The code that a call ends with."""
    kind = ("stream" if method.takes_stream else "unary") + (
        "_stream" if method.gives_stream else "_unary"
    )
    call = getattr(channel, kind)(
        method.path,
        request_serializer=method.input.SerializeToString,
        response_deserializer=method.output.FromString,
    )
    running = call(iter(sent) if method.takes_stream else sent[0], timeout=60)
    try:
        if method.gives_stream:
            async for _ in running:
                pass
        else:
            await running
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


def resident_bytes() -> int:
    """Memory of this process."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A line for each call would take longer than the call."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.timeout(LIMIT_SECONDS)
def test_any_message_gets_a_documented_answer_and_memory_stays_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop
) -> None:
    monkeypatch.setattr(world, "run_task", Work().run_task)
    engine, codes = Engine(), Counter[str]()
    stack, sizes = AsyncExitStack(), list[int]()
    channel = loop.run_until_complete(stack.enter_async_context(all_services(tmp_path, engine)))

    def send(data: st.DataObject) -> None:
        for method in METHODS:
            drawn = data.draw(st.lists(near(method.input), min_size=BATCH, max_size=BATCH))
            calls = [drawn] if method.takes_stream else [[one] for one in drawn]

            async def batch(
                method: Method = method, calls: list[list[Message]] = calls
            ) -> list[str]:
                return await asyncio.gather(*(answer(channel, method, sent) for sent in calls))

            for code in loop.run_until_complete(batch()):
                codes[code] += 1
                assert code in DOCUMENTED, (method.path, code, drawn)
        # What the fake keeps for tests to look at is no leak of a service
        for kept in (engine.trained, engine.generated, engine.evaluated, engine.tasks):
            kept.clear()

    try:
        for number in range(ROUNDS):
            # Hypothesis remembers all examples of a test function, which is no leak of a service
            seed(number)(some_examples(given(st.data())(send)))()
            gc.collect()
            sizes.append(resident_bytes())
    finally:
        loop.run_until_complete(stack.aclose())
        engine.close()
    assert codes["OK"] > 0
    assert codes["INVALID_ARGUMENT"] > 0
    grown = max(sizes) - sizes[len(sizes) // 4]
    assert grown < MAX_GROWTH_BYTES, f"{grown >> 20} MiB in {ROUNDS} rounds"
