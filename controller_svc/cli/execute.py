"""One run from spec to report, on the three services in this process.

    refuse what is wrong, pin the data -> load the model -> run the controller -> report

Ctrl-C at any point stops cleanly and says which command goes on with the run.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import FrameType

import typer

from controller_svc.cli.machine import describe_machine
from controller_svc.cli.main import complain
from controller_svc.cli.progress import Screen, open_screen
from controller_svc.cli.reporting import print_report, write_report
from controller_svc.cli.stages import StageTracker
from controller_svc.core import Phase, Reason, RunStatus
from controller_svc.local.world import run_local
from controller_svc.runs import check_run
from controller_svc.worker.task import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.errors import ERROR_CLASSES, Conflict, Internal, PreconditionFailed, Transient
from seal.report.numbers.formats import duration
from seal.resources import RestEMRun
from seal.settings import EngineSettings

DEMO_NAMES = ("demo", "demo-quick")
"""Names of the demo's runs, in full and quick."""
STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""


@dataclass(frozen=True, kw_only=True)
class TimeLimit:
    """Within how many minutes a run is to end, by the speed of the machine."""

    fast_minutes: int
    slow_minutes: int
    fast_teraflops: float
    """Measured GEMM peak from which on a machine is fast."""
    slow_teraflops: float
    """On a machine below this peak, nothing is promised."""

    def minutes(self, teraflops: float) -> int:
        """The limit of this machine; 0 for none."""
        if teraflops < self.slow_teraflops:
            return 0
        return self.fast_minutes if teraflops >= self.fast_teraflops else self.slow_minutes


def execute(
    manifest: RestEMRun,
    *,
    engine: EngineSettings,
    root: str,
    resume: bool,
    offline: bool,
    as_json: bool,
    again: str,
    limit: TimeLimit | None = None,
) -> None:
    """Run a manifest and show its report. `again`: the command that goes on with the run.

    Raises:
        SealError: from `check_run`, from loading the model, or from the report.
        typer.Exit: 130 after Ctrl-C, or the code of what made the run fail.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries would run through ours
    started = time.monotonic()
    tracker = StageTracker(manifest.spec)
    try:
        _refuse_repetition(manifest.name, root=root, resume=resume, again=again)
        status = asyncio.run(check_run(ArtifactStore(root), manifest, resume=resume))
        if status is None or status.phase is not Phase.COMPLETE:
            with open_screen(tracker, bars=not as_json) as screen:
                minutes = _measure(manifest.name, engine, root, screen, limit)
                status = asyncio.run(
                    _run(
                        manifest,
                        engine=engine,
                        root=root,
                        resume=resume,
                        offline=offline,
                        screen=screen,
                    )
                )
                if minutes and status.phase is Phase.COMPLETE:
                    screen.say(
                        f"Ended after {duration(time.monotonic() - started)}; the limit is "
                        f"{minutes} min."
                    )
        print_report(write_report(ArtifactStore(root), manifest.name), as_json=as_json)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        complain("all that is finished is kept; go on with:", again, label="stopped")
        raise typer.Exit(STOPPED) from None
    if status.phase is Phase.FAILED:
        raise typer.Exit(_tell_failure(status, again))


def _refuse_repetition(run: str, *, root: str, resume: bool, again: str) -> None:
    """A run that exists is not begun anew; the remedy is a command to copy.

    Raises:
        Conflict: it exists.
    """
    if not resume and ArtifactStore(root).exists(f"{run}/run.json"):
        other = "--dir" if run in DEMO_NAMES else "--name or --root"
        raise Conflict(
            f"run {run!r} exists already in {root}",
            remedy=f"go on with it:  {again}  or begin another one with {other}",
        )


def _measure(
    run: str, engine: EngineSettings, root: str, screen: Screen, limit: TimeLimit | None
) -> int:
    """Measure the machine, leave the figures with the run and give the minutes that follow.

    They are 0 without a limit.
    """
    dtype, teraflops = _gemm_peak(engine)
    machine = describe_machine(device=engine.device, dtype=dtype, gemm_teraflops=teraflops)
    ArtifactStore(root).write_json(f"{run}/machine.json", machine)
    minutes = limit.minutes(teraflops) if limit else 0
    so = f": it is to end within {minutes} min" if minutes else ""
    screen.say(
        f"{run}: {machine.cores} cores, computing in {dtype}, measured GEMM peak "
        f"{teraflops:.2f} TFLOP/s{so}"
    )
    return minutes


def _gemm_peak(engine: EngineSettings) -> tuple[str, float]:
    """The type that the engine will compute in, and how fast this machine multiplies it, TFLOP/s.

    Raises:
        PreconditionFailed: the engine is not installed, or this machine has no such device.
    """
    try:
        from seal.engine.peak import measure_gemm_peak
        from seal.engine.precision import compute_dtype, dtype_name
    except ImportError as error:
        raise PreconditionFailed(
            f"the engine cannot be loaded: {error}",
            remedy="install it: pip install 'seal-kubernetes[local]'",
        ) from error
    try:
        dtype = compute_dtype(engine.dtype, engine.device)
        return dtype_name(dtype), measure_gemm_peak(dtype=dtype, device=engine.device)
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # what torch raises for a device that is not there
        message = f"device {engine.device!r} cannot be used: {str(error).splitlines()[0]}"
        raise PreconditionFailed(
            message,
            field="engine.device",
            remedy="choose another one, for example --engine device=cpu",
        ) from error


async def _run(
    manifest: RestEMRun,
    *,
    engine: EngineSettings,
    root: str,
    resume: bool,
    offline: bool,
    screen: Screen,
) -> RunStatus:
    """The run on services that live as long as it does."""
    try:
        async with _services(
            manifest.spec.model, engine=engine, root=root, offline=offline, screen=screen
        ) as addresses:
            try:
                return await run_local(
                    manifest, root=root, services=addresses, resume=resume, progress=screen
                )
            except asyncio.CancelledError:
                _stopping(screen)  # before the services are stopped, which may take a while
                raise
    except asyncio.CancelledError:
        _stopping(screen)
        raise


def _stopping(screen: Screen) -> None:
    """Say that Ctrl-C was heard.

    A second one ends the process, which loses nothing that is finished.
    """
    if signal.getsignal(signal.SIGINT) is not _stop_at_once:
        signal.signal(signal.SIGINT, _stop_at_once)
        screen.say("stopping after the engine's current step ... (Ctrl-C again: at once)")


def _stop_at_once(number: int, frame: FrameType | None) -> None:
    os._exit(STOPPED)


@asynccontextmanager
async def _services(
    model: str, *, engine: EngineSettings, root: str, offline: bool, screen: Screen
) -> AsyncIterator[ServiceAddresses]:
    """Model and services in this process."""
    from controller_svc.local.services import local_services  # loads torch

    async with local_services(
        model, root=root, engine=engine, offline=offline, on_download=screen.on_download
    ) as services:
        yield services.addresses


def _tell_failure(status: RunStatus, again: str) -> int:
    """Say why a run failed; its exit code."""
    failed = status.condition("Failed")
    reason, message = (failed.reason, failed.message) if failed else ("", "no reason is known")
    complain(
        f"the run failed: {reason}: {message}",
        f"what is finished is kept; once the cause is mended, go on with:  {again}",
    )
    if reason == Reason.ATTEMPTS_EXHAUSTED:
        return ERROR_CLASSES[Transient].exit_code
    codes = {row.reason: row.exit_code for row in ERROR_CLASSES.values()}
    return codes.get(reason, ERROR_CLASSES[Internal].exit_code)
