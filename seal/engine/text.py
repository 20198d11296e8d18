"""Text to tokens and back.

Text is data: a passage, a question or an edit that spells a control token (`</s>`, `<|im_end|>`)
stays text. Only the model's chat template places control tokens, and only the engine the end of a
completion. Ordinary text is tokenised exactly as transformers does; only text that would have
become a control token is cut within its spelling and its pieces are tokenised apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from seal.errors import InvalidInput, UnfitItem
from seal.outcomes import Outcome
from seal.prompts import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "xyzzy"
"""Text of which every tokenizer makes plain tokens."""
_BYTE = re.compile("<0x[0-9A-F]{2}>")
"""How tokenizers spell a token for one byte, for characters that they have no token for."""
_SENTINEL = "\n"
"""Stands before a continuation where the tokenizer would add a space to the start of a text."""
_TODAY = datetime(2024, 7, 26, tzinfo=UTC)
"""The day that chat templates are told it is: a prompt must be the same tomorrow, or nothing could
be repeated and no training resumed. Llama's templates take this day where they have no clock."""
_CLOCK = "strftime_now"
"""What transformers calls the clock that it lends to chat templates."""
_DIRECTIVES = ("-d", "-m", "-I", "-H", "-M", "-S", *"aAbBcdHIjmMpSwxXyYZz")
"""What may follow the per cent sign in the format of a date."""
KEPT_CHATS = 64
"""Orders of roles whose control tokens are remembered."""


@dataclass(frozen=True)
class TrainingRow:
    """One tokenised example.

    The last `targets` tokens are learnt, each predicted from the token before it.
    """

    real: tuple[int, ...]
    """The tokens without padding."""
    targets: int
    pads: int = 0
    """So many tokens of padding follow: learnt, but never attended to."""
    pad: int = 0
    """Id of the padding."""

    @property
    def length(self) -> int:
        """Tokens, padding included."""
        return len(self.real) + self.pads

    @property
    def tokens(self) -> tuple[int, ...]:
        """All tokens; padding exists only while somebody looks at it."""
        return (*self.real, *(self.pad,) * self.pads) if self.pads else self.real


class ModelText:
    """A tokenizer with what its model says about ends and sizes. Safe to use from any thread."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        end_tokens: Sequence[int] = (),
        embedding_rows: int | None = None,
    ) -> None:
        """`end_tokens`: what the model's generation config says, beside the tokenizer's own.

        `embedding_rows`: ids from here on have no embedding. Raises InvalidInput for a tokenizer
        that knows no end of a text, or whose ordinary tokens have no embedding.
        """
        self.tokenizer, self.name = tokenizer, name
        rows = embedding_rows if embedding_rows is not None else len(tokenizer)
        own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        ends = [token for token in (*own, *end_tokens) if 0 <= token < rows]
        if not ends:
            raise InvalidInput(
                f"the tokenizer of model {name!r} has no end-of-sequence token, so that no text "
                "could end",
                field="model",
                remedy="name one: eos_token in tokenizer_config.json or eos_token_id in "
                "generation_config.json",
            )
        self.end_token = ends[0]
        """What ends a completion in training."""
        self.end_tokens = frozenset(ends)
        """Every token that ends a text."""
        special = {
            token for token, added in tokenizer.added_tokens_decoder.items() if added.special
        }
        self._unknown = tokenizer.unk_token_id
        self._control = frozenset({*special, *tokenizer.all_special_ids, *self.end_tokens})
        self._refuse_ids_without_embedding(rows)
        self._rows = rows
        self._start = self._added_before()
        self._adds_space = self._plain(_PROBE) != self._after_sentinel(_PROBE)
        self._neutral = lru_cache(maxsize=KEPT_CHATS)(self._controls_of_template)

    def prompt(self, prompt: str | Prompt) -> list[int]:
        """Tokens of a prompt: raw text after the tokenizer's own start, or the rendered chat.

        Raises InvalidInput for a chat where the model has no chat template.
        """
        if isinstance(prompt, str):
            return [*self._start, *self._data(prompt)]
        if not prompt.messages:
            return [*self._start, *self._data(prompt.text)]
        return self._chat(prompt)

    def check_prompt(self, prompt: str | Prompt) -> None:
        """Raises InvalidInput for a chat where the model has no chat template."""
        if isinstance(prompt, Prompt) and prompt.messages and not self.tokenizer.chat_template:
            raise InvalidInput(
                f"model {self.name!r} has no chat template, so that it cannot be asked in a chat",
                field="prompt.format",
                remedy='use the format "base" (questions: "plain" or "few-shot"), or a model with '
                "a chat template",
            )

    def completion(self, text: str) -> list[int]:
        """Tokens of a text that follows a prompt, without an end."""
        return self._data(text, continues=True)

    def example(
        self, prompt: str | Prompt, completion: str, *, pad_to_tokens: int = 0
    ) -> TrainingRow:
        """Prompt without loss, completion and one end token with loss.

        Without it answers never stop. With `pad_to_tokens` a shorter row is filled up with end
        tokens as the published system fills it: all of them are targets, none is attended to (the
        tokenizer's attention mask is 0 there). Every padding token stands at a position of its own,
        so its hidden state is its own too: there is no shorter row with the same gradient, and the
        row is computed in its full length.

        The first token of a row has nothing before it that could predict it, so it is never a
        target.
        """
        if prompt != "":
            before, learnt = self.prompt(prompt), self.completion(completion)
        else:
            before, learnt = [], [*self._start, *self._data(completion)]
        pads = max(0, pad_to_tokens - len(before) - len(learnt))
        end = self._turn_end() if isinstance(prompt, Prompt) and prompt.messages else self.end_token
        real = (*before, *learnt, *(() if pads else (end,)))
        length = len(real) + pads
        return TrainingRow(real, min(length - len(before), length - 1), pads, end)

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens that the model wrote as text; control tokens do not show."""
        return str(
            self.tokenizer.decode(
                list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def closes(self, token: int) -> bool:
        """Whether a token ends a row of bare bytes, which are one text or none of them is.

        A control token does not: it does not show, as if it were not there.
        """
        if token in self._control:
            return False
        return not _BYTE.fullmatch(str(self.tokenizer.convert_ids_to_tokens(token)))

    def reached_stop(self, tokens: list[int], stop: tuple[str, ...]) -> bool:
        """Whether the newest token may have completed a stop string, from the last tokens alone.

        A token that shows is a byte at least.
        """
        if not stop:
            return False
        window = max(len(string.encode()) for string in stop) + STOP_MARGIN_TOKENS
        tail = self.decode(tokens[-window:])
        return any(string in tail for string in stop)

    def _refuse_ids_without_embedding(self, rows: int) -> None:
        """A special token without a row is no harm, since no text becomes it; another would be."""
        beyond = {
            token: text for text, token in self.tokenizer.get_vocab().items() if token >= rows
        }
        ordinary = sorted(set(beyond) - self._control)
        if ordinary:
            raise InvalidInput(
                f"the tokenizer of model {self.name!r} knows {beyond[ordinary[0]]!r} as token "
                f"{ordinary[0]}, but the model has embeddings for {rows} tokens",
                field="model",
                remedy="use the tokenizer that belongs to the model, or save the model again after "
                "model.resize_token_embeddings(len(tokenizer))",
            )

    def _added_before(self) -> list[int]:
        """What the tokenizer puts before a text (what it puts after one is the engine's)."""
        plain = self._plain(_PROBE)
        whole = list(self.tokenizer.encode(_PROBE, add_special_tokens=True))
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return [token for token in whole[:start] if token < self._rows]
        return []

    def _plain(self, text: str, *, continues: bool = False) -> list[int]:
        """Tokens as transformers makes them, control tokens where the text spells them."""
        if continues and self._adds_space:
            return self._after_sentinel(text)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _after_sentinel(self, text: str) -> list[int]:
        before = self.tokenizer.encode(_SENTINEL, add_special_tokens=False)
        whole = self.tokenizer.encode(_SENTINEL + text, add_special_tokens=False)
        if whole[: len(before)] != before:
            return list(self.tokenizer.encode(text, add_special_tokens=False))
        return list(whole[len(before) :])

    def _data(self, text: str, *, continues: bool = False) -> list[int]:
        """Tokens of a text, none of them a control token."""
        tokens = self._plain(text, continues=continues)
        spelled = self._control.intersection(tokens)
        if not spelled:
            return tokens
        cuts = [start + 1 for start, _ in self._spellings(text, spelled) if start + 1 < len(text)]
        if not cuts:
            if spelled == {self._unknown}:
                return tokens  # characters that the tokenizer does not know
            if len(text) < 2:
                raise UnfitItem(
                    f"the tokenizer of model {self.name!r} makes a control token of {text!r}",
                    outcome=Outcome.REFUSED,
                    remedy="leave that character out of the text",
                )
            cuts = [len(text) // 2]
        pieces = [
            text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)
        ]
        return [
            token
            for index, piece in enumerate(pieces)
            for token in self._data(piece, continues=continues or index > 0)
        ]

    def _spellings(self, text: str, control: frozenset[int]) -> list[tuple[int, int]]:
        """Begin and end of every place where a text spells one of some control tokens."""
        names = [str(self.tokenizer.convert_ids_to_tokens(token)) for token in control]
        longest_first = sorted(names, key=len, reverse=True)
        pattern = "|".join(re.escape(name) for name in longest_first)
        return [match.span() for match in re.finditer(pattern, text)]

    def _chat(self, prompt: Prompt) -> list[int]:
        """A chat through the model's template, and how the model's turn starts.

        The control tokens must be those that the template places around any other words. Where they
        are not, what spells them is taken out of the data, and put back as text.
        """
        self.check_prompt(prompt)
        roles = tuple(message.role for message in prompt.messages)
        contents = [message.content for message in prompt.messages]
        wanted = self._neutral(roles)
        tokens = self._plain(self._rendered(roles, contents, generate=True) + prompt.text)
        if self._controls(tokens) != wanted:
            tokens = self._chat_apart(roles, [*contents, prompt.text])
            if not self._same_but_unknown(self._controls(tokens), wanted):
                raise UnfitItem(
                    "the prompt spells control tokens of the chat template of model "
                    f"{self.name!r}, which cannot be told from the template's own",
                    outcome=Outcome.REFUSED,
                    remedy="leave them out of the text",
                )
        if tokens and max(tokens) >= self._rows:
            raise InvalidInput(
                f"the chat template of model {self.name!r} places token {max(tokens)}, but the "
                f"model has embeddings for {self._rows} tokens",
                field="model",
                remedy="use the tokenizer that belongs to the model",
            )
        return tokens

    def _chat_apart(self, roles: tuple[str, ...], texts: list[str]) -> list[int]:
        """The rendered chat in pieces: spelled control tokens as data, all else as it stands."""
        marks: list[str] = []

        def without_spellings(text: str) -> str:
            spelled = self._control.intersection(self._plain(text))
            left, kept = 0, []
            for begin, end in self._spellings(text, spelled) if spelled else ():
                kept.append(f"{text[left:begin]}{mark}{len(marks)}{mark}")
                marks.append(text[begin:end])
                left = end
            return "".join(kept) + text[left:]

        mark = next(
            mark for mark in map(chr, range(0xE000, 0xF8FF)) if all(mark not in t for t in texts)
        )
        *contents, start = map(without_spellings, texts)
        rendered = self._rendered(roles, contents, generate=True) + start
        tokens: list[int] = []
        for index, piece in enumerate(rendered.split(mark)):
            if index % 2:
                tokens += self._data(marks[int(piece)], continues=True)
            elif piece:
                tokens += self._plain(piece, continues=index > 0)
        return tokens

    def _rendered(self, roles: Sequence[str], contents: Sequence[str], *, generate: bool) -> str:
        """The chat as the template writes it.

        Of a model that thinks before it answers unless it is told not to (Qwen3), an edit or an
        answer would be its thoughts, cut at the bound of tokens, and would be learnt so. A template
        without that variable does not see it.
        """
        messages = [
            {"role": role, "content": content}
            for role, content in zip(roles, contents, strict=True)
        ]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    chat_template=_with_fixed_day(str(self.tokenizer.get_chat_template())),
                    tokenize=False,
                    add_generation_prompt=generate,
                    enable_thinking=False,
                )
            )
        except TemplateError as error:
            raise InvalidInput(
                f"the chat template of model {self.name!r} refuses the chat: {error}",
                field="prompt.format",
                remedy='use the format "base", or a model with another template',
            ) from error

    def _controls(self, tokens: Sequence[int]) -> list[int]:
        return [token for token in tokens if token in self._control]

    def _same_but_unknown(self, tokens: list[int], wanted: list[int]) -> bool:
        """Whether two lists are the same without characters that the tokenizer does not know."""
        ours, theirs = (
            [token for token in some if token != self._unknown] for some in (tokens, wanted)
        )
        return ours == theirs

    def _controls_of_template(self, roles: tuple[str, ...]) -> list[int]:
        """Control tokens of a chat of plain words."""
        rendered = self._rendered(roles, [_PROBE] * len(roles), generate=True)
        return self._controls(self._plain(rendered))

    def _turn_end(self) -> int:
        """What the template ends the model's turn with, if that ends a text; else the end token."""
        chat = self._rendered(("user", "assistant"), [_PROBE, _PROBE], generate=False)
        after = self._plain(chat[chat.rfind(_PROBE) + len(_PROBE) :], continues=True)
        return next((token for token in after if token in self.end_tokens), self.end_token)


@lru_cache(maxsize=8)
def _with_fixed_day(template: str) -> str:
    """A chat template in which it is always `_TODAY`.

    A macro before it takes the place of the clock: transformers hands no functions to a template.
    It leaves nothing behind: what follows a block's line break begins a line of its own.
    """
    if _CLOCK not in template:
        return template
    told = "".join(
        f".replace('%{directive}', '{_TODAY.strftime('%' + directive)}')"
        for directive in _DIRECTIVES
    )
    return f"{{%- macro {_CLOCK}(format) -%}}{{{{- format{told} -}}}}{{%- endmacro %}}\n{template}"


def cut_at_stop(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """The text up to the first stop string, and whether there was one."""
    starts = [start for start in (text.find(string) for string in stop) if start >= 0]
    return (text[: min(starts)], True) if starts else (text, False)


STOP_MARGIN_TOKENS = 4
"""Tokens looked at before a stop string: the first of a window may be half a character, or lose its
leading space."""
