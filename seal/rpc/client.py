"""One way to call a service.

A channel with retries of lost connections, keepalive and limits, and its errors as SealErrors.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc
import grpc.aio
from pydantic import Field

from seal.errors import InvalidInput, Transient
from seal.rpc.channels import carry_hops, carry_hops_blocking
from seal.rpc.errors import FailedCall, from_rpc_error
from seal.settings import Settings

TLS = "https://"
"""What the address of a server begins with that is reached by TLS."""


class ClientSettings(Settings):
    """How a channel behaves."""

    max_message_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Largest message that is received or sent; the server's own limit is lower."""
    default_deadline_seconds: float = Field(default=6 * 3600.0, gt=0)
    """Deadline of a call that gives none: no call waits for ever."""
    connection_attempts: int = Field(default=5, ge=2, le=5)
    """How often the channel sends a call that found no connection. What a service answered is never
    sent again by the channel."""
    keepalive_seconds: float = Field(default=30.0, gt=0)
    """A silent server is pinged after this long while a call runs."""


def open_channel(address: str, *, settings: ClientSettings | None = None) -> grpc.aio.Channel:
    """Channel to `host:port`, `unix:/path`, a gRPC target, or by TLS to `https://host[:port]`.

    Calls are spread over all replicas behind a name. Close it when done.

    Raises:
        InvalidInput: an address with another scheme, or with a path.
    """
    target, options = _target(address), _options(settings)
    if not _is_tls(address):
        return carry_hops(grpc.aio.insecure_channel(target, options=options))
    credentials = grpc.ssl_channel_credentials()
    return carry_hops(grpc.aio.secure_channel(target, credentials, options=options))


def open_blocking_channel(address: str, *, settings: ClientSettings | None = None) -> grpc.Channel:
    """Like `open_channel`, for blocking stubs, which need no event loop. Close it when done."""
    target, options = _target(address), _options(settings)
    if not _is_tls(address):
        return carry_hops_blocking(grpc.insecure_channel(target, options=options))
    credentials = grpc.ssl_channel_credentials()
    return carry_hops_blocking(grpc.secure_channel(target, credentials, options=options))


def _options(settings: ClientSettings | None) -> list[tuple[str, Any]]:
    settings = settings or ClientSettings()
    return [
        ("grpc.service_config", json.dumps(_service_config(settings))),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.per_rpc_retry_buffer_size", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", round(settings.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.max_reconnect_backoff_ms", 10_000),
    ]


@contextmanager
def rpc_errors() -> Iterator[None]:
    """Turn the failure of a call in the block into the SealError behind it."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Transient(
            "the server cancelled the call", remedy="send the same request again"
        ) from error


@contextmanager
def blocking_rpc_errors() -> Iterator[None]:
    """Turn the failure of a blocking call in the block into the SealError behind it."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(cast(FailedCall, error)) from error


def _target(address: str) -> str:
    """A plain `host:port` is looked up in DNS, all its addresses; TLS needs no port.

    Without TLS gRPC would take a missing port for 443, where only TLS answers.
    """
    if address.startswith(("unix:", "dns:", "ipv4:", "ipv6:", "xds:")):
        return address
    host = address.removeprefix(TLS).rstrip("/")
    has_port = ":" in host.rpartition("]")[2]  # behind an IPv6 address, which is in brackets
    if "/" in host or not (has_port or _is_tls(address)):
        raise InvalidInput(
            f"{address!r} is no address of a gRPC server",
            field="address",
            remedy="give HOST:PORT, or https://HOST of a server behind TLS, without a path",
        )
    return f"dns:///{host}"


def _is_tls(address: str) -> bool:
    """Trusted is who `$GRPC_DEFAULT_SSL_ROOTS_FILE_PATH` names, gRPC's own roots without it."""
    return address.startswith(TLS)


def _service_config(settings: ClientSettings) -> dict[str, object]:
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "timeout": f"{settings.default_deadline_seconds:.3f}s",
                "retryPolicy": {
                    "maxAttempts": settings.connection_attempts,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
