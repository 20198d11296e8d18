"""Dataset files: what is read, and how a bad row is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog
from service_harness import evaluation_request, generation_request

from evaluator_svc.plan import parse_evaluation
from generator_svc.plan import parse_generation
from seal.datasets import load_contexts, load_dataset
from seal.domains import get_domain
from seal.domains.passages import context_id, passage_digest
from seal.errors import InvalidInput, NotFound, PreconditionFailed
from seal.limits import (
    MAX_ANSWER_CHARACTERS,
    MAX_PASSAGE_CHARACTERS,
    MAX_QUESTION_CHARACTERS,
    MAX_QUESTIONS,
    MAX_TITLE_CHARACTERS,
)
from seal.restem.leakage import check_leakage
from seal.v1 import evaluator_pb2, generator_pb2

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
def test_a_missing_gold_answer_is_refused_with_file_row_field_and_remedy(
    tmp_path: Path, answer: object
) -> None:
    bad = questions({"question": "How?", "answer": "long"}, {"question": "How?", "answer": answer})
    source = write(tmp_path, [OTHER, bad])
    error = refusal(source)
    assert error.field == "[1].questions[1].answer"
    assert f"{source}, row 2 ('Veldra'), question 2, field answer: is " in str(error)
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
    assert ", row 2" in error.message


def test_a_passage_that_stands_twice_is_refused_with_both_rows(tmp_path: Path) -> None:
    error = refusal(
        write(tmp_path, [ROW, OTHER, {**ROW, "title": "Again", "context": " VELDRA is long"}])
    )
    assert error.field == "[2].context"
    assert (
        "row 3 ('Again'), field context: is the passage of row 1 ('Veldra') again" in error.message
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("[]", "holds no passage"),
        (" [ ] ", "holds no passage"),
        ('{"version": "1.1", "data": []}', "holds no passage"),
    ],
)
def test_an_empty_dataset_is_refused_with_the_shapes_that_are_read(
    tmp_path: Path, text: str, problem: str
) -> None:
    error = refusal(write_text(tmp_path, text))
    assert problem in error.message
    assert "three shapes are read" in error.remedy


def test_json_lines_name_row_and_line_of_what_is_not_json(tmp_path: Path) -> None:
    error = refusal(write_text(tmp_path, json.dumps(ROW) + "\n\n{'title': 1}\n"))
    assert "row 2 (line 3): not JSON at column 2" in error.message


TWICE = '{"title": "Veldra", "context": "It is long.", "title": "Oss", "questions": []}'
NESTED = json.dumps(ROW).replace('"answer":', '"answer": "short", "answer":')


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("data.jsonl", f"{json.dumps(ROW)}\n{TWICE}\n", "title"),
        ("data.json", f"[{json.dumps(OTHER)}, {TWICE}]", "title"),
        ("data.json", f"[{json.dumps(OTHER)}, {NESTED}]", "answer"),
        ("data.json", f'{{"data": [{json.dumps(OTHER)}, {NESTED}]}}', "answer"),
    ],
)
def test_a_key_that_stands_twice_is_refused_by_file_row_and_key(
    tmp_path: Path, name: str, text: str, key: str
) -> None:
    source = write_text(tmp_path, text, name=name)
    error = refusal(source)
    assert error.message == f"{source}, row 2: the key {key!r} stands twice in one object"
    assert error.field == "[1]"


def test_a_broken_json_list_names_the_line(tmp_path: Path) -> None:
    assert (
        "not JSON at line 2, column 1"
        in refusal(write_text(tmp_path, "[1,\n", name="data.json")).message
    )


@pytest.mark.parametrize("text", ["[" * 100_000, "[" + "1" * 5000 + "]"])
def test_json_made_to_break_the_reader_is_refused(tmp_path: Path, text: str) -> None:
    assert "nested too deeply, or a number too long" in refusal(write_text(tmp_path, text)).message


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"title": "V\xe9ldra"}')
    assert "not UTF-8 at byte 12" in refusal(str(path)).message


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "Is a directory" in refusal(str(tmp_path)).message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.json does not exist; check the path"):
        load_contexts(str(tmp_path / "nowhere.json"))


@pytest.mark.parametrize(
    "source",
    [
        "http://example.org/data.json",
        "http://[example.org/data.json",
        "file://host/data.json",
        "",
        " ",
    ],
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
    with pytest.raises(InvalidInput, match="row 2"):
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
def test_an_id_is_the_titles_slug_and_24_hex_digits_of_the_passage(title: str, start: str) -> None:
    identifier = context_id(title, "Veldra is long.")
    assert identifier.startswith(start)
    assert len(identifier) == len(start) + 24
    assert identifier.isascii()
    assert identifier == context_id(title, " veldra is  long")
    assert identifier != context_id(title, "Veldra is cold.")


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
    check_leakage(train, validation, domain=get_domain("knowledge"))
    check_leakage((*train, *validation), retained, domain=get_domain("knowledge"))
    for context in everything:
        assert len(context.queries) == 6
        assert 80 <= len(context.text.split()) <= 130
        assert all(query.answers[0] in context.text for query in context.queries)


SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Super_Bowl_50",
            "paragraphs": [
                {
                    "context": " The Broncos won in Santa Clara.",
                    "qas": [
                        {
                            "id": "56be",
                            "question": "Who won? ",
                            "answers": [
                                {"text": "The Broncos", "answer_start": 1},
                                {"text": "Broncos", "answer_start": 5},
                                {"text": "Broncos", "answer_start": 5},
                            ],
                            "is_impossible": False,
                        },
                        {
                            "id": "5ad3",
                            "question": "Who lost?",
                            "answers": [],
                            "plausible_answers": [{"text": "Santa Clara", "answer_start": 20}],
                            "is_impossible": True,
                        },
                    ],
                },
                {
                    "context": "Nobody knows.",
                    "qas": [{"id": "1", "question": "Why?", "answers": [], "is_impossible": True}],
                },
            ],
        },
        {
            "title": "Warsaw",
            "paragraphs": [
                {
                    "context": "Warsaw lies on the Vistula.",
                    "qas": [
                        {
                            "id": "2",
                            "question": "On which river?",
                            "answers": [{"text": "the Vistula", "answer_start": 15}],
                        }
                    ],
                }
            ],
        },
    ],
}
HUGGING_FACE = [
    {
        "id": "56be",
        "title": "Super_Bowl_50",
        "context": "The Broncos won in Santa Clara.",
        "question": "Who won?",
        "answers": {"text": ["The Broncos", "Broncos", "Broncos"], "answer_start": [0, 4, 4]},
    },
    {
        "id": "2",
        "title": "Warsaw",
        "context": "Warsaw lies on the Vistula.",
        "question": "On which river?",
        "answers": {"text": ["the Vistula"], "answer_start": [15]},
    },
    {
        "id": "5ad3",
        "title": "Super_Bowl_50",
        "context": "The Broncos won in Santa Clara.",
        "question": "Who lost?",
        "answers": {"text": [], "answer_start": []},
    },
    {
        "id": "1",
        "title": "Super_Bowl_50",
        "context": "Nobody knows.",
        "question": "Why?",
        "answers": {"text": [], "answer_start": []},
    },
]
OWN = [
    {
        "title": "Super Bowl 50",
        "context": "The Broncos won in Santa Clara.",
        "questions": [
            {"question": "Who won?", "answers": ["The Broncos", "Broncos"]},
            {"question": "Who lost?", "answers": []},
        ],
    },
    {
        "title": "Super Bowl 50",
        "context": "Nobody knows.",
        "questions": [{"question": "Why?", "is_impossible": True}],
    },
    {
        "title": "Warsaw",
        "context": "Warsaw lies on the Vistula.",
        "questions": [{"question": "On which river?", "answer": "the Vistula"}],
    },
]


def json_lines(rows: list[dict[str, object]]) -> str:
    return "\n".join(json.dumps(row) for row in rows)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(SQUAD),
        json.dumps(SQUAD, indent=2),
        json_lines(SQUAD["data"]),  # type: ignore[arg-type]
        json.dumps(HUGGING_FACE),
        json_lines(HUGGING_FACE),
        json.dumps({"version": "1", "data": HUGGING_FACE}, indent=1),
        json.dumps(OWN, indent=4),
        json_lines(OWN),
    ],
    ids=[
        "squad",
        "squad-indented",
        "articles",
        "rows",
        "row-lines",
        "data-rows",
        "own",
        "own-lines",
    ],
)
def test_squad_files_hugging_face_rows_and_own_rows_are_the_same_dataset(
    tmp_path: Path, text: str
) -> None:
    loaded = load_dataset(write_text(tmp_path, text))
    assert [(context.title, context.text) for context in loaded.contexts] == [
        ("Super Bowl 50", "The Broncos won in Santa Clara."),
        ("Warsaw", "Warsaw lies on the Vistula."),
    ]
    assert [
        [(query.question, query.answers) for query in context.queries]
        for context in loaded.contexts
    ] == [
        [("Who won?", ("The Broncos", "Broncos"))],
        [("On which river?", ("the Vistula",))],
    ]
    assert (loaded.unanswerable, loaded.emptied) == (2, 1)


def test_what_has_no_answer_is_counted_and_logged(tmp_path: Path) -> None:
    source = write(tmp_path, SQUAD)
    with structlog.testing.capture_logs() as logs:
        load_dataset(source)
    assert {"source": source, "questions": 2, "passages": 1}.items() <= logs[0].items()


def test_a_file_without_any_answer_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, HUGGING_FACE[2:]))
    assert "holds no question that has an answer" in error.message


def test_rows_of_one_passage_become_one_context_in_the_order_of_their_questions(
    tmp_path: Path,
) -> None:
    again = {**HUGGING_FACE[0], "context": "the broncos  won, in Santa Clara", "question": "Who?"}
    loaded = load_dataset(write(tmp_path, [*HUGGING_FACE, again]))
    first = loaded.contexts[0]
    assert first.text == "The Broncos won in Santa Clara."
    assert [(query.query_id, query.question) for query in first.queries] == [
        (f"{first.context_id}/0", "Who won?"),
        (f"{first.context_id}/1", "Who?"),
    ]


@pytest.mark.parametrize("row", [["Veldra"], {"text": "Veldra is long."}, {}, 3])
def test_a_row_of_no_shape_is_refused_with_the_three_that_are_read(
    tmp_path: Path, row: object
) -> None:
    error = refusal(write(tmp_path, [OWN[0], row]))
    assert ", row 2" in error.message
    assert all(name in error.remedy for name in ("paragraphs", "Hugging Face", '"questions"'))


@pytest.mark.parametrize(
    ("rows", "where", "path"),
    [
        (
            {"data": [{"title": "A_b", "paragraphs": [{"context": "x", "qas": [{"id": "1"}]}]}]},
            "article 1 ('A b'), paragraph 1, question 1, field question: is missing",
            "data[0].paragraphs[0].qas[0].question",
        ),
        (
            [{**HUGGING_FACE[0], "answers": {"text": ["x", 3]}}],
            "row 1 ('Super Bowl 50'), answer 2: is a number, not a string",
            "[0].answers.text[1]",
        ),
        (
            [{**HUGGING_FACE[0], "answers": "x"}],
            "row 1 ('Super Bowl 50'), field answers: is a string, not a list",
            "[0].answers",
        ),
        (
            {"data": [{"title": "A", "paragraphs": {}}]},
            "article 1 ('A'), field paragraphs: is an object, not a list",
            "data[0].paragraphs",
        ),
    ],
)
def test_a_fault_in_a_squad_shape_is_named_by_its_place_counted_from_1(
    tmp_path: Path, rows: object, where: str, path: str
) -> None:
    error = refusal(write(tmp_path, rows))
    assert where in error.message
    assert error.field == path


@pytest.mark.parametrize(
    ("row", "where"),
    [
        (
            {**ROW, "context": "x" * (MAX_PASSAGE_CHARACTERS + 1)},
            "row 2 ('Veldra'), field context: has 65537 characters, the limit is 65536",
        ),
        (
            {**ROW, "title": "x" * (MAX_TITLE_CHARACTERS + 1)},
            "row 2, field title: has 1001 characters, the limit is 1000",
        ),
        (
            questions({"question": "x" * (MAX_QUESTION_CHARACTERS + 1), "answer": "y"}),
            "row 2 ('Veldra'), question 1, field question: has 4001 characters",
        ),
        (
            questions({"question": "x", "answer": "y" * (MAX_ANSWER_CHARACTERS + 1)}),
            "row 2 ('Veldra'), question 1, field answer: has 4001 characters",
        ),
        (
            questions({"question": "x", "answers": [str(n) for n in range(257)]}),
            "row 2 ('Veldra'), question 1, field answers: holds 257 different answers",
        ),
        (
            questions(*[{"question": "x", "answer": "y"}] * (MAX_QUESTIONS + 1)),
            "row 2 ('Veldra'): holds 4097 questions, the limit is 4096",
        ),
    ],
    ids=["passage", "title", "question", "answer", "answers", "questions"],
)
def test_what_the_services_would_refuse_is_refused_on_load_by_file_row_and_title(
    tmp_path: Path, row: object, where: str
) -> None:
    assert where in refusal(write(tmp_path, [OTHER, row])).message


def test_the_longest_row_that_loads_is_taken_by_the_services(tmp_path: Path) -> None:
    row = {
        "title": "t" * 1000,
        "context": "c" * 65_536,
        "questions": [{"question": "q" * 4000, "answers": ["a" * 4000]}],
    }
    (context,) = load_contexts(write(tmp_path, [row]))
    (query,) = context.queries
    asked = evaluator_pb2.Query(
        query_id="q", question=query.question, answers=query.answers, context=context.text
    )
    parse_evaluation(evaluation_request(queries=[asked]))
    edit_context = generator_pb2.EditContext(
        context_id=context.context_id, title=context.title, text=context.text, seeds=[1]
    )
    parse_generation(generation_request(contexts=[edit_context]))


def test_two_passages_whose_digests_begin_alike_have_two_ids(tmp_path: Path) -> None:
    texts: dict[str, str] = {}
    for number in range(200_000):  # a pair that shares 32 bits is found after about 65,000
        text = f"Veldra is {number} miles long."
        if text != (first := texts.setdefault(passage_digest(text)[:8], text)):
            break
    rows = [{**ROW, "context": passage} for passage in (first, text)]
    contexts = load_contexts(write(tmp_path, rows))
    assert len({context.context_id for context in contexts}) == 2


def test_two_passages_under_one_id_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seal.domains.passages._ID_DIGITS", 0)
    error = refusal(write(tmp_path, [ROW, {**ROW, "context": "Veldra is cold."}]))
    assert "differ and have one id" in error.message
