"""What the tests of the vLLM backend share: a decoder in the place of vLLM, and random adapters.

The decoder needs no model: what it writes is given, and its log-probabilities are a function of the
token and of the adapter's weights on disk, as vLLM's would be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tiny_model import byte_tokenizer, save_tiny_model

from seal.bases import BaseReference
from seal.engine import Adapter, ModelOutline, load_adapter, read_outline
from seal.engine.peft_format import LoraPair
from seal.settings import EngineSettings
from seal.vllm.adapters import AdapterFiles, PlacedAdapter
from seal.vllm.asks import Ask, Told
from seal.vllm.backend import VllmBackend
from seal.vllm.model import VllmModel

BASE = BaseReference("tiny")
TOKENS_AT_ONCE = 3


def tiny_outline(directory: Path) -> ModelOutline:
    """A tiny model on disk, known without its weights."""
    return read_outline(save_tiny_model(directory), name="tiny")


def random_adapter(
    outline: ModelOutline,
    *,
    seed: int,
    rank: int = 4,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    scale: float = 0.1,
) -> Adapter:
    """An adapter of random weights on some layers; `scale` 0: one that was never trained."""
    draw = torch.Generator().manual_seed(seed)
    pairs = {
        name: LoraPair(
            torch.randn(rank, size.in_features, generator=draw),
            torch.randn(size.out_features, rank, generator=draw) * scale,
        )
        for name, size in outline.layers.items()
        if name.rsplit(".", 1)[-1] in targets
    }
    return Adapter(outline.base, rank, 2.0 * rank, pairs)


def byte_tokens(text: str) -> tuple[int, ...]:
    """Tokens of a text for the tiny model."""
    return tuple(byte_tokenizer().encode(text, add_special_tokens=False))


class FakeDecoder:
    """Stands in the place of vLLM."""

    def __init__(self, *, text: str = "a river.", end: int = 2) -> None:
        self.written = byte_tokens(text), end
        self.asked: list[Ask] = []
        self.loaded: list[PlacedAdapter] = []
        self.at_work: set[str] = set()
        """Names of the adapters in the batch."""
        self.most_adapters = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.dropped = 0
        self.closed = False
        self.ignores_adapters = False
        self.fault: Callable[[Ask], None] = lambda ask: None
        self.load_fault: Callable[[PlacedAdapter], None] = lambda adapter: None
        self.noise = 0.0
        self.poison = ""
        """Texts with the adapter of this name diverge, and so do all that come after."""
        self.poisoned = False
        self.forgot = 0

    async def load(self, adapter: PlacedAdapter) -> None:
        """Reads it, as a worker does."""
        self.load_fault(adapter)
        load_adapter(adapter.path)
        self.loaded.append(adapter)

    async def tell(self, ask: Ask, on_tokens: Callable[[Sequence[int]], None]) -> Told:
        """One text."""
        self.asked.append(ask)
        name = "" if ask.adapter is None else ask.adapter.name
        self.at_work.add(name)
        self.most_adapters = max(self.most_adapters, len(self.at_work - {""}))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.dropped += 1
            raise
        finally:
            self.at_work.discard(name)
        self.fault(ask)
        shift = 0.0 if ask.adapter is None or self.ignores_adapters else _weight(ask.adapter)
        tokens, end = self.written
        tokens = tokens[: ask.max_tokens]
        stopped = len(tokens) < ask.max_tokens
        for begin in range(0, len(tokens), TOKENS_AT_ONCE):
            on_tokens(tokens[begin : begin + TOKENS_AT_ONCE])
        self.noise *= -1
        self.poisoned = self.poisoned or (self.poison != "" and name == self.poison)
        if self.poisoned:
            nan = float("nan")
            return Told(tokens, (nan,) * len(tokens), False, (nan,) * (len(ask.prompt) - 1))
        return Told(
            (*tokens, end) if stopped else tokens,
            (-0.5,) * (len(tokens) + stopped),
            stopped,
            tuple(-(token % 5) - shift + self.noise for token in ask.prompt[1:])
            if ask.scores
            else (),
        )

    async def forget(self) -> None:
        """Empties the cache, while nothing is written."""
        assert not self.at_work
        self.poisoned = False
        self.forgot += 1

    def close(self) -> None:
        """Nothing runs."""
        self.closed = True


def _weight(adapter: PlacedAdapter) -> float:
    loaded = load_adapter(adapter.path)
    return sum(
        float((pair.b @ pair.a).abs().mean()) * loaded.scale for pair in loaded.pairs.values()
    )


def fake_backend(
    decoder: FakeDecoder,
    outline: ModelOutline,
    directory: Path,
    *,
    max_adapters: int = 4,
    **settings: object,
) -> VllmBackend:
    """A backend that asks the fake decoder."""

    async def start() -> FakeDecoder:
        return decoder

    return VllmBackend(
        start,
        VllmModel(
            outline=outline,
            dtype="float32",
            max_rank=8,
            max_adapters=max_adapters,
            target_modules=("q_proj", "v_proj"),
        ),
        EngineSettings(**settings),  # type: ignore[arg-type]
        AdapterFiles(directory, kept=2, dtype="float32"),
    )
