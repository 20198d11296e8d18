"""`python -m generator_svc`: the generator as a process of its own."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from pydantic import Field

from seal.backends import TextBackend
from seal.options import TextOptions
from seal.rpc.lifecycle import Serving
from seal.serving import Backend, load_backend, run


class GeneratorOptions(TextOptions):
    """Let the policy write self-edits for contexts.

    The gRPC service seal.v1.GeneratorService. Every edit has its own seed: the same request gives
    the same edits, also after a restart. The policy is the base model or an adapter of the artifact
    store.
    """

    program: ClassVar[str] = "python -m generator_svc"
    address: str = "127.0.0.1:50051"
    """host:port to listen on (port 0 takes a free one), or unix:/path/to/socket."""
    metrics_port: int = Field(default=9101, ge=0, le=65535)
    """HTTP port of the metrics; 0 for none."""
    slots: int = Field(default=0, ge=0)
    """Adapters trained at once: none, this service trains nothing."""


def _make(_: GeneratorOptions, backend: Backend[TextBackend]) -> Serving:
    from generator_svc.service import register  # loads torch: not for --help

    return Serving(partial(register, engine=backend.engine, adapters=backend.adapters))


if __name__ == "__main__":
    run(GeneratorOptions, _make, load_backend)
