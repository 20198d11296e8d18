"""A request id finds the same replica again, and another one when that is gone."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import Any

import grpc
import pytest

from seal.errors import Transient
from seal.rpc import rendezvous
from seal.rpc.client import ClientSettings, rpc_errors
from seal.rpc.rendezvous import Replicas, resolve_targets
from seal.rpc.server import start_server
from seal.v1 import trainer_pb2, trainer_pb2_grpc

IMPATIENT = ClientSettings(connection_attempts=2)


class Replica(trainer_pb2_grpc.TrainerServiceServicer):
    def __init__(self) -> None:
        self.ids: list[str] = []

    async def GetTraining(
        self, request: trainer_pb2.GetTrainingRequest, context: Any
    ) -> trainer_pb2.GetTrainingResponse:
        self.ids.append(request.request_id)
        return trainer_pb2.GetTrainingResponse()

    def register(self, server: grpc.aio.Server) -> str:
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(self, server)
        return "seal.v1.TrainerService"


def _named(*targets: str) -> rendezvous.Resolve:
    async def resolve(address: str) -> tuple[str, ...]:
        return targets

    return resolve


async def _targets_of(replicas: Replicas, ids: range) -> dict[str, str]:
    return {str(index): await replicas._choose(str(index)) for index in ids}


async def test_every_id_keeps_its_replica_and_the_ids_are_spread_over_all() -> None:
    targets = [f"ipv4:10.0.0.{index}:1" for index in range(5)]
    one = await _targets_of(Replicas("name:1", resolve=_named(*targets)), range(500))
    other = await _targets_of(Replicas("name:1", resolve=_named(*reversed(targets))), range(500))
    assert one == other
    assert min(Counter(one.values()).values()) > 60


async def test_when_a_replica_goes_only_its_own_ids_move() -> None:
    targets = [f"ipv4:10.0.0.{index}:1" for index in range(5)]
    before = await _targets_of(Replicas("name:1", resolve=_named(*targets)), range(500))
    after = await _targets_of(Replicas("name:1", resolve=_named(*targets[1:])), range(500))
    assert {key for key in before if before[key] != after[key]} == {
        key for key, target in before.items() if target == targets[0]
    }


async def test_replicas_that_have_gone_are_left_by_all_calls_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []

    class Channel:
        def __init__(self, target: str) -> None:
            self.target = target

        async def close(self) -> None:
            await asyncio.sleep(0.01)
            closed.append(self.target)

    monkeypatch.setattr(rendezvous, "open_channel", lambda target, settings: Channel(target))
    targets = [f"ipv4:10.0.0.{index}:1" for index in range(4)]

    async def resolve(address: str) -> tuple[str, ...]:
        await asyncio.sleep(0.001)
        return tuple(targets)

    async def call(request_id: str) -> None:
        async with replicas.channel(request_id):
            pass

    replicas = Replicas("name:1", resolve=resolve)
    for index in range(50):
        await call(str(index))
    gone, targets[1:] = targets[1:], []
    replicas._resolved_at = float("-inf")
    await asyncio.gather(*(call(str(index)) for index in range(5)))
    assert sorted(closed) == gone


async def test_a_replica_that_does_not_answer_is_left_out_and_the_retry_reaches_another() -> None:
    replica = Replica()
    server = await start_server([replica.register], address="127.0.0.1:0")
    replicas = Replicas(f"ipv4:127.0.0.1:1,{server.address}", settings=IMPATIENT)

    async def get(request_id: str) -> None:
        async with replicas.channel(request_id) as channel:
            with rpc_errors():
                await trainer_pb2_grpc.TrainerServiceStub(channel).GetTraining(
                    trainer_pb2.GetTrainingRequest(request_id=request_id), timeout=5
                )

    chosen = await _targets_of(replicas, range(20))
    dead = next(key for key, target in chosen.items() if target == "ipv4:127.0.0.1:1")
    with pytest.raises(Transient):
        await get(dead)
    await get(dead)
    assert replica.ids == [dead]
    await replicas.close()
    await server.stop(0)


async def test_a_name_is_looked_up_again_after_a_failure_and_the_old_list_serves_meanwhile() -> (
    None
):
    answers: list[tuple[str, ...] | None] = [("ipv4:10.0.0.1:1",), None, ("ipv4:10.0.0.2:1",)]

    async def resolve(address: str) -> tuple[str, ...]:
        answer = answers.pop(0)
        if answer is None:
            raise Transient("no such name")
        return answer

    replicas = Replicas("name:1", resolve=resolve)
    assert await replicas._choose("a") == await replicas._choose("b") == "ipv4:10.0.0.1:1"
    with pytest.raises(Transient):
        async with replicas.channel("a"):
            raise Transient("gone")
    assert await replicas._choose("a") == "ipv4:10.0.0.1:1"
    assert await replicas._choose("a") == "ipv4:10.0.0.2:1"
    assert answers == []
    await replicas.close()


@pytest.mark.parametrize(
    ("address", "targets"),
    [
        ("unix:/run/seal.sock", ("unix:/run/seal.sock",)),
        ("ipv4:10.0.0.1:1,10.0.0.2:2", ("ipv4:10.0.0.1:1", "ipv4:10.0.0.2:2")),
        ("127.0.0.1:50051", ("ipv4:127.0.0.1:50051",)),
        ("dns:///127.0.0.1:50051", ("ipv4:127.0.0.1:50051",)),
        ("[::1]:50051", ("ipv6:[::1]:50051",)),
    ],
)
async def test_an_address_becomes_its_targets(address: str, targets: tuple[str, ...]) -> None:
    assert await resolve_targets(address) == targets


async def test_a_host_of_both_families_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(*_: Any, **__: Any) -> list[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 1, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    assert await resolve_targets("localhost:1") == ("ipv4:127.0.0.1:1",)


@pytest.mark.parametrize("address", ["no.such.host.invalid:1", "host", "host:http"])
async def test_a_name_that_is_not_known_is_worth_a_retry(address: str) -> None:
    with pytest.raises(Transient, match="cannot be looked up"):
        await resolve_targets(address)
