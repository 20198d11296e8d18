"""What the service tests share.

Services on a Unix socket, valid requests to spoil, and streams read to their end.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import grpc
from fake_engine import MODEL, FakeAdapter, FakeEngine, load_fake_adapter, save_fake_adapter

from seal.adapters import AdapterCache
from seal.artifacts import ArtifactStore
from seal.bases import BaseReference
from seal.errors import InvalidInput, SealError
from seal.records import AdapterReference
from seal.rpc.client import open_channel
from seal.rpc.convert import adapter_message
from seal.rpc.engine_calls import Pace
from seal.rpc.errors import from_rpc_error
from seal.rpc.server import start_server
from seal.v1 import common_pb2, evaluator_pb2, generator_pb2, trainer_pb2

FAST = Pace(interval_seconds=0.01, heartbeat_seconds=0.2)
DEADLINE_SECONDS = 60.0

Message = TypeVar("Message")
Request = TypeVar("Request")


@asynccontextmanager
async def serving(
    *registrations: Callable[[grpc.aio.Server], str],
) -> AsyncIterator[grpc.aio.Channel]:
    """A server with these services, and a channel to it."""
    with tempfile.TemporaryDirectory(prefix="seal-") as directory:
        running = await start_server(list(registrations), address=f"unix:{directory}/socket")
        try:
            async with open_channel(running.address) as channel:
                yield channel
        finally:
            await running.stop(0.0)


def fake_cache(store: ArtifactStore, engine: FakeEngine) -> AdapterCache:
    """Adapters as the fake engine writes them."""
    return AdapterCache(store, base=engine.base, load=load_fake_adapter)  # type: ignore[arg-type,return-value]


def publish(
    store: ArtifactStore,
    *,
    base_model: str = MODEL,
    base_sha256: str = "",
    weights: tuple[float, ...] = (1.0, 2.0),
) -> AdapterReference:
    """An adapter in the store."""
    with tempfile.TemporaryDirectory() as directory:
        save_fake_adapter(
            FakeAdapter(BaseReference(base_model, base_sha256), weights), Path(directory)
        )
        return store.publish_directory(Path(directory), "run/adapters")


def policy(
    adapter: AdapterReference | None = None, *, base_model: str = MODEL
) -> common_pb2.PolicyRef:
    """Policy reference."""
    return common_pb2.PolicyRef(
        base_model=base_model, adapter=None if adapter is None else adapter_message(adapter)
    )


def training_request(**changes: object) -> trainer_pb2.TrainAdapterRequest:
    """A valid request; `changes` replace whole fields."""
    fields: dict[str, object] = {
        "request_id": "training-1",
        "run": "run",
        "policy": policy(),
        "examples": [
            trainer_pb2.TrainingExample(prompt="", completion="Veldra is a river."),
            trainer_pb2.TrainingExample(prompt="Q:", completion="A"),
        ],
        "lora": trainer_pb2.LoraConfig(rank=4, alpha=8.0, target_modules=["q_proj", "v_proj"]),
        "optimizer": trainer_pb2.OptimizerConfig(
            learning_rate=1e-3,
            epochs=2,
            batch_size=1,
            schedule="linear",
            warmup_ratio=0.0,
            weight_decay=0.0,
            max_grad_norm=1.0,
        ),
        "init_seed": 7,
        "order_seed": 8,
        "export_mode": trainer_pb2.EXPORT_MODE_ADAPTER,
    }
    return trainer_pb2.TrainAdapterRequest(**{**fields, **changes})  # type: ignore[arg-type]


def generation_request(**changes: object) -> generator_pb2.GenerateEditsRequest:
    """A valid request; `changes` replace whole fields."""
    fields: dict[str, object] = {
        "request_id": "generation-1",
        "run": "run",
        "policy": policy(),
        "domain": "knowledge",
        "prompt": generator_pb2.EditPrompt(family="self-qa", format="chat"),
        "sampling": generator_pb2.Sampling(temperature=0.7, top_p=0.95, max_tokens=32),
        "contexts": [
            generator_pb2.EditContext(
                context_id="c1", title="Veldra", text="Veldra is a river.", seeds=[11, 12]
            )
        ],
    }
    return generator_pb2.GenerateEditsRequest(**{**fields, **changes})  # type: ignore[arg-type]


def text_request(**changes: object) -> generator_pb2.GenerateTextRequest:
    """A valid request; `changes` replace whole fields."""
    fields: dict[str, object] = {
        "request_id": "text-1",
        "run": "chat",
        "prompt": "Question: What is Veldra?\nAnswer:",
        "sampling": generator_pb2.Sampling(temperature=0.0, top_p=1.0, max_tokens=32),
        "seed": 7,
        "stop": ["\n"],
    }
    return generator_pb2.GenerateTextRequest(**{**fields, **changes})  # type: ignore[arg-type]


def evaluation_request(**changes: object) -> evaluator_pb2.EvaluateRequest:
    """A valid request; `changes` replace whole fields."""
    fields: dict[str, object] = {
        "request_id": "evaluation-1",
        "run": "run",
        "policy": policy(),
        "domain": "knowledge",
        "question_format": "few-shot",
        "queries": [
            evaluator_pb2.Query(query_id="q1", question="What is Veldra?", answers=["a river"]),
            evaluator_pb2.Query(
                query_id="q2", question="Where does it rise?", answers=["Mount Oss"]
            ),
        ],
        "grader": evaluator_pb2.GRADER_CONTAINS,
        "max_tokens": 16,
    }
    return evaluator_pb2.EvaluateRequest(**{**fields, **changes})  # type: ignore[arg-type]


def rating_request(**changes: object) -> evaluator_pb2.RateEditsRequest:
    """A valid request; `changes` replace whole fields."""
    fields: dict[str, object] = {
        "request_id": "rating-1",
        "run": "run",
        "title": "Veldra",
        "text": "Veldra is a river.",
        "edits": [
            evaluator_pb2.EditToRate(edit_id="0", text="Veldra flows."),
            evaluator_pb2.EditToRate(edit_id="1", text="Veldra is a mountain."),
        ],
    }
    return evaluator_pb2.RateEditsRequest(**{**fields, **changes})  # type: ignore[arg-type]


async def read_all(stream: AsyncIterable[Message]) -> list[Message]:
    """All messages of a call; an error of the call comes out as the SealError that it carries."""
    try:
        return [message async for message in stream]
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error


async def refusal(stream: AsyncIterable[object]) -> SealError:
    """The error with which a call ends."""
    try:
        messages = await read_all(stream)
    except SealError as error:
        return error
    raise AssertionError(f"the call was not refused: {messages}")


async def each_is_refused_by_its_field(
    call: Callable[[Request], AsyncIterable[object]],
    request: Callable[..., Request],
    changes: Iterable[tuple[str, dict[str, object]]],
) -> None:
    """Send a good request with each of the changes, which a service refuses by this field."""
    for field, change in changes:
        error = await refusal(call(request(**change)))
        assert (type(error), error.field) == (InvalidInput, field), change
        assert error.remedy
