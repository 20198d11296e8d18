"""What a run is pinned to."""

from __future__ import annotations

import hashlib

from seal.records.adaptation import AdaptationCounts
from seal.records.base import Record


class ModelDescription(Record):
    """The base model that a trainer has loaded, and what it can take."""

    base_model: str
    """Its name there."""
    base_sha256: str
    """Digest of its weights, lower-case hex; empty if the trainer was not told."""
    max_positions: int
    """Positions that it has; 0 if it does not say."""
    max_row_tokens: int
    """Longest training row, tokens."""
    max_rank: int
    """Largest LoRA rank."""
    target_modules: tuple[str, ...]
    """Names of the layers that can have an adapter."""
    dtype: str
    """Compute type."""
    max_message_bytes: int = 0
    """Largest request that it takes, bytes; 0 if it does not say."""
    device: str = ""
    """Type of the device that it computes on: cpu, cuda; empty if it does not say."""
    lora_refusals: tuple[str, ...] = ()
    """For each shape that was asked about, why memory has no room for it; empty if it has."""


class LongRow(Record):
    """One context that the model cannot take: its work has outcome `too_long`."""

    data: str
    """Which contexts: train, validation, retained."""
    number: int
    """Its place among them, from 1."""
    title: str
    what: str
    """What of it is too long."""
    tokens: int
    limit: int


class PreparedRecord(Record):
    """What a run or an adaptation is pinned to once its first stage has ended."""

    contexts_sha256: dict[str, str]
    """Digest of each pinned file of contexts: train, validation or held-out, retained."""
    contexts: dict[str, int]
    """Contexts of each."""
    model: ModelDescription
    """The base model; a resume on other weights is refused."""
    too_long: tuple[LongRow, ...]
    """Contexts that the model cannot take."""
    counts: AdaptationCounts | None = None
    """What the documents of an adaptation came to; None of a run."""
    writer: ModelDescription | None = None
    """The base model that writes edits, where it is another one; a resume on other weights is
    refused."""
    judge: str = ""
    """The model that judges answers or rates edits; empty if none does."""

    @property
    def policy_model(self) -> ModelDescription:
        """The base model whose policy is trained: the one that writes."""
        return self.writer or self.model

    @property
    def sha256(self) -> str:
        """Digest of all of it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
