"""What happens to objects is told, whatever happens to the connection meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cluster_objects import run
from control_plane import ControlPlane
from eventually import until
from kubernetes.aio.client import ApiClient, Configuration
from structlog.testing import capture_logs

from controller_svc.k8s.api import JOBS, RUNS, KubernetesApi
from controller_svc.k8s.connect import connect, own_namespace
from controller_svc.k8s.source import Seen, Watched, WatchTimes, watch
from seal.errors import InvalidInput
from seal.metrics import metrics

RUN_PATH = "/apis/seal.dev/v1alpha1/namespaces/{namespace}/restemruns"
Told = list[tuple[str, str]]


def item(name: str, version: int = 1) -> Any:
    return run(name) | {"metadata": {"name": name, "resourceVersion": str(version)}}


def line(type: str, body: object) -> bytes:
    return json.dumps({"type": type, "object": body}).encode() + b"\n"


class Server:
    """An API server of one kind, whose lists and streams are written down beforehand."""

    def __init__(self, *turns: tuple[list[Any], list[bytes]], refusals: tuple[int, ...] = ()):
        self.turns, self.refusals = list(turns), list(refusals)
        self.queries: list[Any] = []
        self.tokens: list[str] = []
        self.refused: dict[str, int] = {}
        """Namespaces of which nothing is told, and the status that says so; 0 says nothing."""
        self.pages: list[tuple[int, list[Any]]] = []
        """Status and objects of pages that another follows, before the first whole list."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(dict(request.query))
        self.tokens.append(request.headers.get("Authorization", ""))
        refused = self.refused.get(request.match_info["namespace"])
        if refused == 0:
            await asyncio.sleep(60)
        if refused:
            return web.json_response({"kind": "Status", "message": "no"}, status=refused)
        if self.refusals:
            return web.json_response({"message": "no"}, status=self.refusals.pop(0))
        if "watch" not in request.query and self.pages:
            status, items = self.pages.pop(0)
            metadata = {"resourceVersion": "5", "continue": "more"}
            return web.json_response({"metadata": metadata, "items": items}, status=status)
        if "watch" not in request.query:
            items = self.turns[0][0] if self.turns else []
            return web.json_response({"metadata": {"resourceVersion": "7"}, "items": items})
        stream = web.StreamResponse()
        await stream.prepare(request)
        if not self.turns:
            await asyncio.sleep(60)
        for one in self.turns.pop(0)[1] if self.turns else ():
            await stream.write(one)
        return stream

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[ApiClient]:
        app = web.Application()
        app.router.add_get(RUN_PATH, self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with ApiClient(Configuration(host=f"http://127.0.0.1:{port}")) as client:
            client.configuration.api_key["BearerToken"] = "bearer first"
            yield client
        await runner.cleanup()


GONE = line("ERROR", {"kind": "Status", "code": 410})


@asynccontextmanager
async def watching(
    client: ApiClient, on_event: Callable[[Seen], None], **options: Any
) -> AsyncIterator[asyncio.Event]:
    ready = asyncio.Event()
    task = asyncio.create_task(
        watch(
            options.pop("resources", [Watched(resource=RUNS)]), options.pop("namespaces", ["team"]),
            on_event, client=client, ready=ready, **options,
        )
    )  # fmt: skip
    try:
        yield ready
    finally:
        task.cancel()
        await asyncio.wait({task})


async def told_until(server: Server, enough: Callable[[Told], bool], **options: Any) -> Told:
    told: Told = []
    async with server.serving() as client, watching(client, noting(told), **options):
        await until(lambda: enough(told))
    return told


def noting(told: Told) -> Callable[[Seen], None]:
    def note(seen: Seen) -> None:
        body: Any = seen.body
        told.append((seen.kind, body["metadata"]["name"]))

    return note


async def test_what_is_there_is_told_first_and_then_what_happens() -> None:
    server = Server(([item("a")], [line("ADDED", item("b")), line("DELETED", item("a"))]))
    told = await told_until(server, lambda told: len(told) >= 3)
    assert told == [("LISTED", "a"), ("ADDED", "b"), ("DELETED", "a")]
    assert server.queries[1]["resourceVersion"] == "7"


async def test_a_stream_whose_place_is_forgotten_is_listed_anew_and_ghosts_are_told_deleted() -> (
    None
):
    server = Server(
        ([item("a"), item("b")], [line("ADDED", item("c")), GONE]), ([item("b")], []),
    )  # fmt: skip
    told = await told_until(server, lambda told: len(told) >= 6)
    assert told[:4] == [("LISTED", "a"), ("LISTED", "b"), ("ADDED", "c"), ("LISTED", "b")]
    assert sorted(told[4:6]) == [("DELETED", "a"), ("DELETED", "c")]


async def test_what_a_list_that_broke_has_told_is_told_deleted_if_it_has_gone() -> None:
    server = Server(([item("b")], []))
    server.pages = [(200, [item("a")]), (410, [])]
    told = await told_until(server, lambda told: len(told) >= 3)
    assert told == [("LISTED", "a"), ("LISTED", "b"), ("DELETED", "a")]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
async def test_a_refused_list_is_asked_for_again(status: int) -> None:
    server = Server(([item("a")], []), refusals=(status,))
    assert (await told_until(server, lambda told: len(told) >= 1))[0] == ("LISTED", "a")


@pytest.mark.parametrize("broken", [b'{"type": "ADD', line("ERROR", {"code": 500})])
async def test_a_stream_that_breaks_or_errs_is_begun_again(broken: bytes) -> None:
    server = Server(([item("a")], [broken]), ([item("a"), item("b")], []))
    told = await told_until(server, lambda told: ("LISTED", "b") in told)
    assert told[0] == ("LISTED", "a") and ("DELETED", "a") not in told


async def test_a_connection_that_closes_between_two_reads_ends_no_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, closed = aiohttp.StreamReader.read, list[bool]()

    async def close_once(reader: aiohttp.StreamReader, size: int = -1) -> bytes:
        if size == 2**20 and not closed:  # kopf's, of a stream
            closed.append(True)
            raise RuntimeError("Connection closed.")
        return await read(reader, size)

    monkeypatch.setattr(aiohttp.StreamReader, "read", close_once)
    server = Server(([item("a")], [line("ADDED", item("b"))]), ([item("a"), item("c")], []))
    told = await told_until(server, lambda told: ("LISTED", "c") in told)
    assert closed and told[0] == ("LISTED", "a")


async def test_tls_that_ends_in_disorder_ends_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    request, broken = aiohttp.ClientSession.request, list[bool]()

    def break_once(session: aiohttp.ClientSession, **options: Any) -> Any:
        if not broken:  # as OpenSSL says it of a connection that the other side has closed
            broken.append(True)
            raise aiohttp.ClientOSError(1, "[SSL: APPLICATION_DATA_AFTER_CLOSE_NOTIFY] application")
        return request(session, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "request", break_once)
    server = Server(([item("a")], []))
    assert await told_until(server, lambda told: bool(told)) == [("LISTED", "a")]
    assert broken


async def test_a_half_open_stream_is_given_up_and_goes_on_from_its_place() -> None:
    server = Server()
    times = WatchTimes(silence_seconds=0.2)
    async with server.serving() as client, watching(client, lambda seen: None, times=times):
        await until(lambda: len(server.queries) >= 4)
    assert [("watch" in query) for query in server.queries[:4]] == [False, True, True, True]


async def test_the_server_is_told_when_to_end_a_stream_and_a_renewed_token_is_used() -> None:
    server = Server(([item("a")], [GONE]))
    async with server.serving() as client, watching(client, lambda seen: None):
        await until(lambda: server.queries)
        client.configuration.api_key["BearerToken"] = "bearer second"
        await until(lambda: "bearer second" in server.tokens)
    assert server.queries[1]["timeoutSeconds"] == "300" and server.tokens[0] == "bearer first"


async def test_it_is_ready_once_all_kinds_in_all_namespaces_have_been_listed() -> None:
    server = Server(([], []))
    server.refused = {"other": 0}
    async with server.serving() as client:
        async with watching(client, lambda seen: None, namespaces=["team", "other"]) as ready:
            await until(lambda: any("watch" in query for query in server.queries))
            await asyncio.sleep(0.2)
            assert not ready.is_set()
        async with watching(client, lambda seen: None) as ready:
            await until(ready.is_set)


def refused(namespace: str) -> float | None:
    return metrics.registry.get_sample_value("seal_namespace_refused", {"namespace": namespace})


@pytest.mark.parametrize("status", [403, 404])
async def test_a_namespace_that_is_refused_keeps_no_other_waiting_and_is_taken_up_once_it_answers(
    status: int,
) -> None:
    server, listed = Server(([], [])), list[str]()
    server.refused = {"gone": status}
    async with server.serving() as client:
        with capture_logs() as logs:
            async with watching(
                client, lambda seen: None, namespaces=["gone", "team"], on_listed=listed.append
            ) as ready:
                await until(ready.is_set)
                assert listed == ["team"]
                (said, *_) = [one for one in logs if one["log_level"] == "error"]
                assert said["namespace"] == "gone" and "Role" in said["remedy"]
                assert (refused("gone"), refused("team")) == (1, 0)
                server.refused.clear()
                await until(lambda: listed == ["team", "gone"])
                assert refused("gone") == 0


async def test_who_watches_no_more_measures_nothing() -> None:
    server = Server(([], []))
    server.refused = {"gone": 403}
    async with server.serving() as client:
        async with watching(client, lambda seen: None, namespaces=["gone", "team"]):
            await until(lambda: refused("gone") == 1)
        assert refused("gone") is None, "another controller leads, and it may be put right"


async def test_where_every_namespace_is_refused_nothing_is_ready() -> None:
    server = Server()
    server.refused = {"team": 404}
    async with server.serving() as client, watching(client, lambda seen: None) as ready:
        await until(lambda: len(server.queries) >= 2)
        assert not ready.is_set()


async def test_a_namespace_is_listed_once_all_kinds_in_it_are() -> None:
    server, listed = Server(([], [])), list[str]()
    kinds = [Watched(resource=RUNS), Watched(resource=JOBS)]
    async with (
        server.serving() as client,
        watching(client, lambda seen: None, resources=kinds, on_listed=listed.append) as ready,
    ):
        await until(lambda: any("watch" in query for query in server.queries))
        await asyncio.sleep(0.2)
        assert not (listed or ready.is_set()), "of Jobs the server knows nothing"


async def test_a_real_server_tells_of_its_runs_and_of_the_jobs_that_a_label_chooses(
    seal_api: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(seal_api.kubeconfig))
    seal_api.kubectl("create", "namespace", "source")
    told: Told = []
    client = await connect()
    async with client:
        api = KubernetesApi(client)
        made = run("seen-1", rounds=1)
        made["metadata"]["namespace"] = "source"
        await api.create(RUNS, "source", made)
        watched = [Watched(resource=RUNS), Watched(resource=JOBS, labels="mine=true")]
        async with watching(
            client, noting(told), resources=watched, namespaces=["source"]
        ) as ready:
            await until(ready.is_set)
            assert told == [("LISTED", "seen-1")]
            for name, label in (("theirs", "false"), ("mine", "true")):
                await api.create(JOBS, "source", _job(name, label))
            await until(lambda: len(told) == 2)
        found: Any = await api.get(RUNS, "source", "seen-1")
    assert told[1] == ("ADDED", "mine")
    assert not {"annotations", "finalizers"} & found["metadata"].keys()


def _job(name: str, label: str) -> Any:
    pod = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a:1"}]}
    return {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "labels": {"mine": label}},
        "spec": {"template": {"spec": pod}},
    }  # fmt: skip


async def test_without_a_pod_and_a_kubeconfig_there_is_no_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    with pytest.raises(InvalidInput, match="KUBECONFIG"):
        await connect()
    assert own_namespace(tmp_path / "nothing") == ""
    (tmp_path / "namespace").write_text("team\n")
    assert own_namespace(tmp_path / "namespace") == "team"


async def test_requests_go_through_the_proxy_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.url.host)
        return web.json_response({"kind": "RestEMRun"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    known = {
        "clusters": [{"name": "c", "cluster": {"server": "http://api.example"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "it", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "it",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(known))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    async with TestServer(app) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        async with await connect() as client:
            assert await KubernetesApi(client).get(RUNS, "team", "demo") == {"kind": "RestEMRun"}
    assert asked == ["api.example"]
    monkeypatch.setenv("no_proxy", "api.example")
    async with await connect() as client:
        assert client.rest_client.proxy is None
