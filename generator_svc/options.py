"""The options of `python -m generator_svc`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, ValidationError

from seal.errors import InvalidInput
from seal.options import TextOptions
from seal.settings import EditGenerator


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
    backend: Literal["engine", "vllm", "openai"] = "engine"  # type: ignore[assignment]
    """What computes: the engine; vLLM (an extra, in an environment of its own), which the options
    called vllm... belong to; or the model that --model names at an OpenAI-compatible API (an
    extra), which those called openai... belong to."""
    openai_base_url: str = ""
    """Address of that API, up to /v1."""
    openai_api_key_file: str = ""
    """File that holds its key; empty: SEAL_OPENAI_API_KEY of the environment, else none is sent."""
    openai_api: Literal["chat", "completions"] = "chat"
    """How it is asked: a chat, or the continuation of a text."""
    openai_concurrency: int = Field(default=8, ge=1, le=1024)
    """Requests to it that are outstanding at once."""
    openai_timeout_seconds: float = Field(default=60.0, gt=0, le=3600)
    """Seconds that one request to it may take."""
    openai_patience_seconds: float = Field(default=120.0, ge=0, le=86_400)
    """Seconds during which a request that fails, or is told to come back, is sent again."""
    openai_max_calls: int = Field(default=0, ge=0)
    """Requests that this process may send to it; 0 for no bound."""

    @property
    def endpoint(self) -> EditGenerator:
        """The model that writes. Raises InvalidInput naming the option that is at fault."""
        try:
            return EditGenerator(
                base_url=self.openai_base_url,
                model=self.model,
                api_key_file=self.openai_api_key_file,
                api=self.openai_api,
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            option = "model" if first["loc"][0] == "model" else "openai_base_url"
            flag = "--" + option.replace("_", "-")
            raise InvalidInput(
                f"{flag}: it is none",
                field=option,
                remedy=f"give {flag}: the model's name at the endpoint, or the URL up to /v1",
            ) from None
