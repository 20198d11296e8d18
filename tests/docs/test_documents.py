"""The documents name what is there: files, tests, modules, settings."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from controller_svc.cli.app import app
from seal.config import load_adaptation, load_run
from seal.resources import RestEMRun

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    + list((ROOT / "docs").rglob("*.md"))
)
ROOMS = (
    *("benchmarks", "controller_svc", "docs", "evaluator_svc", "examples", "generator_svc"),
    *("proto", "seal", "tests", "trainer_svc"),
)
NAMES = {path.name for room in ROOMS for path in (ROOT / room).rglob("*.py")}
PATHS = re.compile(rf"(?<![\w/.<>-])(?:{'|'.join(ROOMS)})/[\w/.-]*\w/?")
MODULES = re.compile(r"`([a-z_]+\.py)`")
LINKS = re.compile(r"\]\((?!https?:)([^)#]+)\)")
SETTINGS = re.compile(
    r"\b(?:edit|inner|improve|evaluation|validation|data|artifacts)(?:\.(?!py\b|md\b|json)\w+)+"
)


def settings_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    """All fields of a run's spec as manifests write them, sections included."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        path = f"{prefix}{to_camel(name)}"
        found.add(path)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= settings_of(field.annotation, f"{path}.")
    return found


def values_of(chart: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """All values of a chart by dotted name, sections included."""
    for name, value in chart.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from values_of(value, f"{prefix}{name}.")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    missing = [path for path in PATHS.findall(text) if not (ROOT / path).exists()]
    missing += [link for link in LINKS.findall(text) if not (document.parent / link).exists()]
    missing += [name for name in MODULES.findall(text) if name not in NAMES]
    assert missing == []


def test_make_help_shows_every_target_that_a_document_names() -> None:
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    named = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"`make ([a-z][a-z0-9-]*)", document.read_text(encoding="utf-8"))
    }
    shown = subprocess.run(
        ["make", "-C", str(ROOT), "help"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert named - {line.split()[0] for line in shown.splitlines() if line.strip()} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_setting_that_a_document_names_is_one_of_the_manifest_or_the_chart(
    document: Path,
) -> None:
    chart = yaml.safe_load((ROOT / "charts/seal/values.yaml").read_text(encoding="utf-8"))
    known = settings_of(RestEMRun.model_fields["spec"].annotation) | set(values_of(chart))
    named = SETTINGS.findall(document.read_text(encoding="utf-8"))
    assert [name for name in named if name not in known] == []


def test_the_manifest_of_the_readme_is_one_that_runs(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (manifest,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "run.yaml").write_text(manifest, encoding="utf-8")
    assert load_run(tmp_path / "run.yaml").spec.edit.k == 3


def test_every_option_of_adapt_is_in_its_document() -> None:
    shown = (ROOT / "docs/adapt.md").read_text(encoding="utf-8")
    (command,) = [one for one in app.registered_commands if one.name == "adapt"]
    assert command.callback is not None
    names = set(inspect.signature(command.callback).parameters) - {"context", "files"}
    options = {f"--{name.replace('_', '-')}" for name in names}
    assert options <= set(re.findall(r"`(--[a-z-]+)", shown))


def test_the_defaults_of_adapt_in_its_document_are_those_of_the_profile() -> None:
    data = {"documents": [{"name": "a.md", "path": "a", "sha256": "a" * 64}]}
    spec = load_adaptation(None, {"metadata.name": "a", "profile": "embedded", "data": data}).spec
    shown = (ROOT / "docs/adapt.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"(?m)^\| `(--[a-z-]+)[^|]*\|[^|]*\| ([\d.]+) \|$", shown))
    assert {name: float(value) for name, value in rows.items()} == {
        "--candidates": spec.edit.k,
        "--passage-tokens": spec.passages.max_tokens,
        "--held-out": spec.questions.held_out_share,
        "--replay-rows": spec.adapter.replay_rows,
        "--seed": spec.seed,
        "--min-gain": spec.gate.min_gain,
        "--max-regression": spec.gate.max_regression,
    }
    assert spec.gate.confident
