"""`python -m evaluator_svc`: the evaluator as a process of its own."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from pydantic import Field

from evaluator_svc.judging import open_judge
from seal.backends import TextBackend
from seal.judge_options import JudgeOptions
from seal.loading import Backend, load_backend
from seal.options import TextOptions
from seal.rpc.lifecycle import Serving
from seal.serving import run


class EvaluatorOptions(TextOptions, JudgeOptions):
    """Ask an adapted model questions and grade its answers.

    The gRPC service seal.v1.EvaluatorService. Every evaluation proves that the adapter was applied:
    one that leaves the logits as they are is inert, which is an outcome and no score. A model at an
    OpenAI-compatible API can judge answers; without it that grader is refused.
    """

    program: ClassVar[str] = "python -m evaluator_svc"
    address: str = "127.0.0.1:50053"
    """host:port to listen on (port 0 takes a free one), or unix:/path/to/socket."""
    metrics_port: int = Field(default=9103, ge=0, le=65535)
    """HTTP port of the metrics; 0 for none."""
    slots: int = Field(default=0, ge=0)
    """Adapters trained at once: none, this service trains nothing."""


def _make(options: EvaluatorOptions, backend: Backend[TextBackend]) -> Serving:
    from evaluator_svc.service import register  # loads torch: not for --help

    return Serving(
        partial(
            register,
            engine=backend.engine,
            adapters=backend.adapters,
            judge=open_judge(options.judge),
        )
    )


if __name__ == "__main__":
    run(EvaluatorOptions, _make, load_backend)
