"""What an adaptation is called in the store and by the services.

A RestEMRun is called by its name alone. An adaptation has a namespace too, and both go into one DNS
label, which is a valid run name wherever there is a `run`: fields of requests, folders of the
store, names of stages.
"""

from __future__ import annotations

import hashlib

_PREFIX = "adapt"
_HASH_CHARACTERS = 12
_NAME_CHARACTERS = 40 - len(_PREFIX) - _HASH_CHARACTERS - 2


def run_of(namespace: str, name: str, uid: str) -> str:
    """The run key of an adaptation, a DNS label of at most 40 characters.

    `adapt-{start of the name}-{hash}`: two adaptations never share one, and the same adaptation
    always has the same. `uid` tells it from a deleted one that had its name: a training of that one
    may still end, and would be taken for its own.
    """
    tail = hashlib.sha256(f"{namespace}/{name}/{uid}".encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{_PREFIX}-{name[:_NAME_CHARACTERS].rstrip('-')}-{tail}"
