"""Continuous batching of generation and scoring.

Rows join when a place is free and leave when they are done. A row has its own adapter (`group`),
prompt, sampling settings and seed; nothing of it depends on the rows it shares a pass with. Between
two steps every running row has a last token that is chosen but not computed. A step fills free
places with waiting prompts, computes that token of every running row, chooses the next one and
drops the rows that are done.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from seal.engine.cache import KeyValueCache
from seal.engine.cached_attention import CachedPass, Span
from seal.engine.health import unwatched
from seal.engine.memory import CACHE_COPIES, position_bytes
from seal.engine.model import FrozenModel
from seal.engine.routes import AdapterGroups
from seal.engine.rows import Row
from seal.engine.sampling import LOGPROB_ROWS, NO_TOKEN, choose_tokens, token_logprobs
from seal.engine.sharing import (
    Prompted,
    Start,
    cut_into_passes,
    plan_starts,
    shared_by_all,
)
from seal.engine.text import cut_at_stop
from seal.engine.transfer import to_device

REFILL_SHARE = 0.125
"""New rows join when this share of the places is free (or all that wait fit): a pass for a single
prompt reads all weights too."""
MIN_COMMON_TOKENS = 32
"""Keys and values of fewer common tokens are read row by row: it costs to cut a product in two."""


class RunningBatch:
    """Rows of one model and one stack of adapters, at most `max_rows` at once. Not thread-safe."""

    def __init__(
        self,
        model: FrozenModel,
        adapters: AdapterGroups,
        *,
        max_rows: int,
        cache_bytes: int | None = None,
        alive: Callable[[], None] = unwatched,
    ) -> None:
        """`cache_bytes`: rows that their keys and values do not fit into wait; None: no limit.

        One row always runs. `alive` is called after every pass.
        """
        self.model, self.max_rows, self.cache_bytes = model, max_rows, cache_bytes
        self._alive = alive
        self.running: list[Row] = []
        """Row i has place i in the cache."""
        self._common = 0
        """Tokens that all running rows begin with, if it pays to read them together."""
        self._waiting: OrderedDict[str, deque[Row]] = OrderedDict()
        self._cache = self._new_cache(0, 0)
        self._adapters = adapters
        self._near, self._members = adapters, list(range(adapters.groups))
        """A copy of the adapters that running rows still use, and which ones they are."""

    @property
    def waiting(self) -> int:
        """Rows without a place."""
        return sum(map(len, self._waiting.values()))

    def __len__(self) -> int:
        """Rows that are not done."""
        return len(self.running) + self.waiting

    def add(self, rows: Sequence[Row], *, run: str = "") -> None:
        """Let rows wait for a place: in order within a run, in turns between runs."""
        self._waiting.setdefault(run, deque()).extend(rows)

    def drop(self, unwanted: Callable[[Row], bool]) -> None:
        """Forget rows, running or waiting."""
        for run, rows in list(self._waiting.items()):
            self._waiting[run] = deque(row for row in rows if not unwanted(row))
        self._remove([place for place, row in enumerate(self.running) if unwanted(row)])

    def step(self) -> list[Row]:
        """Admit rows if it is worth it, write one token of each running row.

        Returns the rows that are done.
        """
        started = time.monotonic()
        new = self._next_rows()
        old = list(self.running)
        if new:
            self._admit(new)
        if old:
            self._write(old)
        touched = old + new
        for row in touched:
            row.seconds += (time.monotonic() - started) / len(touched)
        finished = [place for place, row in enumerate(self.running) if row.done]
        rows = [self.running[place] for place in finished]
        for row in rows:
            row.text = cut_at_stop(self.model.text.decode(row.tokens), row.settings.stop)[0]
        self._remove(finished)
        return rows

    def _next_rows(self) -> list[Row]:
        waiting, free = self.waiting, self.max_rows - len(self.running)
        if not waiting or (
            self.running and free < min(waiting, max(1, REFILL_SHARE * self.max_rows))
        ):
            return []
        new: list[Row] = []
        capacity = max((row.positions for row in self.running), default=0)
        while len(new) < free and self._waiting:
            run, rows = next(iter(self._waiting.items()))
            if rows:
                places, wanted = len(self.running) + len(new) + 1, max(capacity, rows[0].positions)
                if places > 1 and places > self._places_that_fit(wanted):
                    break  # nobody overtakes it
                new.append(rows.popleft())
                capacity = wanted
                self._waiting.move_to_end(run)
            else:
                del self._waiting[run]
        return new

    def _places_that_fit(self, capacity: int) -> int:
        """Rows of so many positions whose cache fits, while it is copied too."""
        if self.cache_bytes is None:
            return self.max_rows
        return self.cache_bytes // (CACHE_COPIES * position_bytes(self.model.size) * capacity)

    @property
    def held_bytes(self) -> int:
        """What keys and values take."""
        cache = self._cache
        return cache.places * cache.capacity * position_bytes(self.model.size)

    def _admit(self, new: list[Row]) -> None:
        """Compute the new rows' prompts, score their completions and choose their first tokens."""
        base = len(self.running)
        self._make_room(base + len(new), max(row.positions for row in (*self.running, *new)))
        before = [Prompted(place, row.group, row.prompt) for place, row in enumerate(self.running)]
        coming = [Prompted(base + index, row.group, row.prompt) for index, row in enumerate(new)]
        self.running += new
        self._running_changed()
        for level in plan_starts(before, coming):
            copies = [start for start in level if start.shared]
            if copies:
                self._cache.copy(
                    [start.source for start in copies],
                    [base + start.row for start in copies],
                    [start.shared for start in copies],
                )
            costs = [self._cost(new[start.row], start) for start in level]
            for part in cut_into_passes(level, costs):
                self._prefill(part, [new[start.row] for start in part], base)

    @staticmethod
    def _cost(row: Row, start: Start) -> int:
        return len(row.prompt) - start.shared + max(0, len(row.gold) - 1)

    def _prefill(self, starts: Sequence[Start], rows: Sequence[Row], base: int) -> None:
        tokens: list[int] = []
        spans: list[Span] = []
        wanted: list[int] = []
        for start, row in zip(starts, rows, strict=True):
            spans.append(Span(base + start.row, start.shared, self._cost(row, start)))
            last = len(tokens) + len(row.prompt) - start.shared - 1
            wanted += range(last, last + max(1, len(row.gold)))
            tokens += [*row.prompt[start.shared :], *row.gold[:-1]]
        hidden_T_d = self._forward(spans, tokens, self._adapters, [row.group for row in rows])
        device = hidden_T_d.device
        hidden_W_d = hidden_T_d[to_device(torch.tensor(wanted), device)]
        counts = [max(1, len(row.gold)) for row in rows]
        firsts = [sum(counts[:place]) for place in range(len(counts))]
        self._score(rows, hidden_W_d)
        hidden_R_d = hidden_W_d[to_device(torch.tensor(firsts), device)]
        logits_R_V = F.linear(hidden_R_d, self.model.head_V_d)
        for row, logits_V in zip(rows, logits_R_V, strict=True):
            row.logits_V = logits_V.float() if row.keep_logits else None
        self._take(rows, logits_R_V)

    def _score(self, rows: Sequence[Row], hidden_W_d: torch.Tensor) -> None:
        """Log-probabilities of the completions.

        `hidden_W_d` are the states before their tokens, one state of a row without any.
        """
        if not any(row.gold for row in rows):
            return
        wanted_W = to_device(
            torch.tensor([token for row in rows for token in (row.gold or (0,))]),
            hidden_W_d.device,
        )
        parts: list[torch.Tensor] = []
        for begin in range(0, len(hidden_W_d), LOGPROB_ROWS):
            logits = F.linear(hidden_W_d[begin : begin + LOGPROB_ROWS], self.model.head_V_d)
            parts.append(token_logprobs(logits, wanted_W[begin : begin + LOGPROB_ROWS]))
        logprobs: list[float] = torch.cat(parts).tolist()
        first = 0
        for row in rows:
            if row.gold:
                row.logprob = sum(logprobs[first : first + len(row.gold)]) / len(row.gold)
            first += max(1, len(row.gold))

    def _write(self, rows: Sequence[Row]) -> None:
        """Compute the last token of the rows at the first places, and choose the next."""
        spans = [
            Span(place, len(row.prompt) + len(row.tokens) - 1, 1) for place, row in enumerate(rows)
        ]
        adapters, groups = self._near_adapters([row.group for row in rows])
        hidden_R_d = self._forward(
            spans, [row.tokens[-1] for row in rows], adapters, groups, common=self._common
        )
        self._take(rows, F.linear(hidden_R_d, self.model.head_V_d))

    def _take(self, rows: Sequence[Row], logits_R_V: torch.Tensor) -> None:
        """Choose a token for every row that is not done."""
        places = [place for place, row in enumerate(rows) if not row.done]
        if not places:
            return
        logits = (
            logits_R_V
            if len(places) == len(rows)
            else logits_R_V[to_device(torch.tensor(places), logits_R_V.device)]
        )
        text = self.model.text
        chosen = choose_tokens(logits, [rows[place].draw() for place in places])
        logprobs: list[float] = []
        if any(rows[place].keep_logprobs for place in places):
            tokens_R = to_device(torch.tensor(chosen), logits.device).clamp_min(0)
            logprobs = token_logprobs(logits, tokens_R).tolist()
        for index, (place, token) in enumerate(zip(places, chosen, strict=True)):
            row = rows[place]
            if token == NO_TOKEN:
                row.diverged = True
                continue
            if row.keep_logprobs:
                row.written_logprobs.append(logprobs[index])
            if token in text.end_tokens:
                row.ended = True
                continue
            row.tokens.append(token)
            if text.reached_stop(row.tokens, row.settings.stop):
                row.ended = cut_at_stop(text.decode(row.tokens), row.settings.stop)[1]

    @torch.no_grad()
    def _forward(
        self,
        spans: Sequence[Span],
        tokens: Sequence[int],
        adapters: AdapterGroups,
        groups: Sequence[int],
        *,
        common: int = 0,
    ) -> torch.Tensor:
        """Final hidden states (T, d) of packed rows."""
        model = self.model
        plan = CachedPass(self._cache, spans, common=common)
        route = adapters.route(groups, [span.count for span in spans])
        ids_T = to_device(torch.tensor(tokens), model.device)
        hidden_T_d = model.hidden(model.embed(ids_T), plan.positions_T, route=route, plan=plan)
        self._alive()
        return hidden_T_d

    def _near_adapters(self, groups: Sequence[int]) -> tuple[AdapterGroups, list[int]]:
        """The adapters that are still in use, and the groups' numbers among them.

        They are copied together once they are half of the last copy.
        """
        used = set(groups)
        if not self._adapters.factors:
            return self._adapters, list(groups)
        if not used <= set(self._members) or 2 * len(used) <= len(self._members):
            self._members = sorted(used)
            self._near = self._adapters  # the old copy goes before the next is made
            self._near = self._adapters.select(self._members)
        number = {group: index for index, group in enumerate(self._members)}
        return self._near, [number[group] for group in groups]

    def _remove(self, places: Sequence[int]) -> None:
        """Free places; the last rows move into the gaps, so that running rows lie together."""
        if not places:
            return
        gone, count = set(places), len(self.running)
        left = count - len(gone)
        gaps = sorted(place for place in gone if place < left)
        movers = [place for place in range(left, count) if place not in gone]
        if movers:
            moved = [self.running[place] for place in movers]
            lengths = [len(row.prompt) + len(row.tokens) for row in moved]
            self._cache.clear(gaps)
            self._cache.copy(movers, gaps, lengths)
        for mover, gap in zip(movers, gaps, strict=True):
            self.running[gap] = self.running[mover]
        del self.running[left:]
        self._cache.clear(range(left, count))
        self._running_changed()

    def _running_changed(self) -> None:
        rows = [Prompted(place, row.group, row.prompt) for place, row in enumerate(self.running)]
        shared = shared_by_all(rows) if self._cache.device.type == "cpu" else 0
        self._common = shared if shared >= MIN_COMMON_TOKENS else 0

    def _make_room(self, places: int, capacity: int) -> None:
        cache = self._cache
        if places <= cache.places and capacity <= cache.capacity:
            return
        if places <= self._places_that_fit(max(capacity, cache.capacity)):
            capacity = max(capacity, cache.capacity)
        known = min(self.max_rows, len(self.running) + self.waiting)
        ample = min(max(cache.places, known), self._places_that_fit(capacity))
        self._cache = self._new_cache(max(places, ample), capacity)
        self._cache.take_over(cache, len(self.running))

    def _new_cache(self, places: int, capacity: int) -> KeyValueCache:
        model = self.model
        return KeyValueCache(
            places=places,
            capacity=capacity,
            layers=int(model.config.num_hidden_layers),
            kv_heads=model.kv_heads,
            head_dim=model.head_dim,
            dtype=model.dtype,
            device=model.device,
        )
