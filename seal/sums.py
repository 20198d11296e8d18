"""Sums by key, of whatever is counted or measured by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

N = TypeVar("N", int, float)


def add(*parts: Mapping[str, N]) -> dict[str, N]:
    """Sums by key; keys in order. Each part is added in its turn."""
    return {
        key: sum(part[key] for part in parts if key in part)
        for key in sorted({key for part in parts for key in part})
    }
