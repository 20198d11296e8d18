"""What goes wrong at an endpoint, as errors of this project.

An endpoint's own words are never repeated: they may hold the key or the text that it was sent.
"""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping

from openai import APIStatusError

from seal.errors import Exhausted, PreconditionFailed, SealError, Transient, UnfitItem
from seal.outcomes import Outcome

_AGAIN = frozenset({408, 409, 425})
_OF_THE_ITEM = frozenset({400, 413, 422})
_UNSUPPORTED = frozenset({"unsupported_parameter", "unsupported_value"})
_PARAMETERS = frozenset({"temperature", "top_p", "max_tokens", "seed", "stop", "response_format"})
"""What a request says beside its text: names that may be repeated."""
_OF_THE_LENGTH = "input_tokens"
"""What vLLM calls at fault in a request that is longer than its model takes."""
_LONGEST_WAIT_SECONDS = 86_400.0


def from_status(error: APIStatusError, *, host: str) -> SealError:
    """The error for an HTTP status that is none of success."""
    status, code = error.status_code, error.code if isinstance(error.code, str) else ""
    said = f"the endpoint {host} answered with HTTP status {status}"
    if status == 429 and code == "insufficient_quota":
        return PreconditionFailed(f"{said}: its quota is spent", remedy="see your account there")
    if status == 429:
        return Exhausted(
            f"{said}: it takes no more requests now",
            remedy="send fewer at once",
            retry_after_seconds=retry_after(error.response.headers),
        )
    if status >= 500 or status in _AGAIN:
        return Transient(
            said,
            remedy="see whether it is up",
            retry_after_seconds=retry_after(error.response.headers),
        )
    if status in (401, 403):
        return PreconditionFailed(
            f"{said}: it does not take the key",
            field="api_key_file",
            remedy="put a key that is valid there into the file that the settings name",
        )
    if code in _UNSUPPORTED and error.param in _PARAMETERS:
        return PreconditionFailed(
            f"{said}: its model does not take the request's {error.param}",
            field="model",
            remedy="take a model that does: those that think before they answer often do not",
        )
    if status in _OF_THE_ITEM:
        too_long = status == 413 or code == "context_length_exceeded"
        too_long = too_long or error.param == _OF_THE_LENGTH
        return UnfitItem(
            said,
            outcome=Outcome.TOO_LONG if too_long else Outcome.REFUSED,
            remedy="if it refuses everything, it may not know a setting of the request",
        )
    return PreconditionFailed(
        f"{said}: it has no such API or model",
        field="base_url",
        remedy="give the URL up to /v1, and the model's name as the endpoint lists it",
    )


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds until an endpoint wants to be asked again; None where it does not say.

    As seconds or as a date, as HTTP has it, or in milliseconds, as some endpoints do.
    """
    if (value := headers.get("retry-after-ms")) is not None:
        return _seconds(value, scale=1e-3)
    if (value := headers.get("retry-after")) is None:
        return None
    if (seconds := _seconds(value, scale=1.0)) is not None:
        return seconds
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return _bounded(date.timestamp() - (time.time() if now is None else now))


def _seconds(value: str, *, scale: float) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return _bounded(number * scale) if math.isfinite(number) else None


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), _LONGEST_WAIT_SECONDS)
