"""The front door's commands without a model: `python front_door_on_fakes.py DELAY ARGUMENTS...`.

In the place of model and services a process that serves plays the fake's script.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fake_adaptations import FakeAdaptations, serve

from controller_svc.adaptations import FOLDER
from controller_svc.cli import main, serving
from controller_svc.local.lock import run_lock
from seal.artifacts import ArtifactStore


def install(fake: FakeAdaptations) -> Callable[[], None]:
    """Put a fake in the place of what needs a model; gives what undoes it."""
    real = serving._everything

    @asynccontextmanager
    async def everything(
        store: ArtifactStore,
        local: serving.LocalServer,
        *,
        address: str,
        on_download: serving.OnDownload,
    ) -> AsyncIterator[str]:
        on_download("downloading", 30_000_000, 93_000_000)
        with run_lock(store, FOLDER):
            async with serve(fake, address) as bound:
                yield bound

    def undo() -> None:
        serving._everything = real

    serving._everything = everything
    return undo


if __name__ == "__main__":
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell ignores it in what it starts in the background
    install(FakeAdaptations(delay_seconds=float(sys.argv[1])))
    sys.argv = ["seal", *sys.argv[2:]]
    main()
