"""The command `seal`.

What it refuses and how, what it prints where, and how it is stopped and gone on with.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cli_on_fakes
import grpc
import pytest
from command import HEAD, RUN, VALIDATION, one_line, seal
from fake_services import Fakes
from synthetic_run import make_run
from tiny_model import save_tiny_model

import controller_svc.cli.execute as execute
from controller_svc.cli.app import DEMO_NAMES, DemoDomain, app, demo_manifest
from controller_svc.cli.execute import TimeLimit
from controller_svc.cli.options import changes
from seal.artifacts import ArtifactStore
from seal.errors import ERROR_CLASSES, InvalidInput, Transient
from seal.report import Report

REPOSITORY = Path(__file__).resolve().parents[2]


# What is refused


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["run", "bad.yaml"], 2, "did you mean spec.inner.repeats?"),
        (["run", "tiny.yaml", "--set", "edit.k=0"], 2, "edit.k"),
        (["run", "tiny.yaml", "--set", "edit.k"], 2, "write for example --set"),
        (["run", "tiny.yaml", "--name", "Not A Name"], 2, "name"),
        ([*RUN[:2], *VALIDATION, "--dataset", "empty.jsonl"], 2, "empty.jsonl"),
        (
            [*RUN[:2], *VALIDATION, "--dataset", "no-answer.jsonl"],
            2,
            "question 2, field answer",
        ),
        (
            ["run", "tiny.yaml", "--dataset", "train.jsonl", "--validation", "train.jsonl"],
            2,
            "also the training passage 'Tower 1'",
        ),
        (["run", "tiny.yaml", "--root", "ftp://host/x"], 2, "ftp://host/x"),
        (["report", "nowhere"], 2, "there is no run 'nowhere' in"),
        (["report", "no/where"], 2, "run.json"),
        (["report", "/"], 2, "holds no run"),
        (["models", "pull", "smolm2-135m"], 2, "did you mean smollm2-135m?"),
    ],
)
def test_what_is_wrong_is_refused_with_message_remedy_and_code_of_the_table(
    here: Path,
    fakes: Fakes,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    (here / "bad.yaml").write_text(HEAD + "spec: {inner: {repeat: 3}}\n")
    (here / "empty.jsonl").write_text("")
    row = {
        "title": "A",
        "context": "A is.",
        "questions": [{"question": "Q", "answer": "x"}, {"question": "Q2"}],
    }
    (here / "no-answer.jsonl").write_text(json.dumps(row) + "\n")
    assert seal(*arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in one_line(captured.err)
    assert "Traceback" not in captured.err
    assert fakes.calls == Counter()
    assert not (here / "seal-runs" / "tiny" / "run.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["fly"],
        ["demo", "--fast"],
        ["--log-level", "loud", "demo"],
        ["run", "a", "-o", "xml"],
    ],
)
def test_a_wrong_command_line_is_a_configuration_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*arguments) == 2
    assert capsys.readouterr().out == ""


def test_a_defect_is_one_line_that_asks_for_a_report(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "write_report", lambda store, run: 1 // 0)
    assert seal(*RUN) == 1
    error = one_line(capsys.readouterr().err)
    assert "error: ZeroDivisionError" in error
    assert "--log-level debug" in error
    assert "Traceback" not in error


def test_a_device_that_is_not_there_is_named(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import seal.engine.peak

    monkeypatch.setattr(execute, "_model_directory", lambda model, *, offline, screen: None)

    def no_device(*, dtype: object, device: str) -> float:
        raise AssertionError("Torch not compiled with CUDA enabled\nmore")

    monkeypatch.setattr(seal.engine.peak, "measure_gemm_peak", no_device)
    assert seal_cuda() == 2
    error = one_line(capsys.readouterr().err)
    assert "'cuda' cannot be used: Torch not compiled with CUDA enabled" in error
    assert "--engine device=cpu" in error


def seal_cuda() -> int:
    return seal(*RUN, "--engine", "device=cuda")


# What a run prints


def test_json_is_the_only_thing_on_stdout_and_holds_the_result(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN, "--output", "json") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["run"], result["phase"], result["rounds_done"]) == ("tiny", "Complete", 1)
    assert [row["key"] for row in result["rows"]] == ["base", "passage", "edit-0", "edit-1"]
    assert (result["machine"]["dtype"], result["machine"]["gemm_teraflops"]) == (
        "float32",
        cli_on_fakes.PEAK_TERAFLOPS,
    )
    assert Path(result["report_html"]).read_text().startswith("<!doctype html>")
    whole = Report.model_validate_json(Path(result["report_json"]).read_bytes())
    assert whole.validation_passages == 2
    assert "rollout_details" not in result


def test_without_a_terminal_progress_is_a_few_lines_on_stderr(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN) == 0
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert "tiny: " in lines[0]
    assert "0.75 TFLOP/s" in lines[0]
    assert "model: downloading, 93 MB" in lines
    assert [line for line in lines if line.startswith("round 1 of 1, rollout (3 of 5 stages)")]
    assert [line for line in lines if line.startswith("round 1 of 1, validate: done in")]
    assert len(lines) < 15
    assert "\x1b" not in captured.err + captured.out
    assert "round 1 of 1" not in captured.out


def test_the_table_shows_every_row_with_intervals_and_where_the_report_is(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN) == 0
    out = capsys.readouterr().out
    for label in (
        "base model",
        "passage alone",
        "self-edits, round 0",
        "self-edits, round 1",
        "round 1 − round 0",
        "base model alone",
    ):
        assert label in out
    report = Report.model_validate_json((here / "seal-runs/tiny/report.json").read_bytes())
    row = report.row("passage")
    assert row is not None
    rows = out[out.index("Validation,") :].splitlines()
    line = next(line for line in rows if line.strip().startswith("passage alone"))
    assert f"{100 * (row.metrics['contains'].mean or 0):.1f}\u00a0%" in line
    assert str(here / "seal-runs/tiny/report.html") in out
    assert "inner loops run" in out
    assert [line for line in out.splitlines() if line.endswith(" ")] == []


def test_set_wins_over_the_file_and_is_kept_with_the_run(here: Path, fakes: Fakes) -> None:
    assert (
        seal(
            *RUN,
            "--set",
            "edit.k=3",
            "--set",
            "evaluation.grader=f1",
            "--name",
            "other",
            "-o",
            "json",
        )
        == 0
    )
    spec = json.loads((here / "seal-runs/other/run.json").read_text())["spec"]
    assert (spec["edit"]["k"], spec["evaluation"]["grader"], spec["inner"]["repeats"]) == (
        3,
        "f1",
        1,
    )


def test_values_of_set_are_yaml() -> None:
    assert changes(["a.b=3", "c=[x, y]", "d=a=b", "e="]) == {
        "a.b": 3,
        "c": ["x", "y"],
        "d": "a=b",
        "e": "",
    }
    with pytest.raises(InvalidInput, match="no valid YAML"):
        changes(["a=[1"])


def test_an_empty_value_of_set_is_the_empty_string_and_a_null_is_refused(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN, "--set", "data.retained=") == 0
    saved = json.loads((here / "seal-runs/tiny/run.json").read_text())
    assert saved["spec"]["data"]["retained"] == ""
    capsys.readouterr()
    assert seal(*RUN, "--set", "rounds=") == 2
    assert "--set: spec.rounds: " in one_line(capsys.readouterr().err)
    for null in ("null", "~"):
        assert seal(*RUN, "--set", f"data.retained={null}") == 2
        assert 'write data.retained="" for an empty string' in one_line(capsys.readouterr().err)


# Again, and after a failure


def test_a_run_that_exists_is_not_begun_anew_and_the_command_to_go_on_is_given(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seal(*RUN, "--root", "my runs", monkeypatch=monkeypatch) == 0
    before = (here / "my runs/tiny/status.json").read_bytes()
    capsys.readouterr()
    assert seal(*RUN, "--root", "my runs", monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"seal {' '.join(RUN)} --root 'my runs' --resume\n")
    assert (
        "begin another one with --name or --root, give it more rounds by --resume --set rounds=2, "
        "or see its report: seal run"
    ) in one_line(error)
    assert (here / "my runs/tiny/status.json").read_bytes() == before


def test_a_run_that_is_not_finished_is_to_be_gone_on_with_by_a_command_to_copy(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.fail = lambda kind, name, call: (
        grpc.StatusCode.FAILED_PRECONDITION if "/r1/" in name else None
    )
    assert seal(*RUN) == 42
    capsys.readouterr()
    assert seal(*RUN, "-o", "json", monkeypatch=monkeypatch) == 2
    remedy = json.loads(capsys.readouterr().out)["error"]["remedy"]
    assert remedy == (
        "begin another one with --name or --root, or go on with it:  "
        f"seal {' '.join(RUN)} -o json --resume"
    )


def test_a_finished_run_is_shown_again_without_any_service(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN, "-o", "json") == 0
    first, calls = json.loads(capsys.readouterr().out), Counter(fakes.calls)
    assert seal(*RUN, "-o", "json", "--resume") == 0
    assert json.loads(capsys.readouterr().out) == first
    assert seal(*RUN, "--resume") == 0
    said = "tiny is finished; this is its report. Give it more rounds by --resume --set rounds=2"
    assert said in one_line(capsys.readouterr().err)
    assert fakes.calls == calls


def test_a_finished_run_that_was_killed_before_it_had_tidied_up_is_tidied_up_by_a_resume(
    here: Path, fakes: Fakes
) -> None:
    assert seal(*RUN) == 0
    store = ArtifactStore(str(here / "seal-runs"))
    store.write_bytes("tiny/trainings/left.json", b"{}")
    left = here / "seal-runs/tiny/adapters/.tmp-1-directory"
    left.mkdir(parents=True)
    policies = store.list("tiny/adapters")
    assert seal(*RUN, "--resume") == 0
    assert not store.list("tiny/trainings") and not left.exists()
    assert store.list("tiny/adapters") == policies


def test_a_run_is_not_resumed_with_another_spec(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal(*RUN) == 0
    assert seal(*RUN, "--resume", "--set", "seed=5") == 2
    assert capsys.readouterr().err.endswith(
        "resume with the spec it was started with (rounds may grow), or begin another one with "
        "--name or --root\n"
    )


def test_a_failed_run_says_why_and_how_to_go_on_and_then_does(
    here: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(kind: str, request_id: str, call: int) -> grpc.StatusCode | None:
        return (
            grpc.StatusCode.FAILED_PRECONDITION
            if kind == "train" and "rollout" in request_id
            else None
        )

    fakes.fail = fail
    assert seal(*RUN, monkeypatch=monkeypatch) == 42
    captured = capsys.readouterr()
    error = one_line(captured.err)
    assert "the run failed: PreconditionFailed" in error
    assert f"seal {' '.join(RUN)} --resume" in error
    assert "The run failed" in one_line(captured.out), "what is finished is shown"
    fakes.fail = lambda kind, request_id, call: None
    assert seal(*RUN, "--resume") == 0


# Stopped


def start(here: Path, *arguments: str, delay: float = 0.15) -> subprocess.Popen[str]:
    """The command as a process of its own, on slow fakes."""
    command = [
        sys.executable,
        str(REPOSITORY / "tests/support/cli_on_fakes.py"),
        str(delay),
        str(here / "log"),
        *arguments,
    ]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"}
    return subprocess.Popen(
        command,
        cwd=here,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_second_interrupt_ends_it_at_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cli_on_fakes.STOP_SECONDS, "300")
    process = start(here, *RUN)
    assert process.stderr is not None
    wait_for(here / "seal-runs/tiny/stages/r0-validate/shard-0000/edits")
    process.send_signal(signal.SIGINT)
    while "stopping" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert process.communicate()[0] == ""


def wait_for(path: Path, *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not (path.is_dir() and any(path.iterdir())):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_a_rollout_it_says_how_to_go_on_and_nothing_is_done_twice(
    here: Path, number: signal.Signals
) -> None:
    process = start(here, *RUN, delay=0.3)
    wait_for(here / "seal-runs/tiny/stages/r1-rollout/shard-0000/edits")
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert f"seal {' '.join(RUN)} --resume" in one_line(error)
    assert "Traceback" not in error
    again = start(here, *RUN, "--resume", "--output", "json", delay=0.0)
    out, error = again.communicate(timeout=120)
    assert again.returncode == 0, error
    assert json.loads(out)["phase"] == "Complete"
    trainings = [
        line.split(" ", 1)[1]
        for line in (here / "log").read_text().splitlines()
        if " train " in line
    ]
    assert len(trainings) == len(set(trainings)), "no finished training ran twice"


def test_a_root_that_is_deleted_in_a_rollout_ends_the_command_with_the_reason(here: Path) -> None:
    process = start(here, *RUN, delay=0.3)
    wait_for(here / "seal-runs/tiny/stages/r1-rollout/shard-0000/edits")
    (here / "seal-runs").rename(here / "elsewhere")
    _, error = process.communicate(timeout=60)
    assert process.returncode == ERROR_CLASSES[Transient].exit_code, error
    assert "seal-runs/tiny was deleted, or its volume taken away" in one_line(error)
    assert "Traceback" not in error and "stopping" not in error


def test_on_a_terminal_there_are_bars_for_generation_training_and_evaluation(here: Path) -> None:
    """Also: a first Ctrl-C, typed at the terminal, stops it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(here)
        os.environ |= {"PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "COLUMNS": "110"}
        os.execv(
            sys.executable,
            [
                sys.executable,
                str(REPOSITORY / "tests/support/cli_on_fakes.py"),
                "0.3",
                str(here / "log"),
                *RUN,
            ],
        )
    seen, typed = b"", False
    while True:
        ready, _, _ = select.select([terminal], [], [], 60)
        try:
            chunk = os.read(terminal, 65536) if ready else b""
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
        if b"rollout" in seen and b"trainings" in seen.rpartition(b"rollout")[2] and not typed:
            typed = True
            os.write(terminal, b"\x03")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode(errors="replace"))
    assert code == 130, text[-2000:]
    for label in ("edits", "trainings", "answers", "round 0 of 1, validate", "left", "--resume"):
        assert label in text


# The report of a run


def test_report_makes_the_files_again_and_prints_all_of_the_json(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(ArtifactStore(str(here / "runs")), passages=3, train_passages=3, rounds=1)
    assert seal("report", f"runs/{run}/", "--output", "json") == 0
    printed = Report.model_validate_json(capsys.readouterr().out)
    assert printed == Report.model_validate_json((here / "runs/demo/report.json").read_bytes())
    assert printed.rollout_details
    assert (here / "runs/demo/report.html").stat().st_size > 10_000


def test_report_takes_a_name_below_the_root(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(ArtifactStore(str(here / "runs")), stages_done=1, passages=2, train_passages=2)
    assert seal("report", "demo", "--root", "runs") == 0
    assert "not finished" in one_line(capsys.readouterr().out)
    assert (here / "runs/demo/report.html").is_file()
    assert seal("report", "dmo", "--root", "runs") == 2
    assert "did you mean demo?" in capsys.readouterr().err


def test_report_takes_a_uri(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(ArtifactStore(str(here / "my runs")), passages=2, train_passages=2, stages_done=1)
    assert seal("report", (here / "my runs/demo").as_uri()) == 0
    assert "not finished" in one_line(capsys.readouterr().out)


def test_report_on_the_root_names_the_run_that_was_meant(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(ArtifactStore(str(here / "runs")), stages_done=0)
    assert seal("report", "runs") == 2
    assert "did you mean runs/demo?" in capsys.readouterr().err


# Demo and models


@pytest.mark.parametrize(
    ("quick", "name", "minutes"), [(False, "demo", 25), (True, "demo-quick", 6)]
)
def test_the_demo_prints_the_measured_peak_and_the_limit_that_follows(
    here: Path,
    fakes: Fakes,
    capsys: pytest.CaptureFixture[str],
    quick: bool,
    name: str,
    minutes: int,
) -> None:
    assert seal("demo", "--dir", "here", "-o", "json", *(["--quick"] if quick else [])) == 0
    captured = capsys.readouterr()
    assert f"0.75 TFLOP/s: it is to end within {minutes} min" in captured.err
    assert f"the limit is {minutes} min" in captured.err
    result = json.loads(captured.out)
    assert result["run"] == name
    assert (here / "here" / name / "report.html").exists()


@pytest.mark.parametrize("quick", [True, False])
def test_the_demo_on_puzzles_is_told_in_their_words_with_the_time_that_it_will_take(
    here: Path,
    fakes: Fakes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    quick: bool,
) -> None:
    model = save_tiny_model(here / "model")
    monkeypatch.setattr(execute, "_model_directory", lambda *given, **options: model)
    monkeypatch.setattr(execute, "check_model", lambda *given: None)  # the tiny one has few layers
    fakes.tokens_of = len  # every cell is one
    arguments = ["--quick"] if quick else []
    assert seal("demo", "--domain", "arc", "--root", "here", *arguments) == 0
    captured = capsys.readouterr()
    name = "demo-arc-quick" if quick else "demo-arc"
    assert f"{name}: about " in captured.err and "right to a factor of two" in captured.err
    assert "it is to end within" not in captured.err, "the limits are those of the other demo"
    for text in (captured.err, captured.out):
        assert not re.search(r"passage|\bF1\b", text, re.IGNORECASE)
    assert "in-context learning" in captured.out
    assert (here / "here" / name / "report.html").exists()


@pytest.mark.parametrize("domain", DemoDomain)
def test_quick_is_less_of_the_same(domain: DemoDomain) -> None:
    from seal.config import load_run

    with demo_manifest(DEMO_NAMES[domain, False]) as path:
        full = load_run(path).spec
    with demo_manifest(DEMO_NAMES[domain, True]) as path:
        quick = load_run(path).spec
    assert quick.domain == full.domain == domain
    assert 0 < quick.rounds <= full.rounds
    assert 0 < quick.data.train_contexts < full.data.train_contexts
    assert 0 < quick.data.validation_contexts < full.data.validation_contexts
    assert (quick.inner, quick.evaluation, quick.model) == (full.inner, full.evaluation, full.model)


@pytest.mark.parametrize(
    ("teraflops", "minutes"), [(0.14, 0), (0.7, 25), (0.99, 25), (1.0, 15), (40.0, 15)]
)
def test_the_limit_follows_from_the_peak(teraflops: float, minutes: int) -> None:
    assert (
        TimeLimit(fast_minutes=15, slow_minutes=25, fast_teraflops=1.0, slow_teraflops=0.7).minutes(
            teraflops
        )
        == minutes
    )


def test_models_list_says_what_is_here_and_how_to_get_the_rest(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal("models", "list") == 0
    assert "seal models pull smollm2-135m" in capsys.readouterr().out
    from seal.embedded import EMBEDDED_MODELS

    model = EMBEDDED_MODELS["smollm2-135m"]
    (here / "cache/models" / model.name / model.key).mkdir(parents=True)
    assert seal("models", "list", "-o", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["ready"]) == ("smollm2-135m", True)


def test_models_pull_to_a_directory_says_where_the_model_is_and_how_services_take_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from model_workplace import write_model

    write_model(here / "tiny")
    assert seal("models", "pull", "./tiny", "--to", "my volume") == 0
    said, kept = capsys.readouterr().out, here / "my volume" / "tiny"
    assert f"path    {kept}" in said
    assert f"take it with  --model '{kept}' --offline" in said, "as it is typed"
    assert (kept / "model.safetensors").is_file()
    assert seal("models", "pull", "./tiny", "--to", "my volume", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(kept)


# Help


def test_every_option_of_every_command_has_a_help_text() -> None:
    from typer.main import get_command

    def commands(command: object) -> Iterator[object]:
        yield command
        for child in getattr(command, "commands", {}).values():
            yield from commands(child)

    parameters = [
        (command, parameter)
        for command in commands(get_command(app))
        for parameter in getattr(command, "params", [])
    ]
    assert len(parameters) > 20
    for command, parameter in parameters:
        text = getattr(parameter, "help", None)
        assert text, f"{getattr(command, 'name', '')} {parameter.name}"
        assert text.endswith(".")


HEAVY = """
import sys
from controller_svc.cli import main
try:
    main(sys.argv[1:])
finally:
    print(sorted({"torch", "transformers", "matplotlib", "grpc"} & set(sys.modules)))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_loads_neither_torch_nor_matplotlib_nor_grpc(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_has_no_words_of_code(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["--help"],
        ["demo", "-h"],
        ["run", "-h"],
        ["report", "-h"],
        ["models", "pull", "-h"],
    ):
        assert seal(*arguments) == 0
        shown = capsys.readouterr().out
        assert "Usage: seal" in shown
        assert not re.search(r"None|Annotated|\.py\b|\\n", shown)
