"""The text of a row while it is written: how much of it is certain after each token.

A token is no text of its own. It may hold a part of a character, it may lose its leading space at
the start of a text, and it may begin a stop string that will be left out. What is certain only
grows, and at the end it is the whole text: no later token changes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from seal.engine.requests import GenerationRequest
from seal.engine.text import ModelText, cut_at_stop
from seal.errors import InvalidInput

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What the first bytes of a character are shown as until the others have come."""


class TextStream:
    """The certain text of one row. Not thread-safe."""

    def __init__(self, text: ModelText, stop: tuple[str, ...]) -> None:
        self._text, self._stop = text, stop
        self._read = ""
        """Text of the first `_end` tokens."""
        self._begin = self._end = 0
        """The tokens that were read last: decoded once more before those that follow, because what
        a token says depends on whether another stands before it."""

    def certain(self, tokens: Sequence[int]) -> str:
        """What no token after these can change; `tokens` are those of the last call and more."""
        if self._end < len(tokens) and self._text.closes(tokens[-1]):
            before = self._text.decode(tokens[self._begin : self._end])
            text = self._text.decode(tokens[self._begin :])
            if len(text) > len(before) and not text.endswith(_UNFINISHED):
                self._read += text[len(before) :]
                self._begin, self._end = self._end, len(tokens)
        text = cut_at_stop(self._read, self._stop)[0]
        return text[: len(text) - _begun(text, self._stop)]


def check_streamed(request: GenerationRequest) -> None:
    """Raise InvalidInput unless there is exactly one sample to stream."""
    samples = sum(map(len, request.seeds))
    if samples != 1:
        raise InvalidInput(
            f"{samples} samples are asked for, and one can be streamed",
            field="seeds",
            remedy="send one prompt with one seed",
        )


def _begun(text: str, stop: Sequence[str]) -> int:
    """Length of the longest end of a text that a stop string may begin with."""
    return max(
        (
            length
            for string in stop
            for length in range(1, len(string))
            if text.endswith(string[:length])
        ),
        default=0,
    )
