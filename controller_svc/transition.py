"""The one place where something that became of a run or an adaptation is written down.

A condition has changed, and is saved; now the log gets one line of it, and the metrics one count.
A cluster adds an Event (`controller_svc.k8s.story`).
"""

from __future__ import annotations

import structlog

from controller_svc.core import Transition
from seal.metrics import Metrics

log = structlog.get_logger(__name__)


def transition(metrics: Metrics, one: Transition, *, kind: str, namespace: str, name: str) -> None:
    """Write it down. `kind`, `namespace`, `name`: whose it is."""
    write = log.warning if one.warning else log.info
    write(
        one.reason,
        kind=kind,
        namespace=namespace,
        name=name,
        stage=one.stage,
        message=one.message,
    )
    metrics.transitions.labels(kind=kind, reason=one.reason).inc()
