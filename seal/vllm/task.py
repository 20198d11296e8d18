"""One request at vLLM, as its caller sees it: to be cancelled, and to be heard of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from seal.engine.queues import EngineTask
from seal.engine.streaming import TextStream

Result = TypeVar("Result")


@dataclass(eq=False)
class VllmTask(EngineTask[Result]):
    """One request; cancelling it stops its texts at once."""

    on_cancel: Callable[[], None] = lambda: None

    def cancel(self) -> None:
        """Ask the backend to drop the request; a finished one stays finished."""
        super().cancel()
        self.on_cancel()


@dataclass
class Progress:
    """What a request's caller is told."""

    task: VllmTask[Any]
    rows: int
    """Texts that count: an evaluation's answers, without what is scored."""
    counts_tokens: bool
    stream: TextStream | None = None
    """Reads the one text that is wanted while it is written."""
    done: int = 0
    tokens: int = 0
    streamed: list[int] = field(default_factory=list)
    said: int = 0
    """Characters of the text that have been told."""

    def wrote(self, tokens: Sequence[int]) -> None:
        """Some text has these tokens more."""
        self.tokens += len(tokens)
        self._tell()
        if self.stream is not None:
            self.streamed += tokens
            self.say(self.stream.certain(self.streamed))

    def say(self, text: str) -> None:
        """Tell the text if it has grown."""
        if self.stream is not None and len(text) > self.said:
            self.said = len(text)
            self.task.say(text)

    def ended(self, place: int) -> None:
        """A text has ended."""
        self.done += place < self.rows
        self._tell()

    def _tell(self) -> None:
        if self.counts_tokens:
            self.task.tell(self.done, self.tokens)
        else:
            self.task.tell(self.done)
