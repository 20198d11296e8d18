"""Deterministic names of stages.

The same intent always has the same name, so starting it twice finds the first one.
`{run}-r{round}-{stage}-a{attempt}`, a DNS label of at most 58 characters, which leaves an Indexed
Job's pods room for their index; a longer one is cut and ends in a hash of the whole, so that two
long names never meet.
"""

from __future__ import annotations

import hashlib

MAX_NAME_CHARACTERS = 58
_HASH_CHARACTERS = 8


def stage_name(*, run: str, round: int, stage: str, attempt: int) -> str:
    """Name of one attempt of a stage."""
    return shorten(f"{run}-r{round}-{stage}-a{attempt}")


def shorten(name: str, *, limit: int = MAX_NAME_CHARACTERS) -> str:
    """`name` if it fits into `limit` characters, else its start and a hash of the whole."""
    if len(name) <= limit:
        return name
    tail = hashlib.sha256(name.encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{name[: limit - _HASH_CHARACTERS - 1].rstrip('-')}-{tail}"
