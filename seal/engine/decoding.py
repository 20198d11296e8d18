"""Batched generation and scoring over many adapters: every row has its own adapter, prompt, position and seed.

Rows of one adapter form a *group*. What all prompts of a group share (the few-shot shots, the worked example) is prefilled once per
group and its keys and values are copied to the group's rows; what all samples of a prompt share is prefilled once per prompt. Rows that
are done leave the batch when fewer than three quarters are still writing. A row's random numbers come from its own seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from seal.engine.attention import CachedRows
from seal.engine.kernels import PaddedProducts
from seal.engine.layout import Chunk
from seal.engine.linear import Factors, Route
from seal.engine.model import FrozenModel
from seal.engine.text import cut_at_stop, end_token

COMPACT_BELOW = 0.75
"""Finished rows are dropped from the cache when less than this share is still writing."""
NUCLEUS_TOP = 256
"""Tokens looked at first for nucleus sampling; rows whose nucleus is larger are sorted whole."""
CAPACITY_STEP = 64
"""The cache grows by this many positions."""


@dataclass(frozen=True)
class AdapterGroups:
    """Adapters of a batch: group g's rows use `factors[g]`, all sit on one policy."""

    factors: dict[str, Factors]
    policy: dict[str, tuple[torch.Tensor, torch.Tensor]]

    def route(self, rows_per_group: Sequence[int], tokens_per_row: int) -> Route:
        """The route for rows that lie group by group, each with the same number of tokens. Groups without rows are allowed."""
        chunks: list[Chunk] = []
        token = 0
        for group, rows in enumerate(rows_per_group):
            block = rows * tokens_per_row
            last = chunks[-1] if chunks else None
            if last is not None and last.block == block and last.slot_stop == group:
                chunks[-1] = Chunk(last.slot_start, group + 1, last.token_start, block)
            elif block:
                chunks.append(Chunk(group, group + 1, token, block))
            token += block
        return Route(PaddedProducts(tuple(chunks)), self.factors, self.policy)


@dataclass
class Rows:
    """Rows in the cache, group by group."""

    cache: CachedRows
    groups: list[int]
    """Group of each row, rising."""
    lengths: list[int]
    """Positions filled in each row."""
    logits_R_V: torch.Tensor
    """Logits after each row's last token, float32."""


class Decoder:
    """Forward passes over cached rows of one model and one set of adapters."""

    def __init__(self, model: FrozenModel, adapters: AdapterGroups, groups: int) -> None:
        self.model, self.adapters, self.groups = model, adapters, groups

    def prefill(self, prompts: Sequence[Sequence[int]], groups: Sequence[int]) -> Rows:
        """Fill a cache with prompts (token ids, at least one each), rows ordered by group; a group's common prefix is computed once."""
        members = [[row for row, group in enumerate(groups) if group == wanted] for wanted in range(self.groups)]
        shared = [_common_prefix([prompts[row] for row in rows]) if len(rows) > 1 else 0 for rows in members]
        if not any(shared):
            empty = self._new_cache(len(prompts), max(map(len, prompts)))
            return self._extend(empty, list(groups), [0] * len(prompts), prompts)
        heads = [group for group, count in enumerate(shared) if count]
        prefixes = [prompts[members[group][0]][: shared[group]] for group in heads]
        base = self._extend(self._new_cache(len(heads), max(map(len, prefixes))), heads, [0] * len(heads), prefixes)
        place = {group: index for index, group in enumerate(heads)}
        source = torch.tensor([place.get(group, 0) for group in groups], device=self.model.device)
        starts = [shared[group] for group in groups]
        suffixes = [prompt[start:] for prompt, start in zip(prompts, starts, strict=True)]
        cache = base.cache.select(source, capacity=max(starts) + max(map(len, suffixes)) + CAPACITY_STEP)
        return self._extend(cache, list(groups), starts, suffixes)

    def extend(self, rows: Rows, tokens: Sequence[Sequence[int]]) -> tuple[Rows, torch.Tensor]:
        """Append tokens to each row; returns the rows and the final hidden states (R, Q, d), Q being the most tokens of a row."""
        return self._forward(rows.cache, rows.groups, rows.lengths, tokens)

    def _new_cache(self, rows: int, capacity: int) -> CachedRows:
        model = self.model
        layers = int(model.config.num_hidden_layers)
        return CachedRows(
            rows=rows,
            capacity=capacity,
            layers=layers,
            kv_heads=model.kv_heads,
            head_dim=model.head_dim,
            dtype=model.dtype,
            device=model.device,
        )

    def _extend(self, cache: CachedRows, groups: list[int], starts: list[int], tokens: Sequence[Sequence[int]]) -> Rows:
        return self._forward(cache, groups, starts, tokens)[0]

    @torch.no_grad()
    def _forward(
        self, cache: CachedRows, groups: list[int], starts: list[int], tokens: Sequence[Sequence[int]]
    ) -> tuple[Rows, torch.Tensor]:
        model, device = self.model, self.model.device
        queries = max(len(row) for row in tokens)
        starts_R = torch.tensor(starts, device=device)
        if max(starts) + queries > cache.capacity:
            everything = torch.arange(cache.rows, device=device)
            cache = cache.select(everything, capacity=max(starts) + queries + CAPACITY_STEP)
        cache.place(starts_R, queries)
        ids = torch.tensor([list(row) + [0] * (queries - len(row)) for row in tokens], device=device)
        rows_per_group = [groups.count(group) for group in range(self.groups)]
        route = self.adapters.route(rows_per_group, queries)
        hidden = model.hidden(model.embed(ids.view(-1)), cache.positions_R_Q.reshape(-1), route=route, plan=cache)
        hidden_R_Q_d = hidden.view(len(tokens), queries, -1)
        last_R = torch.tensor([len(row) - 1 for row in tokens], device=device)
        last_R_d = hidden_R_Q_d[torch.arange(len(tokens), device=device), last_R]
        lengths = [start + len(row) for start, row in zip(starts, tokens, strict=True)]
        return Rows(cache, groups, lengths, (last_R_d @ model.head_V_d.t()).float()), hidden_R_Q_d

    def score(self, rows: Rows, completions: Sequence[Sequence[int]]) -> list[float]:
        """Mean log p per token of a completion after each row, teacher-forced in one forward; the rows' lengths stay as they are."""
        first = [torch.log_softmax(logits, -1)[tokens[0]].item() for logits, tokens in zip(rows.logits_R_V, completions, strict=True)]
        _, hidden_R_Q_d = self.extend(rows, completions)
        scores: list[float] = []
        for row, tokens in enumerate(completions):
            total = first[row]
            if len(tokens) > 1:
                logits = (hidden_R_Q_d[row, : len(tokens) - 1] @ self.model.head_V_d.t()).float()
                wanted = torch.tensor(tokens[1:], device=logits.device)
                total += torch.log_softmax(logits, -1).gather(1, wanted[:, None]).sum().item()
            scores.append(total / len(tokens))
        return scores


@dataclass(frozen=True)
class DecodeSettings:
    """How every row of a batch is decoded."""

    temperature: float
    top_p: float
    max_tokens: int
    stop: tuple[str, ...]


@dataclass
class Writing:
    """One row while it is written."""

    uniforms: list[float]
    """Random numbers in [0, 1), one per token; empty when greedy."""
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    ended: bool = False


def decode(
    decoder: Decoder,
    rows: Rows,
    seeds: Sequence[int],
    settings: DecodeSettings,
    on_progress: Callable[[int, int], None] | None,
    cancelled: Callable[[], bool],
) -> list[Writing]:
    """Write one continuation per row; on_progress(rows done, tokens so far) is called after every step."""
    writings = [Writing(_uniforms(seed, settings)) for seed in seeds]
    active = list(range(len(writings)))
    while active and not cancelled():
        chosen = choose_tokens(rows.logits_R_V, [writings[row] for row in active], settings)
        for row, token in zip(active, chosen, strict=True):
            _append(decoder.model, writings[row], token, settings)
        keep = [place for place, row in enumerate(active) if not _done(writings[row], settings)]
        if on_progress is not None:
            on_progress(len(writings) - len(keep), sum(len(writing.tokens) for writing in writings))
        if not keep:
            break
        if len(keep) < COMPACT_BELOW * len(active):
            rows, active = _compact(rows, keep), [active[place] for place in keep]
        # a row that is done but not dropped yet goes along with any token
        rows, _ = decoder.extend(rows, [(writings[row].tokens or [0])[-1:] for row in active])
    return writings


def _append(model: FrozenModel, writing: Writing, token: int, settings: DecodeSettings) -> None:
    """Take one token into a row's text, unless the row is done and only waits to be dropped."""
    if _done(writing, settings):
        return
    if token == end_token(model.tokenizer):
        writing.ended = True
        return
    writing.tokens.append(token)
    text = str(model.tokenizer.decode(writing.tokens, skip_special_tokens=True))
    writing.text, writing.ended = cut_at_stop(text, settings.stop)


def _done(writing: Writing, settings: DecodeSettings) -> bool:
    return writing.ended or len(writing.tokens) >= settings.max_tokens


def _compact(rows: Rows, keep: list[int]) -> Rows:
    index = torch.tensor(keep, device=rows.logits_R_V.device)
    lengths = [rows.lengths[place] for place in keep]
    cache = rows.cache.select(index, capacity=max(lengths) + CAPACITY_STEP)
    return Rows(cache, [rows.groups[place] for place in keep], lengths, rows.logits_R_V[index])


def _uniforms(seed: int, settings: DecodeSettings) -> list[float]:
    if settings.temperature == 0:
        return []
    generator = torch.Generator().manual_seed(seed % 2**63)
    return [float(value) for value in torch.rand(settings.max_tokens, generator=generator, dtype=torch.float64)]


def choose_tokens(logits_R_V: torch.Tensor, writings: Sequence[Writing], settings: DecodeSettings) -> list[int]:
    """Greedy, or nucleus sampling (Holtzman et al., arXiv 1904.09751) by inverting each row's cumulative mass at its own number."""
    if settings.temperature == 0:
        return [int(token) for token in logits_R_V.argmax(-1)]
    places = [min(len(writing.tokens), settings.max_tokens - 1) for writing in writings]
    uniforms_R = torch.tensor([writing.uniforms[place] for writing, place in zip(writings, places, strict=True)], device=logits_R_V.device)
    probabilities_R_V = torch.softmax(logits_R_V / settings.temperature, dim=-1)
    top, tokens = probabilities_R_V.topk(min(NUCLEUS_TOP, probabilities_R_V.shape[-1]), dim=-1)
    small = top.sum(-1) >= settings.top_p
    if not bool(small.all()):
        top, tokens = probabilities_R_V.sort(dim=-1, descending=True)
    before = top.cumsum(-1) - top
    nucleus = top.masked_fill(before >= settings.top_p, 0.0)
    cumulative = nucleus.cumsum(-1)
    wanted = (uniforms_R * cumulative[:, -1].double()).to(cumulative.dtype)
    place_R = torch.searchsorted(cumulative, wanted[:, None], right=True).clamp_max(nucleus.shape[-1] - 1)
    # rounding may point behind the nucleus, where nothing has mass
    place_R = torch.minimum(place_R, (nucleus > 0).sum(-1, keepdim=True) - 1)
    return [int(token) for token in tokens.gather(1, place_R).squeeze(1)]


def _common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts share, leaving at least one of its own to each."""
    shortest = min(len(prompt) for prompt in prompts) - 1
    first = prompts[0]
    for place in range(shortest):
        if any(prompt[place] != first[place] for prompt in prompts):
            return place
    return shortest
