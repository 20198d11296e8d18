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


def shorten(name: str) -> str:
    """`name` if it fits into `MAX_NAME_CHARACTERS`, else its start and a hash of the whole."""
    if len(name) <= MAX_NAME_CHARACTERS:
        return name
    tail = hashlib.sha256(name.encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{name[: MAX_NAME_CHARACTERS - _HASH_CHARACTERS - 1].rstrip('-')}-{tail}"
