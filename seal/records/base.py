"""What every record stands on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of every record: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class AdapterReference(Record):
    """One adapter in the artifact store."""

    path: str
    """Its directory, relative to the store's root: the same volume may be mounted elsewhere."""
    sha256: str
    """Digest of its manifest, lower-case hex."""
