"""The passages of a corpus: parts of the embedded one, or the first of two given files.

What is measured on must be about other things than what is learnt from: of a title that both files
have (articles of which each holds some paragraphs), the passages are used on one side alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.learning.plan import Planned
from seal.datasets import load_contexts
from seal.domains.base import Context
from seal.errors import InvalidInput
from seal.files import file_errors, sha256_of_file, write_atomically
from seal.records import Record
from seal.restem.seeds import derive_seed

DIGEST_CHARACTERS = 12
"""Of the sha256 of the part that is taken of a given file, in the part's name."""


class SourceFile(Record):
    """Where passages come from: what the page says of it. Never a path."""

    name: str
    """File name, or `corpus://NAME`."""
    sha256: str
    """Of the given file; of a part of the corpus, of its passages."""
    contexts: int
    """Passages taken of it: the first ones of those that are on this side."""
    titles: int = 0
    """Different titles that these have; passages of one title are not independent."""


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
    train, validation = (
        _given(side, file)
        for side, file in (("train", sources.train), ("validation", sources.validation))
    )
    learnt, measured = _apart(load_contexts(str(train)), load_contexts(str(validation)))
    return Data(
        train=_first("train", train, learnt, planned.pool, directory),
        validation=_first("validation", validation, measured, planned.validation, directory),
    )


def _part_of_corpus(name: str, limit: int) -> Side:
    path = f"corpus://{name}"
    contexts = load_contexts(path, limit=limit)
    sha256 = hashlib.sha256(_lines(contexts)).hexdigest()
    return Side(path=path, source=_source(path, sha256, contexts))


def _given(side: str, file: Path | None) -> Path:
    if file is None:
        raise InvalidInput(
            f"no file of natural passages for {side} is given",
            field=f"natural-{side}",
            remedy=f"add --natural-{side} FILE, or --only validation",
        )
    return file


def _apart(
    train: Sequence[Context], validation: Sequence[Context]
) -> tuple[list[Context], list[Context]]:
    """Both sides without the titles that the other one has; about half of the shared ones each."""
    shared = {each.title for each in train} & {each.title for each in validation} - {""}
    learnt = {title for title in shared if derive_seed("title", title) % 2}
    return (
        [each for each in train if each.title not in shared - learnt],
        [each for each in validation if each.title not in learnt],
    )


def _first(side: str, file: Path, contexts: Sequence[Context], limit: int, directory: Path) -> Side:
    """The first passages of a side as a file of their own.

    What a run prepares is all of its file, and a round draws from all of it.
    """
    taken = tuple(contexts[:limit] if limit else contexts)
    with file_errors(file):
        sha256 = sha256_of_file(file)
    lines = _lines(taken)
    digest = hashlib.sha256(lines).hexdigest()[:DIGEST_CHARACTERS]
    part = directory / f"natural-{side}-{digest}-{len(taken)}.jsonl"
    with file_errors(part):
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(part, lines)
    return Side(path=str(part.resolve()), source=_source(file.name, sha256, taken))


def _source(name: str, sha256: str, contexts: Sequence[Context]) -> SourceFile:
    titles = len({context.title for context in contexts})
    return SourceFile(name=name, sha256=sha256, contexts=len(contexts), titles=titles)


def _lines(contexts: Sequence[Context]) -> bytes:
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
