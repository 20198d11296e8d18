"""`seal adapt` and its companions: what they hand in, show, and say at the end."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import front_door_on_fakes
import pytest
from command import one_line, seal
from fake_adaptations import (
    ADAPTER_SHA256,
    FILES,
    FakeAdaptations,
    ThreadedServer,
    serve,
    serve_in_thread,
)
from synthetic_adaptation import adaptation_spec, synthetic_result

from controller_svc.adaptations import FOLDER, RequestKey
from controller_svc.api.service import register
from controller_svc.cli import serving
from controller_svc.cli.adaptation_progress import Story
from controller_svc.cli.adaptation_tables import headline, print_adaptation, refusal_remedy
from controller_svc.cli.adapting import Work
from controller_svc.cli.server_thread import ServerThread
from controller_svc.cli.typed import as_typed
from controller_svc.core import Phase
from controller_svc.local.adaptations import AdaptationSettings, local_adaptations
from controller_svc.local.lock import run_lock
from controller_svc.local.objects import AdaptationObject, Objects
from controller_svc.requests import note_request
from controller_svc.worker.settings import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.client import (
    Advanced,
    Client,
    Document,
    Event,
    Options,
    Rewarded,
    convert,
    read_documents,
)
from seal.errors import Exhausted, InvalidInput, Transient
from seal.records import GateReason
from seal.resources import Adaptation as Manifest
from seal.resources import ObjectMeta
from seal.rpc.server import start_server
from seal.runs.store import status_path
from seal.v1 import adaptation_pb2 as pb

NOTE = "# Veldra\n\nThe lighthouse of Veldra was built by Ama Torrin in 1907, for the fishers.\n"
QUESTION = '{"question": "Who built the lighthouse?", "answers": ["Ama Torrin"]}\n'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "note.md").write_text(NOTE)
    (tmp_path / "questions.jsonl").write_text(QUESTION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEAL_SERVER", raising=False)
    monkeypatch.delenv("SEAL_ROOT", raising=False)
    return tmp_path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAdaptations]:
    """What a process that serves plays."""
    fake = FakeAdaptations()
    undo = front_door_on_fakes.install(fake)
    yield fake
    undo()


@pytest.fixture
def server(fake: FakeAdaptations) -> Iterator[ThreadedServer]:
    with serve_in_thread(fake) as server:
        yield server


def submitted(fake: FakeAdaptations, name: str) -> pb.SubmitAdaptationRequest:
    return pb.SubmitAdaptationRequest.FromString(fake.jobs["default", name].body)


# Handing in, and what is shown


def test_without_a_server_this_process_does_the_work_and_says_what_came_out(
    place: Path, fake: FakeAdaptations, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal("adapt", "note.md", "--name", "veldra") == 0
    said = capsys.readouterr()
    shown = one_line(said.out)
    assert "veldra: published. F1 (self-made) 2.1 % before, 60.3 % after, on 12 held-out" in shown
    for row in ("base model", "passages alone", "adapter", "over base model", "over passages"):
        assert row in shown
    assert "60.3 % 60.3 % 60.3 %" in shown and "[50.3, 70.3]" in shown
    assert "change F1 −3.2 [−13.2, +6.8]" in shown
    assert "gate passed: gain 0.582" in shown
    assert "rollout 1,200 45,000 900" in shown
    assert "seal chat --adapter veldra" in shown
    assert "seal export veldra DIRECTORY" in shown
    steps = [line for line in said.err.splitlines() if line.startswith("veldra: ")]
    assert [line.split(": ")[1].split(",")[0].split(" ")[0] for line in steps] == [
        "accepted", "1", "wrote", "12", "adapter", "gate", "published",
    ]  # fmt: skip
    assert not (place / "seal-runs" / FOLDER / "serving.json").exists()


def test_every_number_that_rests_on_questions_of_the_model_is_labelled(
    place: Path, fake: FakeAdaptations, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal("adapt", "note.md", "--name", "veldra") == 0
    said = capsys.readouterr()
    labelled = ("Held-out questions", "Gain of the adapter", "veldra: published.", "gate ")
    for line in said.out.splitlines():
        if line.startswith(labelled):
            assert "(self-made)" in line, line
    assert sum(line.startswith(labelled) for line in said.out.splitlines()) == 4
    for line in said.err.splitlines():
        if any(word in line for word in ("reward ", "gate ", "question")):
            assert "(self-made)" in line, line
    assert seal("adapt", "note.md", "--name", "asked", "--questions", "questions.jsonl") == 0
    said = capsys.readouterr()
    assert "self-made" not in said.out + said.err
    (question,) = submitted(fake, "asked").questions
    assert list(question.answers) == ["Ama Torrin"]


def test_what_is_not_said_is_left_to_the_server_and_what_is_said_arrives(
    place: Path, fake: FakeAdaptations, server: ThreadedServer
) -> None:
    arguments = ["adapt", "note.md", "--server", server.address, "-o", "json"]
    assert seal(*arguments, "--name", "plain") == 0
    assert not submitted(fake, "plain").HasField("options") or not (
        submitted(fake, "plain").options.ListFields()
    )
    policy = f"runs/x/{'a' * 64}@{'a' * 64}"
    given = (
        "--seed 7 --candidates 3 --passage-tokens 128 --held-out 0.4 --replay-rows 0 "
        f"--min-gain 0.05 --not-confident --max-regression 0.1 --policy {policy}"
    )
    assert seal(*arguments, "--name", "full", *given.split()) == 0
    options = submitted(fake, "full").options
    assert (options.seed, options.candidates, options.passage_tokens) == (7, 3, 128)
    assert options.HasField("replay_rows") and options.replay_rows == 0
    assert options.held_out_share == 0.4
    assert options.policy.sha256 == "a" * 64
    assert options.gate.HasField("confident") and not options.gate.confident
    assert (options.gate.min_gain, options.gate.max_regression) == (0.05, 0.1)


def test_with_json_stdout_is_one_object_and_a_missing_number_is_null(
    place: Path, server: ThreadedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    reach = ["--server", server.address, "--output", "json"]
    assert seal("adapt", "note.md", "--name", "veldra", *reach) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "Published"
    assert told["evaluation"]["self_made"] is True
    assert told["adapter"] == {"path": f"adapters/{ADAPTER_SHA256}", "sha256": ADAPTER_SHA256}
    assert told["options"]["seed"] is None and told["passages_adapter"] is None
    assert seal("get", "veldra", *reach) == 0
    assert json.loads(capsys.readouterr().out) == told


def test_the_same_command_again_finds_the_same_adaptation(
    place: Path, fake: FakeAdaptations, server: ThreadedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["adapt", "note.md", "--name", "veldra", "--server", server.address]
    assert seal(*arguments) == 0
    first = capsys.readouterr().out
    assert seal(*arguments) == 0
    said = capsys.readouterr()
    assert said.out == first
    assert "veldra has ended; this is its result" in said.err
    assert len(fake.jobs) == 1
    (place / "note.md").write_text(NOTE + "More.\n")
    assert seal(*arguments) == 2, "another content under the same name is refused"
    assert "there is an adaptation veldra" in capsys.readouterr().err


def test_what_has_ended_is_shown_again_without_a_model(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def load(*_: object, **__: object) -> AbstractAsyncContextManager[str]:
        loaded.append(True)
        raise Transient("a model would be loaded")

    monkeypatch.setattr(serving, "_everything", load)
    work = Work(
        documents=read_documents(["note.md"]),
        questions=(),
        questions_file=None,
        name="veldra",
        options=Options(),
    )
    objects = Objects(ArtifactStore(str(place / "seal-runs")))

    def leave(deleted: int) -> AdaptationObject:
        """What a process that has accepted the work has left."""
        request_id = work.request_id(model="smollm2-135m", deleted=deleted)
        key = RequestKey(caller="", namespace="default", request_id=request_id)
        note_request(objects.store, key, name="veldra", body_sha256="a" * 64)
        metadata = ObjectMeta(name="veldra", namespace="default")
        manifest = Manifest(metadata=metadata, spec=adaptation_spec())
        return objects.create(manifest, uid=key.uid)

    def end(one: AdaptationObject) -> None:
        status = one.new_status()
        assert status.adaptation is not None
        result = synthetic_result(refused=GateReason.GAIN_UNCERTAIN)
        status = status.model_copy(
            update={
                "phase": Phase.COMPLETE,
                "adaptation": status.adaptation.model_copy(update={"result": result}),
            }
        )
        objects.store.write_json(status_path(one.run), status)

    first = leave(deleted=0)
    assert seal("adapt", "note.md", "--name", "veldra") == 43, "it has not ended: it goes on"
    end(first)
    loaded.clear()
    for _ in range(2):
        assert seal("adapt", "note.md", "--name", "veldra") == 42
        said = capsys.readouterr()
        assert "veldra has ended; this is its result" in said.err
        assert "veldra: refused" in said.out
    assert seal("adapt", "note.md", "--name", "other") == 43, "this is another one"
    assert loaded == [True]
    loaded.clear()
    grave = objects.bury(first.uid, kept=())
    objects.erase(first, grave, shared=frozenset())
    assert seal("adapt", "note.md", "--name", "veldra") == 43, "what is deleted is done again"
    end(leave(deleted=1))
    assert seal("adapt", "note.md", "--name", "veldra") == 42
    assert loaded == [True]


def test_what_was_deleted_can_be_done_again_by_the_same_command(
    place: Path, fake: FakeAdaptations, server: ThreadedServer
) -> None:
    reach = ["--server", server.address]
    for _ in range(3):
        assert seal("adapt", "note.md", "--name", "veldra", *reach) == 0
        assert seal("adapt", "note.md", "--name", "veldra", *reach) == 0
        assert seal("delete", "veldra", "--yes", *reach) == 0
    assert len(fake.requests) == 3


def test_a_request_id_follows_from_all_that_is_handed_in() -> None:
    def request_id(
        name: str = "n", content: bytes = b"a", seed: int | None = None, model: str = "m"
    ) -> str:
        document = Document(name="d", content=content)
        work = Work(
            documents=[document],
            questions=[],
            questions_file=None,
            name=name,
            options=Options(seed=seed),
        )
        return work.request_id(model=model)

    ids = [
        request_id(),
        request_id(name="o"),
        request_id(content=b"b"),
        request_id(seed=0),
        request_id(model="k"),
    ]
    assert len(set(ids)) == 5
    assert request_id() == ids[0]


# How it ends


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        (pb.ADAPTATION_STATE_REFUSED, 42, "the gate refused the adapter of veldra: GainUncertain"),
        (pb.ADAPTATION_STATE_FAILED, 42, "veldra failed: TooFewScores: 9 of 12 inner loops"),
        (pb.ADAPTATION_STATE_CANCELLED, 42, "veldra was cancelled"),
    ],
)
def test_an_end_without_a_published_adapter_says_why_and_has_a_code(
    place: Path,
    fake: FakeAdaptations,
    server: ThreadedServer,
    capsys: pytest.CaptureFixture[str],
    end: int,
    code: int,
    said: str,
) -> None:
    fake.end = end
    reach = ["--server", server.address]
    assert seal("adapt", "note.md", "--name", "veldra", *reach) == code
    told = capsys.readouterr()
    assert said in one_line(told.err)
    if end == pb.ADAPTATION_STATE_REFUSED:
        assert "gate refused, GainUncertain: gain 0.032" in one_line(told.out)
        assert "more documents or questions make it more certain" in one_line(told.err)
        assert "seal export veldra" in told.out, "it stays readable"
    assert seal("watch", "veldra", *reach) == code
    assert seal("get", "veldra", *reach) == 0


def test_the_way_out_of_a_failure_leads_to_where_it_happened(
    place: Path, fake: FakeAdaptations, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.end = pb.ADAPTATION_STATE_FAILED
    where = ["--namespace", "books", "--root", "my runs"]
    assert seal("adapt", "note.md", "--name", "veldra", *where) == 42
    remedy = one_line(capsys.readouterr().err).rpartition("or after: seal ")[2]
    assert shlex.split(remedy) == ["delete", "veldra", *where]


def test_of_what_nobody_works_at_the_next_step_is_to_serve_its_root(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ArtifactStore(str(place / "my runs"))
    metadata = ObjectMeta(name="veldra", namespace="default")
    spec = adaptation_spec().model_copy(update={"model": "tiny"})
    Objects(store).create(Manifest(metadata=metadata, spec=spec), uid="a")
    on = "seal serve --root 'my runs' --model tiny"
    assert seal("get", "veldra", "--root", "my runs") == 0
    assert one_line(capsys.readouterr().out).endswith(f"next {on}")
    assert seal("watch", "veldra", "--root", "my runs") == 42
    assert one_line(capsys.readouterr().err).endswith(on)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["adapt", "none.md"], "documents"),
        (["adapt", "note.md", "--questions", "none.jsonl"], "questions"),
        (["adapt", "note.md", "--root", "~nobody-of-this-name"], "root_uri"),
        (["adapt", "note.md", "--detach"], "--detach"),
        (["adapt", "note.md", "--policy", "veldra"], "--policy"),
        (["get", "veldra"], "--root"),
        (["get", "veldra", "--server", "ftp://h"], "--server"),
        (["adapt", "note.md", "--server", "ftp://h"], "--server"),
        (["chat", "--adapter", "veldra", "-m", "Who?", "--server", "ftp://h"], "--server"),
        (["export", "veldra", "note.md"], "directory"),
        (["export", "a/b", "new"], "ADAPTER"),
    ],
)
def test_what_is_wrong_is_refused_by_field_before_anything_is_begun(
    place: Path,
    fake: FakeAdaptations,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    field: str,
) -> None:
    assert seal(*arguments, "--output", "json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["field"] == field and error["remedy"]
    assert not fake.calls and not (place / "seal-runs").exists()


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("adapt", "note.md", "--model", "smollm2-135m"), "--model"),
        (("adapt", "note.md", "--engine", "slots=8"), "--engine"),
        (("adapt", "note.md", "--offline"), "--offline"),
        (("adapt", "note.md", "--root", "other"), "--root"),
        (("chat", "--adapter", "veldra", "-m", "Who?", "--model", "other"), "--model"),
        (("chat", "--adapter", "veldra", "-m", "Who?", "--engine", "slots=8"), "--engine"),
        (("chat", "--adapter", "veldra", "-m", "Who?", "--offline"), "--offline"),
        (("list", "--root", "other"), "--root"),
        (("get", "veldra", "--root", "other"), "--root"),
        (("watch", "veldra", "--dir", "other"), "--root"),
        (("cancel", "veldra", "--root", "other"), "--root"),
        (("delete", "veldra", "--yes", "--root", "other"), "--root"),
        (("export", "veldra", "new", "--root", "other"), "--root"),
    ],
)
@pytest.mark.parametrize("variable", [False, True])
def test_what_only_this_machine_has_is_refused_beside_a_server(
    place: Path,
    fake: FakeAdaptations,
    server: ThreadedServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    option: str,
    variable: bool,
) -> None:
    reach: tuple[str, ...] = ("--server", server.address)
    if variable:
        monkeypatch.setenv("SEAL_SERVER", server.address)
        reach = ()
    assert seal(*arguments, *reach, "--output", "json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["field"] == option and server.address in error["message"]
    assert ("--server ''" if variable else "leave out --server") in error["remedy"]
    assert not fake.calls and not (place / "other").exists()


def test_a_root_of_the_environment_stands_beside_a_server_and_a_server_can_be_taken_back(
    place: Path,
    fake: FakeAdaptations,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEAL_ROOT", str(place / "other"))
    with serve_in_thread(FakeAdaptations()) as server:
        monkeypatch.setenv("SEAL_SERVER", server.address)
        assert seal("adapt", "note.md", "--name", "there") == 0
        assert not (place / "other").exists() and not fake.calls
        capsys.readouterr()
        assert seal("adapt", "note.md", "--server", "", "--offline", "--name", "here") == 0
    assert (place / "other").exists() and fake.calls
    reach = f"--server '' --root {place}/other"
    assert f"seal chat --adapter here {reach}" in one_line(capsys.readouterr().out)


def test_the_base_model_of_an_export_is_that_of_a_merged_one(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal("export", "veldra", "new", "--model", "other", "-o", "json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["field"] == "--model" and "--merged" in error["remedy"]


def test_nobody_serves_a_root_that_is_a_file(place: Path) -> None:
    assert serving.serving_now(ArtifactStore(str(place / "note.md"))) is None


@pytest.mark.parametrize(
    ("typed", "said", "field"),
    [
        (("--candidates", "0"), "--candidates: 0 is outside 1..1024", "--candidates"),
        (("--candidates", "-1"), "--candidates: -1 is out of bounds", "--candidates"),
        (("--passage-tokens", "9000"), "--passage-tokens: passages of 9000", "--passage-tokens"),
        (("--held-out", "2"), "--held-out: 2.0 is not between 0 and 1", "--held-out"),
        (("--max-regression", "2"), "--max-regression: 2.0 is outside", "--max-regression"),
        (("--policy", f"runs/x/{'a' * 64}"), "--policy: no adapter is published", "--policy"),
        (("--name", "A B"), "--name: is no name", "--name"),
        (("--namespace", "A B"), "--namespace: is no DNS label", "--namespace"),
        (("--questions", "wrong.jsonl"), "wrong.jsonl, row 2 has no", "questions[1].answers"),
        (("--questions", "astray.jsonl"), "astray.jsonl, row 1 is on", "questions[0].document"),
    ],
)
@pytest.mark.parametrize("at_server", [False, True])
def test_what_a_server_refuses_is_told_by_the_option_or_file_that_said_it(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    typed: tuple[str, ...],
    said: str,
    field: str,
    at_server: bool,
) -> None:
    nobody = '{"question": "Who built the moon?", "answers": ["nobody"]'
    (place / "wrong.jsonl").write_text(f"{QUESTION}{nobody}}}\n")
    (place / "astray.jsonl").write_text(f'{nobody}, "document": "other.md"}}\n')

    @asynccontextmanager
    async def nothing_trains(store: ArtifactStore, *_: object, **__: object) -> AsyncIterator[str]:
        services = ServiceAddresses.all_at(f"unix:{place}/none.sock")
        settings = AdaptationSettings(max_running=0)
        async with local_adaptations(
            store, model="", services=services, settings=settings
        ) as adaptations:
            served = partial(register, adaptations=adaptations, store=store, max_positions=2048)
            server = await start_server([served], address=f"unix:{place}/front.sock")
            try:
                yield server.address
            finally:
                await server.stop(0)

    monkeypatch.setattr(serving, "_everything", nothing_trains)
    arguments = ("adapt", "note.md", *typed, "-o", "json")
    if at_server:
        store = ArtifactStore(str(place / "store"))
        with ServerThread(partial(nothing_trains, store)) as server:
            assert seal(*arguments, "--server", server.address, "--detach") == 2
    else:
        assert seal(*arguments) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["message"].startswith(said) and error["field"] == field


def test_a_document_is_told_by_its_file_and_what_is_not_typed_as_it_was(place: Path) -> None:
    with pytest.raises(InvalidInput) as caught, as_typed(documents=read_documents(["note.md"])):
        raise InvalidInput("documents[0].file: is gone", field="documents[0].file")
    assert caught.value.message == "note.md, field file: is gone"
    with pytest.raises(InvalidInput) as caught, as_typed():
        raise InvalidInput("documents[0] is gone; options.name: is away", field="options.name")
    assert caught.value.message == "documents[0] is gone; options.name: is away"


def test_too_many_questions_on_one_passage_are_refused_before_anything_is_begun(
    place: Path, fake: FakeAdaptations, capsys: pytest.CaptureFixture[str]
) -> None:
    word = (place / "note.md").read_text().split()[-1].strip(".")
    rows = (json.dumps({"question": f"{n}?", "answer": word}) for n in range(4097))
    (place / "many.jsonl").write_text("\n".join(rows))
    arguments = ("adapt", "note.md", "--questions", "many.jsonl", "--output", "json")
    assert seal(*arguments, "--server", "localhost:1") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["field"] == "questions" and "the limit is 4096" in error["message"]
    assert not fake.calls


def test_a_server_that_is_not_there_is_worth_a_retry(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal("get", "veldra", "--server", f"unix:{place}/none.sock") == 43
    assert "check that the service runs at this address" in capsys.readouterr().err


def test_that_a_server_is_away_is_said_now_and_then() -> None:
    said: list[str] = []
    seconds = iter(range(0, 600, 10))
    on_retry = serving.saying_away(said.append, clock=lambda: float(next(seconds)))
    for number in range(8):
        on_retry(Transient(f"refused {number}"))
    assert said == [
        f"the server cannot be reached (refused {number}); trying again" for number in (0, 3, 6)
    ]
    serving.saying_away(said.append)(Exhausted("no space left"))
    assert said[-1] == "the server is full (no space left); trying again"


def test_a_halt_and_its_end_are_said_once_each() -> None:
    told = Story("veldra")

    def line(waiting: str) -> str:
        adaptation = pb.Adaptation(
            state=pb.ADAPTATION_STATE_RUNNING,
            progress=pb.AdaptationProgress(stage="rollout", percent=20, waiting=waiting),
        )
        progress = convert.adaptation(adaptation).progress
        return told.line(Event(sequence=3, time_seconds=None, what=Advanced(progress=progress)))

    assert [line(waiting) for waiting in ("", "Exhausted: full", "Exhausted: full", "", "")] == [
        "",
        "veldra: waits: Exhausted: full",
        "",
        "veldra: goes on",
        "",
    ]


def test_an_adaptation_without_a_single_question_says_what_is_missing() -> None:
    told = Story("veldra")
    rewarded = Rewarded(edits={}, baseline=None, reward=None, best=None)
    line = told.line(Event(sequence=1, time_seconds=None, what=rewarded))
    assert line == "veldra: no edit was tried: there is no question to choose one by"
    message = pb.Adaptation(
        name="veldra",
        state=pb.ADAPTATION_STATE_REFUSED,
        evaluation=pb.AdaptationEvaluation(self_made=True),
        gate=pb.GateVerdict(reason="NoScore", message="no held-out question has a score"),
    )
    shown = headline(convert.adaptation(message))
    assert shown == "veldra: refused. No held-out question (self-made) has a score"


@pytest.mark.parametrize(
    ("evaluation", "adapter", "words"),
    [
        (pb.AdaptationEvaluation(self_made=True), True, "give questions with --questions"),
        (pb.AdaptationEvaluation(questions=4), False, "the training left no adapter"),
        (pb.AdaptationEvaluation(questions=4), True, "other --questions, or another --seed"),
    ],
)
def test_what_may_help_is_what_was_missing(
    evaluation: pb.AdaptationEvaluation, adapter: bool, words: str
) -> None:
    message = pb.Adaptation(
        state=pb.ADAPTATION_STATE_REFUSED,
        evaluation=evaluation,
        gate=pb.GateVerdict(reason="NoScore", message="no held-out question has a score"),
    )
    if adapter:
        message.adapter.path, message.adapter.sha256 = "a", ADAPTER_SHA256
    assert words in refusal_remedy(convert.adaptation(message))


@pytest.mark.parametrize(
    ("adapter_name", "words"),
    [
        ("veldra", "as veldra by InferenceService qwen (Served): it lists the adapter"),
        ("", "not by InferenceService qwen (Served): it lists the adapter"),
    ],
)
def test_who_serves_the_adapter_is_a_fact(
    adapter_name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = pb.Adaptation(
        name="veldra",
        state=pb.ADAPTATION_STATE_PUBLISHED,
        serving=pb.Serving(
            kind="InferenceService",
            service="qwen",
            adapter_name=adapter_name,
            reason="Served",
            message="it lists the adapter",
        ),
    )
    print_adaptation(convert.adaptation(message), json_output=False, reach="")
    assert f"served {words}" in one_line(capsys.readouterr().out)
    print_adaptation(convert.adaptation(message), json_output=True, reach="")
    shown = json.loads(capsys.readouterr().out)["serving"]
    assert (shown["service"], shown["ready"]) == ("qwen", None)


def test_no_number_of_a_table_is_cut_at_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    widest = pb.Interval(mean=-1.0, low=-1.0, high=1.0, passages=1000)
    measures = ("f1", "exact", "contains", "logprob")
    message = pb.Adaptation(
        name="veldra",
        state=pb.ADAPTATION_STATE_REFUSED,
        evaluation=pb.AdaptationEvaluation(
            questions=10_000,
            self_made=True,
            scores=[
                pb.Score(model=model, measure=measure, value=widest)
                for model in ("base", "passages", "adapter")
                for measure in measures
            ],
            differences=[
                pb.Difference(model="adapter", against=against, measure=measure, value=widest)
                for against in ("base", "passages")
                for measure in measures
            ],
        ),
        gate=pb.GateVerdict(reason="GainUncertain", message="gain -100.0 points"),
        costs=[
            pb.StageCost(
                stage="question",
                tokens=dict.fromkeys(("generate", "train", "evaluate"), 999_999_999),
                seconds=359_999,
                engine_seconds=359_999,
            )
        ],
    )
    print_adaptation(convert.adaptation(message), json_output=False, reach="")
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert shown.count("[−100.0, 100.0]") == 9 and shown.count("[−100.0, +100.0]") == 6
    assert shown.count("[−1.00, 1.00]") == 3 and shown.count("[−1.00, +1.00]") == 2
    assert shown.count("999,999,999") == 3
    assert "may help  more documents or questions" in shown


# The companions


def test_list_shows_runs_and_adaptations_and_json_says_which_is_which(
    place: Path, server: ThreadedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    reach = ["--server", server.address]
    for name in ("one", "two", "three"):
        seal("adapt", "note.md", "--name", name, *reach)
    capsys.readouterr()
    assert seal("list", *reach) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["NAME", "STATE"]
    assert [line.split()[0] for line in lines] == ["one", "three", "two"]
    assert all("+58.2 [+48.2, +68.2] (self-made)" in line for line in lines)
    assert seal("list", "-o", "json", *reach) == 0
    told = json.loads(capsys.readouterr().out)
    assert {entry["kind"] for entry in told} == {"Adaptation"}
    assert seal("list") == 0
    assert "There are no runs in" in capsys.readouterr().out


def test_detach_hands_in_and_watch_comes_back(
    place: Path, fake: FakeAdaptations, server: ThreadedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.delay_seconds = 0.5  # it must not end before it is watched
    reach = ["--server", server.address]
    assert seal("adapt", "note.md", "--name", "veldra", "--detach", *reach) == 0
    assert f"seal watch veldra --server {server.address}" in capsys.readouterr().out
    assert seal("watch", "veldra", "--after", "5", *reach) == 0
    said = capsys.readouterr()
    assert "veldra: published" in said.out
    assert "accepted" not in said.err and "gate passed" in said.err


def test_cancel_stops_and_delete_asks_first(
    place: Path, fake: FakeAdaptations, server: ThreadedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.delay_seconds = 30
    reach = ["--server", server.address]
    assert seal("adapt", "note.md", "--name", "veldra", "--detach", *reach) == 0
    assert seal("cancel", "veldra", *reach) == 0
    assert "veldra: cancelled" in capsys.readouterr().out
    assert seal("delete", "veldra", *reach) == 2
    assert "add --yes" in capsys.readouterr().err
    assert seal("delete", "veldra", "nothing", "--yes", *reach) == 2
    assert ("default", "veldra") in fake.jobs, "nothing is deleted if one name is wrong"
    capsys.readouterr()
    assert seal("delete", "veldra", "--yes", "--output", "json", *reach) == 0
    assert json.loads(capsys.readouterr().out) == {"deleted": ["veldra"]}
    assert not fake.jobs


@pytest.mark.parametrize(("typed", "code"), [("y", 0), ("n", 130)])
def test_what_delete_asks_is_no_part_of_its_json(
    place: Path,
    server: ThreadedServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    code: int,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    reach = ["--server", server.address]
    seal("adapt", "note.md", "--name", "veldra", *reach)
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", Terminal(f"{typed}\n"))
    assert seal("delete", "veldra", "--output", "json", *reach) == code
    said = capsys.readouterr()
    assert "Delete veldra with all results" in said.err
    told = json.loads(said.out)
    assert told == {"deleted": ["veldra"]} if code == 0 else told["error"]["exit_code"] == code


def test_export_writes_a_new_directory(
    place: Path, server: ThreadedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    reach = ["--server", server.address]
    seal("adapt", "note.md", "--name", "veldra", *reach)
    assert seal("export", "veldra", "out", *reach) == 0
    assert {path.name: path.read_bytes() for path in (place / "out").iterdir()} == FILES
    assert seal("export", "veldra", "out", *reach) == 2
    (place / "empty").mkdir()
    assert seal("export", "veldra", "empty", *reach) == 2
    assert not list((place / "empty").iterdir())
    capsys.readouterr()
    assert seal("export", "veldra", ".", *reach) == 2
    assert ". exists" in capsys.readouterr().err
    reference = f"adapters/{ADAPTER_SHA256}@{ADAPTER_SHA256}"
    assert seal("export", reference, "again", *reach) == 0
    assert (place / "again").is_dir()


def test_export_of_a_root_needs_no_server(place: Path) -> None:
    store = ArtifactStore(str(place / "seal-runs"))
    (place / "files").mkdir()
    (place / "files" / "adapter_config.json").write_text("{}")
    adapter = store.publish_directory(place / "files", "adapters")
    assert seal("export", f"{adapter.path}@{adapter.sha256}", "out") == 0
    assert (place / "out" / "adapter_config.json").read_text() == "{}"


# Who serves


def test_what_keeps_this_process_from_serving_is_its_error(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def refuses(*_: object, **__: object) -> AsyncIterator[str]:
        raise InvalidInput("there is no such model", field="model", remedy="name another")
        yield ""

    monkeypatch.setattr(serving, "_everything", refuses)
    assert seal("adapt", "note.md", "-o", "json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["field"] == "model"


def test_an_engine_that_breaks_ends_the_command_with_its_error(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeAdaptations(delay_seconds=30)

    @asynccontextmanager
    async def breaks(
        store: ArtifactStore, local: object, *, address: str, on_download: object
    ) -> AsyncIterator[str]:
        block = asyncio.current_task()
        assert block is not None
        asyncio.get_running_loop().call_later(0.5, block.cancel)
        async with serve(fake, address) as bound:
            try:
                yield bound
            except asyncio.CancelledError:
                block.uncancel()
                raise Transient("the engine is broken: no step") from None

    monkeypatch.setattr(serving, "_everything", breaks)
    assert seal("adapt", "note.md") == 43
    assert "the engine is broken: no step" in capsys.readouterr().err


def test_who_finds_a_root_served_lets_that_process_do_the_work(
    place: Path, fake: FakeAdaptations, server: ThreadedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ArtifactStore(str(place / "seal-runs"))
    found = {"address": server.address, "model": "smollm2-135m", "pid": os.getpid()}
    with run_lock(store, FOLDER):
        store.write_bytes(f"{FOLDER}/serving.json", json.dumps(found).encode())
        assert seal("adapt", "note.md", "--name", "veldra") == 0
        assert "another process serves this root" in capsys.readouterr().err
        assert seal("get", "veldra") == 0
        assert seal("adapt", "note.md", "--model", "other") == 2
        assert "use --model smollm2-135m" in capsys.readouterr().err
    assert len(fake.jobs) == 1


def command_on_fakes(place: Path, delay_seconds: float, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, front_door_on_fakes.__file__, str(delay_seconds), *arguments],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(process: subprocess.Popen[str], words: str) -> str:
    """Read stderr up to a line with these words."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"it ended without {words!r}")


def test_ctrl_c_ends_the_command_and_says_the_one_that_comes_back(place: Path) -> None:
    process = command_on_fakes(place, 0.5, "adapt", "note.md", "--name", "veldra")
    until(process, "veldra: accepted")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "stopping after the engine's current step" in err
    assert "go on with: seal adapt note.md --name veldra" in one_line(err)
    assert out == ""


def test_ctrl_c_leaves_the_adaptation_of_a_server_alone_and_says_how_to_come_back(
    place: Path, fake: FakeAdaptations, server: ThreadedServer
) -> None:
    fake.delay_seconds = 0.5
    process = command_on_fakes(
        place, 0.0, "adapt", "note.md", "--name", "veldra", "--server", server.address
    )
    until(process, "veldra: accepted")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130
    assert f"seal watch veldra --server {server.address}" in one_line(err)
    assert f"seal cancel veldra --server {server.address}" in one_line(err)
    with Client(server.address) as client:
        assert headline(client.wait("veldra", timeout_seconds=30)).startswith("veldra: published")


def test_ctrl_c_leaves_the_work_of_the_process_that_serves_the_root_alone_and_says_so(
    place: Path, fake: FakeAdaptations, server: ThreadedServer
) -> None:
    fake.delay_seconds = 0.5
    store = ArtifactStore(str(place / "seal-runs"))
    found = {"address": server.address, "model": "smollm2-135m", "pid": os.getpid()}
    with run_lock(store, FOLDER):
        store.write_bytes(f"{FOLDER}/serving.json", json.dumps(found).encode())
        process = command_on_fakes(place, 0.0, "adapt", "note.md", "--name", "veldra")
        until(process, "veldra: accepted")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "stopping after" not in err, "this process has no engine"
    assert "veldra goes on by itself; stop it with `seal cancel veldra`" in one_line(err)
    assert "seal watch veldra" in one_line(err)


def test_serve_serves_until_it_is_stopped_and_is_found_by_its_root(place: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    serving = ["serve", "--address", "localhost:0", "--metrics-port", port]
    process = command_on_fakes(place, 0.05, *serving)
    line = until(process, "serving smollm2-135m on localhost:")
    address = line.split(" on ")[1].split(";")[0]
    found = command_on_fakes(place, 0.0, "adapt", "note.md", "--name", "veldra")
    out, _ = found.communicate(timeout=200)
    assert found.returncode == 0 and "veldra: published" in out
    with Client(address) as client:
        assert [one.name for one in client.list()] == ["veldra"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        assert b"seal_adaptations" in reply.read()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=200) == 0
    assert not (place / "seal-runs" / FOLDER / "serving.json").exists()
