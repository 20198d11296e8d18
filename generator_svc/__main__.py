"""`python -m generator_svc`: the generator as a process of its own."""

from __future__ import annotations

from functools import partial

from generator_svc.by_endpoint import open_writer
from generator_svc.options import GeneratorOptions
from seal.backends import ModelWriter
from seal.loading import Backend, load_backend
from seal.rpc.lifecycle import Serving
from seal.serving import run
from seal.settings import EndpointLimits, EngineSettings


def _make(_: GeneratorOptions, backend: Backend[ModelWriter]) -> Serving:
    from generator_svc.service import register  # loads torch: not for --help

    return Serving(partial(register, engine=backend.engine, adapters=backend.adapters))


def _load(options: GeneratorOptions) -> ModelWriter:
    if options.backend != "openai":
        return load_backend(options)
    return open_writer(
        options.endpoint,
        settings=options.part(EngineSettings),
        limits=EndpointLimits(
            concurrency=options.openai_concurrency,
            timeout_seconds=options.openai_timeout_seconds,
            patience_seconds=options.openai_patience_seconds,
            max_calls=options.openai_max_calls,
        ),
        field="openai",
    )


if __name__ == "__main__":
    run(GeneratorOptions, _make, _load)
