"""Checks of what a caller sent.

Each refusal is an `InvalidInput` that names the field as the caller wrote it, and the remedy.
Documents are data: lengths, counts and hyper-parameters are bounded before anything is allocated
for them, and what becomes part of a path (a run's name) is a DNS label. No message repeats a
document's text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from seal.errors import InvalidInput
from seal.resources import RUN_NAME_PATTERN
from seal.settings import MAX_SEED

_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_MAX_ID_CHARACTERS = 256

Model = TypeVar("Model", bound=BaseModel)


def refuse(field: str, problem: str, remedy: str) -> InvalidInput:
    """The error for one field; the caller raises it."""
    return InvalidInput(f"{field}: {problem}", field=field, remedy=remedy)


def run_name(value: str) -> str:
    """A run's name: a DNS label of at most 40 characters."""
    if not re.fullmatch(RUN_NAME_PATTERN, value):
        raise refuse(
            "run",
            f"{_shown(value)} is no run name",
            "give 1-40 of a-z, 0-9 and -, with a letter or digit at both ends",
        )
    return value


def request_id(value: str) -> str:
    """The idempotency key: printable, 1-256 characters."""
    return identifier(
        value,
        field="request_id",
        remedy="give each request its own id, and the same id when it is sent again",
    )


def identifier(value: str, *, field: str, remedy: str) -> str:
    """A caller's id: printable, 1-256 characters."""
    if not value:
        raise refuse(field, "is empty", remedy)
    if len(value) > _MAX_ID_CHARACTERS or not value.isprintable():
        raise refuse(
            field, f"is longer than {_MAX_ID_CHARACTERS} characters or not printable", remedy
        )
    return value


def text(value: str, *, field: str, max_characters: int, remedy: str) -> str:
    """A required text of bounded length."""
    if not value.strip():
        raise refuse(field, "is empty", remedy)
    return optional_text(value, field=field, max_characters=max_characters)


def optional_text(value: str, *, field: str, max_characters: int) -> str:
    """A text of bounded length that may be empty."""
    if len(value) > max_characters:
        raise refuse(
            field,
            f"has {len(value)} characters, the limit is {max_characters}",
            "shorten it or cut it in parts",
        )
    return value


def count(values: Sequence[object], *, field: str, maximum: int, what: str) -> None:
    """At least one and at most `maximum` entries."""
    if not values:
        raise refuse(field, f"holds no {what}", f"give at least one {what}")
    if len(values) > maximum:
        raise refuse(field, f"holds {len(values)}, the limit is {maximum}", "send several requests")


def whole_number(value: int, *, field: str, minimum: int, maximum: int) -> int:
    """An integer in [minimum, maximum]."""
    if not minimum <= value <= maximum:
        raise refuse(
            field,
            f"{value} is outside {minimum}..{maximum}",
            f"give a whole number from {minimum} to {maximum}",
        )
    return value


def real_number(value: float, *, field: str, minimum: float, maximum: float) -> float:
    """A finite number in [minimum, maximum]."""
    if not math.isfinite(value) or not minimum <= value <= maximum:
        raise refuse(
            field,
            f"{value} is outside {minimum:g}..{maximum:g}",
            f"give a number from {minimum:g} to {maximum:g}",
        )
    return value


def seed(value: int, *, field: str) -> int:
    """A seed of at most 63 bits."""
    return whole_number(value, field=field, minimum=0, maximum=MAX_SEED)


def one_of(value: str, choices: Iterable[str], *, field: str) -> str:
    """One of a few words."""
    words = tuple(choices)
    if value not in words:
        raise refuse(field, f"{_shown(value)} is unknown", "use one of: " + ", ".join(words))
    return value


def unique(values: Iterable[str], *, field: str) -> None:
    """No value twice; `field` holds `{index}` where the index of the second one goes."""
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            raise refuse(
                field.format(index=index), f"{_shown(value)} occurs twice", "let each differ"
            )
        seen.add(value)


def sha256(value: str, *, field: str) -> str:
    """A digest in lower-case hex."""
    if not _SHA256.fullmatch(value):
        raise refuse(
            field, "is no sha256 in lower-case hex", "give the 64 digits that sha256sum tells of it"
        )
    return value


def settings(model: type[Model], *, field: str, **values: object) -> Model:
    """A settings model from a message's values; Inf and NaN are refused.

    Its own bounds become errors on `field`.<name>.
    """
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse(f"{field}.{name}", f"{value} is no finite number", "give a finite number")
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join([field, *(str(part) for part in first["loc"])])
        words = str(first["msg"]).removeprefix("Value error, ")  # pydantic's own prefix
        raise refuse(where, words, "correct the value") from error


def _shown(value: str) -> str:
    return repr(value if len(value) <= 60 else value[:57] + "...")
