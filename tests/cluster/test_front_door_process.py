"""The front door as two processes on a real API server, with no rights but those of the chart."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import access
from cluster_door import begun, prepared, published, status_of
from cluster_objects import adaptation as adaptation_object
from control_plane import ControlPlane, running_controllers
from eventually import until
from front_door_harness import TEXT, kinds, request

from controller_svc.k8s.objects import to_object
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, NotFound, Transient
from seal.rpc.client import open_channel, rpc_errors
from seal.v1 import adaptation_pb2, adaptation_pb2_grpc

ROOT = Path(__file__).parents[2]
NAMESPACE = "front"
PATH = f"/apis/seal.dev/v1alpha1/namespaces/{NAMESPACE}/adaptations"
START_SECONDS = 120.0
"""A bound for what takes two seconds where nothing else is at work."""
Stub = adaptation_pb2_grpc.AdaptationServiceStub


@pytest.fixture(scope="module")
def kubeconfig(seal_api: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """That of the chart's service account of the front door."""
    seal_api.kubectl("create", "namespace", NAMESPACE)
    objects = yaml.safe_dump_all(access(namespace=NAMESPACE))
    seal_api.kubectl("-n", NAMESPACE, "apply", "--server-side", "-f", "-", stdin=objects)
    config = json.loads(seal_api.kubeconfig.read_text())
    token = seal_api.kubectl("-n", NAMESPACE, "create", "token", "seal-api").strip()
    config["users"][0]["user"]["token"] = token
    path = tmp_path_factory.mktemp("front-door") / "kubeconfig"
    path.write_text(json.dumps(config))
    yield path
    seal_api.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


class Cluster:
    """The API server as its administrator has it, who plays the controller."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def bodies(self) -> list[Any]:
        return self.plane.request("GET", PATH)[1]["items"]

    def body(self, name: str) -> Any:
        return self.plane.request("GET", f"{PATH}/{name}")[1]

    def tell(self, name: str, status: Any) -> None:
        body = self.body(name) | {"status": to_object(status, generation=1)}
        code, said = self.plane.request("PUT", f"{PATH}/{name}/status", body)
        assert code == 200, said


def command(directory: Path, number: int) -> list[str]:
    """That of a replica."""
    return [
        sys.executable, "-m", "controller_svc.api", "--artifacts", str(directory / "store"),
        "--world", "cluster", "--namespaces", NAMESPACE,
        "--address", f"unix:{directory}/{number}.sock",
        "--metrics-port", "0", "--unready-seconds", "0", "--log-format", "json",
    ]  # fmt: skip


def environment(kubeconfig: Path) -> dict[str, str]:
    """That of a replica."""
    return os.environ | {"PYTHONPATH": str(ROOT), "KUBECONFIG": str(kubeconfig)}


@asynccontextmanager
async def process(directory: Path, kubeconfig: Path, number: int) -> AsyncIterator[Any]:
    """A replica."""
    socket = directory / f"{number}.sock"
    with (directory / "log").open("ab") as log:
        running = await asyncio.create_subprocess_exec(
            *command(directory, number), env=environment(kubeconfig), stderr=log, stdout=log
        )
    try:
        await until(
            lambda: socket.exists() or running.returncode is not None, seconds=START_SECONDS
        )
        assert running.returncode is None, (directory / "log").read_text()
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
        socket.unlink(missing_ok=True)


async def submit(stub: Stub, *args: Any, **kwargs: Any) -> Any:
    with rpc_errors():
        return await stub.SubmitAdaptation(
            request(*args, namespace=NAMESPACE, **kwargs), wait_for_ready=True
        )


async def get(stub: Stub, name: str) -> adaptation_pb2.Adaptation:
    with rpc_errors():
        asked = adaptation_pb2.GetAdaptationRequest(name=name, namespace=NAMESPACE)
        return (await stub.GetAdaptation(asked, wait_for_ready=True)).adaptation


async def delete(stub: Stub, name: str) -> None:
    with rpc_errors():
        await stub.DeleteAdaptation(
            adaptation_pb2.DeleteAdaptationRequest(name=name, namespace=NAMESPACE)
        )


async def names(stub: Stub, **fields: Any) -> list[str]:
    with rpc_errors():
        asked = adaptation_pb2.ListAdaptationsRequest(namespace=NAMESPACE, **fields)
        return [one.name for one in (await stub.ListAdaptations(asked)).adaptations]


async def watched(stub: Stub, name: str) -> list[str]:
    """Every event once, over whatever happens to the replica."""
    told: list[adaptation_pb2.WatchAdaptationResponse] = []
    while "ended" not in kinds(told):
        after = max((message.event.sequence for message in told), default=0)
        watch = adaptation_pb2.WatchAdaptationRequest(
            name=name, namespace=NAMESPACE, after_sequence=after
        )
        try:
            with rpc_errors():
                async for message in stub.WatchAdaptation(watch, wait_for_ready=True):
                    told.append(message)  # noqa: PERF401 - the call may end with an error
        except Transient:
            await asyncio.sleep(0.1)
    return kinds(told)


async def test_two_replicas_with_the_rights_of_the_chart_serve_a_real_cluster(
    seal_api: ControlPlane, kubeconfig: Path, tmp_path: Path
) -> None:
    cluster, store = Cluster(seal_api), ArtifactStore(str(tmp_path / "store"))
    async with AsyncExitStack() as stack:
        stack.enter_context(running_controllers(seal_api))
        first = await stack.enter_async_context(process(tmp_path, kubeconfig, 0))
        await stack.enter_async_context(process(tmp_path, kubeconfig, 1))
        one, other = [
            Stub(await stack.enter_async_context(open_channel(f"unix:{tmp_path}/{n}.sock")))
            for n in range(2)
        ]
        # One object for each id, wherever it is sent
        answers = await asyncio.gather(
            *(submit((one, other)[n % 2], f"id-{n // 2 % 20}") for n in range(200))
        )
        assert sum(answer.created for answer in answers) == 20
        uids = {answer.adaptation.uid for answer in answers}
        assert {body["metadata"]["uid"] for body in cluster.bodies()} == uids
        assert len(uids) == 20 and len(await names(other)) == 20
        assert TEXT not in json.dumps(cluster.bodies())

        # What the server says of a name, and what the manifest by hand is
        made = (await submit(one, "veldra", name="veldra")).adaptation
        with pytest.raises(Conflict) as taken:
            await submit(other, "another", name="veldra")
        assert taken.value.field == "name"
        by_hand = adaptation_object("by-hand", publish=None)
        by_hand["metadata"]["namespace"] = NAMESPACE
        assert seal_api.request("POST", PATH, by_hand)[0] == 201
        assert (await get(one, "by-hand")).counts.documents == 1

        # A watch goes on over the kill of its replica, on whichever there is
        watching = asyncio.create_task(watched(one, "veldra"))
        fresh = status_of(cluster.body("veldra"))
        cluster.tell("veldra", begun(fresh))
        first.kill()
        await first.wait()
        cluster.tell("veldra", prepared(fresh))
        again = await stack.enter_async_context(process(tmp_path, kubeconfig, 0))
        cluster.tell("veldra", published(fresh, store))
        told = ["accepted", "prepared", "rewarded", "trained", "judged", "ended"]
        async with asyncio.timeout(START_SECONDS):
            assert await watching == await watched(other, "veldra") == told
        published_state = adaptation_pb2.ADAPTATION_STATE_PUBLISHED
        assert (await get(one, "veldra")).state == published_state
        assert await names(other, states=[published_state]) == ["veldra"]

        # A wish to stop is one of the spec, and cannot be taken back
        cancel = adaptation_pb2.CancelAdaptationRequest(name="by-hand", namespace=NAMESPACE)
        with rpc_errors():
            await other.CancelAdaptation(cancel)
            await one.CancelAdaptation(cancel)
        stopped = cluster.body("by-hand")
        assert stopped["spec"]["cancelled"] is True
        assert (
            seal_api.request("PUT", f"{PATH}/by-hand", stopped | {"spec": by_hand["spec"]})[0]
            == 422
        )

        # Deleted by one, gone for all, and its request brings nothing back
        await delete(one, "veldra")
        for stub in (one, other):
            await until_gone(stub, "veldra")
            with pytest.raises(Conflict, match="was deleted"):
                await submit(stub, "veldra", name="veldra")
        again_made = (await submit(other, "veldra-2", name="veldra")).adaptation
        assert again_made.uid != made.uid
        assert not store.list("adaptations/deleting")

        again.send_signal(signal.SIGTERM)
        assert await again.wait() == 0
    assert TEXT not in (tmp_path / "log").read_text()


async def until_gone(stub: Stub, name: str) -> None:
    """The other replica hears of a deletion a moment later."""
    async with asyncio.timeout(10):
        while True:
            try:
                await get(stub, name)
            except NotFound:
                return
            await asyncio.sleep(0.02)


@pytest.fixture
def nobody(kubeconfig: Path, tmp_path: Path) -> Path:
    """A kubeconfig of a server that is away."""
    config = json.loads(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


async def test_a_replica_serves_nobody_before_it_has_seen_the_cluster_and_ends_by_a_signal(
    nobody: Path, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(
            *command(tmp_path, 0), env=environment(nobody), stderr=log, stdout=log
        )
    said = (tmp_path / "log").read_text
    await until(lambda: "Connect call failed" in said(), seconds=START_SECONDS)
    assert "server started" not in said()
    running.send_signal(signal.SIGTERM)
    assert await running.wait() == 0
