"""What a new user does first: a clone, Python, a package index, and nothing else."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from clean_install import clean_environment, clone, run

pytestmark = [pytest.mark.install, pytest.mark.timeout(900)]


def test_what_make_demo_installs_takes_a_run_of_the_real_model_to_its_report(
    tmp_path: Path,
) -> None:
    """Home, model cache and user site are empty; pip's cache is this machine's.

    `make smoke` has the same prerequisite as `make demo`, and its run takes the same way.
    """
    source = clone(tmp_path / "clone")
    environment = clean_environment(tmp_path / "home")
    said = run(
        ["make", "smoke", f"PYTHON={sys.executable}", f"RUNS={tmp_path / 'runs'}"],
        env=environment,
        cwd=source,
        timeout_seconds=800,
    )
    report = json.loads((tmp_path / "runs" / "smoke" / "report.json").read_text())
    assert report["phase"] == "Complete"
    assert report["rounds_done"] == 1
    assert "improve: done" in said and "kept 1 edit" in said
    assert (tmp_path / "runs" / "smoke" / "report.html").stat().st_size > 10_000
    assert "model: converting" in said  # from nothing: the model came in this run
    assert any((tmp_path / "home" / ".cache").rglob("model.safetensors"))
    shutil.rmtree(source / ".venv")  # more than a gigabyte, which pytest would keep for three runs


def test_make_demo_and_make_smoke_install_the_same() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    targets = {
        name: needs.split("##")[0].split()
        for name, _, needs in (line.partition(":") for line in makefile.splitlines())
    }
    assert targets["demo"] == targets["demo-quick"] == targets["smoke"] == ["$(VENV)/.demo"]
