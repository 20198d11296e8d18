"""A real Prometheus beside SEAL, and every dashboard as a picture: `make monitor`.

    python -m charts.dashboards.monitor [--target HOST:PORT ...] [--out DIR] [-- COMMAND ...]

starts Prometheus with the chart's alerts, scrapes the targets and the command of `seal`, as in
`-- run examples/smoke.yaml`, until its end (without one: until Ctrl-C), and draws what each panel
of each dashboard asks.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import yaml

from charts.dashboards.boards import BOARDS
from charts.dashboards.draw import Prometheus, draw

RULES = Path(__file__).parents[1] / "seal/files/rules/seal.yaml"
SCRAPE_SECONDS = 2
READY_SECONDS = 30.0
MISSING = (
    "prometheus is not on the PATH. Debian and Ubuntu have it as a package (apt-get install "
    "prometheus); elsewhere take the release from prometheus.io and put it on the PATH."
)


@contextmanager
def prometheus(
    targets: Sequence[str], *, labels: Mapping[str, str] = MappingProxyType({})
) -> Iterator[str]:
    """The address of a Prometheus that scrapes the targets for as long as the block takes.

    `labels`: what each series has that does not bring it itself.

    Raises:
        RuntimeError: it is not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="seal-prometheus-") as directory:
        config = Path(directory) / "prometheus.yml"
        config.write_text(
            yaml.safe_dump(
                {
                    "global": {
                        "scrape_interval": f"{SCRAPE_SECONDS}s",
                        "evaluation_interval": f"{SCRAPE_SECONDS}s",
                    },
                    "rule_files": [str(RULES)],
                    "scrape_configs": [
                        {
                            "job_name": "seal",
                            "honor_labels": True,  # runs have a namespace of their own
                            "static_configs": [{"targets": list(targets), "labels": dict(labels)}],
                        }
                    ],
                }
            ),
            encoding="utf-8",
        )
        address = f"127.0.0.1:{free_port()}"
        command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address={address}",
            "--log.level=error",
        ]
        # Out of reach of the terminal's Ctrl-C, after which it is asked for all that is drawn
        process = subprocess.Popen(command, start_new_session=True)
        try:
            _wait_until_ready(f"http://{address}", process)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"{address}/-/ready", timeout=1):
            return
        time.sleep(0.2)
    raise RuntimeError("prometheus did not become ready")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _watch(command: Sequence[str], port: int) -> int:
    """Run a command of `seal` that serves its metrics; its exit code."""
    words = [sys.executable, "-m", "charts.dashboards.served", str(port), *command]
    process = subprocess.Popen(words, start_new_session=True)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # it ends in its own time, and what it told till then is drawn
            process.send_signal(signal.SIGINT)


def _wait_for_ctrl_c(address: str) -> None:
    with suppress(KeyboardInterrupt):
        print(f"Prometheus at {address}; Ctrl-C ends it and draws the dashboards.", flush=True)
        while True:
            time.sleep(3600)


def draw_all(source: Prometheus, directory: Path) -> None:
    """Draw each dashboard into the directory, and print what has no data."""
    directory.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        path = directory / f"{board.uid}.png"
        empty = draw(board, source, path)
        print(f"{board.title}: {path}" + (f"; no data: {', '.join(empty)}" if empty else ""))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m charts.dashboards.monitor", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--target", action="append", default=[], help="HOST:PORT of /metrics")
    parser.add_argument("--out", type=Path, default=Path("docs/img"), help="folder of the pictures")
    parser.add_argument("command", nargs="*", help="command of `seal` to watch: run FILE ...")
    options = parser.parse_args()
    if not (options.target or options.command):
        parser.error("name a --target, or a command to watch")
    if shutil.which("prometheus") is None:
        print(MISSING, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that Prometheus is not left
    port = free_port()
    own = [f"127.0.0.1:{port}"] if options.command else []
    started, code = time.time(), 0
    with prometheus([*options.target, *own]) as address:
        if options.command:
            code = _watch(options.command, port)
        else:
            _wait_for_ctrl_c(address)
        source = Prometheus(address=address, start_seconds=started, end_seconds=time.time())
        draw_all(source, options.out)
    return code


if __name__ == "__main__":
    sys.exit(main())
