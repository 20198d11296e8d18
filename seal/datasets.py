"""Contexts from files: SQuAD-style rows, as one JSON list or as JSON Lines.

A row is `{title, context, questions: [{question, answer}]}`. A bad row is refused with the file,
the row, the field and the remedy, and then nothing of the file is used: half a dataset measures
something else. Fields that are not named above are ignored.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import unquote, urlsplit

from seal.domains.base import Context, Query
from seal.errors import InvalidInput, NotFound
from seal.files import file_errors
from seal.restem.leakage import passage_digest

CORPORA = ("train", "validation", "retained")
SHAPE = '{"title": ..., "context": ..., "questions": [{"question": ..., "answer": ...}]}'
_MAX_SLUG_CHARACTERS = 48


@dataclass(frozen=True)
class _Row:
    """One row and where it stands."""

    source: str
    index: int
    value: object

    def refuse(self, field: str, problem: str, remedy: str) -> InvalidInput:
        """The error for one field of this row; the caller raises it."""
        where = f"{self.source}, row {self.index} (counted from 0)" + (
            f", field {field}" if field else ""
        )
        path = f"[{self.index}]" + (f".{field}" if field else "")
        return InvalidInput(f"{where}: {problem}", field=path, remedy=remedy, source=self.source)


def load_contexts(source: str, *, limit: int = 0) -> tuple[Context, ...]:
    """Read contexts from a path, a `file://` URI or `corpus://NAME`.

    `limit` takes the first ones only, 0 takes all. Every row is checked.

    Raises:
        InvalidInput: the file is no such dataset, is empty, holds a bad row, or a passage twice.
        NotFound: there is no such file.
    """
    rows = list(_rows(source, _read(source)))
    if not rows:
        raise InvalidInput(
            f"{source} holds no row", remedy=f"give at least one row {SHAPE}", source=source
        )
    contexts = tuple(_context(row) for row in rows)
    _refuse_repetition(rows, contexts)
    return contexts[:limit] if limit > 0 else contexts


def dataset_digest(contexts: Iterable[Context]) -> str:
    """sha256 of contexts in order, with their questions and answers; lower-case hex."""
    rows = [
        [
            context.context_id,
            context.title,
            context.text,
            [[query.question, query.answers, query.context] for query in context.queries],
        ]
        for context in contexts
    ]
    return hashlib.sha256(
        json.dumps(rows, ensure_ascii=True, separators=(",", ":")).encode()
    ).hexdigest()


def context_id(title: str, text: str) -> str:
    """Id of a passage: its title in a-z, 0-9 and -, and 8 hex digits of its digest.

    The same passage has it in every file.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower())[:_MAX_SLUG_CHARACTERS].strip("-")
    return f"{slug or 'context'}-{passage_digest(text)[:8]}"


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
    except IsADirectoryError as error:
        raise InvalidInput(
            f"{source} is a directory", remedy="give a .json or .jsonl file", source=source
        ) from error
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


def _rows(source: str, text: str) -> Iterator[_Row]:
    """Rows of a JSON list, or of JSON Lines; blank lines do not count."""
    if text.lstrip().startswith("["):
        values = _parse(
            source,
            text,
            "the file",
            remedy=f"give one JSON list of rows {SHAPE}, or one row per line",
        )
        yield from (
            _Row(source, index, value)
            for index, value in enumerate(values if isinstance(values, list) else [values])
        )
        return
    lines = (
        (number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()
    )
    for index, (number, line) in enumerate(lines):
        where = f"row {index} (counted from 0, line {number})"
        yield _Row(
            source,
            index,
            _parse(source, line, where, remedy=f"give a JSON list, or one row per line: {SHAPE}"),
        )


def _parse(source: str, text: str, where: str, *, remedy: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = (
            f"line {error.lineno}, column {error.colno}"
            if "\n" in text
            else f"column {error.colno}"
        )
        raise InvalidInput(
            f"{source}, {where}: not JSON at {place} ({error.msg})", remedy=remedy, source=source
        ) from error
    except (RecursionError, ValueError) as error:
        raise InvalidInput(
            f"{source}, {where}: nested too deeply, or a number too long",
            remedy=remedy,
            source=source,
        ) from error


def _context(row: _Row) -> Context:
    """Check one row."""
    if not isinstance(row.value, dict):
        raise row.refuse("", f"is {_kind(row.value)}, not an object", f"give {SHAPE}")
    title = _text(row, row.value, "title", "title", may_be_empty=True)
    text = _text(row, row.value, "context", "context")
    questions = row.value.get("questions")
    if not isinstance(questions, list) or not questions:
        problem = (
            "is missing"
            if "questions" not in row.value
            else "is empty"
            if questions == []
            else f"is {_kind(questions)}, not a list"
        )
        raise row.refuse("questions", problem, "give at least one question with its answer")
    identifier = context_id(title, text)
    queries = tuple(
        _query(row, question, f"questions[{index}]", f"{identifier}/{index}")
        for index, question in enumerate(questions)
    )
    return Context(context_id=identifier, title=title, text=text, queries=queries)


def _query(row: _Row, value: object, field: str, query_id: str) -> Query:
    if not isinstance(value, dict):
        raise row.refuse(
            field, f"is {_kind(value)}, not an object", 'give {"question": ..., "answer": ...}'
        )
    question = _text(row, value, "question", f"{field}.question")
    return Query(
        query_id=query_id,
        question=question,
        answers=(_text(row, value, "answer", f"{field}.answer"),),
    )


_REMEDIES = {
    "title": 'give the title as a string, "" for none',
    "context": "give the passage as a string",
    "question": "give the question as a string",
    "answer": "give the gold answer as a string, or drop the question: without one nothing can be "
    "graded",
}


def _text(
    row: _Row, values: dict[str, object], name: str, field: str, *, may_be_empty: bool = False
) -> str:
    """A required string without white space at its ends."""
    value, remedy = values.get(name), _REMEDIES[name]
    if not isinstance(value, str):
        raise row.refuse(
            field, "is missing" if value is None else f"is {_kind(value)}, not a string", remedy
        )
    if not value.strip() and not may_be_empty:
        raise row.refuse(field, "is empty", remedy)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise row.refuse(
            field,
            "holds half of a character (a lone UTF-16 surrogate)",
            "write the character whole",
        )
    return value.strip()


def _kind(value: object) -> str:
    """JSON's word for a value's type."""
    kinds = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        type(None): "null",
    }
    return kinds.get(type(value), "a number")


def _refuse_repetition(rows: Sequence[_Row], contexts: Sequence[Context]) -> None:
    """A passage that stands twice in a file would be counted twice."""
    seen: dict[str, int] = {}
    for row, context in zip(rows, contexts, strict=True):
        first = seen.setdefault(passage_digest(context.text), row.index)
        if first != row.index:
            raise row.refuse(
                "context",
                f"is the passage of row {first} again ({context.title!r})",
                "keep one of the two rows",
            )
