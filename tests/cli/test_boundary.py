"""How the command ends without a result: for people, for programs, and for whoever debugs it."""

from __future__ import annotations

import errno
import inspect
import io
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import cli_on_fakes
import grpc
import pytest
import structlog
from command import RUN, one_line, seal
from fake_services import Fakes

import controller_svc.cli.machine as machine
from controller_svc import runs
from controller_svc.cli.boundary import ENGINE_THREAD
from controller_svc.cli.logs import LOG_FILE, configure, line_for_people, run_log
from controller_svc.cli.messages import command, program, wants_json
from seal.artifacts import ArtifactStore
from seal.engine import Engine
from seal.errors import Exhausted
from seal.options import ProcessOptions
from seal.settings import PROFILES


@pytest.mark.parametrize(
    ("arguments", "code", "reason", "field"),
    [
        (["run", "nowhere.yaml", "-o", "json"], 2, "NotFound", ""),
        ([*RUN, "--set", "edit.k=0", "--output", "json"], 2, "InvalidInput", "spec.edit.k"),
        ([*RUN, "--resume", "--output=json"], 2, "NotFound", "metadata.name"),
        (["run", "--output", "json"], 2, "InvalidInput", "FILE"),
        (["fly", "-o", "json"], 2, "InvalidInput", ""),
        (["status", "nothing", "-o", "json"], 2, "NotFound", "metadata.name"),
    ],
)
def test_with_json_an_early_failure_is_one_object_on_stdout(
    here: Path,
    fakes: Fakes,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    reason: str,
    field: str,
) -> None:
    assert seal(*arguments) == code
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert (error["reason"], error["exit_code"], error["field"]) == (reason, code, field)
    assert error["message"]
    assert captured.err, "people read it too"


def test_with_json_a_defect_and_an_interrupt_are_objects_too(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(engine: object) -> tuple[str, float]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(machine, "gemm_peak", lambda engine: 1 // 0)
        assert seal(*RUN, "-o", "json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "Defect"
    monkeypatch.setattr(machine, "gemm_peak", interrupted)
    assert seal(*RUN, "-o", "json") == 130
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert (error["reason"], error["exit_code"]) == ("Interrupted", 130)
    assert "nothing has begun yet" in captured.err, "there is nothing to resume"
    assert "--resume" not in captured.err


def test_ctrl_c_in_a_command_without_words_of_its_own_is_told_to_people_and_programs(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(store: object) -> tuple[str, ...]:
        raise KeyboardInterrupt

    monkeypatch.setattr("controller_svc.cli.listing.listed", interrupted)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert seal("list", "-o", "json") == 130
    finally:
        signal.signal(signal.SIGINT, before)
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert (error["reason"], error["exit_code"]) == ("Interrupted", 130)
    assert captured.err == "stopped: it did not come to its end\n"


def test_debug_shows_the_traceback_by_the_very_command_that_the_hint_names(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gemm_peak", lambda engine: 1 // 0)
    assert seal(*RUN, monkeypatch=monkeypatch) == 1
    error = one_line(capsys.readouterr().err)
    assert "Traceback" not in error
    assert f"seal --log-level debug {' '.join(RUN)}" in error
    assert seal("--log-level", "debug", *RUN) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "ZeroDivisionError" in shown
    assert seal("--log-level", "debug", "run", "nowhere.yaml") == 2
    assert "Traceback" in capsys.readouterr().err


def test_waits_and_a_full_disk_are_one_plain_line_each(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(kind: str, request_id: str, call: int) -> grpc.StatusCode | None:
        return grpc.StatusCode.UNAVAILABLE if kind == "train" and call == 0 else None

    real = runs.write_status

    async def full(*arguments: object) -> None:
        await real(*arguments)  # type: ignore[arg-type]
        structlog.get_logger("x").warning("task failed", task="t", message="no space left")

    fakes.fail = fail
    monkeypatch.setattr("controller_svc.local.world.write_status", full)
    assert seal(*RUN) == 0
    lines = capsys.readouterr().err.splitlines()
    assert not [line for line in lines if line.startswith("{")]
    waits = [line for line in lines if "is made again in" in line]
    assert waits
    assert all(line.startswith("warning: a call failed") for line in waits)
    assert "warning: task failed: no space left (task t)" in lines


def test_json_logs_have_progress_as_json_too(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal("--log-format", "json", "--log-level", "info", *RUN) == 0
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert "run created" in events
    assert any(event.startswith("round 1 of 1, validate: done in") for event in events)


@pytest.mark.parametrize("form", get_args(ProcessOptions.model_fields["log_format"].annotation))
def test_what_the_services_call_a_form_of_logs_the_command_calls_so_too(
    fakes: Fakes, here: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    assert seal("--log-format", form, "--log-level", "info", *RUN) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("{") is (form != "console"), "this is no terminal"


def test_a_line_for_people_has_no_braces_and_no_time() -> None:
    event = {
        "event": "batch_limited",
        "level": "warning",
        "timestamp": "2026-01-01T00:00:00Z",
        "logger": "a.b",
        "limit_mib": 3,
        "reason": "memory",
    }
    assert line_for_people(event) == "warning: batch limited: memory (limit mib 3)"


def test_a_run_keeps_its_log_as_json_and_a_full_disk_only_loses_lines(
    here: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seal(*RUN) == 0
    log = here / "seal-runs/tiny" / LOG_FILE
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert "run created" in events
    assert logging.getLogger().level == logging.WARNING, "the level is as it was"

    def no_space(self: logging.StreamHandler, record: logging.LogRecord) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            self.handleError(record)

    monkeypatch.setattr(logging.FileHandler, "emit", no_space)
    assert seal(*RUN, "--name", "other") == 0


def test_bars_of_libraries_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert seal("--version") == 0
    assert os.environ["TQDM_DISABLE"] == "1"


def test_commands_to_copy_name_the_program_as_it_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / ".venv/bin/seal"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [".venv/bin/seal", "run", "my run.yaml"])
    monkeypatch.setenv("PATH", "/usr/bin")
    assert command(add=["--resume"]) == ".venv/bin/seal run 'my run.yaml' --resume"
    monkeypatch.setattr(sys, "argv", [".venv/bin/seal", "run", "--", "-my.yaml"])
    assert command(add=["--resume"]) == ".venv/bin/seal run --resume -- -my.yaml"
    monkeypatch.setattr(sys, "argv", [str(binary), "demo"])
    assert program() == ".venv/bin/seal"
    monkeypatch.setenv("PATH", str(binary.parent))
    assert program() == "seal"
    monkeypatch.chdir("/usr")
    monkeypatch.setenv("PATH", "/usr/bin")
    assert program() == str(binary)
    monkeypatch.setattr(sys, "argv", ["/somewhere/__main__.py"])
    assert program() == "seal"


def test_json_is_wanted_however_it_is_written() -> None:
    assert all(
        wants_json(arguments)
        for arguments in (["-o", "json"], ["--output", "json"], ["--output=json"], ["-ojson"])
    )
    assert not any(wants_json(arguments) for arguments in ([], ["json"], ["-o", "table"]))


def test_logs_go_to_stderr_as_it_is_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    configure("warning", as_json=False)
    later = io.StringIO()
    monkeypatch.setattr(sys, "stderr", later)
    logging.getLogger("x").warning("hello")
    assert later.getvalue() == "warning: hello\n"


def test_a_full_disk_loses_the_log_and_not_the_error_that_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / LOG_FILE).symlink_to("/dev/full")

    def run() -> None:
        with run_log(tmp_path):
            logging.getLogger("x").warning("hello")
            raise Exhausted("the disk is full")

    with pytest.raises(Exhausted, match="the disk is full"):
        run()


def test_the_demo_says_nothing_of_missing_data_and_a_run_does(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal("run", "tiny.yaml") == 0
    assert "no data is given: it takes the embedded corpus" in capsys.readouterr().err
    assert seal("demo", "--quick") == 0
    assert "no data is given" not in capsys.readouterr().err
    assert cli_on_fakes.PEAK_TERAFLOPS
    assert ArtifactStore(str(here / "seal-runs")).exists("demo-quick/run.json")


HANGING = """
import atexit, importlib, threading, time
entry = importlib.import_module("controller_svc.cli.boundary")

def work(given):
    threading.Thread(target=time.sleep, args=(60,), name="seal-engine", daemon=True).start()
    atexit.register(print, "torn down")
    print("told")
    return 43

entry._exit_code = work
entry.run([])
"""


def test_a_command_whose_engine_hangs_ends_with_its_code_and_tears_nothing_down() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.split()) == (43, ["told"]), done.stderr


def test_the_command_knows_the_engines_thread() -> None:
    assert f'name="{ENGINE_THREAD}"' in inspect.getsource(Engine)


def test_the_help_of_config_show_names_every_profile(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert seal("config", "show", "--help") == 0
    assert f"One of {', '.join(PROFILES)}." in capsys.readouterr().out


def test_a_model_is_not_pulled_into_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "note.md").write_text("a file")
    assert seal("models", "pull", "smollm2-135m", "--to", "note.md", "-o", "json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["field"] == "--to" and "note.md is a file" in error["message"]


@pytest.mark.parametrize(
    "arguments", [("models", "pull", "smollm2-135m", "--to", "a" * 300), ("report", "a" * 300)]
)
def test_a_path_that_cannot_be_looked_at_is_no_defect(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert seal(*arguments, "-o", "json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["reason"] in ("InvalidInput", "NotFound")


@pytest.mark.parametrize(
    ("arguments", "field", "help_of"),
    [
        (("run",), "FILE", "seal run"),
        (("get", "a", "b"), "", "seal get"),
        (("adapt", "x.md", "--held-out", "much"), "--held-out", "seal adapt"),
        (("chat",), "--adapter", "seal chat"),
        (("list", "--bogus"), "--bogus", "seal list"),
        (("models", "push"), "", "seal models"),
        (("--log-level", "loud", "list"), "--log-level", "seal"),
    ],
)
def test_a_wrong_command_line_is_told_to_programs_with_its_field_and_remedy(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], field: str, help_of: str
) -> None:
    assert seal(*arguments, "-o", "json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["field"], error["remedy"]) == (field, f"see:  {help_of} --help")
