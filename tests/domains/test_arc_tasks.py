"""Files of few-shot tasks: what is read, and how what is amiss is named."""

from __future__ import annotations

import json

import pytest

from seal.dataset_rows import Place
from seal.domains.arc.tasks import demonstrations_of, demonstrations_text, read_tasks
from seal.domains.base import LoadedContexts
from seal.errors import InvalidInput

TASK = {
    "train": [
        {"input": [[1, 2]], "output": [[2, 1]]},
        {"input": [[3, 4]], "output": [[4, 3]]},
    ],
    "test": [{"input": [[5, 6]], "output": [[6, 5]]}],
}


def read(value: object, answers: object = None) -> LoadedContexts:
    return read_tasks([(Place("tasks.json"), value)], source="tasks.json", answers=answers)


def changed(path: str, value: object) -> dict[str, object]:
    """The task with one value replaced."""
    task = json.loads(json.dumps(TASK))
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = task
    for step in steps:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return {"abc123": task}


def test_a_task_is_a_context_with_a_query_for_each_test() -> None:
    (context,) = read({"abc123": TASK}).contexts
    assert context.title == "abc123"
    assert context.context_id.startswith("abc123-")
    assert context.text == demonstrations_text(demonstrations_of(context.text))
    (query,) = context.queries
    assert (query.question, query.answers) == ("[[5,6]]", ("[[6,5]]",))
    assert query.context == context.text
    assert "6" not in context.text


def test_one_task_a_row_is_read_too() -> None:
    again = {**TASK, "id": "named", "train": TASK["train"][:1]}
    rows = [(Place("t").at("row 1", "[0]"), TASK), (Place("t").at("row 2", "[1]"), again)]
    titles = [context.title for context in read_tasks(rows, source="t").contexts]
    assert titles == ["task-1", "named"]


def test_outputs_may_stand_in_the_file_of_solutions() -> None:
    value = changed("test.0.output", None)
    assert read(value, {"abc123": [[[6, 5]]]}).contexts == read({"abc123": TASK}).contexts


def test_a_test_without_an_answer_is_left_out_and_counted() -> None:
    loaded = read(changed("test.0.output", None))
    assert (loaded.contexts, loaded.unanswerable, loaded.emptied) == ((), 1, 1)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            changed("train.1.output.0.1", 11),
            "task 'abc123', demonstration 2, output, row 1, cell 2",
        ),
        (changed("train.0.input", [[1], [2, 3]]), "demonstration 1, input, row 2"),
        (changed("test.0.input", "x"), "task 'abc123', test 1, input"),
        (changed("test.0.output", [[None]]), "test 1, output, row 1, cell 1"),
        (changed("train.0.output", None), "demonstration 1, output"),
        (changed("train", []), "there is no demonstration"),
        (changed("test", []), "there is no test"),
        (changed("train.0", 5), "demonstration 1"),
        (changed("test.0", 5), "test 1"),
        ({"abc123": 5}, "task 'abc123'"),
        ({**TASK, "id": 5}, "field id"),
        (5, "is no object"),
        ({}, "holds no task"),
    ],
)
def test_what_is_amiss_is_named_by_file_task_pair_and_cell(value: object, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(value)
    assert "tasks.json" in refused.value.message
    assert words in refused.value.message or words == f"field {refused.value.field}"
    assert refused.value.remedy


def test_a_test_that_a_demonstration_answers_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the input is that of demonstration 2"):
        read(changed("test.0.input", [[3, 4]]))


def test_the_same_demonstrations_twice_are_refused() -> None:
    with pytest.raises(InvalidInput, match="'a' and 'b' have the same demonstrations"):
        read({"a": TASK, "b": TASK})
    with pytest.raises(InvalidInput, match="'a' and 'b' have the same demonstrations"):
        read({"a": TASK, "b": {**TASK, "train": TASK["train"][::-1]}})


@pytest.mark.parametrize("answers", [[], {"abc123": 5}, {"abc123": []}])
def test_solutions_that_do_not_fit_are_refused(answers: object) -> None:
    with pytest.raises(InvalidInput):
        read({"abc123": TASK}, answers)
