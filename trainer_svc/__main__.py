"""`python -m trainer_svc`: the trainer as a process of its own."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from seal.serving import (
    DEFAULTS,
    AddressOption,
    ArtifactsOption,
    Backend,
    DeviceOption,
    Dtype,
    DtypeOption,
    GraceOption,
    LogFormat,
    LogFormatOption,
    LogLevelOption,
    MetricsPortOption,
    ModelOption,
    OfflineOption,
    QueueOption,
    Serving,
    ServingOptions,
    ThreadsOption,
    serve,
)
from seal.settings import EngineSettings

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command()
def main(
    artifacts: ArtifactsOption,
    model: ModelOption = "smollm2-135m",
    address: AddressOption = "127.0.0.1:50052",
    metrics_port: MetricsPortOption = 9102,
    slots: Annotated[
        int, typer.Option(envvar="SEAL_SLOTS", min=1, help="Adapters trained at once.")
    ] = DEFAULTS.slots,
    max_rank: Annotated[
        int, typer.Option(envvar="SEAL_MAX_RANK", min=1, help="Largest LoRA rank that is accepted.")
    ] = DEFAULTS.max_rank,
    dtype: DtypeOption = Dtype.AUTO,
    device: DeviceOption = DEFAULTS.device,
    threads: ThreadsOption = DEFAULTS.threads,
    max_queue: QueueOption = DEFAULTS.max_queue,
    offline: OfflineOption = False,
    grace_seconds: GraceOption = 30.0,
    log_level: LogLevelOption = "info",
    log_format: LogFormatOption = LogFormat.AUTO,
) -> None:
    """Train many LoRA adapters at once on one base model (gRPC service seal.v1.TrainerService).

    A training belongs to the service: a client that goes away may come back with the same
    request_id and finds it running or done. Adapters and results are published in the artifact
    store.

    On SIGTERM it becomes NOT_SERVING, takes no new request, lets what runs end within the grace,
    and then leaves: what was cut is trained again, to the same weights, when its client asks again.
    Long trainings that keep checkpoints do not use the grace: they stop after the current step with
    a last checkpoint, from which any trainer on this artifact store goes on.

    Exit codes: 0 ended by a signal, 2 wrong option or model, 42 permanent error, 43 worth a retry.
    """
    settings = EngineSettings(
        slots=slots,
        max_rank=max_rank,
        dtype=dtype.value,
        device=device,
        threads=threads,
        max_queue=max_queue,
    )
    serve(
        ServingOptions(
            model=model,
            artifacts=artifacts,
            address=address,
            metrics_port=metrics_port,
            engine=settings,
            offline=offline,
            grace_seconds=grace_seconds,
            log_level=log_level,
            log_format=log_format,
        ),
        _make,
    )


def _make(backend: Backend) -> Serving:
    from trainer_svc.server import register  # loads torch: not for --help
    from trainer_svc.trainings import Trainings

    engine, store, adapters = backend.engine, backend.store, backend.adapters
    trainings = Trainings(engine=engine, store=store, adapters=adapters)

    async def drain(grace_seconds: float) -> None:
        await trainings.close(grace_seconds=grace_seconds)

    registration = partial(
        register, engine=engine, store=store, adapters=adapters, trainings=trainings
    )
    return Serving(registration, suspend=trainings.suspend, drain=drain)


if __name__ == "__main__":
    app(prog_name="python -m trainer_svc")
