"""The chart as tests see it: what helm makes of it, and what stands in it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_plane import find_assets

CHART = Path(__file__).resolve().parents[2] / "charts/seal"
KUBE_VERSION = "1.34.0"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The definitions are 140 KB, which the one in Python takes seconds for."""
RELEASE = "seal"
Object = dict[str, Any]
SERVICES = ("generator", "trainer", "evaluator")


def helm(program: str = "helm") -> Path:
    """Helm of `$KUBEBUILDER_ASSETS`; skips the test where it is missing."""
    assets = find_assets()
    if assets is None or not (assets / program).exists():
        pytest.skip(f"no {program} in $KUBEBUILDER_ASSETS")
    return assets / program


def render(
    *arguments: str, namespace: str = "team", program: str = "helm", release: str = RELEASE
) -> list[Object]:
    """The objects that the chart makes, in the order of their templates."""
    done = template(*arguments, namespace=namespace, program=program, release=release)
    assert done.returncode == 0, done.stderr
    return [made for made in yaml.load_all(done.stdout, Loader=LOADER) if made]


def template(
    *arguments: str,
    namespace: str = "team",
    program: str = "helm",
    stdin: str = "",
    release: str = RELEASE,
) -> subprocess.CompletedProcess[str]:
    """What `helm template` says."""
    command = [str(helm(program)), "template", release, str(CHART), "-n", namespace]
    return subprocess.run(
        [*command, "--kube-version", KUBE_VERSION, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    """Objects of a kind by name."""
    return {made["metadata"]["name"]: made for made in objects if made["kind"] == kind}


def pods(objects: list[Object]) -> dict[str, Object]:
    """The pods' templates, by the name of what makes them."""
    return {
        made["metadata"]["name"]: made["spec"]["template"]
        for made in objects
        if made["kind"] in ("Deployment", "Job")
    }


def container(pod: Object) -> Object:
    """The one container of a pod's template."""
    (only,) = pod["spec"]["containers"]
    return only


def environment(pod: Object) -> dict[str, str]:
    """Its variables; one that comes from a field has that field's name."""
    return {
        one["name"]: one["value"]
        if "value" in one
        else one["valueFrom"]["resourceFieldRef"]["resource"]
        for one in container(pod)["env"]
    }


def jobs_file(objects: list[Object]) -> Any:
    """What the controller is set to about Jobs."""
    found = of_kind(objects, "ConfigMap")[f"{RELEASE}-controller"]
    return yaml.safe_load(found["data"]["jobs.yaml"])


def access(*arguments: str, namespace: str = "team") -> list[Object]:
    """Service accounts, roles and their bindings, exactly as a release has them."""
    kinds = ("ServiceAccount", "Role", "RoleBinding")
    objects = render(*arguments, namespace=namespace)
    return [{"metadata": {}} | made for made in objects if made["kind"] in kinds]
