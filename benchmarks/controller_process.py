"""The controller as a process that is measured: its metrics, memory and processor time."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from seal.errors import Transient

START_SECONDS = 120.0
SCRAPE_SECONDS = 10.0
MIB = 2**20
_PROGRAMS = (
    "kube-apiserver",
    "etcd",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
)
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Scraped:
    """What a controller says of itself, since its start."""

    leading: bool
    looks: float
    buckets: Mapping[float, float]
    """Looks at runs that took at most so many seconds."""
    requests: Counter[str]
    """Requests to the API server by `verb resource`."""
    events: Counter[str]
    """Events by what became of them."""

    def since(self, before: Scraped) -> Scraped:
        """What it says of the time after `before`."""
        buckets = {
            upper: count - before.buckets.get(upper, 0.0) for upper, count in self.buckets.items()
        }
        return Scraped(
            leading=self.leading,
            looks=self.looks - before.looks,
            buckets=buckets,
            requests=self.requests - before.requests,
            events=self.events - before.events,
        )

    def quantile(self, share: float) -> float:
        """Seconds of a look that this share of all looks stayed below, within its bucket linear."""
        wanted, below, lower = share * self.looks, 0.0, 0.0
        for upper, count in sorted(self.buckets.items()):
            if upper == float("inf"):
                break  # longer than all that is told apart
            if 0 < wanted <= count:
                return lower + (wanted - below) / (count - below) * (upper - lower)
            below, lower = count, upper
        return lower


class ControllerProcess:
    """One controller."""

    def __init__(self, directory: Path, *, namespace: str, lease: str) -> None:
        """`directory` holds jobs.yaml, the store and the logs."""
        self._metrics_port, health_port = _free_port(), _free_port()
        told = {
            "SEAL_ARTIFACTS": directory / "store",
            "SEAL_JOBS_FILE": directory / "jobs.yaml",
            "SEAL_NAMESPACES": namespace,
            "SEAL_LEASE_NAME": lease,
            "SEAL_METRICS_PORT": self._metrics_port,
            "SEAL_HEALTH_PORT": health_port,
            "SEAL_LOG_FORMAT": "json",
        }
        self.log = directory / f"controller-{health_port}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "controller_svc.k8s"],
                env={**os.environ, **{name: str(value) for name, value in told.items()}},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def scrape(self) -> Scraped:
        """Its metrics.

        Raises:
            Transient: it has ended, or does not answer.

        """
        return await asyncio.to_thread(self._scrape)

    def _scrape(self) -> Scraped:
        url = f"http://127.0.0.1:{self._metrics_port}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=SCRAPE_SECONDS) as reply:
                text = reply.read().decode()
        except OSError as error:
            raise Transient(f"the controller's metrics: {error}") from error
        buckets: defaultdict[float, float] = defaultdict(float)
        requests, events, leading = Counter[str](), Counter[str](), False
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = sample.labels
                if sample.name == "seal_reconcile_seconds_bucket":
                    buckets[float(labels["le"])] += sample.value
                elif sample.name == "seal_api_requests_total":
                    requests[f"{labels['verb']} {labels['resource']}"] += int(sample.value)
                elif sample.name == "seal_events_total":
                    events[labels["outcome"]] += int(sample.value)
                elif sample.name == "seal_controller_leading":
                    leading = bool(sample.value)
        looks = buckets[float("inf")]
        return Scraped(
            leading=leading, looks=looks, buckets=buckets, requests=requests, events=events
        )

    async def until_leading(self) -> None:
        """Wait until it leads. Raises Transient if it ends, or takes too long."""
        await self._until(lambda scraped: scraped.leading)

    async def until_answering(self) -> None:
        """Wait until it stands for election. Raises Transient like `until_leading`."""
        await self._until(lambda scraped: True)

    async def _until(self, true: Callable[[Scraped], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if true(await self.scrape()):
                    return
            except Transient:
                pass  # it is not there yet
            await asyncio.sleep(0.1)
        last = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
        raise Transient(f"the controller did not start: {' '.join(last)}")

    @property
    def processor_seconds(self) -> float:
        """Processor time that it has used."""
        return _processor_seconds(Path(f"/proc/{self._process.pid}"))

    @property
    def peak_mib(self) -> float:
        """Its largest resident size so far."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        line = next(one for one in status.splitlines() if one.startswith("VmHWM"))
        return float(line.split()[1]) * 1024 / MIB

    def kill(self) -> None:
        """SIGKILL, as a node does that is out of memory."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextmanager
def controllers(directory: Path, *, namespace: str) -> Iterator[Callable[[], ControllerProcess]]:
    """Starts controllers that stand in one election, and kills them in the end."""
    started: list[ControllerProcess] = []

    def start() -> ControllerProcess:
        started.append(ControllerProcess(directory, namespace=namespace, lease="controller"))
        return started[-1]

    try:
        yield start
    finally:
        for one in started:
            one.kill()


def processor_seconds() -> dict[str, float]:
    """Processor time by program of the control plane, where it runs on this machine."""
    used: defaultdict[str, float] = defaultdict(float)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            seconds = _processor_seconds(process)
        except OSError:
            continue  # it has ended
        names = {Path(argument).name for argument in arguments[:3]}
        for program in _PROGRAMS:
            if program in names:
                used[program] += seconds
    return used


def _processor_seconds(process: Path) -> float:
    fields = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
