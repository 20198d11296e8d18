"""Which base model something belongs to: the digest of its weights says; names are for people."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class BaseReference:
    """A base model, as adapters and requests name it."""

    name: str
    """As its user wrote it: an embedded name, a hub id, a path."""
    sha256: str = ""
    """Digest of its weights, lower-case hex; empty where nobody has told it."""
    location: str = ""
    """Hub id or path under which PEFT finds it; empty: its name."""
    revision: str = ""
    """Revision of the hub id; empty: the newest."""

    def __str__(self) -> str:
        """Name and the beginning of the digest."""
        return f"{self.name!r} ({self.sha256[:12]})" if self.sha256 else repr(self.name)

    @property
    def found_at(self) -> str:
        """Where other programs find it: hub id or path."""
        return self.location or self.name

    @property
    def hub_id(self) -> str:
        """Its id on a model hub; empty for a path of one machine, which means nothing there."""
        return self.found_at if _HUB_ID.fullmatch(self.found_at) else ""

    def same_as(self, other: BaseReference) -> bool:
        """By digest where both have one, else by name or location."""
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return bool({self.name, self.location} & {other.name, other.location} - {""})
