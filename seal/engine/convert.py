"""From a GGUF file, llama.cpp's quantised format, to a model directory that the engine loads.

The directory holds safetensors in bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging


def convert_gguf(gguf: Path, out_dir: Path) -> None:
    """Dequantise the weights of `gguf` and write them with config and tokenizer to `out_dir`.

    The same file gives the same weights on every machine: each quantised block is scale * integer +
    offset, computed in float32 and rounded once. Takes about 2 GB of memory for 135M parameters.
    Raises what transformers raises for a file that is no such model.
    """
    with no_progress_bars():
        tokenizer = AutoTokenizer.from_pretrained(
            gguf.parent, gguf_file=gguf.name, trust_remote_code=False
        )
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            trust_remote_code=False,
            **_dequantised(),
        )
        model.save_pretrained(out_dir)
        tokenizer.save_pretrained(out_dir)


def _dequantised() -> dict[str, object]:
    """The arguments with which transformers unpacks every block.

    From 5.20 on it may keep them packed; before that it always unpacks and has no such setting.
    """
    packed = getattr(transformers, "GgufConfig", None)
    return {} if packed is None else {"quantization_config": packed(dequantize=True)}


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers off the terminal and out of the logs: the caller shows progress.

    Its GGUF loader needs telling apart, it does not ask the setting.
    """
    loader: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    bars, own = logging.is_progress_bar_enabled(), loader.tqdm
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    loader.tqdm = logging.tqdm
    try:
        yield
    finally:
        loader.tqdm = own
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
