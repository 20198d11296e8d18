"""Where a run's contexts come from, and what it leaves behind."""

from __future__ import annotations

from pydantic import Field

from seal.settings.base import FileSettings


class DataSettings(FileSettings):
    """Where the contexts come from.

    SQuAD files, Hugging Face rows or rows of our own (README), as JSON or JSONL: a path,
    `s3://bucket/key` or `gs://bucket/key`, or `corpus://NAME` for the embedded corpus.
    """

    train: str = "corpus://train"
    """Contexts of the rollouts."""
    validation: str = "corpus://validation"
    """Held-out contexts."""
    retained: str = "corpus://retained"
    """Passages for open-book questions; empty for none."""
    train_contexts: int = Field(default=0, ge=0, le=10_000_000)
    """Contexts a round takes from the training set; 0 takes all."""
    validation_contexts: int = Field(default=0, ge=0, le=10_000_000)
    """Validation contexts taken from the start of the file; 0 takes all."""


class ArtifactSettings(FileSettings):
    """What a run leaves in the artifact store beside its records and policies."""

    keep_inner_adapters: bool = False
    """Keep the adapter of every inner loop; else it is deleted once its shard has a summary."""
