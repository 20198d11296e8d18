"""The few-shot domain: a task is learnt by training on its own demonstrations.

The demonstrations stand before every question, also after the training: what an adapter adds to
reading them is the gain, and the baseline is in-context learning. The edit sets how the training
set is made and trained on; it writes no text to learn from. The question format is the layout in
which grids are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from seal.dataset_rows import Place
from seal.domains.arc import grading, voting
from seal.domains.arc.edits import edit_json_schema, parse_edit, short_edit_json_schema
from seal.domains.arc.grids import Grid, grid_of, grid_text
from seal.domains.arc.layouts import grid_in, layout_of
from seal.domains.arc.prompts import ANSWER_STOP, answer_text, edit_prompt, question_text
from seal.domains.arc.tasks import SHAPES, demonstrations_of, read_tasks, task_digest
from seal.domains.arc.training_sets import training_rows
from seal.domains.base import (
    Context,
    DomainWords,
    Example,
    LoadedContexts,
    Measure,
    PartExample,
    PartPrompt,
    Query,
    View,
)
from seal.errors import InvalidInput
from seal.prompts import Prompt
from seal.settings import (
    DOMAIN_OPTIONS,
    DomainName,
    DomainOptions,
    ExampleSettings,
    OptimizerSettings,
    PromptFamily,
    PromptFormat,
    QuestionFormat,
    TextGrader,
)

MEASURES = (
    Measure(
        "grid",
        "solved",
        "success",
        "the answer is the gold grid, every cell of it (solved)",
        "share of test inputs whose answer is the gold grid, every cell of it (success)",
        is_success=True,
    ),
    Measure(
        "shape",
        "shape",
        "right shape",
        "the answer is a grid with as many rows and columns as the gold grid (shape)",
        "share of answers that are a grid with as many rows and columns as the gold grid",
    ),
    Measure(
        "cells",
        "cells",
        "right cells",
        "the share of cells that are right, none in a grid of another shape (cells)",
        "share of cells that are right, none in a grid of another shape, in percent",
    ),
)
WORDS = DomainWords(
    context="task",
    right="grid",
    shapes=SHAPES,
    story="The model was given {contexts} that it had not been trained on (a task shows an unknown "
    "rule on a few grids) and chose for each how it is trained on it: such a choice is a "
    "self-edit. A small adapter (a set of extra weights) was trained on a training set made of the "
    "demonstrations, and the adapted model then applied the rule to other inputs, with the "
    "demonstrations still before it: {questions} in all. The baseline is in-context learning: the "
    "base model with the same demonstrations before it, and no training.",
    story_without_edits="The model was given {contexts} that it had not been trained on (a task "
    "shows an unknown rule on a few grids), and applied each rule to other inputs, with the "
    "demonstrations before it: {questions} in all.",
    glossary=(
        ("task", "demonstrations of an unknown rule, and tests to which it has to be applied"),
        ("question", "an input of a task whose output, its gold answer, is asked for"),
        ("self-edit", "how the model chooses to be trained on a task: augmentations, loss, rate"),
        ("in-context learning", "the model without training: what any training has to beat"),
        (
            "test-time training",
            "a training on the demonstrations of the task that is then asked about",
        ),
    ),
    measured="How well tests are solved after each kind of training on tasks that the choosing of "
    "settings was never trained on. Solved: the answer is the gold grid. Shape: it has the gold "
    "grid's rows and columns. Cells: the share of its cells that are right.",
    read_together="Success is what counts; the shape and the cells of the answers that are not "
    "right say how far from it they are.",
    rows=MappingProxyType(
        {
            "base": "in-context learning",
            "edit-0": "untrained edits, round 0",
            "edit": "chosen settings, round {round}",
            "fixed-edit": "test-time training, fixed settings",
            "oracle-edit": "test-time training, an oracle's settings",
        }
    ),
    short_rows=MappingProxyType(
        {
            "base": "in context",
            "fixed-edit": "fixed settings",
            "oracle-edit": "oracle's settings",
        }
    ),
    reference="fixed settings",
    bounds=MappingProxyType(
        {
            "fixed-edit": "trained on each task with the same settings, those of "
            "validation.fixedEdit, made by hand",
            "oracle-edit": "trained on each task with the settings of validation.oracleEdit, the "
            "best that a search on training tasks is to have found; this run searched for none and "
            "takes them as they are given",
        }
    ),
)


class ArcDomain:
    """`seal.domains.base.Domain` for few-shot tasks."""

    name: DomainName = "arc"
    options: DomainOptions = DOMAIN_OPTIONS["arc"]
    measures = MEASURES
    words = WORDS

    def answers_file(self, name: str) -> str | None:
        """The file of solutions beside one of challenges, as the benchmark names them."""
        return name.replace("_challenges", "_solutions") if "_challenges" in name else None

    def read(
        self,
        values: Iterable[tuple[Place, object]],
        *,
        source: str,
        answers: object = None,
    ) -> LoadedContexts:
        """See `seal.domains.arc.tasks.read_tasks`."""
        return read_tasks(values, source=source, answers=answers)

    def digest(self, text: str) -> str:
        """See `seal.domains.arc.tasks.task_digest`."""
        return task_digest(text)

    def writes_edits(self, family: PromptFamily) -> bool:
        """True: there is nothing to train on without one."""
        return True

    def edit_prompts(
        self,
        title: str,
        text: str,
        family: PromptFamily,
        format: PromptFormat,
        *,
        trained: bool = False,
    ) -> tuple[PartPrompt, ...]:
        """Ask how to train on a task; the same for a trained policy. Raises InvalidInput."""
        return (PartPrompt(edit_prompt(demonstrations_of(text), format)),)

    def parse_parts(
        self,
        texts: Sequence[str],
        *,
        context: Context,
        family: PromptFamily,
        settings: ExampleSettings,
        question_format: QuestionFormat,
        seed: int,
    ) -> tuple[PartExample, ...]:
        """The training set that an edit chooses; empty if it is none, or beyond the budget.

        It is made of the demonstrations alone: of `context` no query is looked at.
        """
        edit = parse_edit(texts[0]) if texts else None
        if edit is None:
            return ()
        rows = training_rows(
            demonstrations_of(context.text),
            edit,
            layout_of(question_format),
            seed=seed,
            max_rows=settings.max_examples,
            max_characters=settings.max_characters,
        )
        return tuple(PartExample(0, row) for row in rows)

    def optimizer(self, texts: Sequence[str], base: OptimizerSettings) -> OptimizerSettings:
        """`base` with the rate and the epochs of the edit."""
        edit = parse_edit(texts[0]) if texts else None
        if edit is None:
            return base
        chosen = {
            "learning_rate": edit.training.learning_rate,
            "epochs": edit.training.num_train_epochs,
        }
        return base.model_copy(update=chosen)

    def choices(self, texts: Sequence[str]) -> Mapping[str, str]:
        """The tools, the strategy, the epochs, and the rate to one digit."""
        edit = parse_edit(texts[0]) if texts else None
        if edit is None:
            return {}
        tools = edit.data_generation.model_dump()
        return {
            **{
                name.removeprefix("use_").replace("_", " "): "used" if used else "not used"
                for name, used in tools.items()
            },
            "loss on": edit.training.strategy.removeprefix("train_using_").replace("_", " "),
            "learning rate": f"{edit.training.learning_rate:.0e}",
            "epochs": str(edit.training.num_train_epochs),
        }

    def edit_schema(self, family: PromptFamily, format: PromptFormat) -> str | None:
        """The list of the values where the prompt asks for one, else the object."""
        return short_edit_json_schema() if format == "base" else edit_json_schema()

    def gold_parts(
        self, context: Context, family: PromptFamily, format: PromptFormat
    ) -> tuple[tuple[PartPrompt, str], ...]:
        """None: nobody knows a task's best settings without trying them."""
        return ()

    def affinity(self, question: str, answer: str, query: Query, *, title: str) -> float:
        """0: an edit holds no pairs."""
        return 0.0

    def passage_examples(
        self, title: str, text: str, settings: ExampleSettings
    ) -> tuple[Example, ...]:
        """None: a task is no text to be learnt by itself."""
        return ()

    def gold_examples(
        self, context: Context, settings: ExampleSettings, question_format: QuestionFormat
    ) -> tuple[Example, ...]:
        """None: a test's output is never trained on."""
        return ()

    def question_prompt(self, query: Query, question_format: QuestionFormat) -> Prompt:
        """The demonstrations and the test input, up to where its output is to be written."""
        shown = demonstrations_of(query.context)
        asked = _grid(query.question, "question")
        return Prompt(
            text=question_text(shown, asked, layout_of(question_format)), stop=ANSWER_STOP
        )

    def answer_completion(self, gold: str, question_format: QuestionFormat = "digits") -> str:
        """The gold grid as it follows the question prompt."""
        return answer_text(_grid(gold, "answer"), layout_of(question_format))

    def single_tokens(self, question_format: QuestionFormat) -> tuple[str, ...]:
        """The cells of a layout that is meant to cost one token for each of them."""
        layout = layout_of(question_format)
        return layout.cells if layout.one_token else ()

    def clean_answer(self, text: str, question_format: QuestionFormat) -> str:
        """The canonical text of the grid that the model wrote; empty if it wrote none."""
        grid = grid_of(text) or grid_in(text, layout_of(question_format))
        return "" if grid is None else grid_text(grid)

    def views(self, query: Query, votes: int, *, seed: int) -> tuple[View, ...]:
        """See `seal.domains.arc.voting.views`."""
        return voting.views(query, votes, seed=seed)

    def vote(self, answers: Sequence[str]) -> str:
        """See `seal.domains.arc.voting.vote`."""
        return voting.vote(answers)

    def grade(
        self, grader: TextGrader, answer: str, golds: tuple[str, ...], logprob: float | None
    ) -> float | None:
        """See `seal.domains.arc.grading.grade`."""
        return grading.grade(grader, answer, golds, logprob)

    def measure(self, answer: str, golds: tuple[str, ...]) -> Mapping[str, float]:
        """The whole grid, its shape, its cells."""
        return grading.measure(answer, golds)


def _grid(text: str, what: str) -> Grid:
    grid = grid_of(text)
    if grid is None:
        raise InvalidInput(
            f"the {what} is no grid",
            field=what,
            remedy="give it as JSON: rows of whole numbers from 0 to 9, all equally long",
        )
    return grid
