"""What is asked of an API server, and what its refusals are to the controller."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cluster_objects import run
from control_plane import ControlPlane
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from controller_svc.k8s.api import (
    JOBS,
    LEASES,
    RUNS,
    WORKLOADS,
    Expired,
    KubernetesApi,
    api_error,
)
from controller_svc.k8s.lease import Leadership
from seal.errors import (
    Conflict,
    Exhausted,
    Internal,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    Retryable,
    Transient,
)

QUOTA = 'jobs.batch "x" is forbidden: exceeded quota: small'
CLASSES = [
    (400, "", InvalidInput), (401, "", PreconditionFailed), (403, "", PreconditionFailed),
    (403, QUOTA, Exhausted), (404, "", NotFound), (408, "", Transient), (409, "", Conflict),
    (410, "", Expired), (413, "", InvalidInput), (415, "", InvalidInput),
    (422, "", InvalidInput), (429, "", Exhausted), (500, "", Transient), (502, "", Transient),
    (503, "", Transient), (504, "", Transient), (302, "", Internal),
]  # fmt: skip


@pytest.mark.parametrize(("status", "message", "kind"), CLASSES)
def test_every_status_is_an_error_of_its_class(status, message, kind) -> None:
    error = api_error(status, json.dumps({"message": message}), None, "POST /x")
    assert type(error) is kind and "POST /x" in str(error)


@pytest.mark.parametrize("status", [429, 503])
def test_the_server_says_when_to_ask_again(status: int) -> None:
    error = api_error(status, "", {"Retry-After": "7"}, "GET /x")
    assert isinstance(error, Retryable) and error.retry_after_seconds == 7.0
    assert api_error(status, "", {"Retry-After": "Wed"}, "GET /x").retry_after_seconds is None


def test_a_refusal_names_the_field_and_one_of_a_proxy_is_kept_short() -> None:
    causes = [{"reason": "FieldValueInvalid", "field": "spec.completions"}]
    body = json.dumps({"message": "Job is invalid", "details": {"causes": causes}})
    assert api_error(422, body, None, "POST /x").field == "spec.completions"
    for odd in ("<html>" * 1000, "[]", '"x"', '{"details": 3}'):
        assert len(str(api_error(502, odd, None, "GET /x"))) < 600


async def test_a_server_that_is_away_resets_hangs_or_babbles_is_transient() -> None:
    async def reset(reader, writer) -> None:
        await reader.readline()
        writer.transport.abort()

    async def hang(reader, writer) -> None:
        await reader.read()

    async def babble(reader, writer) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()

    async def cut(reader, writer) -> None:
        await reader.readline()
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"a": ')
        await writer.drain()
        writer.close()

    for behaviour in (reset, hang, babble, cut):
        server = await asyncio.start_server(behaviour, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with ApiClient(Configuration(host=f"http://127.0.0.1:{port}")) as client:
            with pytest.raises(Transient):
                await KubernetesApi(client, timeout_seconds=0.3).get(JOBS, "team", "x")
        server.close()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        async with ApiClient(Configuration(host=host)) as client:
            with pytest.raises(Transient):
                await KubernetesApi(client).get(JOBS, "team", "x")


async def test_a_real_server_keeps_versions_refuses_typos_and_waits_for_what_is_owned(
    seal_api: ControlPlane,
) -> None:
    client = await config.new_client_from_config(str(seal_api.kubeconfig))
    async with client:
        api = KubernetesApi(client)
        made = await api.create(RUNS, "default", run("api-1", rounds=1))
        with pytest.raises(Conflict):
            await api.create(RUNS, "default", run("api-1", rounds=1))
        with pytest.raises(InvalidInput, match="ronds"):
            await api.create(RUNS, "default", run("api-2", ronds=1))
        status = {"run": "api-1", "specSha256": "ab" * 32, "phase": "Running"}
        changed = await api.replace_status(RUNS, "default", made | {"status": status})
        assert changed["status"]["phase"] == "Running" and changed["spec"] == made["spec"]
        with pytest.raises(Conflict):
            await api.replace_status(RUNS, "default", made | {"status": status})
        await api.create(RUNS, "default", run("api-3", rounds=1))
        running = await api.list(RUNS, "default", fields="status.phase=Running")
        names = {one["metadata"]["name"] for one in running}  # other tests' too
        assert "api-1" in names and "api-3" not in names
        for kind in (JOBS, WORKLOADS):
            with pytest.raises(NotFound):
                await api.get(kind, "default", "nothing")
        uid = made["metadata"]["uid"]
        with pytest.raises(Conflict):
            await api.delete(RUNS, "default", "api-1", uid="another")
        await api.delete(RUNS, "default", "api-1", uid=uid)
        # Nobody collects what is owned here: the object stays, and says that it is going
        left = await api.get(RUNS, "default", "api-1")
        assert left["metadata"]["deletionTimestamp"]


async def test_a_real_server_gives_all_of_a_namespace_page_by_page(seal_api: ControlPlane) -> None:
    client = await config.new_client_from_config(str(seal_api.kubeconfig))
    async with client:
        api = KubernetesApi(client, page_objects=2)
        names = {f"paged-{n}" for n in range(5)}
        for name in names:
            await api.create(RUNS, "default", run(name, rounds=1))
        pages = [page async for page in api.pages(RUNS, "default")]
        told = [one["metadata"]["name"] for page in pages for one in page]
        assert max(map(len, pages)) == 2 and len(told) == len(set(told))
        assert names <= set(told)  # other tests' too
        with pytest.raises(NotFound):
            [page async for page in api.pages(WORKLOADS, "default")]


PAGES = {
    "": {"metadata": {"continue": "second"}, "items": [1, 2]},
    "second": {"metadata": {}, "items": [3]},
}


@asynccontextmanager
async def pages_that_expire(*, times: int) -> AsyncGenerator[tuple[KubernetesApi, list[str]]]:
    """A server that has forgotten where the second page begins so many times; what it is asked."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        place = request.query.get("continue", "")
        asked.append(place)
        if place and asked.count(place) <= times:
            return web.json_response({"message": "too old", "reason": "Expired"}, status=410)
        return web.json_response(PAGES[place])

    site = web.Application()
    site.router.add_get("/{path:.*}", answer)
    async with (
        TestServer(site) as server,
        ApiClient(Configuration(host=str(server.make_url("")).rstrip("/"))) as client,
    ):
        yield KubernetesApi(client), asked


async def test_pages_are_begun_anew_once_where_the_server_has_forgotten_their_place() -> None:
    async with pages_that_expire(times=1) as (api, asked):
        told = [page async for page in api.pages(JOBS, "team")]
    assert told == [[1, 2], [1, 2], [3]] and asked == ["", "second", "", "second"]
    async with pages_that_expire(times=9) as (api, asked):
        with pytest.raises(Transient, match="too old"):
            [page async for page in api.pages(JOBS, "team")]
    assert asked == ["", "second", "", "second"]


async def test_a_real_lease_is_taken_renewed_and_handed_over(control_plane: ControlPlane) -> None:
    client = await config.new_client_from_config(str(control_plane.kubeconfig))
    async with client:
        api = KubernetesApi(client)
        first, second = (
            Leadership(api, namespace="default", name="seal", identity=name) for name in "ab"
        )
        epoch = await first.acquire()
        assert await first.acquire() == epoch  # renewed
        await first.release()
        assert await second.acquire() == epoch + 1
        kept = await api.get(LEASES, "default", "seal")
        assert kept["spec"]["holderIdentity"] == "b"
        assert kept["spec"]["leaseTransitions"] == epoch + 1
