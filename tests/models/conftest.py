"""A small embedded model, and a directory that passes for a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_workplace import Workplace, write_model


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    return Workplace(tmp_path, monkeypatch)


@pytest.fixture
def model_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "my-model"
    write_model(directory)
    return directory
