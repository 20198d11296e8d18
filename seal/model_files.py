"""A model's directory, checked without torch: complete, only data, and no file cut off."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from seal.errors import InvalidInput

COMPANION_FILES = (
    "config.json",
    "generation_config.json",
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
"""What makes a model beside its weights, where it is there."""
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
"""What every directory of an adapter of PEFT's holds."""
_MAX_HEADER_BYTES = 100 << 20
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "C64": 64, "U64": 64, "I64": 64, "F64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits of one value of each type that the format knows."""


class IncompleteModel(InvalidInput):
    """A file of a model is missing or cut off: whoever copies it may not be through yet."""


_Width = Annotated[int, Field(ge=0, strict=True)]


class _Tensor(BaseModel):
    """One entry of a safetensors header."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: str
    shape: tuple[_Width, ...]
    data_offsets: tuple[_Width, _Width]

    @property
    def fits(self) -> bool:
        """Whether it has the size that type and shape say."""
        begin, end = self.data_offsets
        return (end - begin) * 8 == math.prod(self.shape) * _BITS.get(self.dtype, -1)


def check_model_directory(path: Path) -> tuple[Path, ...]:
    """The safetensors files that transformers will read from a directory.

    Raises InvalidInput naming what the directory lacks, or the file that is damaged, wants to run
    code, or would change what is loaded.
    """
    check_config(path)
    if not any(all((path / part).is_file() for part in parts) for parts in _TOKENIZERS):
        raise _incomplete(
            path,
            "no tokenizer (tokenizer.json or tokenizer.model)",
            "save it there with tokenizer.save_pretrained",
        )
    weights = _weight_files(path)
    for weight in weights:
        _check_safetensors(weight)
    return weights


def model_file_names(path: Path) -> tuple[str, ...]:
    """Names of all files that make a model, sorted. Raises as `check_model_directory`."""
    weights = {weight.name for weight in check_model_directory(path)}
    return tuple(sorted(weights | {name for name in COMPANION_FILES if (path / name).is_file()}))


def has_chat_template(path: Path) -> bool:
    """Whether a model's tokenizer brings a chat template."""
    if any((path / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    config = path / "tokenizer_config.json"
    return config.is_file() and bool(_json_object(config).get("chat_template"))


def check_config(path: Path) -> None:
    """Raise InvalidInput unless a directory is a model, by its configuration, and runs no code."""
    config = path / "config.json"
    if (path / ADAPTER_CONFIG).is_file():
        # transformers would load that adapter, and its base from wherever it says
        beside = config.is_file()
        raise InvalidInput(
            f"model: {path} holds an {ADAPTER_CONFIG}: "
            + ("an adapter beside a model" if beside else "it is an adapter, no model"),
            field="model",
            remedy="move the adapter to a directory of its own, or merge it into the model with "
            "PEFT's merge_and_unload"
            if beside
            else "give the base model that the adapter was trained on",
        )
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


def _weight_files(path: Path) -> tuple[Path, ...]:
    """As transformers chooses: the single file, else exactly the files that the index names."""
    if (path / _SINGLE).is_file():
        return (path / _SINGLE,)
    index = path / _INDEX
    if index.is_file():
        names = _json_object(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise InvalidInput(
                f"model: {index} has no weight_map", field="model", remedy="copy the file again"
            )
        files = tuple(sorted({path / Path(str(name)).name for name in names.values()}))
        for file in files:
            if not file.is_file():
                raise _incomplete(
                    path, f"no {file.name}, which {_INDEX} names", "copy that file too"
                )
        return files
    anew = "save it anew with model.save_pretrained, which writes safetensors"
    if others := sorted(file.name for file in path.glob("*.safetensors")):
        raise _incomplete(path, f"no {_SINGLE} and no {_INDEX}, only {others[0]}", anew)
    if pickles := sorted(
        file.name for file in path.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".gguf")
    ):
        raise _incomplete(path, f"no safetensors, only {pickles[0]}", anew)
    raise _incomplete(
        path, "no weights (*.safetensors)", "save the model there with model.save_pretrained"
    )


def _check_safetensors(file: Path) -> None:
    """Compare a file with its own header, to the byte.

    A download that was cut off is found here, by name, and so is a header that does not say where
    each byte belongs.
    """
    size = file.stat().st_size
    with file.open("rb") as reader:
        header_bytes = int.from_bytes(reader.read(8), "little")
        if size < 8 or header_bytes > min(_MAX_HEADER_BYTES, size - 8):
            raise _truncated(file)
        try:
            header = json.loads(reader.read(header_bytes), object_pairs_hook=_without_repeats)
            tensors = [
                _Tensor.model_validate(entry)
                for name, entry in header.items()
                if name != "__metadata__"
            ]
        except (ValueError, AttributeError) as error:
            raise _truncated(file) from error
    place = 0
    for begin, end in sorted(tensor.data_offsets for tensor in tensors):
        if begin != place:
            raise _truncated(file)
        place = end
    whole = size == 8 + header_bytes + place
    if not tensors or not whole or not all(tensor.fits for tensor in tensors):
        raise _truncated(file)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; raises ValueError if it names something twice."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name stands there twice")
    return content


def _incomplete(path: Path, lacks: str, remedy: str) -> IncompleteModel:
    return IncompleteModel(
        f"model: {path} is no complete model: it has {lacks}", field="model", remedy=remedy
    )


def _truncated(file: Path) -> IncompleteModel:
    return IncompleteModel(
        f"model: {file} is truncated or no safetensors file",
        field="model",
        remedy="copy or download that file again",
    )
