"""A service that serves adapters, as SEAL wants it: where its server finds them, what it is told.

KServe puts all downloads into one volume at the path that they share. Of a claim it mounts the root
in an InferenceService, whatever path the URI has. Both volumes are only read, and nothing can be
mounted within such a volume: so downloads lie together, and claims lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seal.settings.publish import HUGGING_FACE, KServeSettings

DIGEST_CHARACTERS = 12
"""Of an adapter's digest in names and paths."""
_MODEL, _DOWNLOADS_BESIDE_THE_MODEL = "/mnt/models", "/mnt/models/adapters"
_DOWNLOADS, _CLAIMS = "/mnt/adapters", "/mnt/stores"
_CLAIM = "pvc://"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One adapter that a service loads, under one of its names."""

    name: str
    uri: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service as SEAL wants it."""

    settings: KServeSettings
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    adapters: tuple[Adapter, ...]
    """Each under both of its names."""
    max_rank: int

    @property
    def loaded_at_once(self) -> int:
        """Adapters that one batch may mix: clients ask for each under one name of the two."""
        return max(1, len(self.adapters) // 2)

    @property
    def mounts(self) -> dict[str, str]:
        """Of an InferenceService: the URI that is mounted or downloaded, by path."""
        mounts = {_MODEL: _mounted(self.settings.model_uri)}
        return mounts | {self._mount(one): _mounted(one.uri) for one in self.adapters}

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of an InferenceService: the arguments of its server."""
        settings = self.settings
        given = list(settings.args)
        if not settings.runtime and settings.model_format == HUGGING_FACE:
            model = _below(_MODEL, settings.model_uri)
            given += [f"--model_dir={model}", "--backend=vllm"]
        if self.adapters:
            given += [
                "--enable-lora",
                f"--max-lora-rank={self.max_rank}",
                f"--max-loras={self.loaded_at_once}",
                f"--max-cpu-loras={len(self.adapters)}",
                "--lora-modules",
                *(f"{one.name}={_below(self._mount(one), one.uri)}" for one in self.adapters),
            ]
        return tuple(given)

    def _mount(self, adapter: Adapter) -> str:
        if adapter.uri.startswith(_CLAIM):
            return f"{_CLAIMS}/{_claim(adapter.uri)}"
        downloaded = not self.settings.model_uri.startswith(_CLAIM)
        directory = _DOWNLOADS_BESIDE_THE_MODEL if downloaded else _DOWNLOADS
        return f"{directory}/{adapter.sha256[:DIGEST_CHARACTERS]}"


def _claim(uri: str) -> str:
    return uri.removeprefix(_CLAIM).partition("/")[0]


def _mounted(uri: str) -> str:
    """What of a URI KServe mounts: of a claim all."""
    return f"{_CLAIM}{_claim(uri)}" if uri.startswith(_CLAIM) else uri


def _below(mount: str, uri: str) -> str:
    """Where what a URI names lies: of a claim its path below the mount."""
    path = uri.removeprefix(_CLAIM).partition("/")[2] if uri.startswith(_CLAIM) else ""
    return f"{mount}/{path}" if path else mount
