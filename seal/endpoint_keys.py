"""Keys of endpoints: from a file or the environment, and never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from seal.errors import InvalidInput

KEY_VARIABLE = "SEAL_OPENAI_API_KEY"
"""Where the key of an endpoint stands that names no file."""
_MAX_KEY_BYTES = 16_384
_KEY = re.compile(r"[!-~]+")
"""What an HTTP header can carry: printable ASCII without blanks."""


def read_key(
    file: str,
    *,
    field: str,
    variable: str = KEY_VARIABLE,
    environment: Mapping[str, str] = os.environ,
) -> SecretStr | None:
    """The key in a file or, where none is named, in a variable; None if there is none.

    `field`: what named the file. Raises InvalidInput for a file that cannot be read or holds none.
    """
    if not file:
        value = environment.get(variable, "").strip()
        return _checked(value, field=variable, where=f"the variable {variable}") if value else None
    try:
        with Path(file).expanduser().open("rb") as handle:
            content = handle.read(_MAX_KEY_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no path"
        raise InvalidInput(
            f"{field}: the key cannot be read from {file[:200]!r}: {why}",
            field=field,
            remedy="name a file that holds the key alone, and that this process may read",
        ) from None
    value = content.decode("ascii", errors="replace").strip()
    return _checked(value, field=field, where=f"the file {file[:200]!r}")


def _checked(value: str, *, field: str, where: str) -> SecretStr:
    if not _KEY.fullmatch(value) or len(value) > _MAX_KEY_BYTES:
        raise InvalidInput(
            f"{field}: {where} holds no key",
            field=field,
            remedy="write the key into it, in one line and with nothing else",
        )
    return SecretStr(value)
