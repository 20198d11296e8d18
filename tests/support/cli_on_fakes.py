"""The command `seal` on fake services: `python cli_on_fakes.py DELAY_SECONDS LOG ARGUMENTS...`.

What is faked is what needs a model.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fake_services import Fakes, serve_fakes

import controller_svc.cli.execute as execute
import controller_svc.cli.machine as machine
from controller_svc.cli import main
from controller_svc.cli.progress import Screen
from controller_svc.worker.settings import ServiceAddresses
from seal.settings import EngineSettings

PEAK_TERAFLOPS = 0.75
STOP_SECONDS = "SEAL_TEST_STOP_SECONDS"
"""Variable: how long the services take to stop."""


def install(fakes: Fakes) -> None:
    """Put fakes in the place of model, services and measurement."""

    @asynccontextmanager
    async def services(
        model: str, *, engine: EngineSettings, root: str, offline: bool, screen: Screen
    ) -> AsyncIterator[ServiceAddresses]:
        screen.on_download("downloading", 30_000_000, 93_000_000)
        async with serve_fakes(fakes) as addresses:
            try:
                yield addresses
            finally:
                await asyncio.sleep(float(os.environ.get(STOP_SECONDS, "0")))

    execute._services = services
    execute._model_directory = lambda model, *, offline, screen: None
    machine.gemm_peak = lambda engine: ("float32", PEAK_TERAFLOPS)


if __name__ == "__main__":
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell ignores it in what it starts in the background
    install(Fakes(log=Path(sys.argv[2]), delay_seconds=float(sys.argv[1])))
    sys.argv = ["seal", *sys.argv[3:]]
    main()
