"""Given questions: read, put to the passages that they are about, and parted from the test.

No self-edit ever sees a question. Some of a passage's are the reward by which its edit is chosen;
the others are held out, and are asked only of what has been trained. A question is on one side
alone, however often it was given, and one that stands in a passage word for word is never held out:
edits see the passage.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise

from seal.dataset_rows import Place, read_question
from seal.datasets import read_values
from seal.documents.model import Document, GivenQuestion
from seal.documents.passages import Passage, cut
from seal.documents.places import Places, question_key
from seal.documents.source import Source, check_size, decode
from seal.errors import InvalidInput
from seal.limits import MAX_ANSWERS, MAX_GIVEN_QUESTIONS, MAX_QUESTIONS
from seal.restem.seeds import derive_seed

_BYTES_A_TOKEN = 4
"""What English text comes to, for who has no tokenizer."""
_FILE_REMEDY = 'give one row for each question: {"question", "answers": [...], "document"}'
_NO_PLACE_REMEDY = "name its document, give an answer that stands in it, or leave the question out"


@dataclass(frozen=True)
class PutQuestion:
    """A question at its passage."""

    passage: int
    """Index of the passage."""
    question: str
    answers: tuple[str, ...]
    is_read: bool = False
    """True if the question stands in a passage itself."""


@dataclass(frozen=True)
class Parted:
    """Questions parted into two sides, in the order of their passages."""

    reward: tuple[PutQuestion, ...]
    """By which the edits of their passages are chosen."""
    held_out: tuple[PutQuestion, ...]
    """The test."""
    repeated: int = 0
    """Left out: they ask a passage what another one asks it, in the same words."""


def read_questions(
    name: str, content: bytes, *, documents: Sequence[str] = (), field: str = "questions"
) -> tuple[GivenQuestion, ...]:
    """The questions of a file: JSON Lines of {"question", "answers" or "answer", "document"}.

    `documents` are the names that `document` may hold; empty takes any.

    Raises:
        InvalidInput: a bad row, by its field as "questions[7].answers"; without its text.

    """
    source = Source(name, content, field, what="the file of questions")
    file = Place(name, path=field, tells_text=False)
    check_size(source)
    text = decode(source)
    try:
        rows = list(read_values(file, text))
    except InvalidInput as error:  # it knows the rows of datasets
        raise InvalidInput(error.message, field=error.field or field, remedy=_FILE_REMEDY) from None
    if not rows:
        raise source.refuse("holds no question", _FILE_REMEDY, at="")
    found = tuple(_given(place, row) for place, row in rows)
    check_named(found, documents)
    return found


def _given(place: Place, row: object) -> GivenQuestion:
    """One row as a question."""
    if not isinstance(row, dict):
        raise place.refuse("", "is no object", _FILE_REMEDY)
    found = read_question(place, row)
    if found is None:
        raise place.refuse("answers", "is empty", "give a gold answer: nothing else can be graded")
    document = row.get("document") or ""
    if not isinstance(document, str):
        raise place.refuse("document", "is no string", "give the name of a document")
    return GivenQuestion(found.text, found.answers, document, field=place.path)


def check_named(questions: Sequence[GivenQuestion], documents: Sequence[str]) -> None:
    """Refuse too many questions, and those on a document that there is not.

    Raises:
        InvalidInput: names the field: "questions", "questions[7].document".

    """
    if len(questions) > MAX_GIVEN_QUESTIONS:
        raise InvalidInput(
            f"{len(questions)} questions are given, the limit is {MAX_GIVEN_QUESTIONS}",
            field="questions",
            remedy="keep the best ones",
        )
    known = frozenset(documents)
    for question in questions:
        if known and question.document and question.document not in known:
            raise InvalidInput(
                f"{question.field or 'a question'} is on a document that is not given",
                field=_field(question, "document"),
                remedy="give the name of one of the documents, or none",
            )


def check_questions(
    questions: Sequence[GivenQuestion], documents: Sequence[Document], *, passage_tokens: int
) -> None:
    """Refuse what can be known without a tokenizer: questions that no document is about.

    And too many on one passage, cut as if every token had the same bytes. `passage_tokens`: of the
    longest passage.

    Raises:
        InvalidInput: names the field: "questions", "questions[7].document", "questions[7].answers".

    """
    if not questions:
        return
    check_named(questions, [document.name for document in documents])
    sections = [
        _Text(document.name, range(place, place + 1), document.title_of(section.path), section.text)
        for document in documents
        for place, section in enumerate(document.sections)
    ]
    if all(one.is_read for one in _put(questions, sections)):
        raise InvalidInput(
            "every question stands in the documents themselves, and none is left for a test",
            field="questions",
            remedy="take the questions out of the documents, or give others",
        )
    if len(questions) > MAX_QUESTIONS:
        put_questions(questions, _about(documents, passage_tokens))


def _about(documents: Iterable[Document], passage_tokens: int) -> list[Passage]:
    """The passages of documents, near enough."""
    return [
        passage
        for document in documents
        for passage in cut(document, max_tokens=passage_tokens, count=_tokens_about)
    ]


def _tokens_about(texts: Sequence[str]) -> list[int]:
    return [-(-len(text.encode()) // _BYTES_A_TOKEN) for text in texts]


def put_questions(
    questions: Sequence[GivenQuestion], passages: Sequence[Passage]
) -> tuple[PutQuestion, ...]:
    """Each question at the passage that it is about, in the order in which they were given.

    That is a passage which holds one of its answers; of several, or of none in a document that the
    question names, the one that shares most words with it.

    Raises:
        InvalidInput: there is no such passage, or one has too many questions.

    """
    texts = [
        _Text(passage.document, passage.sections, passage.title, passage.text)
        for passage in passages
    ]
    put = _put(questions, texts)
    for passage, number in Counter(one.passage for one in put).items():
        if number > MAX_QUESTIONS:
            raise InvalidInput(
                f"{number} questions are about passage {passage + 1}, which is of the document "
                f"{texts[passage].document!r}; the limit is {MAX_QUESTIONS}",
                field="questions",
                remedy="keep the best ones",
            )
    return put


def part_questions(questions: Sequence[PutQuestion], *, share: float, seed: int) -> Parted:
    """Part the questions: about `share` of every passage's are held out, at least one of all.

    And at least one is not, if there are two or more. The same questions with the same seed are
    parted alike, in whatever order they come.
    """
    whole = _distinct(questions)
    by_passage: dict[int, list[PutQuestion]] = defaultdict(list)
    for question in whole:
        by_passage[question.passage].append(question)
    sides = _sides(by_passage, share, seed)
    parted: dict[bool, list[PutQuestion]] = {True: [], False: []}
    for _, own in sorted(by_passage.items()):
        for question in own:
            parted[sides[question_key(question.question)]].append(question)
    return Parted(tuple(parted[False]), tuple(parted[True]), len(questions) - len(whole))


def _distinct(questions: Iterable[PutQuestion]) -> list[PutQuestion]:
    """Each question of a passage once, with all the answers that it was given with."""
    found: dict[tuple[int, str], PutQuestion] = {}
    for question in questions:
        key = question.passage, question_key(question.question)
        first = found.setdefault(key, question)
        answers = tuple(dict.fromkeys(first.answers + question.answers))[:MAX_ANSWERS]
        found[key] = replace(first, answers=answers)
    return list(found.values())


def _sides(
    by_passage: Mapping[int, Sequence[PutQuestion]], share: float, seed: int
) -> dict[str, bool]:
    """Of every question, by its key, whether it is held out.

    The share is kept over the passages before too, so that passages of one question each are parted
    as those of many are.
    """
    held: dict[str, bool] = {}
    free: list[str] = []
    met = taken = 0
    for _, own in sorted(by_passage.items()):
        keys = [question_key(question.question) for question in own]
        held |= {key: False for key, question in zip(keys, own, strict=True) if question.is_read}
        met += len(keys)
        taken += sum(held.get(key, False) for key in keys)
        new = sorted((key for key in keys if key not in held), key=partial(derive_seed, seed))
        wanted = min(len(new), max(0, int(share * met + 0.5) - taken))
        held |= {key: place < wanted for place, key in enumerate(new)}
        taken += wanted
        free += new
    if free and not any(held.values()):
        held[free[0]] = True
    elif len(held) > 1 and all(held.values()):
        held[free[-1]] = False
    return held


@dataclass(frozen=True)
class _Text:
    """A passage or a section that a question may be about."""

    document: str
    sections: range
    title: str
    text: str


def _put(questions: Sequence[GivenQuestion], texts: Sequence[_Text]) -> tuple[PutQuestion, ...]:
    """Each question at its text. Raises InvalidInput if one has none."""
    asked = [words for one in questions for words in (one.question, *one.answers)]
    places = Places([f"{text.title}\n{text.text}" for text in texts], asked=asked)
    # An answer may stand where one text ends and the next begins
    pairs = cache(
        lambda: Places(
            [f"{text.text}\n{after.text}" for text, after in pairwise(texts)], asked=asked
        )
    )
    of_document: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        of_document[text.document].append(index)
    return tuple(
        PutQuestion(
            _place(question, texts, of_document, places, pairs),
            question.question,
            question.answers,
            is_read=bool(places.holding(question.question)),
        )
        for question in questions
    )


def _place(
    question: GivenQuestion,
    texts: Sequence[_Text],
    of_document: Mapping[str, Sequence[int]],
    places: Places,
    pairs: Callable[[], Places],
) -> int:
    """Index of the text that a question is about. Raises InvalidInput if there is none."""
    holding = _holding(question, places) or {
        index for first in _holding(question, pairs()) for index in (first, first + 1)
    }
    among = holding
    if question.document:
        among = {
            index
            for index in of_document.get(question.document, ())
            if question.section is None or question.section in texts[index].sections
        }
        among = (among & holding) or among
    if not among:
        raise _no_place(question)
    place = places.most_alike(" ".join((question.question, *question.answers)), among)
    if place is None and question.section is None and not among & holding:
        raise _no_place(question)
    return min(among) if place is None else place


def _holding(question: GivenQuestion, places: Places) -> set[int]:
    """Indexes of the texts that hold one of its answers."""
    return {index for answer in question.answers for index in places.holding(answer)}


def _no_place(question: GivenQuestion) -> InvalidInput:
    what = "the document that it names" if question.document else "a document"
    return InvalidInput(
        f"{question.field or 'a question'} has no answer that stands in {what}",
        field=_field(question, "answers"),
        remedy=_NO_PLACE_REMEDY,
    )


def _field(question: GivenQuestion, name: str) -> str:
    return f"{question.field}.{name}" if question.field else f"questions.{name}"
