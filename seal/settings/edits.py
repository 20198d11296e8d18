"""How self-edits are asked for, and how they become training examples."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from seal.limits import MAX_EDIT_TOKENS, MAX_ROW_CHARACTERS, MAX_TEMPERATURE, MIN_TOP_P
from seal.settings.base import FileSettings
from seal.settings.endpoints import EditGenerator

PromptFamily = Literal[
    "implications",
    "implications-long",
    "implications-very-long",
    "rewrite",
    "self-qa",
    "self-qa-by-sentence",
    "none",
    "chain-of-thought",
    "train-settings",
]
BY_SENTENCE: PromptFamily = "self-qa-by-sentence"
"""The family whose edits have many parts."""
PromptFormat = Literal["base", "chat"]


class EditSettings(FileSettings):
    """Who writes edits, and how it is asked for them."""

    model: str = ""
    """Base model that writes, and whose policy an M-step trains, where it is another one than
    `model`, which learns the edits and is asked. Empty: `model` writes its own."""
    generator: EditGenerator | None = None
    """A model at an endpoint that writes in place of the untrained policy; an M-step then learns
    what another has written, and is labelled so. What has been trained writes itself."""
    family: PromptFamily = "implications"
    """Prompt family."""
    format: PromptFormat = "base"
    """Continuation prompt (base models) or the model's chat template."""
    k: int = Field(default=5, ge=1, le=1024)
    """Candidates per context in a rollout."""
    temperature: float = Field(default=1.0, ge=0, le=MAX_TEMPERATURE)
    """Softmax temperature; 0 is greedy."""
    top_p: float = Field(default=0.95, ge=MIN_TOP_P, le=1)
    """Nucleus mass."""
    max_tokens: int = Field(default=512, ge=1, le=MAX_EDIT_TOKENS)
    """Upper bound of new tokens per edit, or per part of an edit in parts."""
    trained_prompt: Literal["worked", "short"] = "worked"
    """How a policy that was trained in this run is asked, and what its M-step learns to follow: the
    prompt of the untrained policy, or one without worked examples (`short`). Families that have no
    such prompt go on with the one they have."""


class ExampleSettings(FileSettings):
    """How an edit becomes training examples."""

    passage_repeats: int = Field(default=1, ge=0, le=1000)
    """How often the passage itself is appended to the examples."""
    question_answer: Literal["document", "prompted"] = "document"
    """A question-answer pair as one document (as published), or as prompt and completion in the
    question format of the evaluation."""
    grounded_answers: bool = False
    """Drop a question-answer pair whose answer does not stand in the text that it was written on
    (the sentence in `self-qa-by-sentence`, else the passage), or stands in its question: a check of
    what a small model makes up."""
    shared_word: bool = False
    """Drop a question-answer pair whose question shares no word with the text that it was written
    on, beyond the title's and the answer's words and such words as "of": it asks for something
    else."""
    max_per_answer: int = Field(default=0, ge=0, le=1000)
    """Question-answer pairs kept of those on the same text with the same answer, the first ones; 0
    keeps all."""
    max_examples: int = Field(default=128, ge=1, le=10_000)
    """Examples taken from one edit; what is beyond is dropped: the last ones, or of an edit by
    sentences those that leave the same number to every sentence."""
    max_characters: int = Field(default=4000, ge=1, le=MAX_ROW_CHARACTERS)
    """Characters of one example; a longer one is cut at a word."""
