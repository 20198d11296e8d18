"""The passages of a corpus: parts of the embedded one, or the first of two given files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.learning.plan import Planned
from seal.datasets import load_contexts
from seal.domains.base import Context
from seal.errors import InvalidInput
from seal.files import file_errors, sha256_of_file, write_atomically
from seal.records import Record

DIGEST_CHARACTERS = 12
"""Of a given file's sha256, in the name of the part that is taken of it."""


class SourceFile(Record):
    """Where passages come from: what the page says of it. Never a path."""

    name: str
    """File name, or `corpus://NAME`."""
    sha256: str
    """Of the given file; of a part of the corpus, of its passages."""
    contexts: int
    """Passages taken of it: the first ones."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The files of the corpus `natural`, of any shape that `seal run` reads; None: not given."""

    train: Path | None = None
    validation: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Side:
    """The passages to learn from, or those to measure on."""

    path: str
    """As a spec names them."""
    source: SourceFile


@dataclass(frozen=True, kw_only=True)
class Data:
    """Both sides."""

    train: Side
    validation: Side


def has_data(planned: Planned, sources: Sources) -> bool:
    """Whether the files of a corpus were given."""
    return planned.corpus == "validation" or None not in (sources.train, sources.validation)


def data_of(planned: Planned, sources: Sources, directory: Path) -> Data:
    """The passages of a row of the plan; those of given files are written into the directory.

    Raises:
        InvalidInput: a file was not given, or is refused.
        NotFound: there is no such file.
    """
    if planned.corpus == "validation":
        return Data(
            train=_part_of_corpus("train", 0),
            validation=_part_of_corpus("validation", planned.validation),
        )
    return Data(
        train=_first_of_file("train", sources.train, planned.pool, directory),
        validation=_first_of_file("validation", sources.validation, planned.validation, directory),
    )


def _part_of_corpus(name: str, limit: int) -> Side:
    path = f"corpus://{name}"
    contexts = load_contexts(path, limit=limit)
    sha256 = hashlib.sha256(_lines(contexts)).hexdigest()
    return Side(path=path, source=SourceFile(name=path, sha256=sha256, contexts=len(contexts)))


def _first_of_file(side: str, file: Path | None, limit: int, directory: Path) -> Side:
    """The first passages of a file as a file of their own.

    What a run prepares is all of its file, and a round draws from all of it.
    """
    if file is None:
        raise InvalidInput(
            f"no file of natural passages for {side} is given",
            field=f"natural-{side}",
            remedy=f"add --natural-{side} FILE, or --only validation",
        )
    contexts = load_contexts(str(file), limit=limit)
    with file_errors(file):
        sha256 = sha256_of_file(file)
    part = directory / f"natural-{side}-{sha256[:DIGEST_CHARACTERS]}-{len(contexts)}.jsonl"
    with file_errors(part):
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(part, _lines(contexts))
    source = SourceFile(name=file.name, sha256=sha256, contexts=len(contexts))
    return Side(path=str(part.resolve()), source=source)


def _lines(contexts: tuple[Context, ...]) -> bytes:
    """Passages as rows of the project's own shape."""
    rows = (
        {
            "title": context.title,
            "context": context.text,
            "questions": [
                {"question": query.question, "answers": list(query.answers)}
                for query in context.queries
            ],
        }
        for context in contexts
    )
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
