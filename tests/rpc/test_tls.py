"""A server behind TLS is called by `https://`, if its certificate is one that is trusted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from seal.errors import InvalidInput
from seal.rpc.client import open_blocking_channel

CALLER = """
import asyncio, sys
from grpc_health.v1 import health_pb2 as messages, health_pb2_grpc as stubs
from seal.rpc.client import open_blocking_channel, open_channel

async def ask(address):
    async with open_channel(address) as channel:
        return await stubs.HealthStub(channel).Check(messages.HealthCheckRequest(), timeout=10)

with open_blocking_channel(sys.argv[1]) as channel:
    blocking = stubs.HealthStub(channel).Check(messages.HealthCheckRequest(), timeout=10)
assert blocking == asyncio.run(ask(sys.argv[1]))
print(messages.HealthCheckResponse.ServingStatus.Name(blocking.status))
"""
"""gRPC reads once in a process whom it trusts: each caller is a process of its own."""


@dataclass(frozen=True)
class Server:
    """One that listens."""

    port: int
    certificate: Path
    """Its own, which nobody has signed but itself."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as an Ingress shows it: by TLS alone."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=seal", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    listening = grpc.server(ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, listening)
    pair = (key.read_bytes(), certificate.read_bytes())
    port = listening.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    listening.start()
    yield Server(port, certificate)
    listening.stop(None).wait()


def call(address: str, *, trusted: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What a caller says who trusts the roots in a file, or gRPC's own."""
    environment = dict(os.environ)
    environment.pop("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", None)
    if trusted is not None:
        environment["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] = str(trusted)
    command = [sys.executable, "-c", CALLER, address]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("end", ["", "/"])
def test_a_server_whose_certificate_is_trusted_answers(server: Server, end: str) -> None:
    done = call(f"https://127.0.0.1:{server.port}{end}", trusted=server.certificate)
    assert done.stdout.strip() == "SERVING", done.stderr


def test_a_server_whom_nobody_vouches_for_is_told_nothing(server: Server) -> None:
    done = call(f"https://127.0.0.1:{server.port}")
    assert done.returncode != 0
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr


def test_without_https_nobody_speaks_tls(server: Server) -> None:
    assert call(f"127.0.0.1:{server.port}", trusted=server.certificate).returncode != 0


@pytest.mark.parametrize(
    "address",
    ["http://seal.example.org", "https://seal.example.org/v1", "seal.example.org", "[::1]"],
)
def test_what_grpc_cannot_call_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput, match="https://HOST"):
        open_blocking_channel(address)
