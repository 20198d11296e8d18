"""Which candidates are trained on, by what is known without training."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from seal.domains import get_domain
from seal.domains.base import Context, Query
from seal.errors import InvalidInput
from seal.records import EditRecord, ExampleRecord, PartRecord
from seal.restem.preselect import preselect, proxy
from seal.settings import EditSettings, ImproveSettings, InnerLoopSettings, RunSpec

KNOWLEDGE = get_domain("knowledge")
CONTEXT = Context(
    context_id="c",
    title="Veldra",
    text="Anna built the stone bridge of Veldra. The market burnt in 1832.",
    queries=(
        Query("q0", "Who built the stone bridge of Veldra?", ("Anna Orm", "Anna")),
        Query("q1", "When did the market burn?", ("1832",)),
    ),
)
BUILT = ("Who built the stone bridge?", "Anna")
BURNT = ("When did the market burn?", "1832")


def edit(
    candidate: int, *pairs: tuple[str, str], logprob: float | None = -1.0, statements: int = 0
) -> EditRecord:
    examples = [
        ExampleRecord(prompt=question, completion=answer, question=question, answer=answer)
        for question, answer in pairs
    ]
    examples += [ExampleRecord(prompt="", completion="A fact.")] * statements
    return EditRecord(
        context_id="c",
        candidate=candidate,
        seed=candidate,
        parts=(PartRecord(text="", tokens=1, truncated=False, logprob=logprob),),
        examples=tuple(examples),
    )


def best(*edits: EditRecord, count: int = 1) -> tuple[int, ...]:
    found = {
        preselect(order, context=CONTEXT, domain=KNOWLEDGE, count=count)
        for order in (edits, edits[::-1])
    }
    assert len(found) == 1
    return found.pop()


def test_the_proxy_counts_for_each_query_the_pair_that_serves_it_best() -> None:
    def promise(*pairs: tuple[str, str]) -> float:
        return proxy(edit(0, *pairs), context=CONTEXT, domain=KNOWLEDGE)

    assert promise(BUILT) == promise(BUILT, BUILT) == pytest.approx(1)
    assert promise(BUILT, BURNT) == pytest.approx(2)
    assert promise(("Who built the stone bridge?", "Karl")) == 0
    assert promise(("What eat the goats?", "Anna")) == 0
    assert promise() == 0


def test_candidates_whose_pairs_fit_the_questions_are_trained_on() -> None:
    off = [("What eat the goats?", "thistles")] * 5
    assert best(edit(0, *off), edit(1, BUILT), edit(2, BUILT, BURNT)) == (2,)
    assert best(edit(0, *off), edit(1, BUILT), edit(2, BUILT, BURNT), count=2) == (1, 2)


def test_ties_go_to_more_examples_then_to_likelier_words_then_to_the_first() -> None:
    assert best(edit(0, statements=1), edit(1, statements=2), edit(2)) == (1,)
    assert best(edit(0, BUILT, logprob=-2), edit(1, BUILT, logprob=-1)) == (1,)
    assert best(edit(0, BUILT, logprob=None), edit(1, BUILT, logprob=-9)) == (1,)
    assert best(edit(0, BUILT), edit(1, BUILT)) == (0,)


def test_how_many_edits_are_kept_is_no_matter_where_parts_have_the_credit() -> None:
    spec = RunSpec(
        edit=EditSettings(k=5, family="self-qa-by-sentence"),
        inner=InnerLoopSettings(racing=(2,), repeats=2),
        improve=ImproveSettings(credit="part", keep_per_context=3),
    )
    assert spec.improve.keep_per_context == 3


@pytest.mark.parametrize(
    ("preselected", "racing", "keep", "field"),
    [
        (6, (), 1, "inner.preselect"),
        (2, (), 3, "improve.keepPerContext"),
        (2, (2,), 1, "inner.racing"),
    ],
)
def test_a_preselection_that_leaves_too_few_is_refused(
    preselected: int, racing: tuple[int, ...], keep: int, field: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        RunSpec(
            edit=EditSettings(k=5),
            inner=InnerLoopSettings(preselect=preselected, racing=racing, repeats=2),
            improve=ImproveSettings(keep_per_context=keep),
        )
    cause = refused.value.errors()[0]["ctx"]["error"]
    assert isinstance(cause, InvalidInput) and cause.field == field and cause.remedy
