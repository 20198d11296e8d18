"""How often something is tried, and how long is waited between."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AttemptBudget:
    """Attempts of one thing and the pauses between them."""

    attempts: int = 3
    """How often it is tried, the first time included."""
    base_seconds: float = 10.0
    """Pause before the second attempt; it doubles from there."""
    max_seconds: float = 300.0
    """Longest pause, unless the failing side asked for more."""

    def delay_seconds(self, *, name: str, attempt: int, retry_after_seconds: float = 0.0) -> float:
        """Seconds to pause before `attempt`, at least what was asked for.

        They double, and lie between half and all of it by a hash of the name.
        """
        if attempt <= 1:
            return 0.0
        full = min(self.max_seconds, self.base_seconds * 2.0 ** min(attempt - 2, 30))
        share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
        return max(full * (0.5 + share / 2), retry_after_seconds)


SHARD_ATTEMPTS = 4
"""Of one shard within one attempt of its stage, by its Job or its stand-in."""
DEFAULT_BUDGET = AttemptBudget()
"""Of a whole stage, whose shards have a budget of their own: that of the Job."""
