"""One row of a decoding batch: what it is asked for, and what has become of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from seal.engine.sampling import DecodeSettings, Draw, Uniforms


@dataclass(eq=False)
class Row:
    """One continuation to write, one completion to score, or both."""

    prompt: list[int]
    """At least one token."""
    group: int
    settings: DecodeSettings
    seed: int = 0
    gold: tuple[int, ...] = ()
    """Completion to score, teacher-forced after the prompt."""
    keep_logits: bool = False
    """Keep the logits after the prompt."""
    keep_logprobs: bool = False
    """Keep the log-probabilities of what is written."""
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    """Set when the row is done, cut at the first stop string."""
    ended: bool = False
    """By an end-of-sequence token or a stop string, not by max_tokens."""
    diverged: bool = False
    """Ended because its logits were NaN or infinite."""
    logprob: float = 0.0
    """Mean log p of the gold completion's tokens, nats."""
    logits_V: torch.Tensor | None = None
    written_logprobs: list[float] = field(default_factory=list)
    """Log p of each chosen token at temperature 1, nats; that of an end token comes last."""
    seconds: float = 0.0
    """Share of the passes' time: the shares of one step sum to the step."""
    uniforms: Uniforms = field(init=False)

    def __post_init__(self) -> None:
        self.uniforms = Uniforms(self.seed)

    @property
    def done(self) -> bool:
        """Nothing more is to be written."""
        return self.ended or self.diverged or len(self.tokens) >= self.settings.max_tokens

    @property
    def positions(self) -> int:
        """Places in the cache that the row can fill."""
        return len(self.prompt) + max(len(self.gold), self.settings.max_tokens)

    def draw(self) -> Draw:
        """What chooses the next token; to be asked once for each."""
        uniform = self.uniforms.next() if self.settings.temperature else 0.0
        return Draw(self.settings.temperature, self.settings.top_p, uniform)
