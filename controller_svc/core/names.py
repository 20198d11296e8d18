"""Deterministic names of tasks.

The same intent always has the same name, so starting it twice finds the first one.
`{run}-r{round}-{stage}[-{shard}]-a{attempt}`, a DNS label of at most 63 characters; a longer one is
cut and ends in a hash of the whole, so that two long names never meet.
"""

from __future__ import annotations

import hashlib

MAX_NAME_CHARACTERS = 63
_HASH_CHARACTERS = 8


def task_name(*, run: str, round: int, stage: str, attempt: int, shard: int | None = None) -> str:
    """Name of one attempt of one shard of a stage, or of the whole stage without `shard`.

    A whole stage is one Indexed Job on a cluster.
    """
    parts = [run, f"r{round}", stage, *([] if shard is None else [str(shard)]), f"a{attempt}"]
    return shorten("-".join(parts))


def shorten(name: str, *, limit: int = MAX_NAME_CHARACTERS) -> str:
    """`name` if it fits into `limit` characters, else its start and a hash of the whole."""
    if len(name) <= limit:
        return name
    tail = hashlib.sha256(name.encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{name[: limit - _HASH_CHARACTERS - 1].rstrip('-')}-{tail}"
