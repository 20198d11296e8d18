"""What the two models are asked: the policy for settings, the adapted model for a grid.

The policy sees the demonstrations and never the test. In the base format it writes a list of values
and gets worked examples, whose settings differ in everything, so that the form is learnt from them
and no choice is. In the chat format it writes the object, as published.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from seal.domains.arc.edits import (
    MAX_EDIT_EPOCHS,
    MAX_RATE,
    MIN_RATE,
    DataGeneration,
    Training,
    TrainSettings,
    short_edit,
)
from seal.domains.arc.grids import Grid
from seal.domains.arc.layouts import LAYOUTS, Layout, written
from seal.domains.arc.tasks import Pair
from seal.prompts import Message, Prompt
from seal.settings import PromptFormat

ANSWER_END = "\n\n"
"""Ends an answer, as it ends the outputs shown before it: a grid has no empty line. An answer that
is learnt has it too, or the adapted model gets every cell right and then writes one more."""
ANSWER_STOP = (ANSWER_END,)
_SHOWN = LAYOUTS["digits"]
"""How the policy sees grids, whatever the adapted model is asked in."""


def _settings(
    used: tuple[bool, bool, bool, bool], *, all_tokens: bool, rate: float, epochs: int
) -> TrainSettings:
    basic, size, chain, repeat = used
    return TrainSettings(
        data_generation=DataGeneration(
            use_basic_augmentations=basic,
            use_size_augmentations=size,
            use_chain_augmentations=chain,
            use_repeat_augmentations=repeat,
        ),
        training=Training(
            strategy="train_using_all_tokens" if all_tokens else "train_using_output_tokens",
            learning_rate=rate,
            num_train_epochs=epochs,
        ),
    )


WORKED = (
    (
        ("input 31\noutput 13\ninput 207\noutput 702"),
        _settings((True, True, True, True), all_tokens=False, rate=0.0005, epochs=1),
    ),
    (
        ("input 44\noutput 4\ninput 5\noutput 5"),
        _settings((False, True, True, False), all_tokens=True, rate=0.01, epochs=2),
    ),
    (
        ("input 108\noutput 118\ninput 302\noutput 332"),
        _settings((True, False, False, True), all_tokens=True, rate=0.0001, epochs=3),
    ),
    (
        ("input 620\noutput 062\ninput 90\noutput 09"),
        _settings((False, False, False, False), all_tokens=False, rate=0.002, epochs=4),
    ),
)
"""Puzzles of no data set, and settings that say nothing of what is best: every switch is on in two
of the four, as is each strategy; the rates are spread evenly between 1e-4 and 1e-2 on a scale of
factors, the epochs from 1 to 4, neither going with the other."""
_BASE_OPENING = (
    "A small model is trained on each puzzle before it solves it. The settings of its training are "
    "a list: use_basic_augmentations, use_size_augmentations, use_chain_augmentations, "
    "use_repeat_augmentations, strategy, learning_rate, num_train_epochs."
)
_CHAT_WORDING = f"""\
Above are the demonstrations of a puzzle: an unknown rule makes each output of its input. A small \
model will be trained on rows made of them and then asked for the output of another input. Choose \
how it is trained.

data_generation: which changed copies of the demonstrations are added to the rows, each true or \
false.
- use_basic_augmentations: turned, flipped, transposed, other colours
- use_size_augmentations: twice the size
- use_chain_augmentations: turned or flipped, then twice the size
- use_repeat_augmentations: beside copies of themselves

training:
- strategy: "train_using_all_tokens" or "train_using_output_tokens"
- learning_rate: a number from {MIN_RATE} to {MAX_RATE}
- num_train_epochs: a whole number from 1 to {MAX_EDIT_EPOCHS}

Answer with one JSON object and nothing else, with exactly these keys:
{{"data_generation": {{"use_basic_augmentations": ..., "use_size_augmentations": ..., \
"use_chain_augmentations": ..., "use_repeat_augmentations": ...}}, "training": {{"strategy": ..., \
"learning_rate": ..., "num_train_epochs": ...}}}}"""


def edit_prompt(pairs: Sequence[Pair], format: PromptFormat) -> Prompt:
    """Ask the policy how to train on a task.

    Worked examples stand in an order of chance, another for each task: the last is copied most.
    """
    shown = "\n".join(
        f"input{_grid_shown(pair.input)}\noutput{_grid_shown(pair.output)}" for pair in pairs
    )
    if format == "chat":
        return Prompt(messages=(Message("user", f"{shown}\n\n{_CHAT_WORDING}"),))
    mixed = Random(shown).sample(WORKED, len(WORKED))  # noqa: S311
    worked = "".join(
        f"Puzzle:\n{puzzle}\nSettings: {short_edit(settings)}\n\n" for puzzle, settings in mixed
    )
    return Prompt(
        text=f"{_BASE_OPENING}\n\n{worked}Puzzle:\n{shown}\nSettings:",
        stop=("\n",),
    )


def _grid_shown(grid: Grid) -> str:
    """A grid after its name: in the same line if it has but one row."""
    return (" " if len(grid) == 1 else "\n") + written(grid, _SHOWN)


def question_text(shown: Sequence[Pair], asked: Grid, layout: Layout) -> str:
    """Demonstrations and an input, up to where its output is to be written."""
    before = "".join(
        f"input\n{written(pair.input, layout)}\noutput\n{written(pair.output, layout)}\n\n"
        for pair in shown
    )
    return f"{before}input\n{written(asked, layout)}\noutput\n"


def answer_text(grid: Grid, layout: Layout) -> str:
    """An output as it follows the question's text, with its end."""
    return written(grid, layout) + ANSWER_END
