"""Text to tokens and back: training rows, prompts, stop strings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from seal.prompts import Prompt


@dataclass(frozen=True)
class TrainingRow:
    """One tokenised example.

    The last `targets` tokens are learnt, each predicted from the token before it.
    """

    tokens: tuple[int, ...]
    targets: int
    pads: int = 0
    """The last so many tokens are padding: learnt, but never attended to."""


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Tokens of a text.

    The tokenizer's own start token is added unless the text (a rendered chat) already begins with
    it.
    """
    starts_itself = bool(tokenizer.bos_token) and text.startswith(str(tokenizer.bos_token))
    return list(tokenizer.encode(text, add_special_tokens=not starts_itself))


def encode_example(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, *, pad_to_tokens: int = 0
) -> TrainingRow:
    """Prompt without loss, completion and one end-of-sequence token with loss.

    Without that token answers never stop (performance.md). With `pad_to_tokens` a shorter row is
    filled up with end-of-sequence tokens as the published system fills it: all of them are targets,
    none is attended to (the tokenizer's attention mask is 0 there). Every padding token stands at a
    position of its own, so its hidden state is its own too: there is no shorter row with the same
    gradient, and the row is computed in its full length.

    The first token of a row has nothing before it that could predict it, so it is never a target.
    """
    if prompt:
        before = encode(tokenizer, prompt)
        learnt = list(tokenizer.encode(completion, add_special_tokens=False))
    else:
        before, learnt = [], encode(tokenizer, completion)
    pads = max(0, pad_to_tokens - len(before) - len(learnt))
    tokens = [*before, *learnt, *[end_token(tokenizer)] * max(1, pads)]
    return TrainingRow(tuple(tokens), min(len(tokens) - len(before), len(tokens) - 1), pads)


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the end-of-sequence token."""
    return int(tokenizer.eos_token_id)


def render(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """A domain's prompt as the text that the model continues.

    Raw, or through the model's chat template.
    """
    if not prompt.messages:
        return prompt.text
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    return (
        str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        + prompt.text
    )


def cut_at_stop(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """The text up to the first stop string, and whether there was one."""
    places = [place for place in (text.find(string) for string in stop) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


STOP_MARGIN_TOKENS = 4
"""Tokens looked at before a stop string: the first of a window may be half a character, or lose its
leading space."""


def reached_stop(
    tokenizer: PreTrainedTokenizerBase, tokens: list[int], stop: tuple[str, ...]
) -> bool:
    """Whether the newest token may have completed a stop string, from the last few tokens alone.

    A token that shows is a byte at least.
    """
    if not stop:
        return False
    window = max(len(string.encode()) for string in stop) + STOP_MARGIN_TOKENS
    tail = str(tokenizer.decode(tokens[-window:], skip_special_tokens=True))
    return any(string in tail for string in stop)
