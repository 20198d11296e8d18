"""From the name of a base model to a directory that the engine can load.

What is there is checked before torch is asked. Four sources: an embedded name, a path, `file://`,
and the Hugging Face hub as `org/model[@revision]` or `hf://org/model[@revision]`. Only data is ever
loaded: safetensors, never pickle, never a model's own code.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from seal.bases import BaseReference
from seal.digests import kept_sha256s
from seal.embedded import EMBEDDED_MODELS, ensure_embedded
from seal.errors import InvalidInput, NotFound, PreconditionFailed, Transient
from seal.files import cache_directory, file_errors, given_path
from seal.kept_models import Progress, hub_place, pull_again, verified_model
from seal.manifest import Manifest
from seal.model_files import COMPANION_FILES, check_model_directory

HUB_FILES = ("*.safetensors", *COMPANION_FILES)
"""What is taken from a repository of the Hugging Face hub."""

_HUB_ID = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[A-Za-z0-9][\w./-]*))?"
)
_NOT_FROM_HUB = ("*/*", "consolidated*")
"""Sub-directories, and the weights a second time in another layout."""


@dataclass(frozen=True)
class ResolvedModel:
    """A base model on this machine."""

    name: str
    """Embedded name, `org/model[@revision]`, or the directory's name."""
    path: Path
    """Directory with config.json, tokenizer and safetensors."""
    base: BaseReference
    """What requests and adapters call it; its name is the source as it was given."""

    @property
    def sha256(self) -> str:
        """Digest of the weights, lower-case hex (`weights_sha256`)."""
        return self.base.sha256


def resolve_model(
    source: str,
    *,
    cache_dir: Path | None = None,
    models_dir: Path | None = None,
    offline: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> ResolvedModel:
    """Find, download or make a base model and check that it is complete.

    `cache_dir`: where embedded models and digests are kept; default: `$SEAL_CACHE` or the user's
    cache. `models_dir`: a directory of models (`seal.kept_models`) in place of the cache's own.
    `offline`: download nothing. `force`: make an embedded model anew. `progress`: see
    `seal.kept_models.Progress`.

    Raises InvalidInput naming what a directory lacks or why a source is none, NotFound for what
    does not exist (offline: is not cached), Internal naming the damaged file of a cache, Transient
    if a download failed, Exhausted if the disk is full, PreconditionFailed if access is refused or
    a package is missing.
    """
    report, cache = progress or _silent, cache_dir or _cache_beside(models_dir)
    models, again = models_dir or cache / "models", pull_again(source, models_dir)
    if (embedded := EMBEDDED_MODELS.get(source)) is not None:
        path, manifest = ensure_embedded(
            embedded,
            models=models,
            downloads=cache / "downloads",
            offline=offline,
            force=force,
            remedy=again,
            progress=report,
        )
        base = BaseReference(source, _weights_of(manifest), location=embedded.hub_id)
        return ResolvedModel(source, path, base)
    if (match := _hub_match(source)) is not None:
        base = BaseReference(source, location=match["repository"], revision=match["revision"] or "")
        if (kept := hub_place(models, match["repository"], match["revision"])).is_dir():
            manifest = verified_model(kept, remedy=again)
            return ResolvedModel(
                _hub_name(source), kept, replace(base, sha256=_weights_of(manifest))
            )
        path = _from_hub(source, match, offline=offline, models_dir=models_dir)
        return _checked(_hub_name(source), path, base, cache=cache, progress=report)
    path = _local_path(source)
    base = BaseReference(source, location=str(path))
    return _checked(path.name, path, base, cache=cache, progress=report)


def hub_place_of(source: str, models_dir: Path) -> Path | None:
    """Where a directory of models keeps a model of the hub; None for what is none.

    Raises InvalidInput for `hf://` before what is no repository.
    """
    match = _hub_match(source)
    return None if match is None else hub_place(models_dir, match["repository"], match["revision"])


def _cache_beside(models_dir: Path | None) -> Path:
    """The user's cache; a user without a home needs none beside a directory of models."""
    try:
        return cache_directory()
    except PreconditionFailed:
        if models_dir is None:
            raise
        return models_dir


def is_downloadable(source: str) -> bool:
    """Whether a name is an embedded model or one of the hub, which may not be here yet.

    Raises InvalidInput for `hf://` before what is no repository.
    """
    return source in EMBEDDED_MODELS or _hub_match(source) is not None


def weights_sha256(
    path: Path, *, cache_dir: Path | None = None, progress: Progress | None = None
) -> str:
    """Digest of the weights in a directory, whatever their files are called.

    One file has its own sha256; several have that of their digests, sorted, one a line. Computed
    once while the files stay as they are: the digests are kept in the user's cache. Raises
    InvalidInput as `resolve_model`.
    """
    report = progress or _silent
    with file_errors(path):
        digests = kept_sha256s(
            check_model_directory(path),
            cache=cache_dir or cache_directory(),
            progress=lambda done, total: report("checking its weights", done, total),
        )
    return _combined(digests)


def _weights_of(manifest: Manifest) -> str:
    """Digest of the weights of a kept model."""
    return _combined(
        entry.sha256 for name, entry in manifest.files.items() if name.endswith(".safetensors")
    )


def _combined(digests: Iterable[str]) -> str:
    several = sorted(digests)
    if len(several) == 1:
        return several[0]
    return hashlib.sha256("".join(f"{digest}\n" for digest in several).encode()).hexdigest()


def _checked(
    name: str, path: Path, base: BaseReference, *, cache: Path, progress: Progress
) -> ResolvedModel:
    """Refuse a directory that is not complete or wants to run code; hash its weights."""
    sha256 = weights_sha256(path, cache_dir=cache, progress=progress)
    return ResolvedModel(name, path, replace(base, sha256=sha256))


def _hub_name(source: str) -> str:
    return source.removeprefix("hf://")


def _hub_match(source: str) -> re.Match[str] | None:
    """A repository of the hub: what says so, or what looks so and is no path here.

    Raises InvalidInput for `hf://` before what is no repository.
    """
    match = _HUB_ID.fullmatch(_hub_name(source))
    if source.startswith("hf://"):
        if match is None or ".." in source:
            raise InvalidInput(
                f"model: {source} names no repository",
                field="model",
                remedy="write org/model or hf://org/model@revision",
            )
        return match
    with file_errors(source):
        return None if ".." in source or Path(source).exists() else match


def _local_path(source: str) -> Path:
    """Directory that `file://` or a plain path names."""
    plain = source
    if "://" in source:
        scheme, _, rest = source.partition("://")
        if scheme != "file" or not rest.startswith("/"):
            raise InvalidInput(
                f"model: {source} is no source of models",
                field="model",
                remedy="use an embedded name, org/model of the hub, a path or file:///absolute/path",
            )
        plain = unquote(rest)
    path = given_path(plain, field="model")
    with file_errors(path):
        is_there, is_directory = path.exists(), path.is_dir()
    if is_directory:
        return path
    if is_there:
        raise InvalidInput(
            f"model: {path} is a file",
            field="model",
            remedy="give the directory that holds config, tokenizer and weights",
        )
    near = difflib.get_close_matches(source, EMBEDDED_MODELS, n=1, cutoff=0.5)
    raise NotFound(
        f"model: {source!r} is neither an embedded model nor a directory",
        field="model",
        remedy=f"did you mean {near[0]}?"
        if near
        else "use one of: " + ", ".join([*EMBEDDED_MODELS, "org/model of the hub", "a path"]),
    )


def _from_hub(source: str, match: re.Match[str], *, offline: bool, models_dir: Path | None) -> Path:
    """Snapshot of a repository in the hub's own cache, which other programs share.

    `models_dir`: where it has been looked for before.
    """
    try:
        from huggingface_hub import errors, snapshot_download  # here, because its import is slow
    except ModuleNotFoundError as error:
        raise PreconditionFailed(
            f"models of the hub need the package {error.name}",
            remedy="install the engine: pip install 'seal-kubernetes[engine]'",
        ) from error
    repository, revision = match["repository"], match["revision"]
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(HUB_FILES),
                ignore_patterns=list(_NOT_FROM_HUB),
                local_files_only=offline,
            )
        )
    except errors.GatedRepoError as error:
        raise PreconditionFailed(
            f"model: access to {repository} is refused",
            field="model",
            remedy="accept its terms on the hub and set HF_TOKEN",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise NotFound(
            f"model: the hub has no {_hub_name(source)}{_nor_a_path(source)}",
            field="model",
            remedy="check the name; for a private one set HF_TOKEN",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if offline:
            raise NotFound(
                f"model: offline: {source} is not in the hub's cache"
                f"{'' if models_dir is None else f' or in {models_dir}'} and nothing may be "
                f"downloaded{_nor_a_path(source)}",
                field="model",
                remedy="download it once with a network, or give a path",
            ) from error
        raise _unreachable(source) from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # the HTTP library's own: which one that is changes with the hub's version
        raise _unreachable(source) from error
    except OSError as error:
        with file_errors(f"the hub's cache for {source}"):
            raise
        raise _unreachable(source) from error


def _nor_a_path(source: str) -> str:
    """For a name that could have been meant as a path."""
    return "" if source.startswith("hf://") else ", and there is no such directory here"


def _unreachable(source: str) -> Transient:
    return Transient(
        f"model: {source} cannot be downloaded and is not in the hub's cache{_nor_a_path(source)}",
        field="model",
        remedy="check the network, or give a path",
    )


def _silent(what: str, done_bytes: int, total_bytes: int) -> None:
    """Say nothing."""
