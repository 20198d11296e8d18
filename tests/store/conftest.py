"""The same promises on a directory, in memory and on a real S3."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from seal.artifacts import ArtifactStore


@pytest.fixture(params=["file", "memory", "s3"])
def root_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh root on each kind of place."""
    if request.param == "file":
        yield (tmp_path / "store").as_uri()
    elif request.param == "s3":
        yield request.getfixturevalue("s3_root")
    else:
        root = uuid.uuid4().hex
        yield f"memory://{root}/seal"
        memory = fsspec.filesystem("memory")
        if memory.exists(root):
            memory.rm(root, recursive=True)


@pytest.fixture
def store(root_uri: str, tmp_path: Path) -> ArtifactStore:
    """A store on each kind of place."""
    return ArtifactStore(root_uri, cache_dir=tmp_path / "cache")


@pytest.fixture
def local(tmp_path: Path) -> ArtifactStore:
    """A store in a directory."""
    return ArtifactStore((tmp_path / "store").as_uri())


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A directory with the two files of an adapter."""
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").write_text('{"r": 4}')
    (directory / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 40)
    return directory
