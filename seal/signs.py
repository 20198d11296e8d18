"""Signs of numbers as people read them, the same in messages, in tables and on pages."""

from __future__ import annotations

MINUS = "\u2212"
"""The real one: as wide as a plus, and no hyphen at which a line may end."""
