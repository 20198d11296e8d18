"""A real Prometheus beside SEAL, and every dashboard as a picture: `make monitor`.

    python -m charts.dashboards.monitor --target localhost:9464 [--out DIR] [-- COMMAND ...]

starts Prometheus with the chart's alerts, scrapes the targets while COMMAND runs (without one:
until Ctrl-C), and draws what each panel of each dashboard asks.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from charts.dashboards.boards import BOARDS
from charts.dashboards.draw import Prometheus, draw

RULES = Path(__file__).parents[1] / "seal/files/rules/seal.yaml"
SCRAPE_SECONDS = 5
READY_SECONDS = 30.0
MISSING = (
    "prometheus is not on the PATH. Debian and Ubuntu have it as a package (apt-get install "
    "prometheus); elsewhere take the release from prometheus.io and put it on the PATH."
)


@contextmanager
def prometheus(targets: Sequence[str]) -> Iterator[str]:
    """The address of a Prometheus that scrapes the targets for as long as the block takes.

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
                            "static_configs": [{"targets": list(targets)}],
                        }
                    ],
                }
            ),
            encoding="utf-8",
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address={address}",
            "--log.level=error",
        ]
        process = subprocess.Popen(command)
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


def _work(command: Sequence[str], address: str) -> int:
    """Do the work; without any, wait for Ctrl-C."""
    if command:
        return subprocess.run(command, check=False).returncode
    print(f"Prometheus at {address}; Ctrl-C ends it and draws the dashboards.", file=sys.stderr)
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
    return 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--target", action="append", default=[], help="HOST:PORT of /metrics")
    parser.add_argument("--out", type=Path, default=Path("docs/img"), help="folder of the pictures")
    parser.add_argument("command", nargs="*", help="what to do meanwhile")
    options = parser.parse_args()
    if shutil.which("prometheus") is None:
        print(MISSING, file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.time()
    with prometheus(options.target or ["localhost:9464"]) as address:
        code = _work(options.command, address)
        source = Prometheus(address=address, start_seconds=started, end_seconds=time.time())
        for board in BOARDS:
            path = options.out / f"{board.uid}.png"
            empty = draw(board, source, path)
            note = f" ({empty} of its panels without data)" if empty else ""
            print(f"{board.title}: {path}{note}")
    return code


if __name__ == "__main__":
    sys.exit(main())
