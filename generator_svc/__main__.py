"""`python -m generator_svc`: the generator as a process of its own."""

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
    address: AddressOption = "127.0.0.1:50051",
    metrics_port: MetricsPortOption = 9101,
    rows: Annotated[
        int, typer.Option(envvar="SEAL_ROWS", min=1, help="Edits sampled at once.")
    ] = DEFAULTS.generation_rows,
    dtype: DtypeOption = Dtype.AUTO,
    device: DeviceOption = DEFAULTS.device,
    threads: ThreadsOption = DEFAULTS.threads,
    max_queue: QueueOption = DEFAULTS.max_queue,
    offline: OfflineOption = False,
    grace_seconds: GraceOption = 30.0,
    log_level: LogLevelOption = "info",
    log_format: LogFormatOption = LogFormat.AUTO,
) -> None:
    """Let the policy write self-edits for contexts (gRPC service seal.v1.GeneratorService).

    Every edit has its own seed: the same request gives the same edits. The policy is the base model
    or an adapter of the artifact store.

    On SIGTERM it becomes NOT_SERVING, takes no new request, lets running calls end within the
    grace, and then leaves: what was cut gives the same edits when its client asks again.

    Exit codes: 0 ended by a signal, 2 wrong option or model, 42 permanent error, 43 worth a retry.
    """
    settings = EngineSettings(
        slots=1,
        generation_rows=rows,
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
    from generator_svc.server import register  # loads torch: not for --help

    return Serving(
        partial(register, engine=backend.engine, store=backend.store, adapters=backend.adapters)
    )


if __name__ == "__main__":
    app(prog_name="python -m generator_svc")
