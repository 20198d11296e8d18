"""Which adapter a command line means: one of the store, a directory, or that of an adaptation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from seal.errors import InvalidInput
from seal.files import file_errors, given_path
from seal.model_files import ADAPTER_CONFIG
from seal.records import AdapterReference
from seal.resources import RUN_NAME_PATTERN

REF_HELP = (
    "the name of an adaptation, the path of an adapter in the store (as `seal get` or `seal status "
    "--adapters` shows it), or a directory of PEFT's."
)
_STORED = re.compile(r"(?P<path>.+)@(?P<sha256>[0-9a-f]{64})")
_ADDRESS = re.compile(r"(?P<path>[^/].*/(?P<sha256>[0-9a-f]{64}))")
"""Where an adapter was published: the path ends in the digest, which need not be said twice."""


@dataclass(frozen=True)
class AdapterDirectory:
    """A PEFT directory of this machine."""

    path: Path


@dataclass(frozen=True)
class NamedAdaptation:
    """The adapter that an adaptation came to."""

    name: str


def parse_reference(
    ref: str, *, option: str, help: str = REF_HELP
) -> AdapterReference | AdapterDirectory | NamedAdaptation:
    """What REF names; whether it exists is another question.

    A name stands for a directory only if that holds an adapter: documents may lie in one that is
    called as their adaptation is.

    Raises InvalidInput naming `option` and, as its remedy, what `help` says of it.
    """
    if (stored := _STORED.fullmatch(ref) or _ADDRESS.fullmatch(ref)) is not None:
        return AdapterReference(path=stored["path"], sha256=stored["sha256"])
    directory = given_path(ref, field=option)
    is_name = re.fullmatch(RUN_NAME_PATTERN, ref) is not None
    with file_errors(directory):
        is_directory = bool(ref) and directory.is_dir()
        if is_directory and (not is_name or (directory / ADAPTER_CONFIG).exists()):
            return AdapterDirectory(directory)
    if is_name:
        return NamedAdaptation(ref)
    raise InvalidInput(
        f"{option} {ref:.200}: there is no such directory, and it is no reference and no name",
        field=option,
        remedy=f"give {help}",
    )
