"""What a model is asked: raw text to continue, or a chat. Plain data, of no domain and no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]
"""Who speaks in a turn."""


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True)
class Prompt:
    """What a model is asked: raw text to continue, or a chat for the model's own template."""

    text: str = ""
    """Without messages: the whole prompt. With messages: how the model's turn starts; what it
    writes follows."""
    messages: tuple[Message, ...] = ()
    """Chat turns; empty for a raw prompt."""
    stop: tuple[str, ...] = ()
    """Strings that end the model's text; they are not part of it."""
