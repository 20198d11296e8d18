"""The next token of each row, with settings and random numbers of the row's own.

Greedy or by nucleus sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from seal.engine.transfer import to_device

NUCLEUS_TOP = 256
"""Tokens looked at first for nucleus sampling; rows whose nucleus is larger are sorted whole."""

LOGPROB_ROWS = 64
"""Rows whose logits are copied to float32 at once: 64 x 49k stay below the size from which malloc
returns to the system every time."""

NO_TOKEN = -1
"""What is chosen from logits that are NaN or infinite."""


@dataclass(frozen=True)
class DecodeSettings:
    """How a row is decoded."""

    temperature: float
    """0 is greedy."""
    top_p: float
    max_tokens: int
    stop: tuple[str, ...]


GREEDY = DecodeSettings(temperature=0.0, top_p=1.0, max_tokens=0, stop=())
"""For rows that are only prefilled."""


@dataclass(frozen=True)
class Draw:
    """What one row needs for one token."""

    temperature: float
    top_p: float
    uniform: float
    """Random number in [0, 1); not used when greedy."""


DRAWN_AT_ONCE = 64
"""Random numbers that a row draws ahead of its tokens."""


class Uniforms:
    """Random numbers in [0, 1) of one row, one per token in order, from its seed alone.

    The first n are those of one draw of n; what is not asked for is not drawn, so that a row that
    waits holds none.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generator: torch.Generator | None = None
        self._drawn: list[float] = []

    def next(self) -> float:
        """The next number."""
        if self._generator is None:
            self._generator = torch.Generator().manual_seed(self._seed % 2**63)
        if not self._drawn:
            numbers = torch.rand(DRAWN_AT_ONCE, generator=self._generator, dtype=torch.float64)
            self._drawn = numbers.tolist()[::-1]
        return self._drawn.pop()


def choose_tokens(logits_R_V: torch.Tensor, draws: Sequence[Draw]) -> list[int]:
    """One token per row, NO_TOKEN where the largest logit is not finite.

    Greedy rows take the largest logit in the model's own type, without a float32 copy of all
    logits.
    """
    # `max` reads bfloat16 five times faster than `argmax` on CPU
    largest_R = logits_R_V.max(-1)  # NaN if any logit of the row is
    known = [largest_R.indices, torch.isfinite(largest_R.values).long()]
    sampled = [row for row, draw in enumerate(draws) if draw.temperature > 0]
    nucleus = _Nucleus.of(logits_R_V, draws, sampled) if sampled else None
    if nucleus is not None:
        known += [nucleus.tokens_R, nucleus.larger_R.long()]
    read: list[int] = torch.cat(known).tolist()  # the one time that a step waits for the device
    tokens, finite = read[: len(draws)], read[len(draws) : 2 * len(draws)]
    if nucleus is not None:
        chosen, larger = read[2 * len(draws) :][: len(sampled)], read[-len(sampled) :]
        for row, token in zip(sampled, chosen, strict=True):
            tokens[row] = token
        wide = [row for row, large in enumerate(larger) if large]
        for row, token in zip(wide, nucleus.sorted_whole(wide) if wide else (), strict=True):
            tokens[sampled[row]] = token
    return [token if good else NO_TOKEN for token, good in zip(tokens, finite, strict=True)]


def token_logprobs(logits_R_V: torch.Tensor, tokens_R: torch.Tensor) -> torch.Tensor:
    """Log p (R,) of one token per row in float32, nats, at temperature 1."""
    parts: list[torch.Tensor] = []
    for begin in range(0, len(tokens_R), LOGPROB_ROWS):
        logits = logits_R_V[begin : begin + LOGPROB_ROWS].float()
        tokens_R_1 = tokens_R[begin : begin + LOGPROB_ROWS, None]
        parts.append(logits.gather(1, tokens_R_1)[:, 0] - logits.logsumexp(-1))
    return torch.cat(parts)


@dataclass(frozen=True)
class _Nucleus:
    """Nucleus sampling by inverting each row's cumulative mass at its own number.

    Holtzman et al., arXiv 1904.09751.
    """

    probabilities_R_V: torch.Tensor
    top_p_R_1: torch.Tensor
    uniforms_R: torch.Tensor
    tokens_R: torch.Tensor
    """The chosen tokens, if the nucleus lies within the first NUCLEUS_TOP tokens."""
    larger_R: torch.Tensor
    """Where it does not."""

    @classmethod
    def of(cls, logits_R_V: torch.Tensor, draws: Sequence[Draw], rows: Sequence[int]) -> _Nucleus:
        """For some of the rows."""
        device, own = logits_R_V.device, [draws[row] for row in rows]
        temperatures_R = to_device(torch.tensor([draw.temperature for draw in own]), device)
        top_p_R_1 = to_device(torch.tensor([[draw.top_p] for draw in own]), device)
        uniforms_R = to_device(
            torch.tensor([draw.uniform for draw in own], dtype=torch.float64), device
        )
        logits = logits_R_V[to_device(torch.tensor(rows), device)].float()
        probabilities_R_V = torch.softmax(logits / temperatures_R[:, None], dim=-1)
        top, tokens = probabilities_R_V.topk(min(NUCLEUS_TOP, probabilities_R_V.shape[-1]), dim=-1)
        return cls(
            probabilities_R_V,
            top_p_R_1,
            uniforms_R,
            _invert(top, tokens, top_p_R_1, uniforms_R),
            top.sum(-1) < top_p_R_1[:, 0],
        )

    def sorted_whole(self, rows: Sequence[int]) -> list[int]:
        """Tokens of rows whose nucleus is larger."""
        wide = to_device(torch.tensor(rows), self.tokens_R.device)
        ordered, tokens = self.probabilities_R_V[wide].sort(dim=-1, descending=True)
        chosen_R = _invert(ordered, tokens, self.top_p_R_1[wide], self.uniforms_R[wide])
        chosen: list[int] = chosen_R.tolist()
        return chosen


def _invert(
    falling_R_N: torch.Tensor,
    tokens_R_N: torch.Tensor,
    top_p_R_1: torch.Tensor,
    uniforms_R: torch.Tensor,
) -> torch.Tensor:
    """The token (R,) at which a row's cumulative mass within its nucleus passes its number."""
    before = falling_R_N.cumsum(-1) - falling_R_N
    nucleus = falling_R_N.masked_fill(before >= top_p_R_1, 0.0)
    cumulative = nucleus.cumsum(-1)
    wanted_R = (uniforms_R * cumulative[:, -1].double()).to(cumulative.dtype)
    place_R_1 = torch.searchsorted(cumulative, wanted_R[:, None], right=True)
    # rounding may point behind the nucleus, where nothing has mass; without any mass (NaN) the
    # first token is as good as any
    place_R_1 = torch.minimum(place_R_1, (nucleus > 0).sum(-1, keepdim=True) - 1).clamp_min(0)
    return tokens_R_N.gather(1, place_R_1)[:, 0]
