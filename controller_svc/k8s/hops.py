"""Which call asked for an object: annotations that its Jobs' pods are handed on.

The front door writes them; whoever applies a manifest by hand may write them, too. An object that
says nothing has a trace of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import cast

from seal.rpc.hops import REQUEST_ID_KEY, TRACEPARENT_KEY, TRACESTATE_KEY, Hop, hop_of

ANNOTATIONS: Mapping[str, str] = {
    REQUEST_ID_KEY: "seal.dev/request-id",
    TRACEPARENT_KEY: "seal.dev/traceparent",
    TRACESTATE_KEY: "seal.dev/tracestate",
}
"""Key of a call's metadata -> annotation."""


def hop_annotations(hop: Hop) -> dict[str, str]:
    """The annotations of what a call asks for."""
    return {ANNOTATIONS[key]: value for key, value in hop.metadata}


def hop_of_object(body: Mapping[str, object]) -> Hop | None:
    """The call that asked for an object; None if it does not say."""
    metadata = cast("Mapping[str, Mapping[str, str]]", body["metadata"])
    annotations = metadata.get("annotations") or {}
    sent = [(key, annotations[name]) for key, name in ANNOTATIONS.items() if name in annotations]
    return hop_of(sent) if sent else None


def hop_of_owner(uid: str) -> Hop:
    """That of an object which nobody called for: one trace, whoever goes on with it."""
    digits = hashlib.sha256(uid.encode()).hexdigest()
    return Hop(uid, f"00-{digits[:32]}-{digits[32:48]}-01")
