"""Kubernetes' own programs as processes of this machine: etcd, kube-apiserver, what runs beside.

They are those of a folder (`$KUBEBUILDER_ASSETS`), on free ports of the loopback, each for as long
as its block lasts. Nothing is kept: they are killed, and etcd does not wait for the disk. Tests use
an API server without nodes, the figure `controller` one with nodes that only pretend.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path

from seal.errors import InvalidInput, Transient

READY_SECONDS = 120.0
ASK_SECONDS = 30.0


@dataclass(frozen=True)
class Server:
    """A running API server, and who talks to it as its administrator."""

    url: str
    token: str
    kubeconfig: Path
    """File for kubectl, helm and the client."""
    assets: Path
    directory: Path
    """Of its files and logs."""

    @property
    def key(self) -> Path:
        """Signs the tokens of service accounts."""
        return self.directory / "service-accounts.key"

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """(status, reply) of a request in JSON. Raises OSError where nobody answers."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=ASK_SECONDS, context=_trusting()) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def find_assets(programs: Sequence[str]) -> Path:
    """`$KUBEBUILDER_ASSETS`. Raises InvalidInput naming a program that it does not hold."""
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS", ""))
    missing = [name for name in programs if not (folder / name).exists()]
    if missing:
        raise InvalidInput(
            f"there is no {missing[0]} in {folder}",
            field="KUBEBUILDER_ASSETS",
            remedy=f"let it name a folder with {', '.join(programs)}",
        )
    return folder


@contextmanager
def running_server(assets: Path, directory: Path, *arguments: str) -> Iterator[Server]:
    """An API server, and the etcd that it needs. `arguments`: what it is told beside.

    Raises:
        Transient: one of them ended, or did not get ready.

    """
    client, peer, secure = _free_ports(3)
    etcd, url = f"http://127.0.0.1:{client}", f"https://127.0.0.1:{secure}"
    server = Server(
        url=url,
        token=secrets.token_hex(16),
        kubeconfig=directory / "kubeconfig",
        assets=assets,
        directory=directory,
    )
    _write_files(server)
    with (
        running(
            server,
            "etcd",
            *("--data-dir", str(directory / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
        ),
        running(
            server,
            "kube-apiserver",
            *("--etcd-servers", etcd),
            *("--bind-address", "127.0.0.1", "--secure-port", str(secure)),
            *("--cert-dir", str(directory / "certificates")),
            *("--token-auth-file", str(_tokens(server)), "--authorization-mode", "RBAC"),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--service-account-key-file", str(server.key)),
            *("--service-account-signing-key-file", str(server.key)),
            *("--service-cluster-ip-range", "10.0.0.0/24"),
            *arguments,
        ) as process,
    ):
        _wait_for(server, process, "/api/v1/namespaces/default")
        yield server


@contextmanager
def running_controllers(server: Server, program: str, *arguments: str) -> Iterator[None]:
    """One of Kubernetes' own controllers beside its API server.

    Raises:
        Transient: it ended, or did not get ready.

    """
    (port,) = _free_ports(1)
    signs = program == "kube-controller-manager"
    with running(
        server,
        program,
        *("--kubeconfig", str(server.kubeconfig), "--leader-elect=false"),
        *("--bind-address", "127.0.0.1", "--secure-port", str(port)),
        *("--cert-dir", str(server.directory / f"certificates-{program}")),
        *(("--service-account-private-key-file", str(server.key)) if signs else ()),
        *arguments,
    ) as process:
        _wait_for(replace(server, url=f"https://127.0.0.1:{port}"), process, "/healthz")
        yield


@contextmanager
def running(server: Server, program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program of the server's folder; its log is beside the server's files."""
    with (server.directory / f"{program}.log").open("wb") as log:
        command = [str(server.assets / program), *arguments]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _write_files(server: Server) -> None:
    """The key, the administrator's token, and a kubeconfig, which as JSON is YAML.

    The server makes its certificate anew each time: it is not checked.
    """
    command = ["openssl", "genrsa", "-out", str(server.key), "2048"]
    subprocess.run(command, check=True, capture_output=True)
    _tokens(server).write_text(f"{server.token},admin,admin,system:masters\n", encoding="utf-8")
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "it", "cluster": {"server": server.url, "insecure-skip-tls-verify": True}}
        ],
        "users": [{"name": "admin", "user": {"token": server.token}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "admin"}}],
        "current-context": "it",
    }
    server.kubeconfig.write_text(json.dumps(content), encoding="utf-8")


def _tokens(server: Server) -> Path:
    return server.directory / "tokens.csv"


def _wait_for(server: Server, process: subprocess.Popen[bytes], path: str) -> None:
    deadline, cause = time.monotonic() + READY_SECONDS, "no answer"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Transient(
                f"{process.args!r} has ended", remedy=f"its log is in {server.directory}"
            )
        try:
            status, _ = server.ask("GET", path)
            if status == HTTPStatus.OK:
                return
            cause = f"it answers {status}"
        except OSError as error:
            cause = str(error)
        time.sleep(0.1)
    raise Transient(
        f"{server.url}{path} does not get ready: {cause}",
        remedy=f"the logs are in {server.directory}",
    )


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has, held together until all are found."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
