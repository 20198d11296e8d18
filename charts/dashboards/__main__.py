"""Write the dashboards into the chart: `make dashboards`."""

from __future__ import annotations

import sys
from pathlib import Path

from charts.dashboards.boards import BOARDS
from charts.dashboards.grafana import to_json

if __name__ == "__main__":
    for board in BOARDS:
        path = Path(sys.argv[1]) / f"{board.uid}.json"
        path.write_text(to_json(board), encoding="utf-8")
