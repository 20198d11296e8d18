"""Models that others serve: HTTP endpoints that speak OpenAI's API, by URL, model and key file.

A key is never a setting: it is read from the file that is named here, or from the environment.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from seal.errors import InvalidInput
from seal.settings.base import FileSettings, Settings

MAX_URL_CHARACTERS = 2048
"""One URL."""
MAX_MODEL_NAME_CHARACTERS = 256
"""Name of a model at its endpoint."""


def _plain_url(url: str) -> str:
    """An URL that holds no secret; it stands in specs, logs and reports."""
    remedy = "give http:// or https://, the host, and the path up to /v1"
    try:
        parts = urlsplit(url)
        port = parts.port  # reading it checks it
    except ValueError:
        raise InvalidInput("is no URL", remedy=remedy) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InvalidInput("is no http or https URL", remedy=remedy)
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidInput(
            "holds more than an address: what stands in it is shown in logs and reports",
            remedy="leave out user, password, query and fragment; name the file of the key",
        )
    return url.rstrip("/")


BaseUrl = Annotated[str, Field(max_length=MAX_URL_CHARACTERS), AfterValidator(_plain_url)]
"""Address of an API, up to its version: https://api.openai.com/v1."""


class EndpointSettings(FileSettings):
    """One model at one endpoint."""

    base_url: BaseUrl
    """Address of its API, up to the version: https://api.openai.com/v1."""
    model: str = Field(min_length=1, max_length=MAX_MODEL_NAME_CHARACTERS, pattern=r"^\S+$")
    """Its name there. An answer by another model is not taken for its own."""
    api_key_file: str = ""
    """Path of a file that holds the key. Empty: SEAL_OPENAI_API_KEY of the environment, else
    none is sent. It may be changed by a resume."""


class EditGenerator(EndpointSettings):
    """A model that others serve, which writes the edits."""

    api: Literal["chat", "completions"] = "chat"
    """How it is asked: a chat, which all of them have, or the continuation of a text."""


class EndpointLimits(Settings):
    """How an endpoint is used; no part of a run."""

    concurrency: int = Field(default=8, ge=1, le=1024)
    """Requests that are outstanding at once."""
    timeout_seconds: float = Field(default=60.0, gt=0, le=3600)
    """How long one request may take."""
    patience_seconds: float = Field(default=120.0, ge=0, le=86_400)
    """How long a request that fails, or is told to come back, is sent again."""
    max_calls: int = Field(default=0, ge=0)
    """Requests that this process may send, failed ones included; 0 for no bound."""


DEFAULT_LIMITS = EndpointLimits()


class JudgeSettings(Settings):
    """The model that judges answers and rates edits."""

    endpoint: EndpointSettings
    """Which it is."""
    limits: EndpointLimits = DEFAULT_LIMITS
    """How it is used."""
