"""The product on the cluster that `$KUBECONFIG` names: images, chart, services, runs.

`make e2e` builds the image and loads it into the nodes, by commands that variables may replace:

    E2E_BUILD      default: docker build --target seal -t {image} .
    E2E_LOAD       default: kind load docker-image {image}
    E2E_IMAGE      default: localhost/seal:dev; with E2E_BUILD and E2E_LOAD empty, one that is there
    E2E_VALUES     default: charts/seal/values-kind.yaml
    E2E_RUN        default: examples/smoke.yaml; another manifest of a run
    E2E_NAMESPACE  default: seal-e2e
    E2E_KEEP       if set, the release stays installed for a look at it

A cluster that knows KServe's InferenceService, or is told of it from the folder `SEAL_TEST_CRDS`,
is installed with a service that every adaptation is handed on to.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator

import pytest
from kserve_definitions import find_definitions
from release import COMMAND_SECONDS, Release, Run, call, forwarded, told, until

from controller_svc.k8s.api import INFERENCE_SERVICES

NAME = "seal"
BUILD, LOAD = "docker build --target seal -t {image} .", "kind load docker-image {image}"
INSTALL_SECONDS, BUILD_SECONDS = 900, 3600


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave them out unless they are asked for by their mark: they take minutes, and a cluster."""
    if "e2e" in config.option.markexpr:
        return
    out = [item for item in items if item.get_closest_marker("e2e") is not None]
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=out)


@pytest.fixture(scope="session")
def cluster() -> None:
    """A cluster to work on, which who chooses these tests has asked for."""
    if not os.environ.get("KUBECONFIG"):
        pytest.fail("$KUBECONFIG names no cluster", pytrace=False)
    missing = [program for program in ("kubectl", "helm") if shutil.which(program) is None]
    if missing:
        pytest.fail(f"{' and '.join(missing)} not on the PATH", pytrace=False)


@pytest.fixture(scope="session")
def image(cluster: None) -> str:
    """The image, built from this checkout and known to the nodes."""
    image = os.environ.get("E2E_IMAGE", "localhost/seal:dev")
    for variable, default in (("E2E_BUILD", BUILD), ("E2E_LOAD", LOAD)):
        if command := told(variable, default, image=image):
            call(command, seconds=BUILD_SECONDS)
    return image


@pytest.fixture(scope="session")
def served_by(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of the InferenceService that adaptations are handed on to; empty without KServe."""
    group, _, _ = INFERENCE_SERVICES.api_version.partition("/")
    definition = f"{INFERENCE_SERVICES.plural}.{group}"
    known = call(["kubectl", "get", "crd", definition, "--ignore-not-found", "-o", "name"])
    if not known:
        try:
            unpacked = tmp_path_factory.mktemp("definitions")
            (file,) = find_definitions([INFERENCE_SERVICES.plural], unpacked)
        except FileNotFoundError:
            return ""
        call(["kubectl", "create", "-f", str(file)])
        until(lambda: bool(call(["kubectl", "api-resources", f"--api-group={group}", "-o=name"])))
    return "adapted"


@pytest.fixture(scope="session")
def installed(image: str, served_by: str) -> tuple[str, ...]:
    """Arguments of the command that installs the chart; in float32, to compare with a laptop."""
    repository, _, tag = image.rpartition(":")
    values = os.environ.get("E2E_VALUES", "charts/seal/values-kind.yaml")
    install = ["upgrade", "--install", NAME, "charts/seal", "-f", values]
    install += ["--set", f"image.repository={repository},image.tag={tag}"]
    install += ["--set", "engine.dtype=float32", "--wait", f"--timeout={INSTALL_SECONDS}s"]
    if served_by:
        kserve = {
            "name": served_by,
            "modelUri": "pvc://models/smollm2-135m",
            "storeUri": "pvc://seal-artifacts",
        }
        adaptations = json.dumps({"publish": {"kserve": kserve}})
        install += ["--set", "rbac.kserve=true", "--set-json", f"api.adaptations={adaptations}"]
    return tuple(install)


@pytest.fixture(scope="session")
def release(installed: tuple[str, ...]) -> Iterator[Release]:
    """The chart, installed into a namespace that admits only pods of the standard `restricted`."""
    release = Release(os.environ.get("E2E_NAMESPACE", "seal-e2e"))
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": release.namespace, "labels": labels}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    call(["kubectl", "apply", "-f", "-"], stdin=json.dumps(namespace))
    try:
        call(
            ["helm", *installed, "-n", release.namespace], seconds=INSTALL_SECONDS + COMMAND_SECONDS
        )
        yield release
    finally:
        if not os.environ.get("E2E_KEEP"):
            call(["helm", "uninstall", NAME, "-n", release.namespace, "--wait"], seconds=300)
            call(["kubectl", "delete", "namespace", release.namespace], seconds=300)


@pytest.fixture(scope="session")
def front_door(release: Release) -> Iterator[str]:
    """Where this machine reaches the gRPC API."""
    with forwarded(release, "service/seal-api", 50050) as address:
        yield address


@pytest.fixture(scope="session")
def ended(release: Release) -> Run:
    """The run of the manifest, which nobody disturbed, at its end."""
    return release.wait_for(release.apply_run())
