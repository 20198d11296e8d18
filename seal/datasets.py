"""Contexts from files, in any of the shapes of `seal.dataset_rows`, as JSON or JSON Lines.

A bad row is refused with the file, the row, the field and the remedy, and then nothing of the file
is used: half a dataset measures something else. So is what the services would refuse for its
length. Fields that no shape names are ignored.

Rows of the SQuAD shapes that hold one passage (case, spacing and punctuation apart) become one
context, with the text and title of the first; in SEAL's own shape, where a passage has all its
questions beside it, a second one is a mistake and is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import unquote, urlsplit

import structlog

from seal.dataset_rows import SHAPES, Passage, Place, Question, read_passages
from seal.domains.base import Context, Query
from seal.errors import InvalidInput, NotFound
from seal.files import file_errors
from seal.limits import MAX_QUESTIONS
from seal.restem.leakage import check_ids, passage_digest

log = structlog.get_logger(__name__)

CORPORA = ("train", "validation", "retained")
_MAX_SLUG_CHARACTERS = 48
_ID_DIGITS = 24
"""Hex digits of a passage's digest in its id: 96 bits, so that a million passages do not collide
by chance, while the id still fits names of files."""


@dataclass(frozen=True)
class LoadedContexts:
    """What a file holds, and what of it was not taken."""

    contexts: tuple[Context, ...]
    unanswerable: int
    """Questions left out: they have no answer."""
    emptied: int
    """Passages left out: none of their questions has an answer."""
    joined: int
    """Rows or paragraphs whose questions joined those of the same passage before."""


def load_contexts(source: str, *, limit: int = 0) -> tuple[Context, ...]:
    """The contexts of `load_dataset`."""
    return load_dataset(source, limit=limit).contexts


def load_dataset(source: str, *, limit: int = 0) -> LoadedContexts:
    """Read contexts from a path, a `file://` URI or `corpus://NAME`.

    `limit` takes the first ones only, 0 takes all. Every row is checked and counted.

    Raises:
        InvalidInput: the file is no such dataset, holds no question with an answer, a bad row, or a
            passage twice.
        NotFound: there is no such file.
    """
    groups = read_groups(Place(source), _read(source))
    contexts = tuple(_context(group) for group in groups if any(part.questions for part in group))
    if not contexts:
        raise InvalidInput(
            f"{source} holds no question that has an answer",
            remedy="give questions with gold answers: without one nothing can be graded",
            source=source,
        )
    check_ids(contexts, where=source)
    loaded = LoadedContexts(
        contexts=contexts[:limit] if limit > 0 else contexts,
        unanswerable=sum(part.unanswerable for group in groups for part in group),
        emptied=len(groups) - len(contexts),
        joined=sum(map(len, groups)) - len(groups),
    )
    if loaded.unanswerable:
        log.info(
            "questions without an answer left out",
            source=source,
            questions=loaded.unanswerable,
            passages=loaded.emptied,
        )
    return loaded


def read_groups(file: Place, text: str, *, need_questions: bool = True) -> list[list[Passage]]:
    """The rows of a file by passage: all that one passage's rows hold stands together.

    In the order of their first rows. `need_questions` is as in `read_passages`. Raises InvalidInput
    if there is none, for a bad row, and for a passage that stands twice where it may not.
    """
    passages = [
        passage
        for place, value in read_values(file, text)
        for passage in read_passages(place, value, need_questions=need_questions)
    ]
    if not passages:
        raise InvalidInput(f"{file.source} holds no passage", remedy=SHAPES, source=file.source)
    return _grouped(passages)


def context_id(title: str, text: str) -> str:
    """Id of a passage: its title in a-z, 0-9 and -, and 24 hex digits of its digest.

    The same passage has it in every file.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower())[:_MAX_SLUG_CHARACTERS].strip("-")
    return f"{slug or 'context'}-{passage_digest(text)[:_ID_DIGITS]}"


def _read(source: str) -> str:
    """The text of a source."""
    scheme, path = _split(source)
    if scheme == "corpus":
        return (
            resources.files("seal").joinpath("corpus", f"{path}.jsonl").read_text(encoding="utf-8")
        )
    try:
        with file_errors(path):
            return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{source} is not UTF-8 at byte {error.start}", remedy="save it as UTF-8", source=source
        ) from error


def _split(source: str) -> tuple[str, str]:
    """Scheme (`file` or `corpus`) and path of a source."""
    if "://" not in source:
        if not source.strip():
            raise InvalidInput("no dataset is named", remedy="give a path, or corpus://train")
        return "file", source
    parts = urlsplit(source)
    if parts.scheme == "corpus":
        name = parts.netloc + parts.path
        if name not in CORPORA:
            raise NotFound(
                f"there is no corpus {name[:60]!r}",
                remedy="use one of: " + ", ".join(f"corpus://{known}" for known in CORPORA),
            )
        return "corpus", name
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise InvalidInput(
            f"{source} cannot be read",
            remedy="give a path, file:///path or corpus://NAME",
            source=source,
        )
    return "file", unquote(parts.path)


def read_values(file: Place, text: str) -> Iterator[tuple[Place, object]]:
    """Values with their places: of a JSON list, of one JSON object, or of JSON Lines.

    Blank lines do not count. Raises InvalidInput for what is no JSON.
    """
    source = file.source
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise InvalidInput(f"{source} is empty", remedy=SHAPES, source=source)
    if len(lines) == 1 or not _is_json_object(lines[0][1]):
        value = _parse(source, text, "")
        if not isinstance(value, list):
            yield file if _is_whole_file(value) else _row(file, 0), value
            return
        yield from ((_row(file, index), member) for index, member in enumerate(value))
        return
    for index, (number, line) in enumerate(lines):
        where = f"row {index + 1} (line {number})"
        yield _row(file, index), _parse(source, line, where)


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


def _parse(source: str, text: str, where: str) -> object:
    """JSON. `where`: the row, empty for the whole file."""
    at = f"{source}, {where}" if where else source
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if where else f"line {error.lineno}, column {error.colno}"
        raise InvalidInput(
            f"{at}: not JSON at {place} ({error.msg})", remedy=SHAPES, source=source
        ) from error
    except (RecursionError, ValueError) as error:
        raise InvalidInput(
            f"{at}: nested too deeply, or a number too long", remedy=SHAPES, source=source
        ) from error


def _grouped(passages: Iterable[Passage]) -> list[list[Passage]]:
    """Passages of one text together, in the order of their first."""
    groups: dict[str, list[Passage]] = {}
    for passage in passages:
        group = groups.setdefault(passage_digest(passage.text), [])
        if group and not (passage.may_recur and group[0].may_recur):
            raise passage.place.refuse(
                "context",
                f"is the passage of {group[0].place.words} again",
                "keep one of the two rows, with the questions of both",
            )
        group.append(passage)
    return list(groups.values())


def _context(group: list[Passage]) -> Context:
    """One context of all that belongs to a passage."""
    first = group[0]
    questions: list[Question] = [question for part in group for question in part.questions]
    if len(questions) > MAX_QUESTIONS:
        raise first.place.refuse(
            "",
            f"holds {len(questions)} questions, the limit is {MAX_QUESTIONS}",
            "keep the best ones",
        )
    identifier = context_id(first.title, first.text)
    queries = tuple(
        Query(f"{identifier}/{index}", question.text, question.answers)
        for index, question in enumerate(questions)
    )
    return Context(context_id=identifier, title=first.title, text=first.text, queries=queries)
