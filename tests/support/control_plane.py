"""A real control plane without nodes: etcd and kube-apiserver of `$KUBEBUILDER_ASSETS`.

A folder's conftest.py that imports `control_plane` has it as a fixture. It is up within seconds, on
free ports of the loopback, and keeps its files in a temporary directory. `running_controllers` adds
kube-controller-manager: Jobs get pods, and what an object owned goes with it. No node takes the
pods; a test plays their part.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

READY_SECONDS = 60.0
TOKEN = "tests"
KEY_FILE = "service-accounts.key"
"""Signs the tokens of service accounts."""


@dataclass(frozen=True)
class ControlPlane:
    """A running API server, and who talks to it as its administrator."""

    url: str
    kubeconfig: Path
    """File for kubectl, helm and the client."""
    assets: Path
    directory: Path
    """Of its files and logs."""

    def kubectl(self, *arguments: str, stdin: str | None = None, fails: bool = False) -> str:
        """What kubectl prints; with `fails` what it says when it is refused."""
        done = subprocess.run(
            [str(self.assets / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    def request(self, method: str, path: str, body: object = None) -> tuple[int, dict]:
        """(status, reply) of a request in JSON."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=_trusting()) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


def find_assets() -> Path | None:
    """`$KUBEBUILDER_ASSETS` if it holds the programs."""
    named = os.environ.get("KUBEBUILDER_ASSETS")
    programs = ("etcd", "kube-apiserver", "kubectl")
    if named and all((Path(named) / program).exists() for program in programs):
        return Path(named)
    return None


@contextmanager
def running_control_plane(directory: Path) -> Iterator[ControlPlane]:
    """Run one; skips the test where the programs are missing."""
    assets = find_assets()
    if assets is None:
        pytest.skip("no etcd, kube-apiserver and kubectl in $KUBEBUILDER_ASSETS")
    client, peer, secure = _free_ports(3)
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(_start(directory, _etcd(assets, directory, client, peer)))
        started.append(_start(directory, _api_server(assets, directory, client, secure)))
        plane = ControlPlane(
            url=f"https://127.0.0.1:{secure}",
            kubeconfig=_write_kubeconfig(directory, secure),
            assets=assets,
            directory=directory,
        )
        _wait_until_ready(f"{plane.url}/api/v1/namespaces/default", started, directory)
        yield plane
    finally:
        _end(started)


CONTROLLERS = (
    "job-controller",
    "garbage-collector-controller",
    "ttl-after-finished-controller",
    "serviceaccount-controller",
    "namespace-controller",
    "resourcequota-controller",
)
"""What kube-controller-manager does here; the rest looks after nodes and workloads of others."""


@contextmanager
def running_controllers(plane: ControlPlane) -> Iterator[None]:
    """Run kube-controller-manager beside it; skips the test where the program is missing.

    Start it when the project's kinds are there: the garbage collector looks for new ones but once
    in half a minute, and until then an object of one is not collected.
    """
    program = plane.assets / "kube-controller-manager"
    if not program.exists():
        pytest.skip("no kube-controller-manager in $KUBEBUILDER_ASSETS")
    (port,) = _free_ports(1)
    command = [
        str(program),
        *("--kubeconfig", str(plane.kubeconfig), "--leader-elect=false"),
        *("--controllers", ",".join(CONTROLLERS)),
        *("--service-account-private-key-file", str(plane.directory / KEY_FILE)),
        *("--bind-address", "127.0.0.1", "--secure-port", str(port)),
        *("--cert-dir", str(plane.directory / "certificates-of-controllers")),
        *("--concurrent-job-syncs", "5", "--concurrent-gc-syncs", "5"),
    ]
    started = [_start(plane.directory, command)]
    try:
        _wait_until_ready(f"https://127.0.0.1:{port}/healthz", started, plane.directory)
        yield
    finally:
        _end(started)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One control plane for all tests of this process."""
    with running_control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


def _etcd(assets: Path, directory: Path, client: int, peer: int) -> list[str]:
    address = f"http://127.0.0.1:{client}"
    return [
        str(assets / "etcd"),
        *("--data-dir", str(directory / "etcd"), "--unsafe-no-fsync"),
        *("--listen-client-urls", address, "--advertise-client-urls", address),
        *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
    ]


def _api_server(assets: Path, directory: Path, etcd: int, port: int) -> list[str]:
    key = directory / KEY_FILE
    command = ["openssl", "genrsa", "-out", str(key), "2048"]
    subprocess.run(command, check=True, capture_output=True)
    tokens = directory / "tokens.csv"
    tokens.write_text(f"{TOKEN},admin,admin,system:masters\n")
    return [
        str(assets / "kube-apiserver"),
        *("--etcd-servers", f"http://127.0.0.1:{etcd}"),
        *("--bind-address", "127.0.0.1", "--secure-port", str(port)),
        *("--cert-dir", str(directory / "certificates")),
        *("--token-auth-file", str(tokens), "--authorization-mode", "RBAC"),
        *("--service-account-issuer", "https://kubernetes.default.svc"),
        *("--service-account-key-file", str(key), "--service-account-signing-key-file", str(key)),
        *("--service-cluster-ip-range", "10.0.0.0/24"),
        # Nobody makes service accounts without a controller manager, and no pod is started here
        *("--disable-admission-plugins", "ServiceAccount"),
    ]


def _start(directory: Path, command: Sequence[str]) -> subprocess.Popen[bytes]:
    with (directory / f"{Path(command[0]).name}.log").open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _write_kubeconfig(directory: Path, port: int) -> Path:
    """JSON is YAML. The server's certificate is made anew each time and not checked."""
    path = directory / "kubeconfig"
    cluster = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "tests", "user": {"token": TOKEN}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        "current-context": "tests",
    }
    path.write_text(json.dumps(content))
    return path


def _end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in reversed(started):
        process.kill()
        process.wait()


def _wait_until_ready(
    url: str, started: Sequence[subprocess.Popen[bytes]], directory: Path
) -> None:
    """Until it serves `url`: of an API server the namespace that all objects of the tests are in.

    Raises AssertionError if a program ends, or none answers in time.
    """
    deadline = time.monotonic() + READY_SECONDS
    while not _serves(url):
        ended = [process.args for process in started if process.poll() is not None]
        assert not ended, f"{ended} ended; the logs are in {directory}"
        assert time.monotonic() < deadline, f"{url} is not there; the logs are in {directory}"
        time.sleep(0.1)


def _serves(url: str) -> bool:
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(asked, timeout=5, context=_trusting()) as reply:
            return reply.status == 200
    except OSError:
        return False


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
