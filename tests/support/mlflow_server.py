"""A real MLflow tracking server for tests: its own process, SQLite and files in a directory.

The server is the whole of MLflow, which is no part of any extra: `$MLFLOW_PROGRAM` names the
`mlflow` of an environment that has it, else the one on the path is tried.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

START_SECONDS = 90.0
"""It imports for a dozen seconds on a busy machine, and makes its tables."""


class MlflowServer:
    """A server on a free port of the loopback."""

    def __init__(self, program: str, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._program, self._directory = program, directory
        self.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, again on the same port and data after a kill; returns when it answers."""
        command = [self._program, "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", "sqlite:///mlflow.db"]
        command += ["--artifacts-destination", str(self._directory / "files")]
        self._process = subprocess.Popen(
            command,
            cwd=self._directory,
            env={**os.environ, "PYTHONPATH": "", "MLFLOW_TRACKING_URI": ""},
            stdout=(self._directory / "server.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._directory / "server.log").read_text()
            assert time.monotonic() < deadline, "MLflow's server does not answer"
            time.sleep(0.2)

    def kill(self) -> None:
        """End it and its workers as a lost node does."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def find_program() -> str | None:
    """An `mlflow` whose environment has the server."""
    program = os.environ.get("MLFLOW_PROGRAM") or shutil.which("mlflow")
    if program is None:
        return None
    python = Path(program).parent / "python"
    has_server = [str(python), "-c", "import flask, sqlalchemy, mlflow.server"]
    environment = {**os.environ, "PYTHONPATH": ""}
    found = (
        python.exists()
        and not subprocess.run(
            has_server, check=False, capture_output=True, env=environment
        ).returncode
    )
    return program if found else None


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One server for the tests of a module."""
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("mlflow is not installed (extra mlflow)")
    program = find_program()
    if program is None:
        pytest.skip("no mlflow with a server in $MLFLOW_PROGRAM or on PATH")
    server = MlflowServer(program, tmp_path_factory.mktemp("mlflow"))
    yield server
    server.kill()
