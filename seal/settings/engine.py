"""One engine: the machine's matter, no part of a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from seal.limits import MAX_RANK
from seal.settings.base import FileSettings

ComputeType = Literal["auto", "bfloat16", "float32"]


def _yaml_switch(value: object) -> object:
    """YAML reads a bare `on` or `off` as true or false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class EngineSettings(FileSettings):
    """One engine: a frozen base model and its slots."""

    slots: int = Field(default=16, ge=0, le=4096)
    """Adapters trained at once, at most: those that memory has no room for wait; 0 for an engine
    that trains nothing."""
    dtype: ComputeType = "auto"
    """Compute type; masters and optimiser state are always float32. `auto`: bfloat16 where the
    device multiplies it in hardware, else float32."""
    device: str = "cpu"
    """torch device."""
    threads: int = Field(default=0, ge=0, le=4096)
    """CPU threads that the engine computes with; 0 takes OMP_NUM_THREADS, or the cores, but no
    more than the container's CPU limit buys."""
    max_rank: int = Field(default=128, ge=1, le=MAX_RANK)
    """Largest LoRA rank that is trained; with vLLM also the largest that is asked with, a policy
    and an adapter on it together."""
    max_row_tokens: int = Field(default=2048, ge=1, le=1_048_576)
    """Longest training example, tokens."""
    max_pass_tokens: int = Field(default=2048, ge=1, le=16_777_216)
    """Tokens of one forward and backward pass, within half a row; a larger step is cut into
    several."""
    evaluation_rows: int = Field(default=192, ge=1, le=65_536)
    """Rows decoded at once in an evaluation, at most: rows that memory has no room for wait."""
    generation_rows: int = Field(default=64, ge=1, le=65_536)
    """Rows sampled at once, at most: rows that memory has no room for wait."""
    max_queue: int = Field(default=1024, ge=1, le=10_000_000)
    """Requests of each kind that may wait; more are refused with RESOURCE_EXHAUSTED."""
    stall_seconds: float = Field(default=600.0, gt=0)
    """The engine counts as broken once work waits and no pass has ended for so long."""
    memory_bytes: int = Field(default=0, ge=0, le=2**50)
    """Bytes that the engine may take, base model included; 0 takes what the device has free."""
    gradient_checkpointing: Annotated[
        Literal["auto", "on", "off"], BeforeValidator(_yaml_switch)
    ] = "auto"
    """Compute each layer again in the backward pass in place of keeping its activations; `auto`: in
    passes that do not fit otherwise."""
