"""Leakage: a passage on both sides is found whatever its typography."""

from __future__ import annotations

import pytest

from seal.domains import get_domain
from seal.domains.base import Context
from seal.domains.passages import passage_digest
from seal.errors import InvalidInput
from seal.restem.leakage import check_ids, check_leakage

KNOWLEDGE, ARC = get_domain("knowledge"), get_domain("arc")


def context(title: str, text: str) -> Context:
    return Context(context_id=title.lower(), title=title, text=text, queries=())


@pytest.mark.parametrize(
    "text", ["Veldra is long.", " veldra  IS\nlong", "“Veldra” — is long!", "\uff36eldra is long"]
)
def test_a_passage_on_both_sides_is_refused_with_both_titles_and_the_remedy(text: str) -> None:
    train = [context("Other", "Something else."), context("Veldra", "Veldra is long.")]
    with pytest.raises(
        InvalidInput,
        match="validation passage 'The River' is also the training passage 'Veldra'; take it out",
    ) as caught:
        check_leakage(
            train, [context("New", "Nothing known."), context("The River", text)], domain=KNOWLEDGE
        )
    assert caught.value.field == "data.validation"


def test_the_number_of_shared_passages_is_told() -> None:
    side = [context("A", "one"), context("B", "two")]
    with pytest.raises(InvalidInput, match="2 passages are shared in all"):
        check_leakage(side, side, domain=KNOWLEDGE)


def test_other_passages_under_the_same_title_are_no_leak() -> None:
    check_leakage(
        [context("Veldra", "Veldra is long.")],
        [context("Veldra", "Veldra is cold.")],
        domain=KNOWLEDGE,
    )
    check_leakage([], [context("Veldra", "Veldra is cold.")], domain=KNOWLEDGE)


@pytest.mark.parametrize(
    ("one", "other"),
    [("a b", "ab"), ("!!", "??"), ("1 2", "12"), ("", " "), ("กิน", "กัน"), ("की", "को")],
)
def test_different_words_have_different_digests(one: str, other: str) -> None:
    assert passage_digest(one) != passage_digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("東京は、日本の首都です。", "東京は日本の 首都です"),
        ("กรุงเทพ เป็นเมือง", "กรุงเทพเป็นเมือง"),
        ("❤\ufe0f river", "❤ river"),
    ],
)
def test_typography_makes_no_other_passage_of_text_without_spaces(one: str, other: str) -> None:
    assert passage_digest(one) == passage_digest(other)


def test_an_id_of_two_different_passages_is_refused_and_one_passage_may_stand_on_two_sides() -> (
    None
):
    one = context("Veldra", "Veldra is long.")
    check_ids(
        [one, context("Veldra", " veldra is LONG"), context("Oss", "Oss is high.")],
        domain=KNOWLEDGE,
        where="x",
    )
    with pytest.raises(InvalidInput, match=r"the data: .*'Veldra' and 'Veldra' differ .* veldra"):
        check_ids([one, context("Veldra", "Veldra is cold.")], domain=KNOWLEDGE, where="the data")


FLAT = '[{"input":[[1,2,3,4]],"output":[[4,3,2,1]]},{"input":[[5]],"output":[[6]]}]'
SQUARE = '[{"input":[[1,2],[3,4]],"output":[[4,3],[2,1]]},{"input":[[5]],"output":[[6]]}]'
TURNED = '[{"input":[[1],[2],[3],[4]],"output":[[4],[3],[2],[1]]},{"input":[[5]],"output":[[6]]}]'
REORDERED = '[{"input":[[5]],"output":[[6]]},{"input":[[1,2,3,4]],"output":[[4,3,2,1]]}]'


@pytest.mark.parametrize("other", [SQUARE, TURNED])
def test_the_same_cells_in_another_shape_are_another_task(other: str) -> None:
    check_leakage([context("flat", FLAT)], [context("other", other)], domain=ARC)
    assert ARC.digest(FLAT) != ARC.digest(other)
    with pytest.raises(InvalidInput, match="the tasks 'same' and 'same' differ"):
        check_ids([context("same", FLAT), context("same", other)], domain=ARC, where="the data")


def test_a_task_on_both_sides_is_refused_in_whatever_order_its_demonstrations_stand() -> None:
    with pytest.raises(
        InvalidInput, match="validation task 'again' is also the training task 'flat'; take it out"
    ):
        check_leakage([context("flat", FLAT)], [context("again", REORDERED)], domain=ARC)
