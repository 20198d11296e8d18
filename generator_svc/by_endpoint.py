"""A writer whose texts a model at an endpoint writes, if the library for it is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seal.endpoint_keys import read_key
from seal.errors import InvalidInput
from seal.settings import DEFAULT_LIMITS, EditGenerator, EndpointLimits, EngineSettings

if TYPE_CHECKING:
    from generator_svc.openai_backend import OpenAIWriter


def open_writer(
    generator: EditGenerator,
    *,
    settings: EngineSettings,
    limits: EndpointLimits = DEFAULT_LIMITS,
    field: str = "spec.edit.generator",
) -> OpenAIWriter:
    """A writer with a thread of its own, to be closed.

    `field`: what named the endpoint. Raises InvalidInput for a key that cannot be read, or if the
    extra is not installed.
    """
    try:
        from generator_svc.openai_backend import OpenAIWriter
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"{field}: a model at an endpoint needs the package {error.name}",
            field=field,
            remedy="pip install 'seal-kubernetes[openai]'",
        ) from error
    key = read_key(generator.api_key_file, field=f"{field}.apiKeyFile")
    return OpenAIWriter(generator, key=key, limits=limits, settings=settings)
