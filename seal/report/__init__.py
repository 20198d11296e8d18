"""The report of a run.

    numbers/   what the run left behind -> `Report`, which is report.json: every number, and the
               words that go with it
    page/      `Report`, and nothing else -> one self-contained HTML file

`build_report` reads a run, finished or not; `render_html` draws the report and loads matplotlib
only then.
"""

from __future__ import annotations

from seal.report.numbers.build import build_report
from seal.report.numbers.model import Report
from seal.report.page.html import render_html

__all__ = ["Report", "build_report", "render_html"]
