"""Few-shot tasks: demonstration pairs and test inputs with their outputs, from a file's rows.

    one object per task     {"id": "...", "train": [{"input", "output"}...], "test": [...]}
    all in one object       {TASK_ID: {"train", "test"}, ...}, as the benchmark's own files have it

A test output stands beside its input, or in the file of solutions: {TASK_ID: [grid, ...]}. Without
either a test is left out and counted. All else that is amiss is refused by file, task, pair, grid
and cell. So is a test whose input is a demonstration's: its answer would be trained on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from seal.dataset_rows import Place
from seal.domains.arc.grids import Grid, grid_text, read_grid
from seal.domains.base import Context, LoadedContexts, Query
from seal.errors import InvalidInput
from seal.limits import MAX_PASSAGE_CHARACTERS, MAX_QUESTIONS, MAX_TITLE_CHARACTERS

SHAPES = (
    'two shapes are read: a task {"id", "train": [{"input", "output"}], "test": [{"input", '
    '"output"}]}, one a row; and one object of tasks by their ids, whose test outputs may stand in '
    "the file named ..._solutions... beside ..._challenges..."
)
_MAX_SLUG_CHARACTERS = 48
_ID_DIGITS = 24
_PAIR_REMEDY = 'give each pair as {"input": grid, "output": grid}'


@dataclass(frozen=True)
class Pair:
    """A demonstration: what the rule of a task makes of an input."""

    input: Grid
    output: Grid


def demonstrations_text(pairs: Sequence[Pair]) -> str:
    """The canonical text of demonstrations: JSON without spaces."""
    values = [{"input": pair.input, "output": pair.output} for pair in pairs]
    return json.dumps(values, separators=(",", ":"))


def demonstrations_of(text: str) -> tuple[Pair, ...]:
    """The pairs of a canonical text; none for an empty one. Raises InvalidInput."""
    place = Place("the demonstrations")
    if not text:
        return ()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise place.refuse("", "are not JSON", _PAIR_REMEDY) from error
    return tuple(_pairs(place, value, "demonstration", ""))


def task_digest(text: str) -> str:
    """sha256 of a canonical text's demonstrations, in whatever order they stand.

    Grids count with their shapes. A task in other colours, or turned, is another one: it needs a
    training of its own, and that is all that a policy chooses.
    """
    pairs = sorted(demonstrations_text([pair]) for pair in demonstrations_of(text))
    return hashlib.sha256("".join(pairs).encode()).hexdigest()


def read_tasks(
    values: Iterable[tuple[Place, object]], *, source: str, answers: object = None
) -> LoadedContexts:
    """The tasks of a file as contexts, one query for each test. Raises InvalidInput."""
    given = _given_answers(source, answers)
    contexts, unanswerable, emptied = list[Context](), 0, 0
    for place, task_id, value in _tasks(values):
        context, left_out = _context(place, task_id, value, given)
        unanswerable += left_out
        if context.queries:
            contexts.append(context)
        else:
            emptied += 1
    if not contexts and not emptied:
        raise InvalidInput(f"{source} holds no task", remedy=SHAPES, source=source)
    _refuse_twice(contexts, source)
    return LoadedContexts(tuple(contexts), unanswerable=unanswerable, emptied=emptied)


def _tasks(
    values: Iterable[tuple[Place, object]],
) -> Iterator[tuple[Place, str, dict[str, object]]]:
    """Each task with its place and id."""
    for index, (place, value) in enumerate(values):
        if not isinstance(value, dict):
            raise place.refuse("", "is no object", SHAPES)
        if "train" in value or "test" in value:
            task_id = value.get("id", f"task-{index + 1}")
            if not isinstance(task_id, str) or not 1 <= len(task_id) <= MAX_TITLE_CHARACTERS:
                raise place.refuse("id", "is no name", "give the task's id as a string")
            yield place.titled(task_id), task_id, value
            continue
        for key, task in value.items():
            here = place.at(f"task {key[:60]!r}", key)
            if not isinstance(task, dict):
                raise here.refuse("", "is no object", SHAPES)
            yield here, key, task


def _context(
    place: Place, task_id: str, value: dict[str, object], given: dict[str, object]
) -> tuple[Context, int]:
    """A task as a context, and how many of its tests have no answer."""
    pairs = tuple(_pairs(place, value.get("train"), "demonstration", "train"))
    text = demonstrations_text(pairs)
    if len(text) > MAX_PASSAGE_CHARACTERS:
        problem = f"has {len(text)} characters, the limit is {MAX_PASSAGE_CHARACTERS}"
        raise place.refuse("train", problem, "leave demonstrations out")
    slug = re.sub(r"[^a-z0-9]+", "-", task_id.lower())[:_MAX_SLUG_CHARACTERS].strip("-")
    digest = hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]
    identifier = f"{slug or 'task'}-{digest}"
    queries, left_out = list[Query](), 0
    for index, (here, asked, answer) in enumerate(_tests(place, task_id, value, given)):
        shown = [number for number, pair in enumerate(pairs, 1) if pair.input == asked]
        if shown:
            problem = f"the input is that of demonstration {shown[0]}"
            raise here.refuse("input", problem, "drop it: its answer would be trained on")
        if answer is None:
            left_out += 1
            continue
        query = Query(f"{identifier}/{index}", grid_text(asked), (grid_text(answer),), text)
        queries.append(query)
    return Context(identifier, task_id, text, tuple(queries)), left_out


def _pairs(place: Place, value: object, kind: str, field: str) -> Iterator[Pair]:
    if not isinstance(value, list) or not value:
        raise place.refuse(field, f"there is no {kind}", _PAIR_REMEDY)
    for index, member in enumerate(value):
        here = place.at(f"{kind} {index + 1}", f"{field}[{index}]")
        if not isinstance(member, dict):
            raise here.refuse("", "is no object", _PAIR_REMEDY)
        yield Pair(
            read_grid(here.at("input", "input"), member.get("input")),
            read_grid(here.at("output", "output"), member.get("output")),
        )


def _tests(
    place: Place, task_id: str, value: dict[str, object], given: dict[str, object]
) -> Iterator[tuple[Place, Grid, Grid | None]]:
    """Each test's place, input and output; None where nobody gives that."""
    tests = value.get("test")
    if not isinstance(tests, list) or not 1 <= len(tests) <= MAX_QUESTIONS:
        raise place.refuse("test", "there is no test, or too many", _PAIR_REMEDY)
    solved = given.get(task_id)
    if task_id in given and (not isinstance(solved, list) or len(solved) != len(tests)):
        problem = f"the solutions hold no list of {len(tests)} grids, one for each test"
        raise place.refuse("test", problem, "give one output for each test")
    for index, test in enumerate(tests):
        here = place.at(f"test {index + 1}", f"test[{index}]")
        if not isinstance(test, dict):
            raise here.refuse("", "is no object", _PAIR_REMEDY)
        asked = read_grid(here.at("input", "input"), test.get("input"))
        answer = test.get("output")
        if answer is None and isinstance(solved, list):
            answer = solved[index]
        output = here.at("output", "output")
        yield here, asked, None if answer is None else read_grid(output, answer)


def _given_answers(source: str, answers: object) -> dict[str, object]:
    """The file of solutions, by task."""
    if answers is None:
        return {}
    if not isinstance(answers, dict):
        problem = f"the solutions beside {source} are no object"
        raise InvalidInput(problem, remedy="give {TASK_ID: [grid, ...]}", source=source)
    return dict(answers)


def _refuse_twice(contexts: Sequence[Context], source: str) -> None:
    first: dict[str, Context] = {}
    for context in contexts:
        known = first.setdefault(task_digest(context.text), context)
        if known is not context:
            raise InvalidInput(
                f"{source}: the tasks {known.title!r} and {context.title!r} have the same "
                "demonstrations",
                remedy="keep one of them, with the tests of both",
                source=source,
            )
