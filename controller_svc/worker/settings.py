"""Where the services are, and how a worker uses them."""

from __future__ import annotations

from pydantic import Field

from seal.settings import Settings


class ServiceAddresses(Settings):
    """Where the services are, as gRPC targets (`host:port`, `dns:///name:port`, `unix:/path`)."""

    generator: str
    """GeneratorService."""
    trainer: str
    """TrainerService."""
    evaluator: str
    """EvaluatorService."""
    writer_trainer: str = ""
    """TrainerService of the base model that writes edits, where another one learns them; empty
    where one model does both."""
    edit_generator: str = ""
    """GeneratorService of a model at an endpoint, which writes edits in place of the untrained
    policy; empty for none."""

    @classmethod
    def all_at(cls, address: str) -> ServiceAddresses:
        """All three behind one address, as in local mode."""
        return cls(generator=address, trainer=address, evaluator=address)


class WorkerSettings(Settings):
    """How a worker uses the services."""

    concurrency: int = Field(default=64, ge=1)
    """Inner loops and baselines outstanding at once."""
    generate_concurrency: int = Field(default=16, ge=1)
    """Calls for edits outstanding at once: others that ask the same generator get their turn."""
    contexts_per_request: int = Field(default=16, ge=1)
    """Contexts whose edits are asked for in one call."""
    queries_per_request: int = Field(default=64, ge=1)
    """Retained questions asked in one call."""
    max_request_bytes: int = Field(default=4 * 1024 * 1024, ge=1)
    """Largest message that a service accepts; a larger request is refused before it is sent."""
    call_timeout_seconds: float = Field(default=4 * 3600.0, gt=0)
    """Deadline of one call, waiting for a slot included."""
    silence_timeout_seconds: float = Field(default=300.0, gt=0)
    """A stream that says nothing for so long is given up and asked for again."""
    patience_seconds: float = Field(default=4 * 3600.0, gt=0)
    """How long a call whose service is away or full is sent again before its error is passed up:
    waiting is no attempt of the task. A call that went on meanwhile has ended the outage."""
    retry_initial_seconds: float = Field(default=0.5, gt=0)
    """Pause before the second attempt; it doubles from there."""
    retry_max_seconds: float = Field(default=30.0, gt=0)
    """Longest pause, unless the server asks for more."""


DEFAULT_SETTINGS = WorkerSettings()
