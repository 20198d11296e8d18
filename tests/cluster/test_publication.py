"""Publishing to a KServe that the test plays: its controllers' part is a status that it patches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import plain_kserve
import pytest
from aiohttp import web
from cluster_objects import adaptation, run
from controller_office import Office, small_adaptation
from memory_api import Killed
from publishing import URL, Publishing, adapter_of, kserve_settings

from controller_svc.core import Phase
from controller_svc.k8s.api import ADAPTATIONS, API_SERVER, INFERENCE_SERVICES, RUNS
from controller_svc.k8s.objects import ObjectStatus, of_object, to_object
from controller_svc.k8s.publishing import service_look
from controller_svc.k8s.publishing.model_list import served_models
from controller_svc.k8s.publishing.publication import publish
from controller_svc.k8s.publishing.service_look import (
    LOOK_SECONDS,
    REFUSED_SECONDS,
    SETTLED_SECONDS,
)
from controller_svc.k8s.wanted import Wanted
from seal.config import adaptation_of_object, run_of_object
from seal.errors import Conflict, Exhausted, InvalidInput, NotFound, PreconditionFailed, Transient
from seal.records import GateReason

FULL = Exhausted("too many requests", away=API_SERVER)
KINDS = ["InferenceService", "LLMInferenceService"]


@pytest.fixture
def site() -> Publishing:
    return Publishing()


def writes(site: Publishing) -> list[str]:
    return [request for request in site.api.requests if not request.startswith("get")]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_adapter_is_served_once_the_ready_service_lists_it_by_its_digest(
    site: Publishing, kind: str
) -> None:
    ended = site.ended("docs", "1", kind=kind)
    first = await ended.look()
    assert (first.shown.ready, first.shown.reason) == (None, "RollingOut")
    assert first.due_seconds == LOOK_SECONDS
    site.plays_ready(kind)
    assert (await ended.look()).shown.reason == "AdapterNotListed"
    site.listed = frozenset({"qwen", "docs"})  # an older server, which rolls out still
    assert (await ended.look()).shown.ready is None
    site.listed = frozenset({"qwen", "docs", "docs-111111111111"})
    last = await ended.look()
    assert (last.shown.ready, last.shown.reason) == (True, "Served")
    assert last.due_seconds == SETTLED_SECONDS
    assert (last.shown.kind, last.shown.name, last.shown.adapter_name) == (kind, "qwen", "docs")
    assert last.shown.sha256 == "1" * 64
    assert last.shown.adapter_uri == f"pvc://artifacts/{adapter_of('1').path}"
    assert len(writes(site)) == 1
    assert set(site.asked) == {URL}


async def test_what_is_served_is_not_asked_again_nor_made_by_the_sdk(site: Publishing) -> None:
    ended = site.ended("docs", "1")
    await ended.look()
    site.plays_ready()
    site.listed = frozenset({"docs-111111111111"})
    served = await ended.look()
    site.asked.clear()
    site.build = None
    assert (await ended.look()) == replace(served, news=False)
    assert site.asked == []


async def test_a_service_that_waits_says_why_in_kserves_words(site: Publishing) -> None:
    ended = site.ended("docs", "1")
    await ended.look()
    assert "KServe has not said anything" in (await ended.look()).shown.message
    condition = {"type": "Ready", "status": "False", "reason": "PredictorNotReady", "message": "x"}
    status: dict[str, object] = {"conditions": [condition]}
    site.api.change(INFERENCE_SERVICES, "qwen", status=status)
    assert (await ended.look()).shown.message == "PredictorNotReady: x"
    failure = {"reason": "ModelLoadFailed", "message": "out of memory"}
    status = {"conditions": [condition], "modelStatus": {"lastFailureInfo": failure}}
    site.api.change(INFERENCE_SERVICES, "qwen", status=status)
    assert (await ended.look()).shown.message == "ModelLoadFailed: out of memory"


async def test_ready_counts_for_the_spec_that_was_written_alone(site: Publishing) -> None:
    ended = site.ended("docs", "1")
    await ended.look()
    site.plays_ready()
    site.listed = frozenset({"docs-111111111111"})
    site.service()["metadata"]["generation"] = 2
    assert "since it was changed" in (await ended.look()).shown.message
    site.service()["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert "being deleted" in (await ended.look()).shown.message


async def test_each_url_is_asked_until_one_lists_the_adapter(site: Publishing) -> None:
    ended = site.ended("docs", "1", kind="LLMInferenceService")
    await ended.look()
    site.plays_ready("LLMInferenceService")
    status = site.service("LLMInferenceService")["status"]
    status |= {"address": {"url": "http://a"}, "addresses": [{"url": "http://b"}, {"url": URL}]}
    site.listed = frozenset()
    assert (await ended.look()).shown.message == f"{URL} does not list docs-111111111111"
    assert site.asked == ["http://a", "http://b", URL]
    status |= {"address": {}, "addresses": [], "url": ""}
    assert (await ended.look()).shown.message == "the service names no address"


async def test_a_newer_adapter_takes_the_place_and_the_older_is_kept_for_a_rollback(
    site: Publishing,
) -> None:
    older = site.ended("old", "1", adapterName="docs")
    newer = site.ended("new", "2", seconds=60.0, adapterName="docs")
    await older.look()
    seen = await newer.look()
    assert seen.shown.previous_adapter_uri == f"pvc://artifacts/{adapter_of('1').path}"
    passed_over = await older.look()
    assert (passed_over.shown.ready, passed_over.shown.reason) == (False, "Superseded")
    assert passed_over.shown.message == "new is served as docs"
    assert passed_over.due_seconds == SETTLED_SECONDS
    assert writes(site) == [
        "create inferenceservices",
        "replace inferenceservices",
    ]
    newer.withdraw()
    back = await newer.look()
    assert (back.shown.ready, back.shown.reason) == (False, "Withdrawn")
    assert back.shown.message == "old is served as docs"
    assert f"docs=/mnt/stores/artifacts/{adapter_of('1').path}" in arguments(site)
    again = await older.look()
    assert (again.shown.ready, again.shown.reason) == (None, "RollingOut")
    # Taken back, the withdrawal puts the newer in its place again
    newer.withdraw("false")
    assert (await newer.look()).shown.reason == "RollingOut"
    assert (await older.look()).shown.reason == "Superseded"


def arguments(site: Publishing) -> list[str]:
    return site.service()["spec"]["predictor"]["model"]["args"]


async def test_one_that_was_served_learns_that_another_took_its_name(site: Publishing) -> None:
    older = site.ended("old", "1", adapterName="docs")
    await older.look()
    site.plays_ready()
    site.listed = frozenset({"docs-111111111111"})
    assert (await older.look()).shown.ready is True
    newer = site.ended("new", "2", seconds=60.0, adapterName="docs")
    await newer.look()
    assert (await older.look()).shown.reason == "Superseded"
    # What it lists is that of the older still
    site.plays_ready()
    assert (await newer.look()).shown.reason == "AdapterNotListed"


async def test_a_withdrawal_is_written_once_and_makes_no_service(site: Publishing) -> None:
    ended = site.ended("docs", "1")
    ended.withdraw()
    seen = await ended.look()
    assert (seen.shown.reason, seen.shown.message) == ("Withdrawn", "none is served")
    assert writes(site) == []
    ended.withdraw("false")
    await ended.look()
    ended.withdraw()
    assert (await ended.look()).due_seconds is None
    assert (await ended.look()).due_seconds is None
    assert len(writes(site)) == 2
    assert not any("lora" in argument for argument in arguments(site))


@pytest.mark.parametrize("kind", KINDS)
async def test_what_others_set_of_a_service_stays(site: Publishing, kind: str) -> None:
    await site.ended("first", "1", kind=kind, args=["--seed=1"]).look()
    spec = site.service(kind)["spec"]
    spec["replicas"] = 3
    if kind == "LLMInferenceService":
        spec["template"]["containers"].insert(0, {"name": "storage-initializer"})
    else:
        spec["predictor"]["serviceAccountName"] = "reads-s3"
    await site.ended("second", "2", seconds=1.0, kind=kind).look()
    spec = site.service(kind)["spec"]
    assert spec["replicas"] == 3
    if kind == "LLMInferenceService":
        assert spec["template"]["containers"] == [
            {"name": "storage-initializer"}, {"name": "main"}
        ]  # fmt: skip
        assert len(spec["model"]["lora"]["adapters"]) == 4
    else:
        assert spec["predictor"]["serviceAccountName"] == "reads-s3"
        assert "--seed=1" not in arguments(site)


async def test_a_deleted_service_is_made_anew_of_what_is_still_to_be_served(
    site: Publishing,
) -> None:
    kept, gone, taken_back = (site.ended(name, "1") for name in ("kept", "gone", "taken-back"))
    for ended in (kept, gone, taken_back):
        await ended.look()
    del site.api.objects[(INFERENCE_SERVICES, "team", "qwen")]
    taken_back.withdraw()
    assert (await taken_back.look()).shown.message == "none is served"
    assert (await kept.look()).shown.reason == "RollingOut"
    assert list(json.loads(site.service()["metadata"]["annotations"]["seal.dev/served"])) == [
        "kept"
    ]  # fmt: skip


async def test_an_adapter_that_its_gate_refused_is_not_served(site: Publishing) -> None:
    seen = await site.ended("docs", "1", refused=GateReason.GAIN_TOO_SMALL).look()
    assert (seen.shown.ready, seen.shown.reason) == (False, "GateRefused")
    assert seen.shown.message == "gain +0.250"
    assert site.api.requests == []


async def test_nothing_is_published_before_the_end_nor_without_a_wish(site: Publishing) -> None:
    ended = site.ended("docs", "1")
    for phase in (Phase.RUNNING, Phase.FAILED, Phase.CANCELLED):
        status = ended.status.model_copy(update={"phase": phase})
        assert await publish(ended.wanted, status, api=site.api) is None
    for body, kind in ((adaptation("a"), ADAPTATIONS), (run("r"), RUNS)):
        read = adaptation_of_object if kind is ADAPTATIONS else run_of_object
        manifest, cluster = read(body)
        wanted = Wanted(kind=kind, body=body, manifest=manifest, cluster=cluster)
        assert await publish(wanted, ended.status, api=site.api) is None
    assert site.api.requests == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidInput("spec.predictor: wrong", field="spec.predictor"), "InvalidInput"),
        (PreconditionFailed("forbidden"), "PreconditionFailed"),
        (NotFound("no such kind"), "KServeMissing"),
        (Exhausted("exceeded quota: count/inferenceservices"), "Exhausted"),
    ],
)
async def test_a_refusal_is_said_and_tried_again_later(
    site: Publishing, error: Exception, reason: str
) -> None:
    def fault(request: str, done: bool) -> None:
        if request.startswith("create") and not done:
            raise error

    site.api.fault = fault
    seen = await site.ended("docs", "1").look()
    assert (seen.shown.ready, seen.shown.reason) == (False, reason)
    assert seen.due_seconds == REFUSED_SECONDS


async def test_a_service_of_somebody_else_is_not_touched(site: Publishing) -> None:
    theirs = {"metadata": {"name": "qwen"}, "spec": {"predictor": {}}}
    site.api.put(INFERENCE_SERVICES, theirs)
    seen = await site.ended("docs", "1").look()
    assert (seen.shown.reason, seen.due_seconds) == ("Conflict", REFUSED_SECONDS)
    assert writes(site) == []


async def test_a_service_that_is_deleted_while_it_is_changed_is_made_at_the_next_look(
    site: Publishing,
) -> None:
    await site.ended("first", "1").look()

    def deletes(request: str, done: bool) -> None:
        if request.startswith("replace") and not done:
            site.api.objects.pop((INFERENCE_SERVICES, "team", "qwen"), None)

    site.api.fault = deletes
    second = site.ended("second", "2")
    with pytest.raises(Transient, match="deleted meanwhile"):
        await second.look()
    assert (await second.look()).shown.reason == "RollingOut"


@pytest.mark.parametrize("error", [Transient("away"), FULL, Conflict("changed")])
async def test_an_api_server_that_is_away_or_changed_meanwhile_is_looked_at_again(
    site: Publishing, error: Exception
) -> None:
    def fault(request: str, done: bool) -> None:
        if request.startswith("create") and not done:
            raise error

    site.api.fault = fault
    ended = site.ended("docs", "1")
    with pytest.raises((Transient, Exhausted)):
        await ended.look()
    site.api.fault = lambda request, done: None
    assert (await ended.look()).shown.reason == "RollingOut"


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("request_name", ["get", "create", "replace"])
async def test_a_controller_that_dies_at_any_request_is_made_up_for_by_the_next(
    site: Publishing, request_name: str, done: bool
) -> None:
    older = site.ended("old", "1", adapterName="docs")
    newer = site.ended("new", "2", seconds=1.0, adapterName="docs")

    def fault(request: str, carried_out: bool) -> None:
        if request.startswith(request_name) and carried_out == done:
            site.api.fault = lambda request, done: None
            raise Killed

    site.api.fault = fault
    for ended in (older, newer):
        try:
            await ended.look()
        except Killed:
            await ended.look()
    names = json.loads(site.service()["metadata"]["annotations"]["seal.dev/served"])
    assert names["docs"]["current"]["adaptation"] == "new"
    assert names["docs"]["previous"]["adaptation"] == "old"


async def test_two_adaptations_that_publish_at_once_are_both_served(site: Publishing) -> None:
    await site.ended("first", "1").look()
    second, third = site.ended("second", "2"), site.ended("third", "3")
    found = await asyncio.gather(second.look(), third.look(), return_exceptions=True)
    for ended, seen in zip((second, third), found, strict=True):
        if isinstance(seen, Transient):
            await ended.look()
    assert set(json.loads(site.service()["metadata"]["annotations"]["seal.dev/served"])) == {
        "first", "second", "third",
    }  # fmt: skip


async def test_without_the_sdk_it_says_which_extra_is_missing(
    site: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "controller_svc.k8s.publishing.kserve", None)
    site.build = None
    seen = await site.ended("docs", "1").look()
    assert seen.shown.reason == "PreconditionFailed"
    assert "install the extra kserve" in seen.shown.message
    assert seen.due_seconds == REFUSED_SECONDS


async def test_the_condition_moves_only_with_its_value_and_goes_with_the_status(
    site: Publishing,
) -> None:
    ended = site.ended("docs", "1")
    await ended.look()
    site.now += 60.0
    site.plays_ready()
    second = await ended.look()
    shown = ObjectStatus.model_validate(ended.body["status"])
    published = shown.conditions[-1]
    assert (published.type, published.status) == ("Published", "Unknown")
    assert published.reason == "AdapterNotListed"
    assert published.last_transition_time.timestamp() == site.now - 60.0
    assert shown.publication == second.shown
    # The core knows nothing of it, and a status that is the same is the same text
    assert of_object(ended.body["status"]) == ended.status
    assert (
        to_object(ended.status, generation=1, publication=shown.publication)
        == (ended.body["status"])
    )
    site.listed = frozenset({"docs-111111111111"})
    await ended.look()
    served = ObjectStatus.model_validate(ended.body["status"]).conditions[-1]
    assert (served.status, served.last_transition_time.timestamp()) == ("True", site.now)


@pytest.fixture
async def server() -> AsyncIterator[tuple[str, dict[str, web.Response]]]:
    """A server, and what it answers by path."""
    answers: dict[str, web.Response] = {}

    async def answer(request: web.Request) -> web.Response:
        return answers.get(request.path, web.Response(status=404))

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    host, port = runner.addresses[0]
    yield f"http://{host}:{port}", answers
    await runner.cleanup()


async def test_the_lists_of_vllm_and_of_kserves_own_server_are_read(server) -> None:
    url, answers = server
    answers["/base/v1/models"] = web.json_response({"data": [{"id": "qwen"}, {"id": "docs"}]})
    assert await served_models(f"{url}/base/") == {"qwen", "docs"}
    answers["/v1/models"] = web.json_response({"models": ["qwen", "docs-1"]})
    answers["/openai/v1/models"] = web.json_response({"data": [{"id": "qwen"}]})
    assert await served_models(url) == {"qwen", "docs-1"}


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(text="<html>"),
        lambda: web.json_response([]),
        lambda: web.Response(status=503),
        lambda: web.Response(status=302, headers={"Location": "/openai/v1/models"}),
        lambda: web.Response(body=b"\xff\xfe"),
    ],
)
async def test_what_is_no_list_is_asked_again(server, answer) -> None:
    url, answers = server
    answers["/v1/models"] = answer()
    with pytest.raises(Transient):
        await served_models(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "file:///etc/passwd", "ftp://x"])
async def test_what_is_no_server_is_asked_again(url: str) -> None:
    with pytest.raises(Transient):
        await served_models(url)


async def test_a_controller_brings_an_adaptation_to_a_service_that_lists_its_adapter(
    tmp_path: Path, server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_look, "_sdk", lambda: plain_kserve.build)
    url, answers = server
    office = Office(tmp_path / "store")
    key = office.submit(small_adaptation(publish={"kserve": kserve_settings()}))
    await office.to_the_end(key)
    assert office.said(key, "Complete")[0] == "True"
    assert office.said(key, "Published")[:2] == ("Unknown", "RollingOut")
    assert await office.look(key) == LOOK_SECONDS
    status = {"conditions": [{"type": "Ready", "status": "True"}], "url": url}
    office.api.change(INFERENCE_SERVICES, "qwen", status=status)
    answers["/v1/models"] = web.json_response({"models": ["qwen", "notes"]})
    office.restart()
    assert await office.look(key) == LOOK_SECONDS
    shown = office.shown(key).publication
    assert shown is not None
    names = ["qwen", "notes", f"notes-{shown.sha256[:12]}"]
    answers["/v1/models"] = web.json_response({"models": names})
    assert await office.look(key) == SETTLED_SECONDS
    assert office.said(key, "Published")[:2] == ("True", "Served")
    result = office.status(key).adaptation
    assert result is not None and result.result is not None
    assert result.result.adapter is not None
    assert shown.sha256 == result.result.adapter.sha256
    told = [reason for _, reason in office.told(key)]
    assert told[-3:] == ["RollingOut", "AdapterNotListed", "Served"]
    writes = office.writes()
    assert await office.look(key) == SETTLED_SECONDS
    assert office.writes() == writes


def test_the_section_is_read_from_an_object_as_from_a_file() -> None:
    body = adaptation("a", publish={"kserve": kserve_settings(resources={"limits": {"cpu": 2}})})
    settings = adaptation_of_object(body)[1].publish
    assert settings is not None
    assert settings.kserve.resources.limits == {"cpu": "2"}
