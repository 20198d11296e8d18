"""A real control plane without nodes: etcd and kube-apiserver of `$KUBEBUILDER_ASSETS`.

A folder's conftest.py that imports `control_plane` has it as a fixture. It is up within seconds, on
free ports of the loopback, and keeps its files in a temporary directory. `running_controllers` adds
kube-controller-manager: Jobs get pods, and what an object owned goes with it. No node takes the
pods; a test plays their part.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import control_plane as programs
from seal.errors import InvalidInput


class ControlPlane(programs.Server):
    """A running API server, as tests ask it."""

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
        status, reply = self.ask(method, path, body)
        return status, json.loads(reply)


def find_assets() -> Path | None:
    """`$KUBEBUILDER_ASSETS` if it holds the programs."""
    try:
        return programs.find_assets(("etcd", "kube-apiserver", "kubectl"))
    except InvalidInput:
        return None


@contextmanager
def running_control_plane(directory: Path) -> Iterator[ControlPlane]:
    """Run one; skips the test where the programs are missing."""
    assets = find_assets()
    if assets is None:
        pytest.skip("no etcd, kube-apiserver and kubectl in $KUBEBUILDER_ASSETS")
    # Nobody makes service accounts without a controller manager, and no pod is started here
    alone = ("--disable-admission-plugins", "ServiceAccount")
    with programs.running_server(assets, directory, *alone) as server:
        yield ControlPlane(**vars(server))


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
    with programs.running_controllers(
        plane,
        program.name,
        *("--controllers", ",".join(CONTROLLERS)),
        *("--concurrent-job-syncs", "5", "--concurrent-gc-syncs", "5"),
    ):
        yield


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One control plane for all tests of this process."""
    with running_control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane
