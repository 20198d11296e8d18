"""Dataset files: what is read, and how a bad row is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seal.datasets import context_id, dataset_digest, load_contexts
from seal.errors import InvalidInput, NotFound, PreconditionFailed
from seal.restem.leakage import check_leakage

ROW: dict[str, object] = {
    "title": "Veldra",
    "context": "Veldra is long.",
    "questions": [{"question": "How is Veldra?", "answer": "long"}],
}
OTHER: dict[str, object] = {
    "title": "Oss",
    "context": "Oss is high.",
    "questions": [{"question": "How is Oss?", "answer": "high"}],
}


def write(directory: Path, rows: object, *, name: str = "data.json") -> str:
    path = directory / name
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


def write_text(directory: Path, text: str, *, name: str = "data.jsonl") -> str:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(source: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        load_contexts(source)
    assert source in caught.value.message
    assert caught.value.remedy
    return caught.value


def questions(*pairs: object) -> dict[str, object]:
    return {**ROW, "questions": list(pairs)}


@pytest.mark.parametrize("answer", [None, "", "  ", 46, ["long"]])
def test_a_missing_gold_answer_is_refused_with_file_index_field_and_remedy(
    tmp_path: Path, answer: object
) -> None:
    bad = questions({"question": "How?", "answer": "long"}, {"question": "How?", "answer": answer})
    source = write(tmp_path, [OTHER, bad])
    error = refusal(source)
    assert error.field == "[1].questions[1].answer"
    assert f"{source}, row 1 (counted from 0), field questions[1].answer: is " in str(error)
    assert "drop the question" in error.remedy


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        ({**ROW, "title": None}, "[1].title", "is missing"),
        ({key: value for key, value in ROW.items() if key != "title"}, "[1].title", "is missing"),
        ({**ROW, "title": 3}, "[1].title", "is a number, not a string"),
        ({**ROW, "context": " \n"}, "[1].context", "is empty"),
        ({**ROW, "context": {"text": "x"}}, "[1].context", "is an object, not a string"),
        ({**ROW, "context": "half \ud83d"}, "[1].context", "half of a character"),
        (
            {key: value for key, value in ROW.items() if key != "questions"},
            "[1].questions",
            "is missing",
        ),
        ({**ROW, "questions": []}, "[1].questions", "is empty"),
        ({**ROW, "questions": {"question": "How?"}}, "[1].questions", "is an object, not a list"),
        (questions("How?"), "[1].questions[0]", "is a string, not an object"),
        (questions({"answer": "long"}), "[1].questions[0].question", "is missing"),
        (
            questions({"question": True, "answer": "long"}),
            "[1].questions[0].question",
            "is true or false, not a string",
        ),
        (["Veldra"], "[1]", "is a list, not an object"),
        (None, "[1]", "is null, not an object"),
    ],
)
def test_a_bad_row_is_refused_by_file_row_and_field(
    tmp_path: Path, row: object, field: str, problem: str
) -> None:
    error = refusal(write(tmp_path, [OTHER, row]))
    assert error.field == field
    assert problem in error.message
    assert "row 1 (counted from 0)" in error.message


def test_a_passage_that_stands_twice_is_refused_with_both_rows(tmp_path: Path) -> None:
    error = refusal(
        write(tmp_path, [ROW, OTHER, {**ROW, "title": "Again", "context": " VELDRA is long"}])
    )
    assert error.field == "[2].context"
    assert "row 0 again ('Again')" in error.message


@pytest.mark.parametrize("text", ["", "\n \n", "[]", " [ ] "])
def test_an_empty_dataset_is_refused(tmp_path: Path, text: str) -> None:
    assert "holds no row" in refusal(write_text(tmp_path, text)).message


def test_json_lines_name_row_and_line_of_what_is_not_json(tmp_path: Path) -> None:
    error = refusal(write_text(tmp_path, json.dumps(ROW) + "\n\n{'title': 1}\n"))
    assert "row 1 (counted from 0, line 3): not JSON at column 2" in error.message


def test_a_broken_json_list_names_the_line(tmp_path: Path) -> None:
    assert (
        "the file: not JSON at line 2, column 1"
        in refusal(write_text(tmp_path, "[1,\n", name="data.json")).message
    )


def test_the_original_nested_shape_of_squad_is_refused_with_the_shape_that_is_read(
    tmp_path: Path,
) -> None:
    error = refusal(write(tmp_path, {"version": "1.1", "data": []}))
    assert (error.field, "is missing" in error.message) == ("[0].title", True)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" + "1" * 5000 + "]"])
def test_json_made_to_break_the_reader_is_refused(tmp_path: Path, text: str) -> None:
    assert "the file" in refusal(write_text(tmp_path, text)).message


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"title": "V\xe9ldra"}')
    assert "not UTF-8 at byte 12" in refusal(str(path)).message


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "is a directory" in refusal(str(tmp_path)).message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.json does not exist; check the path"):
        load_contexts(str(tmp_path / "nowhere.json"))


@pytest.mark.parametrize(
    "source",
    ["s3://bucket/data.json", "http://example.org/data.json", "file://host/data.json", "", " "],
)
def test_other_sources_are_refused(source: str) -> None:
    with pytest.raises(InvalidInput, match="give a path"):
        load_contexts(source)


@pytest.mark.parametrize("name", ["test", "../records", "train/x", ""])
def test_an_unknown_corpus_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(
        NotFound, match="use one of: corpus://train, corpus://validation, corpus://retained"
    ):
        load_contexts(f"corpus://{name}")


def test_a_json_list_and_json_lines_of_the_same_rows_are_the_same_dataset(tmp_path: Path) -> None:
    as_list = load_contexts(write(tmp_path, [ROW, OTHER]))
    lines = write_text(tmp_path, f"\ufeff{json.dumps(ROW)}\r\n\n{json.dumps(OTHER)}")
    assert load_contexts(lines) == as_list == load_contexts(Path(lines).as_uri())
    assert dataset_digest(load_contexts(lines)) == dataset_digest(as_list)


def test_a_row_becomes_a_context_with_its_queries_and_other_fields_are_ignored(
    tmp_path: Path,
) -> None:
    row = {
        **ROW,
        "id": 7,
        "context": " Veldra is long.\n",
        "questions": [{"question": "How?", "answer": " long ", "id": "x"}],
    }
    (context,) = load_contexts(write(tmp_path, [row]))
    assert (context.title, context.text) == ("Veldra", "Veldra is long.")
    (query,) = context.queries
    assert (query.query_id, query.question, query.answers, query.context) == (
        f"{context.context_id}/0",
        "How?",
        ("long",),
        "",
    )


def test_the_limit_takes_the_first_contexts_but_every_row_is_checked(tmp_path: Path) -> None:
    assert [context.title for context in load_contexts(write(tmp_path, [ROW, OTHER]), limit=1)] == [
        "Veldra"
    ]
    with pytest.raises(InvalidInput, match="row 1"):
        load_contexts(write(tmp_path, [ROW, {}]), limit=1)


@pytest.mark.parametrize(
    ("title", "start"),
    [
        ("Tessaquill Loom", "tessaquill-loom-"),
        ("  Łódź & (x) ", "d-x-"),
        ("", "context-"),
        ("日本", "context-"),
        ("x" * 99, "x" * 48 + "-"),
    ],
)
def test_an_id_is_the_titles_slug_and_8_hex_digits_of_the_passage(title: str, start: str) -> None:
    identifier = context_id(title, "Veldra is long.")
    assert identifier.startswith(start)
    assert len(identifier) == len(start) + 8
    assert identifier.isascii()
    assert identifier == context_id(title, " veldra is  long")
    assert identifier != context_id(title, "Veldra is cold.")


def test_the_digest_of_a_dataset_sees_every_answer_and_the_order(tmp_path: Path) -> None:
    one = load_contexts(write(tmp_path, [ROW, OTHER]))
    changed = load_contexts(
        write(tmp_path, [questions({"question": "How is Veldra?", "answer": "short"}), OTHER])
    )
    assert (
        len(
            {
                dataset_digest(one),
                dataset_digest(one[::-1]),
                dataset_digest(changed),
                dataset_digest(()),
            }
        )
        == 4
    )


def test_a_file_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path, [ROW])

    def forbid(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied", source)

    monkeypatch.setattr(Path, "read_bytes", forbid)
    with pytest.raises(PreconditionFailed, match="no permission"):
        load_contexts(source)


def test_the_embedded_corpus_has_at_least_40_passages_of_6_answerable_questions_and_no_leak() -> (
    None
):
    train, validation, retained = (
        load_contexts(f"corpus://{name}") for name in ("train", "validation", "retained")
    )
    everything = (*train, *validation, *retained)
    assert len(everything) >= 40
    assert len({context.context_id for context in everything}) == len(everything)
    check_leakage(train, validation)
    check_leakage((*train, *validation), retained)
    for context in everything:
        assert len(context.queries) == 6
        assert 80 <= len(context.text.split()) <= 130
        assert all(query.answers[0] in context.text for query in context.queries)
