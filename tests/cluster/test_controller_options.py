"""What the controller can be told, and what it refuses by field and file before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from chart import jobs_file, render
from controller_office import SETTINGS

from controller_svc.k8s import connect
from controller_svc.k8s.connect import served_namespaces
from controller_svc.k8s.options import ControllerOptions
from seal.errors import InvalidInput, NotFound

SETTINGS_FILE = SETTINGS.model_dump(mode="json", by_alias=True)


def options(path: Path, **given: object) -> ControllerOptions:
    return ControllerOptions(artifacts="/a", jobs_file=path, **given)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.yaml"
    path.write_text(yaml.safe_dump(SETTINGS_FILE))
    return path


def test_the_settings_of_jobs_are_read_as_manifests_are_written(path: Path) -> None:
    assert "imagePullPolicy" in SETTINGS_FILE and "claimName" in SETTINGS_FILE["store"]
    assert options(path).jobs() == SETTINGS


def test_the_settings_that_the_chart_writes_are_read(tmp_path: Path) -> None:
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(jobs_file(render())))
    assert options(tmp_path / "jobs.yaml").jobs().ttl_seconds >= 60


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"paralelism": 3}, "paralelism"),
        ({"parallelism": 0}, "parallelism"),
        ({"worker": {"placement": {}}}, r"worker\.image"),
        ({"worker": {"image": "a", "placement": {"affinity": {"node": {}}}}}, r"affinity\.node"),
    ],
)
def test_a_wrong_setting_is_refused_by_field_and_file(
    path: Path, changes: dict[str, object], field: str
) -> None:
    path.write_text(yaml.safe_dump(SETTINGS_FILE | changes))
    with pytest.raises(InvalidInput, match=f"jobs.yaml.*{field}"):
        options(path).jobs()
    with pytest.raises(NotFound, match=r"none\.yaml"):
        options(path.with_name("none.yaml")).jobs()


def test_namespaces_are_those_given_or_the_pods_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert served_namespaces(" a, b,a,") == ("a", "b")
    monkeypatch.setattr(connect, "own_namespace", lambda: "team")
    assert served_namespaces("") == ("team",)
    monkeypatch.setattr(connect, "own_namespace", lambda: "")
    with pytest.raises(InvalidInput, match="--namespaces"):
        served_namespaces("")


def test_no_two_processes_are_called_alike(path: Path) -> None:
    assert options(path).name != options(path).name
    assert options(path, identity="me").name == "me"
