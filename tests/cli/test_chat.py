"""`seal chat`: both answers to the same question, whoever writes them."""

from __future__ import annotations

import builtins
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import torch
from command import one_line, seal
from fake_adaptations import FakeAdaptations, serve_in_thread
from fake_services import Fakes, serve_fakes, written_text
from peft import LoraConfig, get_peft_model
from rich.console import Console
from synthetic_adaptation import adaptation_spec, synthetic_result
from tiny_model import save_tiny_model
from transformers import AutoModelForCausalLM

import controller_svc.cli.chat as chat_module
from controller_svc.cli.chat_answers import Answer
from controller_svc.cli.chat_partners import Partners, Reference, partners_on
from controller_svc.cli.chat_screen import ChatScreen
from controller_svc.cli.references import AdapterDirectory, NamedAdaptation, parse_reference
from controller_svc.cli.target import Target
from controller_svc.local.objects import Objects
from seal.artifacts import ArtifactStore
from seal.client import Client, ClientOptions, Document
from seal.engine import load_adapter, save_adapter
from seal.errors import InvalidInput
from seal.outcomes import Outcome
from seal.records import AdapterReference
from seal.resources import Adaptation, ObjectMeta
from seal.runs.store import status_path
from seal.settings import EvaluationSettings
from seal.v1 import generator_pb2

SHA256 = "a" * 64
REF = f"run/adapters/{SHA256}@{SHA256}"
ON_SERVER = ("chat", "--server", "fakes:1", "--adapter", REF)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """The server at `fakes:1`."""
    fakes = Fakes()

    @asynccontextmanager
    async def on_fakes(target: Target, reference: Reference) -> AsyncIterator[Partners]:
        assert target.server == "fakes:1"
        async with (
            serve_fakes(fakes) as addresses,
            partners_on(replace(target, server=addresses.generator), reference) as partners,
        ):
            yield partners

    monkeypatch.setattr(chat_module, "partners_on", on_fakes)
    return fakes


def asked(fakes: Fakes) -> list[generator_pb2.GenerateTextRequest]:
    """All requests, those of the base model first."""
    requests = [
        request
        for request in fakes.requests.values()
        if isinstance(request, generator_pb2.GenerateTextRequest)
    ]
    return sorted(requests, key=lambda request: request.HasField("adapter"))


def type_lines(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """What is typed, and then Ctrl-D."""
    waiting = iter(lines)

    def typed(_: str = "") -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", typed)


# One message


def test_one_message_is_answered_by_both(fakes: Fakes, capsys: pytest.CaptureFixture[str]) -> None:
    assert seal(*ON_SERVER, "--message", "What is Veldra?") == 0
    base, adapted = asked(fakes)
    shown = one_line(capsys.readouterr().out)
    assert written_text(base) in shown and written_text(adapted) in shown
    assert not base.HasField("adapter")
    assert (adapted.adapter.path, adapted.adapter.sha256) == (f"run/adapters/{SHA256}", SHA256)
    assert base.prompt == adapted.prompt
    assert base.prompt.endswith("Question: What is Veldra?\nAnswer:")
    assert (list(base.stop), base.sampling.max_tokens) == (["\n"], 64)
    assert not base.policy.base_model


def test_programs_get_one_object(fakes: Fakes, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--temperature", "0.5", "--seed", "3", "--max-tokens", "9", "--format", "plain")
    assert seal(*ON_SERVER, "--message", "Who?", *options, "--output", "json") == 0
    base, adapted = asked(fakes)
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "message": "Who?",
        "format": "plain",
        "adapter": {"path": f"run/adapters/{SHA256}", "sha256": SHA256},
        "base": _told(base),
        "adapted": _told(adapted),
    }
    assert (base.seed, base.sampling.temperature, base.sampling.max_tokens) == (3, 0.5, 9)


def _told(request: generator_pb2.GenerateTextRequest) -> dict[str, object]:
    return {
        "text": written_text(request),
        "outcome": "ok",
        "tokens": 3,
        "truncated": False,
        "engine_seconds": 0.01,
    }


def test_a_message_that_is_too_long_has_no_answer_and_says_why(
    fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.outcome = lambda kind, name: Outcome.TOO_LONG
    assert seal(*ON_SERVER, "--message", "Who?", "--output", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["base"]["text"], found["base"]["outcome"]) == (None, "too_long")
    assert seal(*ON_SERVER, "--message", "Who?") == 0
    assert "no answer: too_long" in capsys.readouterr().out


def test_a_server_that_is_away_ends_the_command(
    fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.fail = lambda kind, request_id, call: grpc.StatusCode.RESOURCE_EXHAUSTED
    assert seal(*ON_SERVER, "--message", "Who?") == 43
    assert "as the test wants it" in capsys.readouterr().err


# A conversation


def test_every_line_is_a_message_of_its_own(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_lines(monkeypatch, "Who?", "  ", "Where?")
    assert seal(*ON_SERVER) == 0
    requests = asked(fakes)
    assert sum("Who?" in request.prompt for request in requests) == 2
    assert sum("Who?" in request.prompt and "Where?" in request.prompt for request in requests) == 0
    shown = one_line(capsys.readouterr().out)
    assert len(requests) == 4 and all(written_text(request) in shown for request in requests)


def test_in_a_chat_each_remembers_its_own_answers(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines(monkeypatch, "Hello", "And?")
    assert seal(*ON_SERVER, "--format", "chat") == 0
    requests = asked(fakes)
    for first, then in (requests[:2], requests[2:]):
        assert [turn.content for turn in first.messages] == ["Hello"]
        assert [(turn.role, turn.content) for turn in then.messages] == [
            ("user", "Hello"),
            ("assistant", written_text(first)),
            ("user", "And?"),
        ]
        assert (first.prompt, list(first.stop), first.sampling.max_tokens) == ("", [], 256)


class Terminal(io.StringIO):
    """Standard input of somebody who sits there."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())


def test_an_answer_that_fails_does_not_end_a_conversation(
    fakes: Fakes,
    terminal: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(kind: str, request_id: str, _: int) -> grpc.StatusCode | None:
        request = fakes.requests[f"{kind} {request_id}"]
        return grpc.StatusCode.INTERNAL if "Who?" in str(request) else None

    fakes.fail = fails
    type_lines(monkeypatch, "Who?", "Where?")
    assert seal(*ON_SERVER) == 0
    told = capsys.readouterr()
    assert "as the test wants it" in told.err
    assert "Ctrl-D ends the chat" in told.err
    assert "Adapted" in told.out


def test_ctrl_c_stops_an_answer_and_not_the_conversation(
    fakes: Fakes,
    terminal: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fakes.delay_seconds = 30.0

    def interrupt() -> None:
        """Once both are asked."""
        until = time.monotonic() + 20
        while len(fakes.requests) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    def lines() -> Iterator[str]:
        threading.Thread(target=interrupt).start()
        yield "Who?"
        fakes.delay_seconds = 0.0
        yield "Where?"

    typed = lines()
    monkeypatch.setattr(builtins, "input", lambda _="": _next(typed))
    assert seal(*ON_SERVER) == 0
    told = capsys.readouterr()
    assert "not finished" in told.err
    assert told.out.count("Adapted") == 1


def _next(lines: Iterator[str]) -> str:
    try:
        return next(lines)
    except StopIteration:
        raise EOFError from None


# What is shown


def shown(width: int, answers: dict[str, Answer]) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with ChatScreen(console).answering() as screen:
        screen.show(answers)  # type: ignore[arg-type]
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_answers_stand_side_by_side_where_there_is_room() -> None:
    answers = {"base": Answer("left", Outcome.OK), "adapted": Answer("right", Outcome.OK)}
    lines = [line for line in shown(100, answers).splitlines() if "left" in line]
    assert lines and all("right" in line for line in lines)
    lines = shown(60, answers).splitlines()
    assert any("base: left" in line and "right" not in line for line in lines)
    assert any("adapted: right" in line for line in lines)


def test_what_is_written_and_what_was_cut_look_unfinished() -> None:
    writing = shown(60, {"base": Answer("he"), "adapted": Answer(" hello", Outcome.OK)})
    assert "base: he …" in writing and "adapted: hello" in writing
    cut = shown(60, {"base": Answer("he", Outcome.OK, truncated=True), "adapted": Answer()})
    assert "--max-tokens" in one_line(cut)


def test_text_that_looks_like_markup_is_shown_as_it_is() -> None:
    answers = {"base": Answer("[red]x[/red]", Outcome.OK), "adapted": Answer("[/]", Outcome.OK)}
    assert "[red]x[/red]" in shown(100, answers) and "[/]" in shown(100, answers)


def test_an_answer_that_holds_control_characters_steers_no_terminal() -> None:
    answers = {"base": Answer("a\x1b[2Jb", Outcome.OK), "adapted": Answer("\x9b", Outcome.OK)}
    assert r"a\x1b[2Jb" in shown(100, answers) and r"\x9b" in shown(100, answers)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((*ON_SERVER, "--output", "json"), "--message"),
        ((*ON_SERVER, "--message", " ", "--output", "json"), "--message"),
        (("chat", "--adapter", "No such", "--output", "json", "--message", "x"), "--adapter"),
        (
            ("chat", "--server", "h:1", "--adapter", ".", "--message", "x", "--output", "json"),
            "--adapter",
        ),
    ],
)
def test_a_wrong_command_line_is_refused_by_its_option(
    arguments: tuple[str, ...], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*arguments) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["field"], bool(error["remedy"])) == (field, True)


def test_an_adapter_is_a_reference_a_directory_or_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "veldra").mkdir()
    (tmp_path / "veldra" / "adapter_config.json").write_text("{}")
    (tmp_path / "documents").mkdir()
    found = [
        parse_reference(ref, option="REF")
        for ref in (REF, "veldra", str(tmp_path), "my-notes", "documents", "./documents")
    ]
    assert found == [
        AdapterReference(path=f"run/adapters/{SHA256}", sha256=SHA256),
        AdapterDirectory(tmp_path / "veldra"),
        AdapterDirectory(tmp_path),
        NamedAdaptation("my-notes"),
        NamedAdaptation("documents"),
        AdapterDirectory(tmp_path / "documents"),
    ]
    for wrong in ("", "a@b", "My Notes", "x" * 41, f"@{SHA256}"):
        with pytest.raises(InvalidInput) as refused:
            parse_reference(wrong, option="REF")
        assert refused.value.field == "REF"


def test_a_name_that_is_no_adaptation_of_this_store_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal("chat", "--adapter", "my-notes", "--message", "x", "--output", "json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["reason"], error["field"]) == ("NotFound", "--adapter")
    assert "my-notes" in error["message"]


def test_an_adaptation_of_another_namespace_is_found_there_alone(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = Adaptation(
        metadata=ObjectMeta(name="my-notes", namespace="team"), spec=adaptation_spec()
    )
    Objects(ArtifactStore("seal-runs")).create(manifest, uid="u1")
    chat = ("chat", "--adapter", "my-notes", "--message", "x", "--output", "json")
    assert seal(*chat) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["reason"] == "NotFound" and "--namespace" in error["remedy"]
    assert seal(*chat, "--namespace", "team") == 42, "it is there, and has no adapter yet"
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["remedy"].endswith("seal get my-notes --namespace team")
    with serve_in_thread(FakeAdaptations()) as server:
        reach = ("--server", server.address, "--namespace", "team")
        with Client(server.address, options=ClientOptions(namespace="team")) as client:
            document = Document(name="a.txt", content=b"Two words.")
            client.submit([document], name="my-notes", request_id="a")
        errors = []
        for options in (reach, reach[:2]):
            assert seal(*chat, *options) == 2
            errors.append(json.loads(capsys.readouterr().out)["error"])
    assert [error["reason"] for error in errors] == ["InvalidInput", "NotFound"], "found"
    assert errors[0]["field"] == "--server", "a server without texts, as a cluster's front door is"
    assert "export" in errors[0]["remedy"]


# On this machine


@pytest.fixture
def tiny(here: Path) -> Path:
    """A model directory and an adapter of PEFT's on it, with what else lies beside one."""
    base = save_tiny_model(here / "model")
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 1.0)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(here / "adapter", save_embedding_layers=False)
    (here / "adapter" / "training_args.bin").write_bytes(b"something else")
    return here


HERE = ("--message", "Who?", "--output", "json", "--engine", "dtype=float32")
ASK_WITH_PEFT = Path(__file__).parents[2] / "examples" / "ask_with_peft.py"


def by_peft(directory: Path) -> dict[str, str]:
    """What transformers and PEFT answer, greedily, in the example of their user."""
    ask = runpy.run_path(str(ASK_WITH_PEFT))["ask"]
    adapters = {"base": "", "adapted": str(directory / "adapter")}
    return {
        who: ask(str(directory / "model"), adapter, "Who?") for who, adapter in adapters.items()
    }


def test_without_a_server_the_answers_are_those_of_transformers_and_peft(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal("chat", "--adapter", "adapter", *HERE) == 0
    found = json.loads(capsys.readouterr().out)
    texts = {who: found[who]["text"] for who in ("base", "adapted")}
    assert texts == by_peft(tiny)
    assert texts["base"] != texts["adapted"]


def test_the_example_shows_its_answer_and_no_bars(tiny: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ASK_WITH_PEFT), "model", "adapter", "Who?"],
        env={name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout and "%|" not in done.stderr, done.stderr


def test_an_adapter_of_the_store_answers_as_its_directory(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_adapter(load_adapter(tiny / "adapter"), tiny / "ours")
    stored = ArtifactStore("seal-runs").publish_directory(tiny / "ours", "run/adapters")
    ref = f"{stored.path}@{stored.sha256}"
    assert seal("chat", "--adapter", ref, "--model", "model", *HERE) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["adapted"]["text"] == by_peft(tiny)["adapted"]
    assert found["adapter"] == {"path": stored.path, "sha256": stored.sha256}


def test_the_adapter_of_an_adaptation_is_asked_as_it_was_evaluated(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_adapter(load_adapter(tiny / "adapter"), tiny / "ours")
    store = ArtifactStore("seal-runs")
    stored = store.publish_directory(tiny / "ours", "run/adapters")
    spec = adaptation_spec(evaluation=EvaluationSettings(question_format="plain"))
    manifest = Adaptation(metadata=ObjectMeta(name="my-notes"), spec=spec)
    one = Objects(store).create(manifest, uid="u1")
    assert seal("chat", "--adapter", "my-notes", *HERE) == 42
    assert json.loads(capsys.readouterr().out)["error"]["field"] == "--adapter"
    status = one.new_status()
    assert status.adaptation is not None
    result = synthetic_result().model_copy(update={"adapter": stored})
    ended = status.adaptation.model_copy(update={"result": result})
    store.write_json(status_path(one.run), status.model_copy(update={"adaptation": ended}))
    assert seal("chat", "--adapter", "my-notes", "--model", "model", *HERE) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["adapter"]["path"], found["format"]) == (stored.path, "plain")


def test_another_model_is_refused_by_its_option(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny_model(tiny / "other", seed=1)
    assert seal("chat", "--adapter", "adapter", "--model", "other", *HERE) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["field"] == "--model"
    assert "other" in error["message"]
