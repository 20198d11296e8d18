"""All dashboards."""

from __future__ import annotations

from charts.dashboards.engine import ENGINE
from charts.dashboards.learning import LEARNING
from charts.dashboards.overview import OVERVIEW

BOARDS = (OVERVIEW, ENGINE, LEARNING)
