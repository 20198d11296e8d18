"""Every random choice takes a seed derived from what it is for, never from when it happens."""

from __future__ import annotations

import hashlib
import json


def derive_seed(*parts: str | int) -> int:
    """A seed of 63 bits from its parts.

    1 and "1" are different parts, and so are ("a", "bc") and ("ab", "c").
    """
    encoded = json.dumps(parts, ensure_ascii=True, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.sha256(encoded).digest()[:8], "big") >> 1


def part_seed(seed: int, part: int, *, parts: int) -> int:
    """The seed of one part of an edit; that of the edit itself if it is the only one."""
    return seed if parts == 1 else derive_seed(seed, "part", part)
