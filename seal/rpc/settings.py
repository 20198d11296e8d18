"""How a server and a client of gRPC behave. Light: no gRPC."""

from __future__ import annotations

from pydantic import Field

from seal.settings import Settings

DEFAULT_ADDRESS = "localhost:50051"
"""Where `seal serve` listens, and where a client looks for it."""


class ServerSettings(Settings):
    """Limits of a server."""

    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    """Largest message that is received or sent."""
    max_concurrent_calls: int = Field(default=4096, ge=1)
    """Calls of the services that may run at once; more are refused with RESOURCE_EXHAUSTED. Three
    quarters of them may be watches; health checks are not counted."""
    unready_seconds: float = Field(default=0.0, ge=0)
    """Pause between NOT_SERVING and refusing calls: as long as the probes of a load balancer need
    to notice."""
    keepalive_seconds: float = Field(default=30.0, gt=0)
    """A silent client is pinged after this long; clients may ping the server half as often at
    most."""
    max_connection_seconds: float = Field(default=600.0, ge=0)
    """A TCP connection is renewed after this long, so that clients find new replicas; calls on it
    go on. 0 keeps it."""
