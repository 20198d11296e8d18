"""Domains: what SEAL learns from and how it is asked. Pure: no I/O, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from seal.domains.arc.domain import ArcDomain
from seal.domains.base import Domain
from seal.domains.knowledge import KnowledgeDomain
from seal.errors import InvalidInput

__all__ = ["DOMAINS", "get_domain"]

DOMAINS: Mapping[str, Domain] = MappingProxyType(
    {"knowledge": KnowledgeDomain(), "arc": ArcDomain()}
)
"""Every domain by name."""


def get_domain(name: str) -> Domain:
    """The domain of that name. Raises InvalidInput for an unknown one."""
    if name not in DOMAINS:
        raise InvalidInput(
            f"domain {name[:60]!r} is unknown",
            field="domain",
            remedy="use one of: " + ", ".join(DOMAINS),
        )
    return DOMAINS[name]
