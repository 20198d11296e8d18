"""`python -m benchmarks.mimicked_cluster COMMAND`: a cluster whose nodes only pretend.

For the figure `controller` where no cluster with KWOK's nodes is at hand. etcd, kube-apiserver,
kube-controller-manager, kube-scheduler and kwok of `$KUBEBUILDER_ASSETS` run as processes on free
ports of the loopback, for as long as the command does, which finds them by its `$KUBECONFIG`.
Nothing is kept, and etcd does not wait for the disk.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.mimicked import MIMICKED
from seal.errors import InvalidInput, Transient
from seal.yaml_files import Tree

READY_SECONDS = 120.0
STAGES = Path(__file__).parent / "kwok-stages.yaml"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
NODES = 60
PODS_PER_NODE = 1000
REQUESTS_PER_SECOND = 500
"""Kubernetes' own controllers make at most so many: by default 20 to 50, which would be measured
in place of the API server."""
PATIENCE = "10m"
"""With nodes that say nothing: on a busy machine the program that pretends them is late."""


@contextmanager
def mimicked_cluster(directory: Path, *, nodes: int = NODES) -> Iterator[Path]:
    """The kubeconfig of one that runs within the block; its files and logs are in `directory`.

    Raises:
        InvalidInput: the programs are not there.
        Transient: one of them ended, or did not get ready.

    """
    cluster = _Cluster(_assets(), directory)
    try:
        cluster.start()
        cluster.make_nodes(nodes)
        yield cluster.kubeconfig
    finally:
        cluster.end()


def _assets() -> Path:
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS", ""))
    missing = [name for name in PROGRAMS if not (folder / name).exists()]
    if missing:
        raise InvalidInput(
            f"there is no {missing[0]} in {folder}",
            field="KUBEBUILDER_ASSETS",
            remedy=f"let it name a folder with {', '.join(PROGRAMS)}",
        )
    return folder


class _Cluster:
    """Its processes."""

    def __init__(self, assets: Path, directory: Path) -> None:
        self._assets, self._directory = assets, directory
        self._token, self._key = secrets.token_hex(16), directory / "service-accounts.key"
        self._etcd, self._peer, self._secure, self._manager, self._scheduler = _free_ports(5)
        self._url = f"https://127.0.0.1:{self._secure}"
        self.kubeconfig = directory / "kubeconfig"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all of them, each once what it needs is there."""
        command = ["openssl", "genrsa", "-out", str(self._key), "2048"]
        subprocess.run(command, check=True, capture_output=True)
        self._write_kubeconfig()
        self._start_etcd()
        self._start_api_server()
        self._wait_for(f"{self._url}/api/v1/namespaces/default")
        for name, port in (
            ("kube-controller-manager", self._manager),
            ("kube-scheduler", self._scheduler),
        ):
            self._start_controllers(name, port)
            self._wait_for(f"https://127.0.0.1:{port}/healthz")
        self._start(
            "kwok",
            *("--kubeconfig", str(self.kubeconfig), "--config", str(STAGES)),
            *("--manage-nodes-with-label-selector", MIMICKED),
        )

    def _start_etcd(self) -> None:
        address = f"http://127.0.0.1:{self._etcd}"
        self._start(
            "etcd",
            *("--data-dir", str(self._directory / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", address, "--advertise-client-urls", address),
            *("--listen-peer-urls", f"http://127.0.0.1:{self._peer}"),
        )

    def _start_api_server(self) -> None:
        tokens = self._directory / "tokens.csv"
        tokens.write_text(f"{self._token},admin,admin,system:masters\n", encoding="utf-8")
        self._start(
            "kube-apiserver",
            *("--etcd-servers", f"http://127.0.0.1:{self._etcd}"),
            *("--bind-address", "127.0.0.1", "--secure-port", str(self._secure)),
            *("--cert-dir", str(self._directory / "certificates")),
            *("--token-auth-file", str(tokens), "--authorization-mode", "RBAC"),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--service-account-key-file", str(self._key)),
            *("--service-account-signing-key-file", str(self._key)),
            *("--service-cluster-ip-range", "10.0.0.0/24", "--max-requests-inflight", "800"),
        )

    def _start_controllers(self, program: str, port: int) -> None:
        pace = str(REQUESTS_PER_SECOND), str(2 * REQUESTS_PER_SECOND)
        manages = program == "kube-controller-manager"
        key = str(self._key)
        self._start(
            program,
            *("--kubeconfig", str(self.kubeconfig), "--leader-elect=false"),
            *("--kube-api-qps", pace[0], "--kube-api-burst", pace[1]),
            *("--bind-address", "127.0.0.1", "--secure-port", str(port)),
            *("--cert-dir", str(self._directory / f"certificates-{program}")),
            *(("--service-account-private-key-file", key) if manages else ()),
            *(("--concurrent-job-syncs", "20") if manages else ()),
            *(("--node-monitor-grace-period", PATIENCE) if manages else ()),
        )

    def make_nodes(self, count: int) -> None:
        """Nodes that take none but pods which tolerate that they only pretend."""
        label, value = MIMICKED.split("=")
        room = {"cpu": "128", "memory": "2048Gi", "pods": str(PODS_PER_NODE)}
        for number in range(count):
            node: Tree = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": f"mimic-{number}", "labels": {label: value}},
                "spec": {"taints": [{"key": "mimic", "effect": "NoSchedule"}]},
                "status": {"allocatable": room, "capacity": room},
            }
            self._ask(f"{self._url}/api/v1/nodes", json.dumps(node).encode())

    def end(self) -> None:
        """SIGKILL: nothing of it is kept."""
        for process in reversed(self._started):
            process.kill()
            process.wait()

    def _start(self, program: str, *arguments: str) -> None:
        with (self._directory / f"{program}.log").open("wb") as log:
            command = [str(self._assets / program), *arguments]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._started.append(process)

    def _write_kubeconfig(self) -> None:
        """JSON is YAML. The server makes its certificate anew each time: it is not checked."""
        server = {"server": self._url, "insecure-skip-tls-verify": True}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "mimicked", "cluster": server}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": "it", "context": {"cluster": "mimicked", "user": "admin"}}],
            "current-context": "it",
        }
        self.kubeconfig.write_text(json.dumps(content), encoding="utf-8")

    def _wait_for(self, url: str) -> None:
        deadline, cause = time.monotonic() + READY_SECONDS, "no answer"
        while time.monotonic() < deadline:
            ended = [str(process.args) for process in self._started if process.poll() is not None]
            if ended:
                raise Transient(f"{ended[0]} has ended", remedy="its log says why")
            try:
                self._ask(url)
                return
            except OSError as error:
                cause = str(error)
            time.sleep(0.1)
        raise Transient(f"{url} does not get ready: {cause}")

    def _ask(self, url: str, body: bytes | None = None) -> None:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        asked = urllib.request.Request(url, data=body, headers=headers)
        with urllib.request.urlopen(asked, timeout=10, context=_trusting()):
            pass


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


def main(command: Sequence[str]) -> int:
    """Run a command beside the cluster; its exit code. SIGTERM ends all that both have started."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with (
        tempfile.TemporaryDirectory(prefix="seal-") as directory,
        mimicked_cluster(Path(directory)) as kubeconfig,
    ):
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        with subprocess.Popen(command, env=environment, start_new_session=True) as process:
            try:
                return process.wait()
            finally:
                with suppress(ProcessLookupError):  # it and what it started have ended
                    os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
