"""One run from manifest to report, on the three services in this process.

    refuse what is wrong, check the data, find the model -> load it -> run the controller -> report

Ctrl-C at any point stops cleanly and says which command goes on with the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import typer

from controller_svc.cli import STOPPED
from controller_svc.cli import machine as this_machine
from controller_svc.cli.exit_codes import failed_code
from controller_svc.cli.logs import run_log
from controller_svc.cli.messages import INTERRUPTED, Failure, complain, print_failure
from controller_svc.cli.preflight import (
    check_architecture,
    check_endpoints,
    check_model,
    check_settings,
    data_note,
    model_shape,
)
from controller_svc.cli.progress import Screen, open_screen
from controller_svc.cli.reporting import print_report, write_report
from controller_svc.cli.roots import local_directory
from controller_svc.cli.runs import require_run
from controller_svc.cli.stages import StageTracker
from controller_svc.cli.stopping import say_stopping, say_the_end
from controller_svc.cli.tracking import check_tracker, tracked
from controller_svc.cli.workload import StageWork, read_data, workload
from controller_svc.core import Phase, RunStatus
from controller_svc.local.lock import check_free
from controller_svc.local.observer import Observer
from controller_svc.local.world import run_local, sweep_complete
from controller_svc.runs import SAME_SPEC, check_run
from controller_svc.worker.progress import TaskProgress
from controller_svc.worker.settings import ServiceAddresses
from seal.artifacts import ArtifactStore
from seal.errors import Conflict, SealError
from seal.judge_options import JudgeVariables
from seal.report.numbers.formats import duration
from seal.report.numbers.model import Machine
from seal.resources import RestEMRun
from seal.runs.store import manifest_path
from seal.settings import EngineSettings, RunSpec


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


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a run is executed, as its command line says."""

    root: str
    """Artifact store: a directory or a URI."""
    resume: bool
    """Go on with a run that exists."""
    offline: bool
    as_json: bool
    """The result as JSON on stdout."""
    json_lines: bool
    """Progress as JSON lines on stderr."""
    again: str
    """The command that goes on with the run."""
    anew: str
    """How to begin another one: words that follow "or"."""
    may_grow: bool = False
    """Whether the command line can give the run more rounds."""
    limit: TimeLimit | None = None


def execute(manifest: RestEMRun, *, engine: EngineSettings, options: Options) -> None:
    """Run a manifest and show its report.

    Raises:
        SealError: what is refused, what keeps the model from loading, or the report's.
        typer.Exit: 130 after Ctrl-C, or the code of what made the run fail.
    """
    store, run = ArtifactStore(options.root), manifest.name
    store.check_place()
    try:
        with _no_trace_if_refused(store):
            status = _refuse(manifest, engine, store, options)
            if worked := status is None or status.phase is not Phase.COMPLETE:
                status = _work(manifest, engine, store, options)
            elif status is not None:
                asyncio.run(sweep_complete(store, manifest, status))
                with tracked(store, manifest) as tell:  # one that was away has a part of it
                    tell(status)
        if not worked and not options.as_json:
            growth = _growth(manifest, options)
            next_steps = _sentence(f"{growth}, or {options.anew}" if growth else options.anew)
            typer.echo(f"{run} is finished; this is its report. {next_steps}", err=True)
        print_report(write_report(store, run), as_json=options.as_json)
    except KeyboardInterrupt:
        begun = store.exists(manifest_path(run))  # which a store that is away lets wait for
        say_the_end()
        raise typer.Exit(_tell_stop(options, begun=begun)) from None
    if status is not None and status.phase is Phase.FAILED:
        raise typer.Exit(_tell_failure(status, options.again))


@contextmanager
def _no_trace_if_refused(store: ArtifactStore) -> Iterator[None]:
    """Take a root away that was made only to be looked at."""
    root = local_directory(store)
    made = root is not None and not root.exists()
    try:
        yield
    except SealError:
        if root is not None and made:
            with suppress(OSError):  # not empty: the run had begun
                root.rmdir()
        raise


def _refuse(
    manifest: RestEMRun, engine: EngineSettings, store: ArtifactStore, options: Options
) -> RunStatus | None:
    """Refuse what is wrong with anything but the model; the status of the run to go on with."""
    run = manifest.name
    if options.resume:
        require_run(store, run)
    check_free(store, run)
    check_settings(manifest.spec, engine)
    check_endpoints(manifest.spec)
    check_tracker(manifest.spec)
    try:
        return asyncio.run(check_run(store, manifest, resume=options.resume))
    except Conflict as error:
        raise Conflict(
            error.message, field=error.field, remedy=_remedy(error, manifest, options)
        ) from error


def _remedy(refused: Conflict, manifest: RestEMRun, options: Options) -> str:
    """What to do about a run that is there, as one sentence that ends with a command."""
    if refused.field:
        return f"{SAME_SPEC}, or {options.anew}"
    if refused.details.get("phase") != Phase.COMPLETE:
        return f"{options.anew}, or go on with it:  {options.again}"
    growth = _growth(manifest, options)
    return f"{options.anew}, {f'{growth}, ' if growth else ''}or see its report:  {options.again}"


def _growth(manifest: RestEMRun, options: Options) -> str:
    """How a complete run is given more rounds; empty where it cannot."""
    rounds = manifest.spec.rounds
    if not options.may_grow or not manifest.spec.learns:
        return ""
    return f"give it more rounds by --resume --set rounds={rounds + 1}"


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]


def _work(
    manifest: RestEMRun, engine: EngineSettings, store: ArtifactStore, options: Options
) -> RunStatus:
    """The run from the model to its end; the last status."""
    started, root = time.monotonic(), local_directory(store)
    work = workload(manifest.spec, asyncio.run(read_data(store, manifest)))
    tracker = StageTracker(manifest.spec, work)
    with (
        open_screen(tracker, bars=not options.as_json, json_lines=options.json_lines) as screen,
        run_log(root / manifest.name if root else None) as begin_log,
        tracked(store, manifest) as tell,
    ):
        if options.resume:
            screen.say(f"{manifest.name}: going on where it stopped. {_sentence(options.anew)}")
        if options.limit is None and (note := data_note(manifest.spec)):
            screen.say(f"{manifest.name}: {note}")
        if manifest.spec.cross_model:
            _model_directory(manifest.spec.writer, offline=options.offline, screen=screen)
        directory = _model_directory(manifest.spec.model, offline=options.offline, screen=screen)
        weights = 0
        if directory is not None:
            shape = model_shape(manifest.spec.model, directory)
            check_model(manifest.spec, engine, shape)
            weights = shape.weights
        machine = _measure(engine)
        minutes = _announce(manifest.name, machine, screen, options.limit)
        if not options.resume and not minutes:
            _announce_time(manifest.name, machine, screen, work, weights=weights)

        def begin() -> None:
            begin_log()
            store.write_json(f"{manifest.name}/machine.json", machine)

        status = asyncio.run(
            _run(
                manifest,
                engine=engine,
                options=options,
                screen=screen,
                observer=_AtStart(screen, then=begin, tell=tell),
            )
        )
        if minutes and status.phase is Phase.COMPLETE:
            took = duration(time.monotonic() - started)
            screen.say(f"Ended after {took}; the limit is {minutes} min.")
    return status


class _AtStart:
    """Passes on what a run tells, to its tracker too, and does one thing once the run is ours.

    Only who holds the run's lock may write into its directory.
    """

    def __init__(
        self,
        observer: Observer,
        *,
        then: Callable[[], None],
        tell: Callable[[RunStatus], None],
    ) -> None:
        self._observer, self._then, self._tell = observer, then, tell
        self._done = False

    def on_status(self, status: RunStatus) -> None:
        """The first status comes once the lock is held."""
        if not self._done:
            self._done = True
            self._then()
        self._tell(status)
        self._observer.on_status(status)

    def on_progress(self, progress: TaskProgress) -> None:
        """Pass it on."""
        self._observer.on_progress(progress)


def _model_directory(model: str, *, offline: bool, screen: Screen) -> Path | None:
    """Where the model lies, downloaded first if need be; None if only the services know."""
    from seal.models import resolve_model

    check_architecture(model)
    return resolve_model(model, offline=offline, progress=screen.on_download).path


def _measure(engine: EngineSettings) -> Machine:
    """Describe this machine, with its measured peak in the type that the engine will compute in."""
    dtype, teraflops = this_machine.gemm_peak(engine)
    return this_machine.describe_machine(
        device=engine.device, dtype=dtype, gemm_teraflops=teraflops
    )


def _announce(run: str, machine: Machine, screen: Screen, limit: TimeLimit | None) -> int:
    """Say what it runs on, and the limit in minutes that follows: 0 without one."""
    teraflops = machine.gemm_teraflops or 0.0
    minutes = limit.minutes(teraflops) if limit else 0
    so = f": it is to end within {minutes} min" if minutes else ""
    screen.say(
        f"{run}: {machine.cores} cores, computing in {machine.dtype}, measured GEMM peak "
        f"{teraflops:.2f} TFLOP/s{so}"
    )
    return minutes


def _announce_time(
    run: str, machine: Machine, screen: Screen, work: Sequence[StageWork], *, weights: int
) -> None:
    """Say about how long a run will take, where model and machine are known."""
    teraflops = machine.gemm_teraflops
    if weights and teraflops:
        seconds = sum(stage.seconds(weights=weights, teraflops=teraflops) for stage in work)
        screen.say(f"{run}: about {duration(seconds)} at this speed, right to a factor of two")


async def _run(
    manifest: RestEMRun,
    *,
    engine: EngineSettings,
    options: Options,
    screen: Screen,
    observer: Observer,
) -> RunStatus:
    """The run on services that live as long as it does."""
    try:
        async with _services(
            manifest.spec,
            engine=engine,
            root=options.root,
            offline=options.offline,
            screen=screen,
        ) as addresses:
            try:
                return await run_local(
                    manifest,
                    root=options.root,
                    services=addresses,
                    resume=options.resume,
                    progress=observer,
                )
            except asyncio.CancelledError:
                say_stopping(screen.say)  # before the services are stopped, which may take a while
                raise
    except asyncio.CancelledError:
        say_stopping(screen.say)
        raise


@asynccontextmanager
async def _services(
    spec: RunSpec, *, engine: EngineSettings, root: str, offline: bool, screen: Screen
) -> AsyncIterator[ServiceAddresses]:
    """Model and services in this process."""
    from controller_svc.local.services import OtherModels, local_services  # loads torch

    async with local_services(
        spec.model,
        root=root,
        engine=engine,
        offline=offline,
        on_download=screen.on_download,
        others=OtherModels.of(spec, judge=JudgeVariables.read().judge),
    ) as services:
        yield services.addresses


def _tell_stop(options: Options, *, begun: bool) -> int:
    """Say how to go on after Ctrl-C; the exit code."""
    message = "all that is finished is kept; go on with:" if begun else "nothing has begun yet"
    complain(message, options.again if begun else "", label="stopped")
    if options.as_json:
        print_failure(
            Failure(
                reason=INTERRUPTED,
                message="stopped before the end",
                remedy=options.again if begun else "",
                exit_code=STOPPED,
            )
        )
    return STOPPED


def _tell_failure(status: RunStatus, again: str) -> int:
    """Say why a run failed; its exit code."""
    failed = status.condition("Failed")
    reason, message = (failed.reason, failed.message) if failed else ("", "no reason is known")
    complain(
        f"the run failed: {reason}: {message}",
        f"what is finished is kept; once the cause is mended, go on with:  {again}",
    )
    return failed_code(reason)
