"""Given questions: how they are read, where they are put, and how the test is parted from them."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal.documents import GivenQuestion, Passage, read_document
from seal.documents.places import Places, question_key
from seal.documents.questions import (
    PutQuestion,
    check_questions,
    part_questions,
    put_questions,
    read_questions,
)
from seal.errors import InvalidInput
from seal.limits import (
    MAX_DOCUMENT_BYTES,
    MAX_GIVEN_QUESTIONS,
    MAX_QUESTION_CHARACTERS,
    MAX_QUESTIONS,
)

SECRET = "Zanzibar"
PASSAGES = (
    ("a.txt", "The bell of Veldra was cast by Hanna Ode. It weighs 1,200 kilograms."),
    ("a.txt", "Oss has a harbour. The harbour of Oss was dug by Hanna Ode."),
    ("b.txt", "The mill was built of oak. Its owner was Piet."),
)


def passages(texts: Sequence[tuple[str, str]] = PASSAGES) -> list[Passage]:
    return [
        Passage(name, range(place, place + 1), "", text, 1)
        for place, (name, text) in enumerate(texts)
    ]


def lines(*rows: object) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def refusal(*rows: object, documents: Sequence[str] = ()) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read_questions("q.jsonl", lines(*rows), documents=documents)
    assert caught.value.remedy
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


def place_of(question: str, *answers: str, document: str = "") -> int:
    (put,) = put_questions([GivenQuestion(question, answers, document)], passages())
    return put.passage


def put(passage: int, question: str, *answers: str) -> PutQuestion:
    return PutQuestion(passage, question, answers or ("x",))


def test_a_file_holds_a_question_a_line_with_one_answer_or_several() -> None:
    rows = (
        {"question": "Who?", "answer": "Hanna"},
        {"question": "What?", "answers": ["oak", "wood"], "document": "b.txt"},
    )
    assert read_questions("q.jsonl", b"\xef\xbb\xbf" + lines(*rows) + b"\r\n") == (
        GivenQuestion("Who?", ("Hanna",), "", field="questions[0]"),
        GivenQuestion("What?", ("oak", "wood"), "b.txt", field="questions[1]"),
    )


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"question": SECRET}, "questions[1].answer"),
        ({"question": SECRET, "answers": []}, "questions[1].answers"),
        ({"question": SECRET, "answers": [3]}, "questions[1].answers[0]"),
        ({"question": SECRET, "answers": SECRET}, "questions[1].answers"),
        ({"question": "", "answer": SECRET}, "questions[1].question"),
        ({"question": "x" * (MAX_QUESTION_CHARACTERS + 1), "answer": "x"}, "questions[1].question"),
        ({"question": SECRET, "answer": "x", "document": 3}, "questions[1].document"),
        ({"question": SECRET, "answer": "x", "document": "c.txt"}, "questions[1].document"),
        ({"answer": SECRET}, "questions[1].question"),
        (SECRET, "questions[1]"),
        ({"question": SECRET, "answer": "x", "is_impossible": True}, "questions[1].answers"),
    ],
)
def test_a_bad_question_is_refused_by_its_field_without_its_text(row: object, field: str) -> None:
    good = {"question": "Who?", "answer": "Hanna"}
    assert refusal(good, row, documents=["a.txt", "b.txt"]).field == field


@pytest.mark.parametrize(
    "content",
    [b"", b" \n", b"\0\1", b"{", b"[]", b'"x"', b"[1]", SECRET.encode(), b"\xff\xfe\xfa"],
)
def test_a_file_of_questions_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_questions("q.jsonl", content)
    assert caught.value.field.startswith("questions")
    assert caught.value.message.count("q.jsonl") == 1
    assert '"question"' in caught.value.remedy or "UTF-8" in caught.value.remedy
    assert SECRET not in str(caught.value)


def test_a_file_of_questions_that_is_too_large_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        read_questions("q.jsonl", b" " * (MAX_DOCUMENT_BYTES + 1))
    assert caught.value.field.startswith("questions")
    assert "bytes, the limit is" in caught.value.message


def test_a_question_goes_to_the_passage_that_holds_its_answer() -> None:
    assert place_of("How heavy is it?", "1200 kilograms") == 0
    assert place_of("Of what is it?", "iron", "oak") == 2


def test_of_several_passages_with_the_answer_that_of_most_shared_words_has_the_question() -> None:
    assert place_of("Who dug the harbour of Oss?", "Hanna Ode") == 1
    assert place_of("Who cast the bell?", "Hanna Ode") == 0
    assert place_of("Who?", "Hanna Ode") == 0


def test_a_named_document_is_looked_at_alone_and_need_not_hold_the_answer_word_by_word() -> None:
    assert place_of("Who?", "Hanna Ode", document="a.txt") == 0
    assert place_of("Is the mill of wood?", "yes", document="b.txt") == 2


def test_an_answer_without_a_word_stands_where_it_stands_as_it_is() -> None:
    texts = [("a.txt", "Her blood group is 0, says the list."), ("a.txt", "His group is A ?!")]
    for answer in ("A", "?!", "A ?!"):
        (found,) = put_questions([GivenQuestion("What?", (answer,))], passages(texts))
        assert found.passage == 1


def test_texts_that_are_looked_through_take_memory_of_their_order() -> None:
    text = " ".join(f"word{number}" for number in range(50_000))
    asked = [f"word{number} word{number + 1}" for number in range(0, 50_000, 100)]
    tracemalloc.start()
    places = Places([text], asked=asked)
    assert all(places.holding(one) == {0} for one in asked)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 3 * len(text)


def test_an_answer_that_a_cut_has_parted_is_found() -> None:
    texts = [("a.txt", "Her name was Hanna"), ("a.txt", "Ode of Veldra.")]
    (found,) = put_questions([GivenQuestion("What name?", ("Hanna Ode",))], passages(texts))
    assert found.passage == 0


@pytest.mark.parametrize(
    "question",
    [
        GivenQuestion(f"Who is {SECRET}?", (SECRET,), field="questions[4]"),
        GivenQuestion(f"Who cast the bell, {SECRET}?", (SECRET,), field="questions[4]"),
        GivenQuestion(f"Who is {SECRET}?", ("yes",), "b.txt", field="questions[4]"),
    ],
)
def test_a_question_that_no_passage_is_about_is_refused(question: GivenQuestion) -> None:
    documents = [
        read_document(name, "", "\n\n".join(text for own, text in PASSAGES if own == name).encode())
        for name in ("a.txt", "b.txt")
    ]
    for refused in (
        lambda: put_questions([question], passages()),
        lambda: check_questions([question], documents, passage_tokens=256),
    ):
        with pytest.raises(InvalidInput) as caught:
            refused()
        assert caught.value.field == "questions[4].answers"
        assert SECRET not in str(caught.value)


def test_questions_of_a_dataset_stay_at_the_passage_that_they_came_with() -> None:
    row = {"title": "T", "context": "Short text.", "questions": [{"question": "Q?", "answer": "z"}]}
    document = read_document("a.jsonl", "", lines({**row, "context": "Other."}, row))
    check_questions(document.questions, [document], passage_tokens=256)
    texts = [("a.jsonl", "Other."), ("a.jsonl", "Short text.")]
    assert [one.passage for one in put_questions(document.questions, passages(texts))] == [0, 1]


def test_too_many_questions_and_unknown_documents_are_refused_before_any_cut() -> None:
    document = read_document("b.txt", "", PASSAGES[2][1].encode())
    many = [GivenQuestion("Who?", ("Piet",))] * (MAX_GIVEN_QUESTIONS + 1)
    with pytest.raises(InvalidInput) as caught:
        check_questions(many, [document], passage_tokens=256)
    assert caught.value.field == "questions"
    with pytest.raises(InvalidInput) as caught:
        check_questions(
            [GivenQuestion("Who?", ("Piet",), "c.txt", field="questions[0]")],
            [document],
            passage_tokens=256,
        )
    assert caught.value.field == "questions[0].document"


@pytest.mark.parametrize(
    ("passage_tokens", "refused"), [(256, True), (16, False)], ids=["one passage", "several"]
)
def test_too_many_questions_on_one_passage_are_refused_before_the_tokens_are_counted(
    passage_tokens: int, refused: bool
) -> None:
    text = " ".join(f"The tower number {n} of Veldra has {n} tall lamps of brass." for n in (7, 8))
    document = read_document("towers.md", "", text.encode())
    many = [
        GivenQuestion(f"How many lamps, {n}?", (str(7 + n % 2),)) for n in range(MAX_QUESTIONS + 1)
    ]
    check_questions(many[1:], [document], passage_tokens=passage_tokens)
    with pytest.raises(InvalidInput) if refused else nullcontext() as caught:
        check_questions(many, [document], passage_tokens=passage_tokens)
    if caught is not None:
        assert caught.value.field == "questions" and caught.value.remedy
        assert caught.value.message == (
            "4097 questions are about passage 1, which is of the document 'towers.md'; the limit "
            "is 4096"
        )


def test_a_question_that_stands_in_a_passage_is_never_held_out() -> None:
    texts = [("faq.txt", "Q: Who cast the bell of Veldra? A: Hanna Ode, in the year 1870.")]
    asked = [
        GivenQuestion("Who cast the bell of Veldra?", ("Hanna Ode",)),
        GivenQuestion("When did Hanna Ode cast it?", ("1870",)),
    ]
    parted = part_questions(put_questions(asked, passages(texts)), share=0.9, seed=1)
    assert [one.question for one in parted.held_out] == ["When did Hanna Ode cast it?"]
    assert [one.question for one in parted.reward] == ["Who cast the bell of Veldra?"]
    document = read_document("faq.txt", "", texts[0][1].encode())
    check_questions(asked, [document], passage_tokens=256)
    with pytest.raises(InvalidInput) as caught:
        check_questions(asked[:1], [document], passage_tokens=256)
    assert caught.value.field == "questions"


def test_a_question_that_comes_twice_is_asked_once_with_all_its_answers() -> None:
    parted = part_questions(
        [put(0, "Who?", "Ann"), put(0, "who", "Ann", "Bo"), put(0, "When?")], share=0.5, seed=3
    )
    assert parted.repeated == 1
    (who,) = [one for one in parted.reward + parted.held_out if one.question == "Who?"]
    assert who.answers == ("Ann", "Bo")


def test_a_single_question_is_the_test_and_of_two_one_is() -> None:
    for share in (0.01, 0.5, 0.99):
        assert len(part_questions([put(0, "Who?")], share=share, seed=5).held_out) == 1
        two = part_questions([put(0, "Who?"), put(3, "When?")], share=share, seed=5)
        assert (len(two.held_out), len(two.reward)) == (1, 1)


QUESTIONS = st.lists(
    st.builds(
        lambda passage, n: PutQuestion(passage, f"Question {n}?", ("x",), is_read=n % 7 == 0),
        st.integers(0, 6),
        st.integers(0, 40),
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(questions=QUESTIONS, share=st.floats(0.05, 0.95), seed=st.integers(0, 9))
def test_no_question_is_on_both_sides_and_none_is_lost(
    questions: list[PutQuestion], share: float, seed: int
) -> None:
    parted = part_questions(questions, share=share, seed=seed)
    sides = [
        {question_key(one.question) for one in side} for side in (parted.reward, parted.held_out)
    ]
    assert sides[0].isdisjoint(sides[1])
    both = parted.reward + parted.held_out
    assert len(both) + parted.repeated == len(questions)
    asked = Counter((one.passage, one.question) for one in questions)
    assert Counter((one.passage, one.question) for one in both) == Counter(asked.keys())
    again = part_questions(list(reversed(questions)), share=share, seed=seed)
    assert {one.question for one in again.held_out} == {one.question for one in parted.held_out}


@pytest.mark.parametrize("own", [1, 2, 3, 8])
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_share_is_kept_over_passages_of_few_questions_too(own: int, share: float) -> None:
    questions = [
        put(passage, f"Question {passage} {number}?")
        for passage in range(24)
        for number in range(own)
    ]
    held = Counter(one.passage for one in part_questions(questions, share=share, seed=1).held_out)
    assert abs(held.total() - share * len(questions)) <= 0.5
    assert all(abs(held[passage] - share * own) <= 1 for passage in range(24))
