"""A place to run the command in: manifest, data, fake services."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import cli_on_fakes
import pytest
from command import MANIFEST
from controller_harness import write_passages
from fake_services import Fakes

import controller_svc.cli.execute as execute
import controller_svc.cli.machine as machine


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """`main` takes over signals and logging of its process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    root = logging.getLogger()
    logging_before = (root.handlers[:], root.level)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    root.handlers[:], root.level = logging_before


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a config and data, as the working directory."""
    (tmp_path / "tiny.yaml").write_text(MANIFEST)
    write_passages(tmp_path / "train.jsonl", ["Tower 1", "Tower 2", "Tower 3"])
    write_passages(tmp_path / "validation.jsonl", ["Valley 1", "Valley 2"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEAL_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    for name in ("_services", "_model_directory"):
        monkeypatch.setattr(execute, name, getattr(execute, name))
    monkeypatch.setattr(machine, "gemm_peak", machine.gemm_peak)
    fakes = Fakes()
    cli_on_fakes.install(fakes)
    return fakes
