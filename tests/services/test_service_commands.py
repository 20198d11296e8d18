"""`python -m generator_svc|trainer_svc|evaluator_svc`.

Help, wrong options, and a process that serves and ends as it should.
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from eventually import until
from grpc_health.v1 import health_pb2, health_pb2_grpc
from service_harness import DEADLINE_SECONDS, policy, read_all, refusal, training_request
from tiny_model import save_tiny_model
from trainer_harness import NEVER_SECONDS, m_step, optimizer

from seal.errors import Transient
from seal.options import ServiceOptions
from seal.rpc.client import open_channel
from seal.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

ROOT = Path(__file__).parents[2]
SERVICES = ("generator_svc", "trainer_svc", "evaluator_svc")
START_SECONDS = 150.0
TRAINER = "seal.v1.TrainerService"
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(autouse=True)
def a_free_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no test names one: any client of this machine may hold the port of the default."""
    monkeypatch.setenv("SEAL_ADDRESS", "127.0.0.1:0")


def _run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


def ended_in_this_process(command: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit code of a service's command line; a start of Python would take two seconds."""
    monkeypatch.setattr("seal.serving.configure_logging", lambda *_: None)
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(command[0], run_name="__main__")
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("service", SERVICES)
def test_help_names_the_service_every_option_its_variable_and_the_exit_codes_and_loads_no_torch(
    service: str,
) -> None:
    ended = _run(service, "--help")
    assert ended.returncode == 0
    assert ended.stdout.startswith(f"usage: python -m {service}")
    for words in ("seal.v1.", "SIGTERM", "Exit codes"):
        assert words in ended.stdout
    for name in ServiceOptions.model_fields:
        assert f"--{name.replace('_', '-')}" in ended.stdout
        assert f"SEAL_{name.upper()}" in ended.stdout
    code = f"import sys, {service}.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("service", "arguments", "words"),
    [
        ("evaluator_svc", (), "--artifacts: it is missing"),
        ("evaluator_svc", ("--artifacts", "a", "--nonsense", "1"), "--nonsense"),
        ("trainer_svc", ("--artifacts", "a", "--max-row-tokens", "0"), "--max-row-tokens"),
        ("trainer_svc", ("--artifacts", "ftp://host/x"), "ftp://host/x has no allowed scheme"),
        ("trainer_svc", ("--artifacts", "a", "--model", "/no/such"), "/no/such"),
        ("trainer_svc", ("--artifacts", "a", "--address", "here"), "'here' is no address"),
        ("generator_svc", ("--artifacts", "a", "--address", "unix:/no/such/s"), "does not exist"),
        ("trainer_svc", ("--artifacts", "/proc/no/store"), "/proc/no"),
    ],
)
def test_what_the_caller_gave_wrong_ends_with_2_says_what_and_loads_no_model(
    service: str,
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = ended_in_this_process([service, *arguments, "--metrics-port", "0"], monkeypatch)
    said = capfd.readouterr().err
    assert code == 2
    assert words in said
    assert "Traceback" not in said
    assert "loading the model" not in said


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("--log-format", "json", "--max-rank", "0", "--artifacts", "a"), "max_rank"),
        (("--artifacts", "a", "--log-format=json", "--model", "/no/such"), "model"),
    ],
)
def test_with_json_logs_the_last_line_of_a_process_that_fails_is_json(
    arguments: tuple[str, ...],
    field: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = ended_in_this_process(["trainer_svc", *arguments, "--metrics-port", "0"], monkeypatch)
    line = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert code == line["exit_code"] == 2
    assert (line["level"], line["reason"], line["field"]) == ("error", "InvalidInput", field)
    assert line["message"] and line["remedy"]


def test_without_a_place_for_temporary_files_it_ends_with_2_and_the_remedy_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A pod whose root is read-only, and that has no volume at /tmp."""
    arguments = ["trainer_svc", "--artifacts", str(tmp_path), "--metrics-port", "0"]
    with monkeypatch.context() as patched:  # not as long as pytest needs one itself
        patched.setattr(tempfile, "tempdir", None)
        patched.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/no/tmp"])
        assert ended_in_this_process(arguments, patched) == 2
    said = capfd.readouterr().err
    assert "no directory for temporary files can be written" in said
    assert "mount one at /tmp (in a pod with a read-only root: an emptyDir)" in said
    assert "Traceback" not in said


def test_a_metrics_port_or_an_address_in_use_is_found_before_the_model_is_loaded(
    tmp_path: Path,
) -> None:
    model = save_tiny_model(tmp_path / "model")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for options in (
            ("--address", f"127.0.0.1:{port}", "--metrics-port", "0"),
            ("--metrics-address", "127.0.0.1", "--metrics-port", str(port)),
        ):
            ended = _run(
                "trainer_svc", "--artifacts", str(tmp_path), "--model", str(model), *options
            )
            assert ended.returncode == 2
            assert f"127.0.0.1:{port} is in use" in ended.stderr
            assert "loading the model" not in ended.stderr


def test_a_model_without_a_tokenizer_ends_with_2(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    for file in model.glob("tokenizer*"):
        file.unlink()
    ended = _run(
        "generator_svc", "--artifacts", str(tmp_path), "--model", str(model), "--metrics-port", "0"
    )
    assert ended.returncode == 2
    assert "tokenizer" in ended.stderr
    assert "Traceback" not in ended.stderr


@asynccontextmanager
async def _process(
    socket: Path, *arguments: str, code: tuple[str, ...] = ("-m", "trainer_svc")
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A trainer process, up to the point where it is ready."""
    command = [
        *code,
        "--address",
        f"unix:{socket}",
        "--metrics-port",
        "0",
        "--dtype",
        "float32",
        "--unready-seconds",
        "0.5",
        *arguments,
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    try:
        await until(
            lambda: process.returncode is not None or socket.exists(), seconds=START_SECONDS
        )
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_trainer_process_serves_and_sigterm_lets_the_running_training_end(
    tmp_path: Path,
) -> None:
    model, socket = save_tiny_model(tmp_path / "model"), tmp_path / "s"
    async with _process(
        socket, "--model", str(model), "--artifacts", str(tmp_path / "artifacts"), "--slots", "2"
    ) as process:
        async with open_channel(f"unix:{socket}") as channel:
            ready = health_pb2.HealthCheckRequest(service="seal.v1.TrainerService")
            health = health_pb2_grpc.HealthStub(channel)
            assert (
                await health.Check(ready, timeout=DEADLINE_SECONDS)
            ).status == health_pb2.HealthCheckResponse.SERVING
            request = training_request(policy=policy(base_model=str(model)))
            call = trainer_pb2_grpc.TrainerServiceStub(channel).TrainAdapter(
                request, timeout=DEADLINE_SECONDS
            )
            await anext(aiter(call))
            process.send_signal(signal.SIGTERM)
            result = (await read_all(call))[-1].result
        output = await process.stderr.read() if process.stderr is not None else b""
        assert await process.wait() == 0, output.decode()
    assert result.outcome == common_pb2.OUTCOME_OK
    assert (tmp_path / "artifacts" / "run" / "adapters" / result.adapter.sha256).is_dir()
    assert b'"event": "server stopped"' in output
    for line in output.decode().splitlines():
        assert "event" in json.loads(line), line  # no bar of a library between the lines


async def test_a_process_whose_model_is_on_its_way_lives_says_not_ready_and_serves_it_then(
    tmp_path: Path,
) -> None:
    socket, model = tmp_path / "s", tmp_path / "volume" / "model"
    coming = save_tiny_model(tmp_path / "coming")
    options = ("--model", str(model), "--artifacts", str(tmp_path / "artifacts"))
    async with (
        _process(socket, *options, "--model-wait-seconds", "60") as process,
        open_channel(f"unix:{socket}") as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)

        async def status(service: str) -> int:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await health.Check(request, timeout=DEADLINE_SECONDS, wait_for_ready=True)
            return int(answer.status)

        assert await status("") == SERVING
        assert await status(TRAINER) == health_pb2.HealthCheckResponse.NOT_SERVING
        request = training_request(policy=policy(base_model=str(model)))
        call = trainer_pb2_grpc.TrainerServiceStub(channel).TrainAdapter(
            request, timeout=DEADLINE_SECONDS
        )
        assert "is not loaded yet" in str(await refusal(call))
        model.parent.mkdir()
        coming.rename(model)
        async with asyncio.timeout(START_SECONDS):
            while await status(TRAINER) != SERVING:  # noqa: ASYNC110 - asked as probes ask
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output = await process.stderr.read() if process.stderr is not None else b""
        assert await process.wait() == 0, output.decode()


async def test_a_signal_ends_a_process_that_waits_for_its_model(tmp_path: Path) -> None:
    options = ("--model", str(tmp_path / "no"), "--artifacts", str(tmp_path / "artifacts"))
    async with _process(tmp_path / "s", *options, "--model-wait-seconds", "600") as process:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(START_SECONDS):
            assert await process.wait() == 0


async def test_a_process_whose_engine_thread_dies_says_not_serving_and_ends_with_43(
    tmp_path: Path,
) -> None:
    model, socket = save_tiny_model(tmp_path / "model"), tmp_path / "s"
    dying = (
        "import runpy, sys\n"
        "from seal.engine import Engine\n"
        "def die(engine): sys.exit('the test ends the thread')\n"
        "Engine._work = die\n"
        "runpy.run_module('trainer_svc', run_name='__main__')\n"
    )
    options = ("--model", str(model), "--artifacts", str(tmp_path / "artifacts"))
    async with (
        _process(socket, *options, code=("-c", dying)) as process,
        open_channel(f"unix:{socket}") as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="seal.v1.TrainerService"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        request = training_request(policy=policy(base_model=str(model)))
        call = trainer_pb2_grpc.TrainerServiceStub(channel).TrainAdapter(
            request, timeout=DEADLINE_SECONDS
        )
        assert isinstance(await refusal(call), Transient)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        output = await process.stderr.read() if process.stderr is not None else b""
        assert await process.wait() == 43, output.decode()
    assert b"the engine is broken" in output


async def test_a_second_signal_ends_a_process_at_once_whatever_still_runs(tmp_path: Path) -> None:
    model, socket = save_tiny_model(tmp_path / "model"), tmp_path / "s"
    async with (
        _trainer(socket, model, tmp_path / "artifacts") as process,
        open_channel(f"unix:{socket}") as channel,
    ):
        call = trainer_pb2_grpc.TrainerServiceStub(channel).TrainAdapter(
            _long_m_step(model, checkpoint_every_seconds=0.0), timeout=START_SECONDS
        )
        async for message in call:
            if message.progress.step:
                break
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(1.0)
        assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):  # of a grace of 60
            assert await process.wait() == 43
        call.cancel()


def _trainer(
    socket: Path, model: Path, root: Path
) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """A trainer process that could wait long for what runs."""
    return _process(
        socket,
        "--model",
        str(model),
        "--artifacts",
        str(root),
        "--threads",
        "1",
        "--grace-seconds",
        "60",
        "--lease-seconds",
        "1",
    )


def _long_m_step(model: Path, **changes: object) -> trainer_pb2.TrainAdapterRequest:
    """An M-step of 300 steps."""
    return m_step(str(model), optimizer=optimizer(epochs=100), **changes)


async def _messages(
    socket: Path, request: trainer_pb2.TrainAdapterRequest
) -> list[trainer_pb2.TrainAdapterResponse]:
    """What a trainer says to a request."""
    async with open_channel(f"unix:{socket}") as channel:
        return await read_all(
            trainer_pb2_grpc.TrainerServiceStub(channel).TrainAdapter(
                request, timeout=START_SECONDS
            )
        )


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, trainer_pb2.TrainingResult]:
    """A model, and the long M-step on it in a process that nobody disturbs."""
    directory = tmp_path_factory.mktemp("calm")
    model = save_tiny_model(directory / "model")

    async def train() -> trainer_pb2.TrainingResult:
        async with _trainer(directory / "s", model, directory / "artifacts"):
            return (await _messages(directory / "s", _long_m_step(model)))[-1].result

    return model, asyncio.run(train())


@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGTERM, NEVER_SECONDS), (signal.SIGKILL, 0.01)]
)
async def test_an_m_step_whose_trainer_is_killed_goes_on_in_the_next_one_to_the_same_adapter(
    tmp_path: Path,
    calm: tuple[Path, trainer_pb2.TrainingResult],
    number: signal.Signals,
    seconds: float,
) -> None:
    model, undisturbed = calm
    request = _long_m_step(model, checkpoint_every_seconds=seconds)
    checkpoints = tmp_path / "artifacts" / "run" / "checkpoints"
    async with (
        _trainer(tmp_path / "1", model, tmp_path / "artifacts") as killed,
        open_channel(f"unix:{tmp_path / '1'}") as channel,
    ):
        call = trainer_pb2_grpc.TrainerServiceStub(channel).TrainAdapter(
            request, timeout=START_SECONDS
        )
        async for message in call:
            if message.progress.step >= 30 and (
                number == signal.SIGTERM or any(checkpoints.glob("*.safetensors"))
            ):
                break
        killed.send_signal(number)
        started = time.monotonic()
        assert isinstance(await refusal(call), Transient)
        output = await killed.stderr.read() if killed.stderr is not None else b""
        assert await killed.wait() == (0 if number == signal.SIGTERM else -signal.SIGKILL), (
            output.decode()
        )
        assert time.monotonic() - started < 30, (
            "a training that keeps checkpoints does not use up the grace"
        )
    assert len(list(checkpoints.glob("*.safetensors"))) == 1
    async with _trainer(tmp_path / "2", model, tmp_path / "artifacts"):
        messages = await _messages(tmp_path / "2", request)
    steps = [message.progress for message in messages if message.progress.step]
    assert steps[-1].resumed_step  # before it, the last that the killed trainer said of itself
    (resumed_step,) = {progress.resumed_step for progress in steps if progress.resumed_step}
    assert (30 if number == signal.SIGTERM else 1) <= resumed_step < undisturbed.steps
    result = messages[-1].result
    assert result.adapter.sha256 == undisturbed.adapter.sha256
    assert (result.steps, result.tokens, result.final_loss) == (
        undisturbed.steps,
        undisturbed.tokens,
        undisturbed.final_loss,
    )
    assert list(checkpoints.glob("*.safetensors")) == []
