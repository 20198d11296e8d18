"""Do services serve? `python -m seal.rpc.probe ADDRESS=SERVICE...` asks; `helm test` runs it.

Each is asked by its name in gRPC's health protocol until it serves or the time is over, all side by
side, and each gets a line. Exit codes: 0 all serve, 2 wrong arguments, 43 one does not. Workers ask
in the same way (`why_not`) before they send work.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seal.errors import NotFound, SealError
from seal.rpc.client import open_channel, rpc_errors

ANSWER_SECONDS = 5.0
"""Deadline of one question."""
PAUSE_SECONDS = 1.0
"""Between two questions to one service."""
ALL_SERVE, ONE_DOES_NOT = 0, 43


async def why_not(
    address: str,
    service: str,
    *,
    within_seconds: float,
    needs_health: bool = True,
    on_reason: Callable[[str], None] = lambda reason: None,
) -> str:
    """What keeps a service from serving until the time is over, in words; empty once it serves.

    `needs_health`: a server that cannot be asked, as it has no health protocol, does not serve.
    `on_reason` hears what keeps it meanwhile, whenever that is another thing than before.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_seconds
    async with open_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # it has no types
        said = ""
        while reason := await _why_not_now(stub, service, needs_health=needs_health):
            left = deadline - loop.time()
            if left <= 0:
                return reason
            if reason != said:
                on_reason(reason)
                said = reason
            await asyncio.sleep(min(PAUSE_SECONDS, left))
    return ""


async def _why_not_now(stub: Any, service: str, *, needs_health: bool) -> str:
    request = health_pb2.HealthCheckRequest(service=service)
    try:
        with rpc_errors():
            answer = await stub.Check(request, timeout=ANSWER_SECONDS)
    except NotFound:
        return f"it has no {service}"
    except SealError as error:
        if not needs_health and _has_no_health(error):
            return ""
        return error.message or "it does not answer"
    return "" if answer.status == health_pb2.HealthCheckResponse.SERVING else "it is not ready"


def _has_no_health(error: SealError) -> bool:
    cause = error.__cause__
    return isinstance(cause, grpc.aio.AioRpcError) and (
        cause.code() is grpc.StatusCode.UNIMPLEMENTED
    )


async def probe(targets: Sequence[tuple[str, str]], *, within_seconds: float) -> int:
    """Ask each (address, service) and write a line about it; the exit code."""
    reasons = await asyncio.gather(
        *(why_not(address, service, within_seconds=within_seconds) for address, service in targets)
    )
    for (address, service), reason in zip(targets, reasons, strict=True):
        said = f"does not serve: {reason}" if reason else "serves"
        sys.stdout.write(f"{service} at {address} {said}\n")
    return ONE_DOES_NOT if any(reasons) else ALL_SERVE


def _target(argument: str) -> tuple[str, str]:
    address, _, service = argument.partition("=")
    if not address or not service:
        raise argparse.ArgumentTypeError(f"{argument!r} is not ADDRESS=SERVICE")
    return address, service


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse a command line and do what it says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m seal.rpc.probe", description=__doc__)
    parser.add_argument("targets", nargs="+", type=_target, metavar="ADDRESS=SERVICE")
    parser.add_argument(
        *("--within", "-w"), type=float, default=60.0, help="seconds that a service has to serve"
    )
    given = parser.parse_args(arguments)
    return asyncio.run(probe(given.targets, within_seconds=given.within))


if __name__ == "__main__":
    sys.exit(main())
