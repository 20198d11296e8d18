"""A real S3 server for tests: versitygw on a free port of the loopback, its bucket a directory."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ACCESS_KEY, SECRET_KEY, REGION, BUCKET = "tests", "tests-secret", "us-east-1", "seal"
START_SECONDS = 20.0


@dataclass(frozen=True)
class S3Server:
    """Where the server is and how its driver finds it."""

    endpoint: str
    bucket_directory: Path
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """The standard variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
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
    bucket = directory / BUCKET
    bucket.mkdir(parents=True)
    address = f"127.0.0.1:{_free_port()}"
    process = subprocess.Popen(
        [program, "--quiet", "--port", address, "posix", str(directory)],
        env={"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_it_listens(address, process)
        yield S3Server(f"http://{address}", bucket, process)
    finally:
        process.kill()
        process.wait()


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
