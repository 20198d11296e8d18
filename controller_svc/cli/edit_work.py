"""How much the edits of a run are, before one is written: what is known, and what is assumed.

How many parts the edits of a passage have, and how long their prompts are, is known; how much is
written, and how much of it gives an example, is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from seal.domains import get_domain
from seal.domains.base import Context, PartPrompt
from seal.settings import BY_SENTENCE, DOMAIN_OPTIONS, RunSpec

CHARACTERS_PER_TOKEN = 4.0
EDIT_FILL = 0.8
"""Share of its bound that an edit, or a part of it, fills ..."""
TYPICAL_EDIT_TOKENS = 400
"""... up to the length that the published system's edits have on average ..."""
TYPICAL_PART_TOKENS = 16
"""... or, of a part, up to a question with its answer."""
PART_YIELD, TRAINED_PART_YIELD = 0.16, 0.33
"""Share of an edit's parts that give an example, of an untrained policy and of a trained one."""
CREDITED_SHARE = 0.25
"""Where parts have credit: those kept of a passage, as a share of the examples of one edit."""
TOKENS_PER_EXAMPLE = 32
"""Of an edit's text: a line, or a question with its answer."""
EDIT_PROMPT_TOKENS = 600
"""Of a prompt for edits in one part, without the passage."""
SETTINGS_TOKENS = 100
"""Of an edit that is no text to learn but says how to train."""
PROMPT_TOKENS = {"few-shot": 25, "reading": 25, "plain": 20, "chat": 40}
"""By question format: of a question's prompt, without what all prompts share and is read once."""
ANSWER_FILL = 0.6
"""Share of its bound that an answer fills."""


@dataclass(frozen=True, kw_only=True)
class EditWork:
    """One edit, on average over some passages."""

    parts: float
    tokens: int
    """Written, of all parts."""
    examples: int
    """Rows that an inner loop trains on."""
    row_tokens: int
    """A row of the M-step: the prompt of a part, or of the edit, and what is written."""
    read_tokens: int
    """Prompts of all k candidates of a passage. What the parts of an edit share is read once."""

    @property
    def learnt_rows(self) -> int:
        """Rows of the M-step, if the whole edit is learnt."""
        return 1 if self.parts == 1.0 else self.examples


def edit_work(
    spec: RunSpec, contexts: Sequence[Context], *, k: int, trained: bool = False
) -> EditWork:
    """Edits of these passages; `trained` by a policy that was trained in the run."""
    passage = passage_tokens(contexts)
    most = spec.inner.examples.max_examples
    if not learns_text(spec):
        shown = question_tokens(spec, contexts)
        return EditWork(
            parts=1.0,
            tokens=min(SETTINGS_TOKENS, spec.edit.max_tokens),
            examples=most,
            row_tokens=EDIT_PROMPT_TOKENS + shown + SETTINGS_TOKENS,
            read_tokens=k * (EDIT_PROMPT_TOKENS + shown),
        )
    if spec.edit.family != BY_SENTENCE or not contexts:
        tokens = math.ceil(min(EDIT_FILL * spec.edit.max_tokens, TYPICAL_EDIT_TOKENS))
        return EditWork(
            parts=1.0,
            tokens=tokens,
            examples=min(math.ceil(tokens / TOKENS_PER_EXAMPLE), most),
            row_tokens=EDIT_PROMPT_TOKENS + tokens,
            read_tokens=k * (EDIT_PROMPT_TOKENS + passage),
        )
    asked = [_prompts(spec, context, trained=trained) for context in contexts]
    parts = sum(map(len, asked)) / len(asked)
    longest = max(_tokens(part) for prompts in asked for part in prompts)
    of_part = min(EDIT_FILL * spec.edit.max_tokens, TYPICAL_PART_TOKENS)
    mean = sum(_tokens(part) for prompts in asked for part in prompts) / sum(map(len, asked))
    return EditWork(
        parts=parts,
        tokens=math.ceil(parts * of_part),
        examples=min(math.ceil((TRAINED_PART_YIELD if trained else PART_YIELD) * parts), most),
        row_tokens=math.ceil(mean + of_part),
        read_tokens=math.ceil(longest + passage + parts),
    )


def passage_tokens(contexts: Sequence[Context]) -> int:
    """Tokens of a passage, on average."""
    if not contexts:
        return 0
    characters = sum(len(context.text) for context in contexts)
    return math.ceil(characters / len(contexts) / CHARACTERS_PER_TOKEN)


def learns_text(spec: RunSpec) -> bool:
    """Whether contexts are texts; else what is learnt stands with every question."""
    return DOMAIN_OPTIONS[spec.domain].learns_text


def question_tokens(spec: RunSpec, contexts: Sequence[Context]) -> int:
    """Tokens of a question's prompt, on average: all of it where what is learnt stands in it."""
    format = spec.evaluation.question_format
    if learns_text(spec):
        return PROMPT_TOKENS[format]
    asked = [
        get_domain(spec.domain).question_prompt(query, format)
        for context in contexts
        for query in context.queries
    ]
    return tokens_in(spec, [prompt.text for prompt in asked])


def answer_tokens(spec: RunSpec, contexts: Sequence[Context]) -> int:
    """Tokens of an answer, on average: a share of the bound, or as long as the gold answer."""
    if learns_text(spec):
        return math.ceil(ANSWER_FILL * spec.evaluation.max_tokens)
    domain, format = get_domain(spec.domain), spec.evaluation.question_format
    golds = [
        domain.answer_completion(query.answers[0], format)
        for context in contexts
        for query in context.queries
    ]
    return tokens_in(spec, golds)


def tokens_in(spec: RunSpec, texts: Sequence[str]) -> int:
    """Tokens of one of the texts, on average: by what is checked to be single, else characters."""
    singles = get_domain(spec.domain).single_tokens(spec.evaluation.question_format)
    per_token = sum(map(len, singles)) / len(singles) if singles else 1.0
    return math.ceil(sum(map(len, texts)) / max(1, len(texts)) / per_token)


def _prompts(spec: RunSpec, context: Context, *, trained: bool) -> tuple[PartPrompt, ...]:
    edit = spec.edit
    short = trained and edit.trained_prompt == "short"
    return get_domain(spec.domain).edit_prompts(
        context.title, context.text, edit.family, edit.format, trained=short
    )


def _tokens(part: PartPrompt) -> float:
    turns = sum(len(message.content) for message in part.prompt.messages)
    return (len(part.prompt.text) + turns + len(part.start)) / CHARACTERS_PER_TOKEN
