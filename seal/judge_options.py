"""Which model judges, as flags and as environment variables: `--judge-model`, `SEAL_JUDGE_MODEL`.

The evaluator takes them as its own options, local mode from the environment.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from seal import refusals
from seal.errors import InvalidInput
from seal.settings import EndpointLimits, EndpointSettings, JudgeSettings, Settings

JUDGE_KEY_VARIABLE = "SEAL_JUDGE_API_KEY"
"""Where the judge's key stands if no file is named."""


class JudgeOptions(Settings):
    """The judge of an evaluator; none without an URL."""

    judge_base_url: str = ""
    """Address of the OpenAI-compatible API whose model judges answers and rates edits, up to /v1;
    empty for no judge."""
    judge_model: str = ""
    """Name of that model there."""
    judge_api_key_file: str = ""
    """File that holds its key; empty: SEAL_JUDGE_API_KEY of the environment, else none is sent."""
    judge_concurrency: int = Field(default=8, ge=1, le=1024)
    """Requests to it that are outstanding at once."""
    judge_timeout_seconds: float = Field(default=60.0, gt=0, le=3600)
    """Seconds that one request to it may take."""
    judge_patience_seconds: float = Field(default=120.0, ge=0, le=86_400)
    """Seconds during which a request that fails, or is told to come back, is sent again; then the
    answer stays without a grade."""
    judge_max_calls: int = Field(default=0, ge=0)
    """Requests that this process may send to it; answers beyond stay without a grade. 0 for no
    bound."""

    @property
    def judge(self) -> JudgeSettings | None:
        """The judge; None without one. Raises InvalidInput naming the option that is at fault."""
        if not self.judge_base_url:
            if self.judge_model:
                raise _wrong("judge_base_url", "is not set, but there is a model")
            return None
        if not self.judge_model:
            raise _wrong("judge_model", "is not set, but there is an URL")
        values = {
            "base_url": self.judge_base_url,
            "model": self.judge_model,
            "api_key_file": self.judge_api_key_file,
        }
        try:
            endpoint = EndpointSettings.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            about = refusals.schema_at(EndpointSettings, first["loc"])
            refused = first.get("ctx", {}).get("error")
            if isinstance(refused, InvalidInput):
                raise _wrong("judge_base_url", refused.message, refused.remedy) from None
            field = "judge_model" if first["loc"][0] == "model" else "judge_base_url"
            raise _wrong(field, refusals.problem(first, about)) from None
        limits = EndpointLimits(
            concurrency=self.judge_concurrency,
            timeout_seconds=self.judge_timeout_seconds,
            patience_seconds=self.judge_patience_seconds,
            max_calls=self.judge_max_calls,
        )
        return JudgeSettings(endpoint=endpoint, limits=limits)


class JudgeVariables(JudgeOptions, BaseSettings):
    """The judge of local mode, by the environment alone."""

    model_config = SettingsConfigDict(env_prefix="SEAL_", env_ignore_empty=True)

    @classmethod
    def read(cls) -> Self:
        """Raises InvalidInput naming a variable that is out of its bounds."""
        try:
            return cls()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            about = refusals.schema_at(cls, first["loc"])
            raise _wrong(str(first["loc"][0]), refusals.problem(first, about)) from None


def _wrong(option: str, problem: str, remedy: str = "") -> InvalidInput:
    flag = "--" + option.replace("_", "-")
    return InvalidInput(
        f"{flag}: {problem}",
        field=option,
        remedy=remedy or f"give {flag} or SEAL_{option.upper()}; both URL and model, or neither",
    )
