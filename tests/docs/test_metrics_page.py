"""docs/metrics.md is what is registered."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from seal.metrics import Metrics
from seal.metrics_docs import metrics_page

PAGE = Path(__file__).parents[2] / "docs/metrics.md"


def test_the_page_is_what_is_registered() -> None:
    shown = PAGE.read_text(encoding="utf-8")
    assert shown == metrics_page(), "run `make metrics` and commit what it changes"


def test_every_metric_of_a_process_is_on_the_page() -> None:
    page = metrics_page()
    for family in Metrics(CollectorRegistry()).registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"| `{name}` | {family.type} |" in page
