"""Install beside what a base image brings, so that its torch and vLLM stay what they are.

`beside.py constraints FILE` prints FILE's pins without those of packages that the base has, and a
pin for each package of the base that must stay. pip resolves with them (`--dry-run --report
REPORT`), and `beside.py lacking REPORT` prints what it would install: that goes into a directory of
its own, which Python looks into first. A package of the base that is too old for the project is so
shadowed, and not replaced.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

STAY = re.compile(
    r"torch|torch-.*|torchvision|torchaudio|torchcodec|triton|vllm|vllm-.*|xformers|flashinfer-.*"
    r"|nvidia-.*|cuda-.*|transformers|tokenizers|numpy"
)
"""Packages that were built for each other, by their normalised names."""
OWN = "seal-kubernetes"


def normalised(name: str) -> str:
    """As PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints(pins: Iterable[str], installed: Mapping[str, str]) -> Iterator[str]:
    """Lines of a constraints file; `installed`: versions by normalised name."""
    for pin in pins:
        name = pin.partition("==")[0].strip()
        if name and not name.startswith("#") and normalised(name) not in installed:
            yield pin.strip()
    for name, version in sorted(installed.items()):
        if STAY.fullmatch(name):
            # A local version (+cu130) is the base's own, and in no index
            yield f"{name}=={version}"


def lacking(report: Any, installed: Mapping[str, str]) -> Iterator[str]:
    """Exact requirements of what pip would install.

    Raises ValueError if one of them would replace what must stay.
    """
    for one in report["install"]:
        name, version = normalised(one["metadata"]["name"]), one["metadata"]["version"]
        if name in installed and STAY.fullmatch(name):
            raise ValueError(f"{name} {version} would replace the base's {installed[name]}")
        if name != OWN:
            yield f"{name}=={version}"


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says."""
    what, path = arguments
    text = Path(path).read_text(encoding="utf-8")
    installed = {normalised(one.name): one.version for one in distributions()}
    if what == "constraints":
        lines = constraints(text.splitlines(), installed)
    else:
        lines = lacking(json.loads(text), installed)
    for line in lines:
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
