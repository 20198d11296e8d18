"""The command's process: a signal at its beginning, and what its output cannot hold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controller_svc.cli import STOPPED
from seal.artifacts import ArtifactStore
from seal.config import load_run
from seal.errors import ERROR_CLASSES, Exhausted, NotFound

SEAL = "from controller_svc.cli import main; main()"
SLOW_IMPORT = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            print("importing", flush=True)
            time.sleep(30)
sys.meta_path.insert(0, Slow())
{seal}
"""
LATE_THREAD = """
import importlib, threading, time
entry = importlib.import_module("controller_svc.cli.boundary")

def work(given):
    threading.Thread(target=time.sleep, args=(60,)).start()
    print("told", flush=True)
    return 43

entry._exit_code = work
entry.run([])
"""


def seal(
    *arguments: str, cwd: Path, shell: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; `shell` ends its command line."""
    command = " ".join(f"'{one}'" for one in (sys.executable, "-c", SEAL, *arguments))
    return subprocess.run(
        ["/bin/sh", "-c", f"{command} {shell}"],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        encoding=environment.get("PYTHONIOENCODING"),
        timeout=120,
        check=False,
    )


def interrupted(code: str, *, after: str, cwd: Path, number: signal.Signals) -> tuple[int, str]:
    """Exit code and stderr of a process that gets a signal once it has printed a line."""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == f"{after}\n"
        time.sleep(0.1)
        process.send_signal(number)
        return process.wait(20), process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["typer", "controller_svc.cli.app"])
def test_a_signal_while_modules_are_imported_ends_the_command_quietly(
    module: str, number: signal.Signals, tmp_path: Path
) -> None:
    code = SLOW_IMPORT.format(module=module, seal=SEAL)
    ended = interrupted(code, after="importing", cwd=tmp_path, number=number)
    assert ended == (STOPPED, "")


def test_the_command_imports_next_to_nothing_before_signals_end_it_quietly() -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; before = set(sys.modules); import controller_svc.cli;"
            "print(*sorted(set(sys.modules) - before))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"typer", "rich", "asyncio", "logging", "pathlib"} & set(found.stdout.split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_the_end_only_hastens_it(number: signal.Signals, tmp_path: Path) -> None:
    assert interrupted(LATE_THREAD, after="told", cwd=tmp_path, number=number) == (43, "")


def test_output_that_cannot_hold_a_character_shows_what_it_stands_for(tmp_path: Path) -> None:
    found = seal("chat", "--adapter", "−", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert found.returncode == 2, found.stderr
    assert r"\u2212" in found.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_json_is_json_also_on_an_output_that_cannot_hold_it(encoding: str, tmp_path: Path) -> None:
    name = "büro-\N{GRINNING FACE}.md"
    found = seal("adapt", name, "--output", "json", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert name in json.loads(found.stdout)["error"]["message"]


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_is_no_error_of_its_own(closed: str, tmp_path: Path) -> None:
    found = seal("get", "nothing", cwd=tmp_path, shell=closed)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr and "defect" not in found.stderr


def test_where_standard_input_is_closed_there_is_nobody_to_ask(tmp_path: Path) -> None:
    ArtifactStore(str(tmp_path / "seal-runs")).write_json("tiny/run.json", load_run(None))
    found = seal("rm", "my-run", "tiny", cwd=tmp_path, shell="<&-")
    assert found.returncode == 2 and "there is no run 'my-run'" in found.stderr
    found = seal("rm", "tiny", cwd=tmp_path, shell="<&-")
    assert found.returncode == 2 and "add --yes" in found.stderr


def test_an_argument_that_is_no_utf8_is_wrong_input_and_no_defect(tmp_path: Path) -> None:
    found = seal("list", "--server", os.fsdecode(b"h\xff:1"), "-o", "json", cwd=tmp_path)
    assert found.returncode == 2, found.stderr
    error = json.loads(found.stdout)["error"]
    assert error["reason"] == "InvalidInput" and r"\udcff" in error["message"]


def test_bytes_that_are_no_utf8_on_standard_input_stand_for_no_character() -> None:
    code = "from controller_svc.cli import boundary as b; b._open_streams(); print(ascii(input()))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        input=b"a\xffb\n",
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert found.stdout == b"'a\\ufffdb'\n"


@pytest.mark.parametrize("arguments", [["get", "nothing"], ["fly"]])
def test_who_does_not_read_stderr_gets_code_and_json_all_the_same(
    arguments: list[str], tmp_path: Path
) -> None:
    code = f"import os; os.read(0, 1)\n{SEAL}"
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments, "-o", "json"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        process.stderr.close()
        out, _ = process.communicate("begin\n", timeout=120)
    assert (process.returncode, json.loads(out)["error"]["exit_code"]) == (2, 2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["config", "show"], ["--version"], ["--help"]])
def test_an_output_that_is_full_is_told_in_one_line_and_is_no_defect(
    arguments: list[str], tmp_path: Path
) -> None:
    found = seal(*arguments, cwd=tmp_path, shell=">/dev/full")
    assert found.returncode == ERROR_CLASSES[Exhausted].exit_code
    assert found.stderr.startswith("error: no space left to write the output")
    assert "Traceback" not in found.stderr and "defect" not in found.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("full", [">/dev/full", "2>/dev/full", ">/dev/full 2>&1"])
def test_a_full_output_changes_no_other_errors_code(full: str, tmp_path: Path) -> None:
    found = seal("get", "nothing", "-o", "json", cwd=tmp_path, shell=full)
    assert found.returncode == ERROR_CLASSES[NotFound].exit_code
    assert "Traceback" not in found.stderr


def test_a_reader_that_has_left_is_no_error_to_tell(tmp_path: Path) -> None:
    found = seal("config", "show", cwd=tmp_path, shell="| true")
    assert found.stderr == ""
