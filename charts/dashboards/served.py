"""A command of `seal` whose metrics are still served a while after its end.

    python -m charts.dashboards.served PORT run examples/smoke.yaml

A run's last numbers come with its end: with the process they would be gone before a scrape.
"""

from __future__ import annotations

import sys
import time

from charts.dashboards.monitor import SCRAPE_SECONDS
from controller_svc.cli import main
from seal.telemetry import serving_metrics

if __name__ == "__main__":
    port, *command = sys.argv[1:]
    sys.argv = ["seal", *command]  # for what it says of itself
    with serving_metrics(int(port), host="127.0.0.1"):
        try:
            main(command)
        finally:
            time.sleep(2 * SCRAPE_SECONDS)
