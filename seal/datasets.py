"""Contexts from files, in any of the shapes that a domain reads, as JSON or JSON Lines.

A bad row is refused with the file, the row, the field and the remedy, and then nothing of the file
is used: half a dataset measures something else. So is what the services would refuse for its
length. Fields that no shape names are ignored.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import structlog

from seal.data_files import DataFile, data_file
from seal.dataset_rows import KEYS, SHAPES, Members, Place
from seal.domains import DOMAINS
from seal.domains.base import Context, Domain, LoadedContexts
from seal.errors import InvalidInput, NotFound
from seal.restem.leakage import check_ids

log = structlog.get_logger(__name__)


def load_contexts(
    source: str, *, domain: Domain = DOMAINS["knowledge"], limit: int = 0
) -> tuple[Context, ...]:
    """The contexts of `load_dataset`."""
    return load_dataset(source, domain=domain, limit=limit).contexts


def load_dataset(
    source: str, *, domain: Domain = DOMAINS["knowledge"], limit: int = 0
) -> LoadedContexts:
    """Read contexts of a domain from what `seal.data_files` reads.

    `limit` takes the first ones only, 0 takes all. Every row is checked and counted.

    Raises:
        InvalidInput: the file is no such dataset, holds no question with an answer, a bad row, or a
            context twice.
        SealError: it cannot be read, as `DataFile.read_text`.
    """
    file = data_file(source)
    loaded = domain.read(
        read_values(Place(source), file.read_text(), shapes=domain.words.shapes),
        source=source,
        answers=_answers_beside(file, domain),
    )
    if not loaded.contexts:
        raise InvalidInput(
            f"{source} holds no question that has an answer",
            remedy="give questions with gold answers: without one nothing can be graded",
            source=source,
        )
    check_ids(loaded.contexts, domain=domain, where=source)
    if loaded.unanswerable:
        log.info(
            "questions without an answer left out",
            source=source,
            questions=loaded.unanswerable,
            passages=loaded.emptied,
        )
    return replace(loaded, contexts=loaded.contexts[:limit]) if limit > 0 else loaded


def _answers_beside(file: DataFile, domain: Domain) -> object:
    """The JSON value of the file with gold answers beside a data file; None if there is none."""
    name = domain.answers_file(file.name)
    if name is None or file.scheme == "corpus":
        return None
    beside = file.beside(name)
    try:
        text = beside.read_text()
    except NotFound:
        return None
    return _parse(Place(str(beside)), text, "", domain.words.shapes)


def read_values(file: Place, text: str, *, shapes: str = SHAPES) -> Iterator[tuple[Place, object]]:
    """Values with their places: of a JSON list, of one JSON object, or of JSON Lines.

    Blank lines do not count. `shapes`: what a file may hold, in words. Raises InvalidInput for what
    is no JSON, and for an object that has a key twice, of which a reader would see one value.
    """
    source = file.source
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise InvalidInput(f"{source} is empty", remedy=shapes, source=source)
    if len(lines) == 1 or not _is_json_object(lines[0][1]):
        value = _parse(file, text, "", shapes)
        if not isinstance(value, list):
            yield file if _is_whole_file(value) else _row(file, 0), value
            return
        yield from ((_row(file, index), member) for index, member in enumerate(value))
        return
    for index, (number, line) in enumerate(lines):
        where = f"row {index + 1} (line {number})"
        row = _row(file, index)
        yield row, _parse(row, line, where, shapes)


def _row(file: Place, index: int) -> Place:
    return file.at(f"row {index + 1}", f"[{index}]")


def _is_whole_file(value: object) -> bool:
    return isinstance(value, dict) and "data" in value


def _is_json_object(line: str) -> bool:
    """True for a whole JSON object: then every line of the file is one."""
    if not line.strip().startswith("{"):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(place: Place, text: str, where: str, shapes: str) -> object:
    """JSON. `where`: the row and its line, empty for the whole file."""
    source = place.source
    at = f"{source}, {where}" if where else source
    repeated: list[tuple[Members, str]] = []

    def members(pairs: list[tuple[str, object]]) -> Members:
        made = dict(pairs)
        if len(made) < len(pairs):
            repeated.append((made, Counter(name for name, _ in pairs).most_common(1)[0][0]))
        return made

    try:
        value = json.loads(text, object_pairs_hook=members)
    except json.JSONDecodeError as error:
        column = f"column {error.colno}"
        found = column if where else f"line {error.lineno}, {column}"
        raise InvalidInput(
            f"{at}: not JSON at {found} ({error.msg})", remedy=shapes, source=source
        ) from error
    except (RecursionError, ValueError) as error:
        raise InvalidInput(
            f"{at}: nested too deeply, or a number too long", remedy=shapes, source=source
        ) from error
    if repeated:
        raise _repeated(place, value, *repeated[0])
    return value


def _repeated(place: Place, value: object, made: Members, name: str) -> InvalidInput:
    """The error for an object that has a key twice."""
    rows = value.get("data") if isinstance(value, dict) else value
    if isinstance(rows, list):
        place = next(
            (_row(place, index) for index, row in enumerate(rows) if _holds(row, made)), place
        )
    elif not place.words and not _is_whole_file(value):
        place = _row(place, 0)
    told = f"the key {name!r}" if place.tells_text or name in KEYS else "a key"
    return place.refuse("", f"{told} stands twice in one object", "keep one of the two")


def _holds(value: object, made: Members) -> bool:
    """Whether an object is a value or within it."""
    left = [value]
    while left:
        one = left.pop()
        if one is made:
            return True
        if isinstance(one, dict | list):
            left += one.values() if isinstance(one, dict) else one
    return False
