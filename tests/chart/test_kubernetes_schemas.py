"""Every manifest of every profile fits the schemas of each Kubernetes that is supported."""

from __future__ import annotations

import json

import pytest
from chart import CHART, Object, render
from test_chart import VALUES

SUPPORTED = [f"1.{minor}" for minor in range(31, 37)]
ABSENT = "kubernetes-validate is not installed"
OTHERS = "monitoring.coreos.com/"
"""Of Prometheus' operator, which a real API server checks by its definitions."""


@pytest.fixture(scope="module")
def manifests() -> list[Object]:
    """Of all profiles, each once."""
    made = {
        json.dumps(one, sort_keys=True): one for given in VALUES.values() for one in render(*given)
    }
    return [one for one in made.values() if not one["apiVersion"].startswith(OTHERS)]


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_manifest_fits_the_schemas_of(version: str, manifests: list[Object]) -> None:
    validator = pytest.importorskip("kubernetes_validate.utils", reason=ABSENT)
    carried = {str(one).rpartition(".")[0] for one in validator.all_versions()}
    if version not in carried:
        pytest.skip(f"this kubernetes-validate has no schemas of {version}")
    for manifest in manifests:
        validator.validate(manifest, version, strict=True)


def test_a_field_that_is_none_would_be_noticed(manifests: list[Object]) -> None:
    validator = pytest.importorskip("kubernetes_validate.utils", reason=ABSENT)
    deployment = next(one for one in manifests if one["kind"] == "Deployment")
    wrong = deployment | {"spec": deployment["spec"] | {"replica": 2}}
    with pytest.raises(validator.ValidationError, match="replica"):
        validator.validate(wrong, SUPPORTED[-1], strict=True)


def test_the_chart_asks_for_the_oldest_that_is_supported() -> None:
    assert f'kubeVersion: ">={SUPPORTED[0]}.0-0"' in (CHART / "Chart.yaml").read_text()
