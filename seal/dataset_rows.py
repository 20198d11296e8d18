"""The three shapes in which passages with questions come, read into one.

    SQuAD's own files    {"data": [{"title", "paragraphs": [{"context", "qas": [...]}]}]}
    Hugging Face rows    {"title", "context", "question", "answers": {"text": [...]}}
    SEAL's rows          {"title", "context", "questions": [{"question", "answer"}]}

A question holds one `answer`, or `answers` in any way that SQuAD has them: {"text": [...]}, a list
of {"text"}, or a list of strings. Without any (`[]`, or `is_impossible`) it is unanswerable: it is
left out and counted. All else that is amiss is refused with file, row (from 1), title and field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from seal.errors import InvalidInput
from seal.limits import (
    MAX_ANSWER_CHARACTERS,
    MAX_ANSWERS,
    MAX_PASSAGE_CHARACTERS,
    MAX_QUESTION_CHARACTERS,
    MAX_TITLE_CHARACTERS,
)

SHAPES = (
    'three shapes are read: {"title", "context", "questions": [{"question", "answer"}]}; a Hugging '
    'Face row {"title", "context", "question", "answers": {"text": [...]}}; and a SQuAD file '
    '{"data": [{"title", "paragraphs": [{"context", "qas": [...]}]}]}. Rows come as one JSON list '
    "or one a line"
)
_MAX_SHOWN_CHARACTERS = 60
_SURROGATE = re.compile("[\ud800-\udfff]")

Values = Mapping[str, object]
"""A JSON object."""
Members = dict[str, object]
"""One as it is read."""
KEYS = frozenset(
    (
        *("title", "context", "questions", "question", "answer", "answers", "text"),
        *("data", "paragraphs", "qas", "document", "is_impossible"),
    )
)
"""Names of the shapes, which tell nothing of a document's text."""


@dataclass(frozen=True)
class Place:
    """Where a value stands in a file."""

    source: str
    words: str = ""
    """For people, counted from 1: "row 3 ('Veldra'), question 2". Empty for the whole file."""
    path: str = ""
    """For programs, counted from 0 as JSON paths are: "[2].questions[1]"."""
    tells_text: bool = True
    """False where the file is somebody's document: then no text of it is in a message."""

    def at(self, words: str, path: str) -> Place:
        """A place within this one."""
        return replace(
            self,
            words=f"{self.words}, {words}" if self.words else words,
            path=self.path + path
            if path.startswith("[") or not self.path
            else f"{self.path}.{path}",
        )

    def titled(self, title: str) -> Place:
        """The same place, known by its title."""
        if not title or not self.tells_text:
            return self
        return replace(self, words=f"{self.words} ({_shown(title)})")

    def refuse(self, field: str, problem: str, remedy: str) -> InvalidInput:
        """The error for one field of what stands here; the caller raises it."""
        here = self.at(f"field {field}", field) if field else self
        where = f"{self.source}, {here.words}" if here.words else self.source
        return InvalidInput(
            f"{where}: {problem}", field=here.path, remedy=remedy, source=self.source
        )


@dataclass(frozen=True)
class Question:
    """One question that has an answer."""

    text: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Passage:
    """One passage, or the part of its questions that one row holds."""

    place: Place
    title: str
    text: str
    questions: tuple[Question, ...]
    unanswerable: int
    """Questions left out."""
    may_recur: bool
    """True where the shape spreads the questions of a passage over several rows."""


def read_passages(place: Place, value: object, *, need_questions: bool = True) -> Iterator[Passage]:
    """Passages of one value: a row, an article, or a whole SQuAD file.

    `need_questions`: False takes rows of SEAL's own shape without questions too. Raises
    InvalidInput for the first thing amiss.
    """
    if not isinstance(value, dict) or "data" not in value:
        yield from _row(place, value, need_questions)
        return
    for index, member in enumerate(_list(place, value, "data", SHAPES)):
        kind = "article" if isinstance(member, dict) and "paragraphs" in member else "row"
        inner = place.at(f"{kind} {index + 1}", f"data[{index}]")
        yield from _row(inner, member, need_questions)


def _row(place: Place, value: object, need_questions: bool) -> Iterator[Passage]:
    row = _object(place, value)
    if "paragraphs" in row:
        yield from _article(place, row)
    elif "question" in row and "questions" not in row:
        yield _flat_row(place, row)
    elif "questions" in row or "context" in row:
        yield _own_row(place, row, need_questions)
    else:
        fields = ", ".join(_shown(name) for name in list(row)[:8]) or "none"
        told = f"; its fields: {fields}" if place.tells_text else ""
        raise place.refuse("", f"is of no shape that is read{told}", SHAPES)


def _article(place: Place, row: Values) -> Iterator[Passage]:
    title = _page_title(place, row)
    place = place.titled(title)
    for number, paragraph in enumerate(_list(place, row, "paragraphs", SHAPES)):
        inner = place.at(f"paragraph {number + 1}", f"paragraphs[{number}]")
        yield _passage(inner, _object(inner, paragraph), title, "qas", may_recur=True)


def _own_row(place: Place, row: Values, need_questions: bool) -> Passage:
    title = _text(place, row, "title", limit=MAX_TITLE_CHARACTERS, may_be_empty=True)
    place = place.titled(title)
    if not need_questions and not row.get("questions"):
        text = _text(place, row, "context", limit=MAX_PASSAGE_CHARACTERS)
        return Passage(place, title, text, (), 0, may_recur=True)
    if row.get("questions") == []:
        raise place.refuse("questions", "is empty", _REMEDIES["questions"])
    return _passage(place, row, title, "questions", may_recur=False)


def _flat_row(place: Place, row: Values) -> Passage:
    title = _page_title(place, row)
    place = place.titled(title)
    question = read_question(place, row)
    return Passage(
        place,
        title,
        _text(place, row, "context", limit=MAX_PASSAGE_CHARACTERS),
        () if question is None else (question,),
        int(question is None),
        may_recur=True,
    )


def _passage(place: Place, row: Values, title: str, name: str, *, may_recur: bool) -> Passage:
    """A passage with its list of questions."""
    text = _text(place, row, "context", limit=MAX_PASSAGE_CHARACTERS)
    questions = []
    members = _list(place, row, name, _REMEDIES["questions"])
    for index, member in enumerate(members):
        inner = place.at(f"question {index + 1}", f"{name}[{index}]")
        questions.append(read_question(inner, _object(inner, member)))
    answerable = tuple(question for question in questions if question is not None)
    return Passage(place, title, text, answerable, len(questions) - len(answerable), may_recur)


def read_question(place: Place, row: Values) -> Question | None:
    """A question with its answers; None if it has none. Raises InvalidInput."""
    if row.get("is_impossible") is True:
        return None
    text = _text(place, row, "question", limit=MAX_QUESTION_CHARACTERS)
    if "answers" not in row:
        return Question(text, (_text(place, row, "answer", limit=MAX_ANSWER_CHARACTERS),))
    answers = dict.fromkeys(
        _checked(where, value, "", "answer", limit=MAX_ANSWER_CHARACTERS)
        for where, value in _answer_texts(place, row["answers"])
    )
    if len(answers) > MAX_ANSWERS:
        problem = f"holds {len(answers)} different answers, the limit is {MAX_ANSWERS}"
        raise place.refuse("answers", problem, "keep the most usual ones")
    return Question(text, tuple(answers)) if answers else None


def _answer_texts(place: Place, answers: object) -> Iterator[tuple[Place, object]]:
    """Each answer and where it stands, however they are written."""
    field = "answers"
    if isinstance(answers, dict):
        field, answers = "answers.text", answers.get("text")
    if not isinstance(answers, list):
        raise place.refuse(field, _problem(answers, "a list"), _REMEDIES["answers"])
    for index, member in enumerate(answers):
        text = member.get("text") if isinstance(member, dict) else member
        yield place.at(f"answer {index + 1}", f"{field}[{index}]"), text


_REMEDIES = {
    "title": 'give the title as a string, "" for none',
    "context": "give the passage as a string",
    "questions": "give at least one question with its answer",
    "question": "give the question as a string",
    "answer": "give the gold answer as a string, or drop the question: without one nothing can be "
    "graded",
    "answers": 'give a list of strings, or {"text": [...]} as SQuAD has it; an empty list says '
    "that there is no answer",
}
_SHORTER = {
    "title": "shorten the title",
    "context": "cut the passage into several, each with its own questions",
    "question": "shorten the question",
    "answer": "shorten the answer: a gold answer is a few words",
}


def _page_title(place: Place, row: Values) -> str:
    """A title as SQuAD has it: the name of a page, with _ for a space. It may be missing."""
    if row.get("title") is None:
        return ""
    title = _text(place, row, "title", limit=MAX_TITLE_CHARACTERS, may_be_empty=True)
    return title.replace("_", " ").strip()


def _text(place: Place, row: Values, name: str, *, limit: int, may_be_empty: bool = False) -> str:
    """A required string of a row."""
    return _checked(place, row.get(name), name, name, limit=limit, may_be_empty=may_be_empty)


def _checked(
    place: Place, value: object, field: str, name: str, *, limit: int, may_be_empty: bool = False
) -> str:
    """A string within its bound, without white space at its ends."""
    if not isinstance(value, str):
        raise place.refuse(field, _problem(value, "a string"), _REMEDIES[name])
    text = value.strip()
    if not text and not may_be_empty:
        raise place.refuse(field, "is empty", _REMEDIES[name])
    if _SURROGATE.search(text):
        problem = "holds half of a character (a lone UTF-16 surrogate)"
        raise place.refuse(field, problem, "write the character whole")
    if len(text) > limit:
        problem = f"has {len(text)} characters, the limit is {limit}"
        raise place.refuse(field, problem, _SHORTER[name])
    return text


def _object(place: Place, value: object) -> Values:
    if not isinstance(value, dict):
        raise place.refuse("", f"is {_kind(value)}, not an object", SHAPES)
    return value


def _list(place: Place, row: Values, name: str, remedy: str) -> list[object]:
    value = row.get(name)
    if not isinstance(value, list):
        raise place.refuse(name, _problem(value, "a list"), remedy)
    return value


def _problem(value: object, wanted: str) -> str:
    return "is missing" if value is None else f"is {_kind(value)}, not {wanted}"


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


def _shown(text: str) -> str:
    shown = " ".join(text.split())
    return repr(
        shown if len(shown) <= _MAX_SHOWN_CHARACTERS else shown[: _MAX_SHOWN_CHARACTERS - 3] + "..."
    )
