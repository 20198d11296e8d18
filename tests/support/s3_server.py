"""A real S3 server for tests: versitygw on a free port of the loopback, its bucket a directory.

`running_s3` and `s3_root` are fixtures of all tests (tests/conftest.py).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ACCESS_KEY, SECRET_KEY, REGION, BUCKET = "tests", "tests-secret", "us-east-1", "seal"
START_SECONDS = 20.0


class S3Server:
    """A server over a directory, whose sub-directories are its buckets."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program, self._directory = program, directory
        self._address = f"127.0.0.1:{_free_port()}"
        self.bucket_directory = directory / BUCKET
        self.bucket_directory.mkdir(parents=True)
        self.start()

    def start(self) -> None:
        """Start it, again on the same port after a kill; returns when it listens."""
        self._process = subprocess.Popen(
            [self._program, "--quiet", "--port", self._address, "posix", str(self._directory)],
            env={"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait_until_it_listens(self._address, self._process)

    def kill(self) -> None:
        """End it as a lost node does."""
        self._process.kill()
        self._process.wait()

    @property
    def environment(self) -> dict[str, str]:
        """The standard variables."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self._address}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def find_program() -> str | None:
    """versitygw of `$KUBEBUILDER_ASSETS`, or on the path."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    return shutil.which("versitygw", path=assets) if assets else shutil.which("versitygw")


@contextmanager
def s3_server(directory: Path) -> Iterator[S3Server]:
    """Run a server over `directory`; skips the test where the program or the driver is missing."""
    program = find_program()
    if program is None:
        pytest.skip("no versitygw in $KUBEBUILDER_ASSETS or on PATH")
    if importlib.util.find_spec("s3fs") is None:
        pytest.skip("s3fs is not installed (extra s3)")
    server = S3Server(program, directory)
    try:
        yield server
    finally:
        server.kill()


def forget_clients() -> None:
    """fsspec keeps a client for the life of the process, with the variables of its first use."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def fresh_client(monkeypatch: pytest.MonkeyPatch, **variables: str | None) -> Iterator[None]:
    """Let the block's clients read these variables (None: not set)."""
    forget_clients()
    with monkeypatch.context() as patched:
        for name, value in variables.items():
            if value is None:
                patched.delenv(name, raising=False)
            else:
                patched.setenv(name, value)
        yield
    forget_clients()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_listens(address: str, process: subprocess.Popen[bytes]) -> None:
    host, _, port = address.partition(":")
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, f"versitygw ended with {process.returncode}"
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, f"versitygw does not listen on {address}"
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="session")
def running_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all tests of this process."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        forget_clients()
        yield server
        forget_clients()


@pytest.fixture
def s3_root(running_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh root on the server, whose variables are set."""
    for name, value in running_s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
