"""docs/metrics.md: every metric as a page, from where it is registered.

`make metrics` writes it; a test keeps it current.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from seal.metrics import (
    CallMetrics,
    ControllerMetrics,
    Described,
    EngineMetrics,
    Families,
    LearningMetrics,
)
from seal.run_metrics import PLACE_LABELS, RUN_GAUGES, SHOWN_AFTER_END_SECONDS

HEAD = """# Metrics

Made from `seal/metrics.py` and `seal/run_metrics.py` by `make metrics`. Every process serves them
at `/metrics` of its metrics port, each with the values that it has itself; a histogram has the
series `_bucket`, `_sum` and `_count`. Beside these there are the usual `process_*` and `python_*`.
"""
TITLES = (
    (EngineMetrics, "Engine and services"),
    (LearningMetrics, "Learning and cost"),
    (ControllerMetrics, "Controller and front door"),
    (CallMetrics, "gRPC"),
)
RUNS = f"""## Runs

By whoever leads a run: the controller on a cluster, the command on a laptop. A run that has ended
is shown for another {SHOWN_AFTER_END_SECONDS:.0f} s, then its series go.
"""


def metrics_page() -> str:
    """The page as Markdown."""
    blocks = [HEAD]
    for part, title in TITLES:
        make = Families(CollectorRegistry())
        part(make)
        blocks += [
            f"## {title}\n\n{inspect.cleandoc(part.__doc__ or '')}\n",
            _table(make.described),
        ]
    runs = (
        Described(gauge.name, "gauge", (*PLACE_LABELS, *gauge.labels), gauge.help)
        for gauge in RUN_GAUGES
    )
    return "\n".join([*blocks, RUNS, _table(runs)])


def _table(metrics: Iterable[Described]) -> str:
    rows = [
        f"| `{one.name}` | {one.type} | {', '.join(one.labels)} | {one.help} |" for one in metrics
    ]
    return "\n".join(["| metric | type | labels | |", "|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    sys.stdout.write(metrics_page())
