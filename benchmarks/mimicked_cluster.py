"""`python -m benchmarks.mimicked_cluster COMMAND`: a cluster whose nodes only pretend.

For the figure `controller` where no cluster with KWOK's nodes is at hand. etcd, kube-apiserver,
kube-controller-manager, kube-scheduler and kwok of `$KUBEBUILDER_ASSETS` run as processes for as
long as the command does, which finds them by its `$KUBECONFIG`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path

from benchmarks.control_plane import (
    Server,
    find_assets,
    running,
    running_controllers,
    running_server,
)
from benchmarks.mimicked import MIMICKED
from seal.errors import Transient

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
    assets = find_assets(PROGRAMS)
    pace = (
        *("--kube-api-qps", str(REQUESTS_PER_SECOND)),
        *("--kube-api-burst", str(2 * REQUESTS_PER_SECOND)),
    )
    patient = ("--concurrent-job-syncs", "20", "--node-monitor-grace-period", PATIENCE)
    with (
        running_server(assets, directory, "--max-requests-inflight", "800") as server,
        running_controllers(server, "kube-controller-manager", *pace, *patient),
        running_controllers(server, "kube-scheduler", *pace),
        running(
            server,
            "kwok",
            *("--kubeconfig", str(server.kubeconfig), "--config", str(STAGES)),
            *("--manage-nodes-with-label-selector", MIMICKED),
        ),
    ):
        _make_nodes(server, nodes)
        yield server.kubeconfig


def _make_nodes(server: Server, count: int) -> None:
    """Nodes that take none but pods which tolerate that they only pretend."""
    label, value = MIMICKED.split("=")
    room = {"cpu": "128", "memory": "2048Gi", "pods": str(PODS_PER_NODE)}
    for number in range(count):
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": f"mimic-{number}", "labels": {label: value}},
            "spec": {"taints": [{"key": "mimic", "effect": "NoSchedule"}]},
            "status": {"allocatable": room, "capacity": room},
        }
        status, said = server.ask("POST", "/api/v1/nodes", node)
        if status != HTTPStatus.CREATED:
            raise Transient(f"node {number} was not made: {said.decode(errors='replace')[:500]}")


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
