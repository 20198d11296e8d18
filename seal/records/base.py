"""What every record stands on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Record(BaseModel):
    """Base of every record: frozen, unknown fields refused.

    A dump by alias, for an object of a cluster, names the fields as Kubernetes does.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )


class AdapterReference(Record):
    """One adapter in the artifact store."""

    path: str
    """Its directory, relative to the store's root: the same volume may be mounted elsewhere."""
    sha256: str
    """Digest of its manifest, lower-case hex."""
