"""A steady load on a release from within its cluster, until /tmp/enough is there.

    python pod_load.py NAMESPACE ADDRESS=SERVICE ...

A pod of the product's image runs it, so that it imports only what the image has. Each service gets
a cheap call at a steady pace, and one that works, by the product's own clients. The last line says
as JSON what became of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

from controller_svc.worker.clients import ServiceClients
from controller_svc.worker.settings import ServiceAddresses, WorkerSettings
from seal.client import AsyncClient, ClientOptions
from seal.errors import SealError
from seal.rpc.client import open_channel, rpc_errors
from seal.v1 import (
    adaptation_pb2,
    adaptation_pb2_grpc,
    common_pb2,
    evaluator_pb2,
    generator_pb2,
    trainer_pb2,
)

ENOUGH = Path("/tmp/enough")
CHEAP_SECONDS, REAL_SECONDS = 0.2, 1.0
"""From the beginning of one cheap call to the next; from the end of one that works to the next."""
DEADLINE_SECONDS = 60.0
RUN = "rolled"
POLICY = common_pb2.PolicyRef(base_model="smollm2-135m")
ROWS = [
    trainer_pb2.TrainingExample(prompt="", completion="The lighthouse of Veldra burns seal oil."),
    trainer_pb2.TrainingExample(prompt="Who built it?", completion=" Ama Torrin"),
]


@dataclass
class Told:
    """What became of the calls of one kind."""

    answered: int = 0
    lost: list[str] = field(default_factory=list)
    answers: set[str] = field(default_factory=set)
    """Different ones: what is asked is always the same."""
    slowest_seconds: float = 0.0

    async def take(self, call: Awaitable[str]) -> None:
        """One call to its end."""
        began = time.monotonic()
        try:
            self.answers.add(await call)
            self.answered += 1
        except SealError as error:
            self.lost.append(f"{type(error).__name__}: {error}")
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)


Ask = Callable[[int], Awaitable[str]]


def enough() -> bool:
    """Whether somebody has said so."""
    return ENOUGH.exists()


async def cheaply(ask: Ask, told: Told) -> None:
    """At a steady pace, whether the calls before have been answered or not."""
    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            if enough():
                return
            group.create_task(told.take(ask(number)))
            await asyncio.sleep(CHEAP_SECONDS)


async def working(ask: Ask, told: Told) -> None:
    """One after another."""
    for number in itertools.count():
        if enough():
            return
        await told.take(ask(number))
        await asyncio.sleep(REAL_SECONDS)


def asked(clients: ServiceClients, door: AsyncClient) -> dict[str, Ask]:
    """Calls that work, by the name of their service; the answer is the same each time."""

    async def generate(number: int) -> str:
        request = generator_pb2.GenerateEditsRequest(
            request_id=f"write-{number}",
            run=RUN,
            policy=POLICY,
            domain="knowledge",
            prompt=generator_pb2.EditPrompt(family="self-qa", format="base"),
            sampling=generator_pb2.Sampling(temperature=0.7, top_p=0.95, max_tokens=16),
            contexts=[
                generator_pb2.EditContext(
                    context_id="c", title="Veldra", text=ROWS[0].completion, seeds=[1, 2]
                )
            ],
        )
        (edits,) = await clients.generator.generate(request, lambda done, tokens: None)
        return json.dumps([part.text for edit in edits.edits for part in edit.parts])

    async def train(number: int) -> str:
        request = trainer_pb2.TrainAdapterRequest(
            request_id=f"train-{number}",
            run=RUN,
            policy=POLICY,
            examples=ROWS,
            lora=trainer_pb2.LoraConfig(rank=4, alpha=8.0, target_modules=["q_proj", "v_proj"]),
            optimizer=trainer_pb2.OptimizerConfig(
                learning_rate=1e-3, epochs=10, batch_size=1, schedule="linear", max_grad_norm=1.0
            ),
            init_seed=7,
            order_seed=8,
            export_mode=trainer_pb2.EXPORT_MODE_ADAPTER,
        )
        record = await clients.trainer.train(request, lambda step, steps: None)
        return record.adapter.sha256 if record.adapter is not None else str(record.outcome)

    async def evaluate(number: int) -> str:
        request = evaluator_pb2.EvaluateRequest(
            request_id=f"evaluate-{number}",
            run=RUN,
            policy=POLICY,
            domain="knowledge",
            question_format="few-shot",
            queries=[
                evaluator_pb2.Query(query_id="q", question="What is Veldra?", answers=["a river"])
            ],
            grader=evaluator_pb2.GRADER_F1,
            max_tokens=8,
        )
        record = await clients.evaluator.evaluate(request, lambda done: None)
        return json.dumps([answer.answer for answer in record.answers])

    async def upload(number: int) -> str:
        content = f"{number} ".encode() * 20_000
        stored = await door.upload(content)
        return str(stored.sha256 == hashlib.sha256(content).hexdigest())

    return {
        "GeneratorService": generate,
        "TrainerService": train,
        "EvaluatorService": evaluate,
        "AdaptationService": upload,
    }


def asked_cheaply(
    stack: AsyncExitStack, addresses: dict[str, str], clients: ServiceClients, namespace: str
) -> dict[str, Ask]:
    """Calls that are answered at once, of the channel alone: nobody sends them again."""
    channels = {name: open_channel(address) for name, address in addresses.items()}
    for channel in channels.values():
        stack.push_async_callback(channel.close)

    def health(name: str) -> Ask:
        async def check(number: int) -> str:
            request = health_pb2.HealthCheckRequest(service="")
            with rpc_errors():
                stub = health_pb2_grpc.HealthStub(channels[name])
                await stub.Check(request, timeout=DEADLINE_SECONDS)
            return "answered"

        return check

    async def count(number: int) -> str:
        return str(await clients.trainer.count_tokens(ROWS))

    async def list_all(number: int) -> str:
        request = adaptation_pb2.ListAdaptationsRequest(namespace=namespace)
        with rpc_errors():
            stub = adaptation_pb2_grpc.AdaptationServiceStub(channels["AdaptationService"])
            await stub.ListAdaptations(request, timeout=DEADLINE_SECONDS)
        return "answered"

    return {
        "GeneratorService": health("GeneratorService"),
        "TrainerService": count,
        "EvaluatorService": health("EvaluatorService"),
        "AdaptationService": list_all,
    }


async def main(namespace: str, *services: str) -> None:
    """Load until it is enough, and tell."""
    addresses = {
        name.rpartition(".")[2]: address for address, name in (one.split("=") for one in services)
    }
    targets = ServiceAddresses(
        generator=addresses["GeneratorService"],
        trainer=addresses["TrainerService"],
        evaluator=addresses["EvaluatorService"],
    )
    options = ClientOptions(namespace=namespace)
    told = {name: {"cheap": Told(), "real": Told()} for name in addresses}
    async with AsyncExitStack() as stack:
        clients = await stack.enter_async_context(ServiceClients(targets, WorkerSettings()))
        door = await stack.enter_async_context(
            AsyncClient(addresses["AdaptationService"], options=options)
        )
        cheap = asked_cheaply(stack, addresses, clients, namespace)
        real = asked(clients, door)
        print("begun", flush=True)
        async with asyncio.TaskGroup() as group:
            for name in addresses:
                group.create_task(cheaply(cheap[name], told[name]["cheap"]))
                group.create_task(working(real[name], told[name]["real"]))
    print(
        json.dumps(
            {
                name: {
                    pace: vars(one) | {"answers": sorted(one.answers)} for pace, one in both.items()
                }
                for name, both in told.items()
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
