"""From the name of a base model to a directory that the engine can load.

What is there is checked before torch is asked. Four sources: an embedded name,
`hf://org/model[@revision]`, `file://`, a plain path. Only data is ever loaded: safetensors, never
pickle, never a model's own code.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from seal.embedded import EMBEDDED_MODELS, Progress, ensure_embedded, remembered_sha256
from seal.errors import InvalidInput, NotFound, PreconditionFailed, Transient
from seal.files import cache_directory, file_errors

HUB_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""What is taken from a repository of the Hugging Face hub."""

_HUB_ID = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[A-Za-z0-9][\w./-]*))?"
)
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
_INDEX = "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100 << 20


@dataclass(frozen=True)
class ResolvedModel:
    """A base model on this machine."""

    name: str
    """Embedded name, `org/model[@revision]`, or the directory's name."""
    path: Path
    """Directory with config.json, tokenizer and safetensors."""
    sha256_of_weights: str
    """Digest of the weights, lower-case hex: of the file itself, or of the sorted lines `sha256
    name` if there are several."""


def resolve_model(
    source: str,
    *,
    cache_dir: Path | None = None,
    offline: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> ResolvedModel:
    """Find, download or make a base model and check that it is complete.

    `cache_dir`: where embedded models are kept (default: `$SEAL_CACHE` or the user's cache).
    `offline`: download nothing. `force`: make an embedded model anew. `progress`: see
    `seal.embedded.Progress`.

    Raises InvalidInput naming what a directory lacks or why a source is none, NotFound for what
    does not exist (offline: is not cached), Internal naming the damaged file of a cache, Transient
    if a download failed, Exhausted if the disk is full, PreconditionFailed if access is refused or
    a package is missing.
    """
    report = progress or _silent
    if (embedded := EMBEDDED_MODELS.get(source)) is not None:
        cache = cache_dir or cache_directory()
        path, manifest = ensure_embedded(
            embedded, cache=cache, offline=offline, force=force, progress=report
        )
        weights = {
            name: entry.sha256
            for name, entry in manifest.files.items()
            if name.endswith(".safetensors")
        }
        return ResolvedModel(name=source, path=path, sha256_of_weights=_weights_digest(weights))
    if source.startswith("hf://"):
        return _checked(
            _from_hub(source, offline=offline), name=source.removeprefix("hf://"), progress=report
        )
    path = _local_path(source)
    return _checked(path, name=path.name, progress=report)


def _local_path(source: str) -> Path:
    """Directory that `file://` or a plain path names."""
    plain = source
    if "://" in source:
        scheme, _, rest = source.partition("://")
        if scheme != "file" or not rest.startswith("/"):
            raise InvalidInput(
                f"model: {source} is no source of models",
                field="model",
                remedy="use an embedded name, hf://org/model, file:///absolute/path or a path",
            )
        plain = unquote(rest)
    path = Path(plain).expanduser().absolute()
    if path.is_dir():
        return path
    if path.exists():
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
        else "use one of: " + ", ".join([*EMBEDDED_MODELS, "hf://org/model", "a path"]),
    )


def _checked(path: Path, *, name: str, progress: Progress) -> ResolvedModel:
    """Refuse a directory that is not complete or wants to run code; hash its weights."""
    with file_errors(path):
        _check_config(path)
        if not any(all((path / part).is_file() for part in parts) for parts in _TOKENIZERS):
            raise _incomplete(
                path,
                "no tokenizer (tokenizer.json or tokenizer.model)",
                "save it there with tokenizer.save_pretrained",
            )
        weights = _weight_files(path)
        for weight in weights:
            _check_safetensors(weight)
        digests: dict[str, str] = {}
        for done, weight in enumerate(weights):
            progress(
                "checking",
                sum(one.stat().st_size for one in weights[:done]),
                sum(one.stat().st_size for one in weights),
            )
            digests[weight.name] = remembered_sha256(weight)
    return ResolvedModel(name=name, path=path, sha256_of_weights=_weights_digest(digests))


def _check_config(path: Path) -> None:
    config = path / "config.json"
    if not config.is_file():
        raise _incomplete(path, "no config.json", "save the model there with model.save_pretrained")
    for file in (config, path / "tokenizer_config.json"):
        if file.is_file() and "auto_map" in _json_object(file):
            raise InvalidInput(
                f"model: {file} names code of its own (auto_map), which is never run",
                field="model",
                remedy="use a model whose architecture transformers knows",
            )


def _json_object(file: Path) -> Mapping[str, object]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise InvalidInput(
            f"model: {file} is no JSON: {error}", field="model", remedy="copy the file again"
        ) from error
    if not isinstance(content, dict):
        raise InvalidInput(
            f"model: {file} holds no JSON object", field="model", remedy="copy the file again"
        )
    return content


def _weight_files(path: Path) -> list[Path]:
    """All safetensors of a model, sorted; with an index, exactly the files that it names."""
    index = path / _INDEX
    if index.is_file():
        names = _json_object(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise InvalidInput(
                f"model: {index} has no weight_map", field="model", remedy="copy the file again"
            )
        files = sorted({path / Path(str(name)).name for name in names.values()})
        for file in files:
            if not file.is_file():
                raise _incomplete(
                    path, f"no {file.name}, which {_INDEX} names", "copy that file too"
                )
        return files
    if files := sorted(path.glob("*.safetensors")):
        return files
    if pickles := sorted(
        file.name for file in path.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".gguf")
    ):
        raise _incomplete(
            path,
            f"no safetensors, only {pickles[0]}",
            "save it anew with model.save_pretrained, which writes safetensors",
        )
    raise _incomplete(
        path, "no weights (*.safetensors)", "save the model there with model.save_pretrained"
    )


def _check_safetensors(file: Path) -> None:
    """Compare the file's size with its own header.

    A download that was cut off is found here, by name.
    """
    size = file.stat().st_size
    with file.open("rb") as reader:
        header_bytes = int.from_bytes(reader.read(8), "little")
        if size < 8 or header_bytes > min(_MAX_HEADER_BYTES, size - 8):
            raise _truncated(file)
        try:
            header = json.loads(reader.read(header_bytes))
            ends = [
                int(entry["data_offsets"][1])
                for name, entry in header.items()
                if name != "__metadata__"
            ]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise _truncated(file) from error
    if not ends or size != 8 + header_bytes + max(ends):
        raise _truncated(file)


def _from_hub(source: str, *, offline: bool) -> Path:
    """Snapshot of a repository in the hub's own cache, which other programs share."""
    match = _HUB_ID.fullmatch(source.removeprefix("hf://"))
    if match is None or ".." in source:
        raise InvalidInput(
            f"model: {source} names no repository",
            field="model",
            remedy="write hf://org/model or hf://org/model@revision",
        )
    try:
        from huggingface_hub import errors, snapshot_download  # here, because its import is slow
    except ModuleNotFoundError as error:
        raise PreconditionFailed(
            f"hf:// models need the package {error.name}",
            remedy="install the engine: pip install 'seal-kubernetes[engine]'",
        ) from error
    repository, revision = match["repository"], match["revision"]
    files, not_files = list(HUB_FILES), ["*/*"]
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=files,
                ignore_patterns=not_files,
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
            f"model: the hub has no {source.removeprefix('hf://')}",
            field="model",
            remedy="check the name; for a private one set HF_TOKEN",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if offline:
            raise NotFound(
                f"model: offline: {source} is not in the hub's cache and nothing may be downloaded",
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


def _weights_digest(digests: Mapping[str, str]) -> str:
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256(
        "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()
    ).hexdigest()


def _incomplete(path: Path, lacks: str, remedy: str) -> InvalidInput:
    return InvalidInput(
        f"model: {path} is no complete model: it has {lacks}", field="model", remedy=remedy
    )


def _truncated(file: Path) -> InvalidInput:
    return InvalidInput(
        f"model: {file} is truncated or no safetensors file",
        field="model",
        remedy="copy or download that file again",
    )


def _unreachable(source: str) -> Transient:
    return Transient(
        f"model: {source} cannot be downloaded and is not in the hub's cache",
        field="model",
        remedy="check the network, or give a path",
    )


def _silent(what: str, done_bytes: int, total_bytes: int) -> None:
    """Say nothing."""
