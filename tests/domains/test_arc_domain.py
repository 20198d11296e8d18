"""The few-shot domain as the services see it: prompts, training rows, answers, grades."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seal.datasets import load_contexts
from seal.domains import get_domain
from seal.domains.arc.edits import written_edit
from seal.domains.arc.prompts import WORKED
from seal.domains.base import Context, Query
from seal.errors import InvalidInput
from seal.settings import DOMAIN_OPTIONS, ExampleSettings, OptimizerSettings

ARC = get_domain("arc")
DEMONSTRATIONS = '[{"input":[[1,2]],"output":[[2,1]]},{"input":[[3,4]],"output":[[4,3]]}]'
QUERY = Query("t/0", "[[5,6]]", ("[[6,5]]",), DEMONSTRATIONS)
CONTEXT = Context("t", "t", DEMONSTRATIONS, (QUERY,))
EDIT = written_edit(WORKED[0][1])


def parsed(
    text: str, context: Context = CONTEXT, *, seed: int = 1, **bounds: int
) -> list[tuple[str, str]]:
    parts = ARC.parse_parts(
        [text],
        context=context,
        family="train-settings",
        settings=ExampleSettings.model_validate(bounds),
        question_format="digits",
        seed=seed,
    )
    return [(part.example.prompt, part.example.completion) for part in parts]


def test_demonstrations_stand_before_the_question_in_the_layout() -> None:
    prompt = ARC.question_prompt(QUERY, "digits")
    assert prompt.text == ("input\n12\noutput\n21\n\ninput\n34\noutput\n43\n\ninput\n56\noutput\n")
    assert prompt.stop == ("\n\n",)
    assert ARC.answer_completion("[[6,5],[0,1]]", "digits") == "65\n01\n\n"


def test_a_training_row_is_asked_as_a_test_is() -> None:
    own = replace(
        QUERY,
        question="[[1,2]]",
        context=DEMONSTRATIONS.replace('{"input":[[1,2]],"output":[[2,1]]},', ""),
    )
    assert parsed(EDIT)[0] == (ARC.question_prompt(own, "digits").text, "21\n\n")


@settings(max_examples=25, deadline=None)
@given(
    cells=st.lists(st.integers(0, 9), min_size=2, max_size=2),
    answer=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    edit=st.sampled_from([written_edit(edit) for _, edit in WORKED]),
    seed=st.integers(0, 2**63),
)
def test_no_test_enters_a_training_row(
    cells: list[int], answer: list[int], edit: str, seed: int
) -> None:
    """Rows are the same whatever the test is, also one whose input is a demonstration's."""
    queries = (replace(QUERY, question=json.dumps([cells]), answers=(json.dumps([answer]),)),)
    as_shown = (replace(QUERY, question="[[1,2]]", answers=("[[7,7,7]]",)),)
    rows = parsed(edit, replace(CONTEXT, queries=()), seed=seed)
    assert rows
    assert parsed(edit, replace(CONTEXT, queries=queries), seed=seed) == rows
    assert parsed(edit, replace(CONTEXT, queries=as_shown), seed=seed) == rows
    assert not ARC.gold_examples(CONTEXT, ExampleSettings(), "digits")
    assert not ARC.passage_examples("t", DEMONSTRATIONS, ExampleSettings())


@pytest.mark.parametrize("side", ["train", "validation"])
def test_no_embedded_test_output_with_its_input_is_a_training_row(side: str) -> None:
    for context in load_contexts(f"corpus://arc-{side}", domain=ARC):
        rows = {prompt + answer for prompt, answer in parsed(EDIT, context)}
        for query in context.queries:
            asked = ARC.question_prompt(replace(query, context=""), "digits").text
            gold = ARC.answer_completion(query.answers[0], "digits")
            assert not any(row.endswith(f"\n{asked}{gold}") for row in rows)


def test_the_policy_is_shown_the_demonstrations_and_no_test() -> None:
    (part,) = ARC.edit_prompts("t", DEMONSTRATIONS, "train-settings", "base")
    assert "input 12\noutput 21\ninput 34\noutput 43" in part.prompt.text
    assert "56" not in part.prompt.text
    assert part.start == ""


def test_an_edit_sets_the_rate_and_the_epochs_of_its_training() -> None:
    base = OptimizerSettings(learning_rate=1.0, epochs=9, batch_size=4, schedule="cosine")
    edit = WORKED[0][1].training
    changed = ARC.optimizer([EDIT], base)
    assert (changed.learning_rate, changed.epochs) == (edit.learning_rate, edit.num_train_epochs)
    assert (changed.batch_size, changed.schedule) == (4, "cosine")


@pytest.mark.parametrize("text", ["", "{}", "sure", f"{EDIT} ok"])
def test_what_is_no_edit_has_no_examples(text: str) -> None:
    assert parsed(text) == []


def test_the_settings_bound_the_rows() -> None:
    assert len(parsed(EDIT, maxExamples=3)) == 3


@pytest.mark.parametrize("layout", DOMAIN_OPTIONS["arc"].question_formats)
def test_an_answer_cleaned_again_stays_the_same(layout: str) -> None:
    gold = "[[6,5],[0,1]]"
    written = ARC.answer_completion(gold, layout)  # type: ignore[arg-type]
    clean = ARC.clean_answer(f"{written}\n\ninput", layout)  # type: ignore[arg-type]
    assert clean == gold
    assert ARC.clean_answer(clean, layout) == gold  # type: ignore[arg-type]
    assert ARC.clean_answer("no idea", layout) == ""  # type: ignore[arg-type]


def test_cells_of_a_compact_layout_have_to_be_single_tokens() -> None:
    assert ARC.single_tokens("digits") == tuple("0123456789")
    assert ARC.single_tokens("letters")[0] == " a"
    assert ARC.single_tokens("spaced") == ()


def test_the_measures_are_the_ones_that_are_named() -> None:
    assert tuple(ARC.measure("[[1]]", ("[[1]]",))) == tuple(each.name for each in ARC.measures)


def test_a_query_that_is_no_grid_is_refused_by_its_field() -> None:
    with pytest.raises(InvalidInput) as refused:
        ARC.question_prompt(replace(QUERY, question="what?"), "digits")
    assert refused.value.field == "question"


def test_solutions_lie_beside_challenges() -> None:
    assert ARC.answers_file("arc_challenges_x.json") == "arc_solutions_x.json"
    assert ARC.answers_file("tasks.json") is None
