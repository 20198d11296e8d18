"""Standing for election, leading, stopping, and standing again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from controller_svc.k8s.lease import Leadership
from seal.errors import Superseded, Transient
from seal.metrics import metrics

log = structlog.get_logger(__name__)


class WorkHangs(Transient):
    """What a turn did could not be stopped: it ends with the process, which waits for nothing."""


STOP_SECONDS = 5.0
"""How long the work of a turn may take to end. What hangs on ends with the process."""


async def lead_again_and_again(
    leadership: Leadership, turn: Callable[[int], Awaitable[None]]
) -> NoReturn:
    """Do the work of a turn whenever this candidate leads, until cancelled.

    `turn` is given the epoch, and is cancelled as soon as the lease may be another's.

    Raises:
        WorkHangs: what a turn did could not be stopped.
        SealError: the lease cannot be asked for, or a turn has failed.

    """
    while True:
        epoch = await leadership.acquire()
        log.info("leading", epoch=epoch)
        metrics.controller_leading.set(1)
        try:
            await _one_turn(leadership, turn, epoch)
        except Superseded as error:
            log.warning("not leading", epoch=epoch, cause=str(error))
        finally:
            metrics.controller_leading.set(0)


async def _one_turn(
    leadership: Leadership, turn: Callable[[int], Awaitable[None]], epoch: int
) -> None:
    """The work of a turn, for as long as the lease is held."""
    working = asyncio.ensure_future(turn(epoch))
    holding = asyncio.create_task(leadership.hold())
    try:
        await asyncio.wait({working, holding}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        tasks = {one for one in (working, holding) if not one.done()}
        for one in tasks:
            one.cancel()
        hanging = (await asyncio.wait(tasks, timeout=STOP_SECONDS))[1] if tasks else set()
    if hanging:
        raise WorkHangs("the work of a turn hangs", remedy="start the process again")
    for ended in (working, holding):
        if not ended.cancelled():
            ended.result()
