"""One text for vLLM: what is asked, and what comes back. Plain data on both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from seal.vllm.adapters import PlacedAdapter


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A prompt to continue, or to score."""

    prompt: tuple[int, ...]
    """Tokens."""
    adapter: PlacedAdapter | None
    max_tokens: int = 1
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    json_schema: str = ""
    streams: bool = False
    """Its tokens are wanted one by one."""
    scores: bool = False
    """Tell the log-probabilities of the prompt's own tokens."""


@dataclass(frozen=True)
class Told:
    """The end of one ask."""

    tokens: tuple[int, ...]
    """What was written, an ending token included."""
    logprobs: tuple[float, ...]
    """Log p of each at temperature 1, nats."""
    stopped: bool
    """By an ending token or a stop string, not by max_tokens."""
    prompt_logprobs: tuple[float, ...] = ()
    """Log p of each of the prompt's tokens but the first, nats; only where they were asked for."""


class DecoderDeadError(Exception):
    """vLLM's workers have ended: nothing is written any more."""


class Decoder(Protocol):
    """What the backend needs of vLLM; belongs to one event loop."""

    async def load(self, adapter: PlacedAdapter) -> None:
        """Load an adapter before it is asked for.

        One that cannot be loaded fails here; within a batch it would end the workers.
        """

    async def tell(self, ask: Ask, on_tokens: Callable[[Sequence[int]], None]) -> Told:
        """Write or score one text. `on_tokens(the new ones)` comes now and then.

        Raises InvalidInput for a schema that is none, DecoderDeadError. Cancelled, it drops the
        text.
        """

    async def forget(self) -> None:
        """Empty the cache of keys and values, while nothing is written.

        Raises DecoderDeadError where that does not work.
        """

    def close(self) -> None:
        """End the workers."""
