"""A release on a real cluster: how its commands are called, and who talks to it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from controller_svc.core import Phase, RunStatus
from controller_svc.k8s.objects import of_object

REPOSITORY = Path(__file__).resolve().parents[2]
SERVICES = ("generator", "trainer", "evaluator")
COMMAND_SECONDS = 120
ROLL_SECONDS = 900
"""The longest that it may take until all pods are new."""
RUN_SECONDS = 3600
"""The longest that a run may take."""
SEEN_WITHIN_SECONDS = 300.0
"""The longest that is waited for what takes a moment."""
MANIFEST = REPOSITORY / os.environ.get("E2E_RUN", "examples/smoke.yaml")
TINY = {
    "shards": 1,
    "rounds": 0,
    "edit": {"family": "self-qa", "trainedPrompt": "worked", "k": 1, "maxTokens": 16},
    "inner": {"repeats": 1, "optimizer": {"epochs": 1}},
    "evaluation": {"grader": "logprob", "maxTokens": 4},
    "improve": {"credit": "edit"},
    "validation": {"goldBound": False, "passage": {"epochs": 1}},
}
"""The least that a run can be: the model without any training is measured on one passage."""
ENDED = {Phase.COMPLETE, Phase.FAILED}


@dataclass(frozen=True)
class Run:
    """A run as the API server has it."""

    name: str
    status: RunStatus | None
    """None before the controller has seen it."""
    body: Any

    @property
    def ended(self) -> bool:
        """Whether it will change no more."""
        return self.status is not None and self.status.phase in ENDED

    @property
    def results(self) -> tuple[dict[int, str], dict[int, str]]:
        """Digests of what each round kept, and of the policy that it trained."""
        assert self.status is not None
        return results_of(self.status)


@dataclass(frozen=True)
class Release:
    """An installed release, and who talks to its cluster."""

    namespace: str

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints about the release's namespace."""
        return call(["kubectl", "-n", self.namespace, *arguments], stdin=stdin)

    def helm(self, verb: str, *arguments: str) -> str:
        """What helm prints about the release; it waits until all pods are ready."""
        wait = ("--wait", f"--timeout={ROLL_SECONDS}s")
        command = ["helm", verb, *arguments, "-n", self.namespace, *wait]
        return call(command, seconds=ROLL_SECONDS + COMMAND_SECONDS)

    def helm_values(self) -> str:
        """The values that the release was given, as YAML."""
        return call(["helm", "get", "values", "seal", "-n", self.namespace, "-o", "yaml"])

    def get(self, *arguments: str) -> Any:
        """Objects as the API server has them."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply_run(self, name: str = "", *, file: Path = MANIFEST, **spec: object) -> str:
        """Apply a run's manifest, under another name and with other fields; the name."""
        manifest = yaml.safe_load(file.read_text(encoding="utf-8"))
        manifest["metadata"]["name"] = name or manifest["metadata"]["name"]
        manifest["spec"] |= spec
        self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
        return str(manifest["metadata"]["name"])

    def look(self, name: str) -> Run:
        """A run as it is now."""
        body = self.get("restemrun", name)
        return Run(name, of_object(body.get("status") or {}), body)

    def wait_for(self, name: str) -> Run:
        """A run once it has ended."""
        deadline = time.monotonic() + RUN_SECONDS
        while not (run := self.look(name)).ended:
            assert time.monotonic() < deadline, self.kubectl("describe", "restemrun", name)
            time.sleep(2)
        return run

    def restart(self, component: str) -> None:
        """Restart a Deployment, pod by pod, until the old ones have gone."""
        before = [f"pod/{pod}" for pod in self.pods(component)]
        deployment, within = f"deployment/seal-{component}", f"--timeout={ROLL_SECONDS}s"
        self.kubectl("rollout", "restart", deployment)
        command = ["kubectl", "-n", self.namespace, "rollout", "status", deployment, within]
        call(command, seconds=ROLL_SECONDS + COMMAND_SECONDS)
        self.kubectl("wait", "--for=delete", *before, "--timeout=110s")

    def metrics(self, pod: str) -> str:
        """What a pod serves at /metrics, fetched by the API server."""
        containers = self.get("pod", pod)["spec"]["containers"]
        (port,) = (
            port["containerPort"]
            for container in containers
            for port in container["ports"]
            if port["name"] == "metrics"
        )
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:{port}/proxy/metrics"
        return self.kubectl("get", "--raw", path)

    def pods(self, component: str) -> list[str]:
        """Names of the running pods of a Deployment."""
        return self._running(
            f"app.kubernetes.io/instance=seal,app.kubernetes.io/component={component}"
        )

    def workers(self, run: str, stage: str = "") -> list[str]:
        """Names of the running pods of a run's Jobs, of one stage or any."""
        return self._running(f"seal.dev/run={run}" + (f",seal.dev/stage={stage}" if stage else ""))

    def _running(self, labels: str) -> list[str]:
        """Those that nobody has asked to end."""
        found = self.get("pods", "-l", labels, "--field-selector", "status.phase=Running")["items"]
        return [
            str(pod["metadata"]["name"])
            for pod in found
            if "deletionTimestamp" not in pod["metadata"]
        ]


def results_of(status: RunStatus) -> tuple[dict[int, str], dict[int, str]]:
    """By round: the digest of what it kept, and of the policy that it trained."""
    return (
        {one.round: one.selection_sha256 for one in status.rounds},
        {one.round: one.adapter.sha256 for one in status.policies if one.adapter is not None},
    )


def call(
    command: Sequence[str], *, stdin: str | None = None, seconds: float = COMMAND_SECONDS
) -> str:
    """What a command prints; a failure shows all that it said."""
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def until(seen: Callable[[], bool], *, seconds: float = SEEN_WITHIN_SECONDS) -> None:
    """Wait for what is to be seen; what fails meanwhile is not seen yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if seen():
                return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "not seen in time"
        time.sleep(0.5)


def told(variable: str, default: str, **values: str) -> list[str]:
    """The command that a variable names; empty for none."""
    return [part.format(**values) for part in shlex.split(os.environ.get(variable, default))]


@contextmanager
def forwarded(release: Release, target: str, port: int) -> Iterator[str]:
    """Where this machine reaches a port of the cluster, as long as the block lasts."""
    command = ["kubectl", "-n", release.namespace, "port-forward", target, f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
        assert forwarding.stdout is not None
        try:
            said = forwarding.stdout.readline()  # Forwarding from 127.0.0.1:40211 -> 50050
            assert said, f"{shlex.join(command)} ended"
            yield said.split()[2]
        finally:
            forwarding.terminate()
