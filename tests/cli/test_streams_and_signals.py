"""The command's process: a signal at its beginning, and what its output cannot hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controller_svc.cli.messages import STOPPED

SEAL = "from controller_svc.cli.main import main; main()"
SLOW_IMPORT = f"""
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "controller_svc.cli.app":
            print("importing", flush=True)
            time.sleep(30)
sys.meta_path.insert(0, Slow())
{SEAL}
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
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_modules_are_imported_ends_the_command_quietly(
    number: signal.Signals, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_IMPORT],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "importing\n"
        time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(20) == STOPPED
        assert process.stderr.read() == ""


def test_output_that_cannot_hold_a_character_shows_what_it_stands_for(tmp_path: Path) -> None:
    found = seal("chat", "--adapter", "−", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert found.returncode == 2, found.stderr
    assert r"\u2212" in found.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_is_no_error_of_its_own(closed: str, tmp_path: Path) -> None:
    found = seal("get", "nothing", cwd=tmp_path, shell=closed)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr and "defect" not in found.stderr
