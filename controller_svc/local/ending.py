"""Ends a block of asyncio from within this process, with the error that says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from seal.errors import SealError

LOOK_SECONDS = 1.0
"""Between two looks whether a block has to end."""


@asynccontextmanager
async def ends_when(why: Callable[[], SealError | None]) -> AsyncIterator[None]:
    """Look every now and then whether there is an error, and end the block with it.

    Raises what `why` gave.
    """
    block, found = asyncio.current_task(), list[SealError]()

    async def watch() -> None:
        while (error := why()) is None:  # noqa: ASYNC110 - it may come from any thread or process
            await asyncio.sleep(LOOK_SECONDS)
        found.append(error)
        if block is not None:
            block.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not found or block is None or block.uncancel() > 0:
            raise  # somebody else wants the end
        raise found[0] from None
    finally:
        watching.cancel()
