"""`python -m trainer_svc`: the trainer as a process of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from seal.loading import Backend, load_engine
from seal.options import ServiceOptions
from seal.rpc.lifecycle import Serving
from seal.serving import run

if TYPE_CHECKING:
    from seal.engine import Engine


class TrainerOptions(ServiceOptions):
    """Train LoRA adapters, many at once, on one frozen base model.

    The gRPC service seal.v1.TrainerService. A training belongs to the service: a client that goes
    away may come back with the same request_id and finds it running or done. Adapters and results
    are published in the artifact store.

    At the end long trainings that keep checkpoints do not use the grace: they stop after the
    current step with a last checkpoint, from which any trainer on this artifact store goes on. What
    else was cut is trained again, to the same weights, when its client asks again.
    """

    program: ClassVar[str] = "python -m trainer_svc"
    writes: ClassVar[bool] = True
    address: str = "127.0.0.1:50052"
    """host:port to listen on (port 0 takes a free one), or unix:/path/to/socket."""
    metrics_port: int = Field(default=9102, ge=0, le=65535)
    """HTTP port of the metrics; 0 for none."""
    lease_seconds: float = Field(default=20.0, gt=0)
    """Another trainer on the same store takes a training over if this one gives no sign of life for
    so long."""


def _make(options: TrainerOptions, backend: Backend[Engine]) -> Serving:
    from trainer_svc.claims import Claims
    from trainer_svc.service import register  # loads torch: not for --help
    from trainer_svc.trainings import Trainings

    engine, store, adapters = backend.engine, backend.store, backend.adapters
    claims = Claims(store, lease_seconds=options.lease_seconds)
    trainings = Trainings(engine=engine, store=store, adapters=adapters, claims=claims)

    return Serving(
        partial(
            register,
            trainings=trainings,
            adapters=adapters,
            max_message_bytes=options.max_message_bytes,
        ),
        suspend=trainings.suspend,
        drain=lambda grace_seconds: trainings.close(grace_seconds=grace_seconds),
    )


if __name__ == "__main__":
    run(TrainerOptions, _make, load_engine)
